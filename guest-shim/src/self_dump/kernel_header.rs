//! The header by which a dump introduces itself (`struct kerneldumpheader`, sys/sys/kerneldump.h, version 4).
use super::file::Fields;

/// Length of the header in bytes.
pub const KERNEL_HEADER_LEN: usize = 512;
/// Where its parity word stands.
const PARITY_AT: usize = KERNEL_HEADER_LEN - 4;
/// KERNELDUMPVERSION.
const VERSION: u32 = 4;
/// KERNELDUMP_AMD64_VERSION.
const ARCHITECTURE_VERSION: u32 = 2;
/// Every write of a dumper is made of blocks of this size (`NETDUMP_DATASIZE`, sys/netinet/netdump/netdump.h).
const BLOCK_LEN: u32 = 4096;

/// What a guest says of itself. Texts that are too long are cut.
#[derive(Clone, Copy, Debug)]
pub struct KernelHeader<'a> {
    /// Its host name.
    pub hostname: &'a str,
    /// Its kernel's version.
    pub version: &'a str,
    /// Why it panicked.
    pub panic: &'a str,
}

impl KernelHeader<'_> {
    /// The header of a dump of `dump_len_bytes`, neither compressed nor encrypted. The time is left at zero: a kernel that
    /// has just crashed does not look for a clock.
    #[must_use]
    pub fn encode(&self, dump_len_bytes: u64) -> [u8; KERNEL_HEADER_LEN] {
        let mut header = [0; KERNEL_HEADER_LEN];
        let mut fields = Fields {
            out: &mut header,
            at: 0,
        };
        fields.text("FreeBSD Kernel Dump", 20);
        fields.text("amd64", 12);
        fields.bytes(&VERSION.to_be_bytes());
        fields.bytes(&ARCHITECTURE_VERSION.to_be_bytes());
        fields.bytes(&dump_len_bytes.to_be_bytes());
        fields.bytes(&0_u64.to_be_bytes()); // time
        fields.bytes(&0_u32.to_be_bytes()); // length of the key
        fields.bytes(&BLOCK_LEN.to_be_bytes());
        fields.text(self.hostname, 64);
        fields.text(self.version, 192);
        fields.text(self.panic, 175);
        fields.bytes(&[0]); // compression
        fields.bytes(&dump_len_bytes.to_be_bytes()); // before compression
        let (words, _) = header.as_chunks::<4>();
        let parity = words.iter().fold(0, |parity, word| parity ^ u32::from_be_bytes(*word));
        if let Some(place) = header.get_mut(PARITY_AT..) {
            place.copy_from_slice(&parity.to_be_bytes());
        }
        header
    }
}
