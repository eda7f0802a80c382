//! The boot information of plain ELF64 guests: what `coreferry run --kernel` hands to a kernel that is neither a Linux
//! kernel nor asks for another protocol.
//!
//! Every vCPU is entered at the ELF entry point in 64-bit mode with paging on: `rdi` holds the vCPU's index, `rsi` the
//! guest-physical address of [`BootInfo`], all other general registers are zero, interrupts are off. CR3 maps all RAM
//! and the device hole below 4 GiB one to one with 2 MiB pages, writable, executable and open to ring 3. There is no
//! stack: the guest brings its own. The image asks for this protocol by a [`BootNote`] in a `PT_NOTE` segment; an executable
//! without one is refused, because it would not know what it finds. `cs` is a flat 64-bit code segment, the data segments are flat, there is no IDT and
//! no task state. The local APICs are in their reset state; no INIT or SIPI is needed.
use core::mem::size_of;

/// The first eight bytes of [`BootInfo`]: `CFBOOT64`.
pub const MAGIC: u64 = u64::from_le_bytes(*b"CFBOOT64");
/// Version of the layout.
pub const VERSION: u32 = 1;
/// Most RAM ranges that a guest is told of.
pub const RANGES_MAX: usize = 4;
/// Where [`BootInfo`] lies (guest-physical).
pub const BOOT_INFO_GPA: u64 = 0x7000;
/// Where the command line lies (guest-physical); NUL-terminated.
pub const COMMAND_LINE_GPA: u64 = 0x8000;
/// Room for the command line in bytes, the NUL included.
pub const COMMAND_LINE_LEN: usize = 4096;
/// First address that belongs to the guest's image; everything below is the boot protocol's until the guest has set up
/// its own page tables and descriptor tables.
pub const IMAGE_MIN_GPA: u64 = 0x10_0000;

/// Owner of the note by which an image asks for this protocol, with its NUL.
pub const NOTE_NAME: [u8; 10] = *b"coreferry\0";
/// Type of that note. Its descriptor is the version of the layout.
pub const NOTE_TYPE: u32 = 1;

/// The note, to be put into a section `.note.coreferry` (ELF-64 Object File Format, version 1.5, "Note section").
#[repr(C, align(4))]
#[derive(Clone, Copy, Debug)]
pub struct BootNote {
    name_len: u32,
    descriptor_len: u32,
    kind: u32,
    /// Padded to a multiple of four.
    name: [u8; 12],
    version: u32,
}

impl BootNote {
    /// The note of this version.
    pub const THIS: BootNote = BootNote {
        name_len: 10,
        descriptor_len: 4,
        kind: NOTE_TYPE,
        name: *b"coreferry\0\0\0",
        version: VERSION,
    };
}

/// A range of RAM.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RamRange {
    /// First guest-physical address.
    pub gpa: u64,
    /// Length in bytes.
    pub len_bytes: u64,
}

/// What the guest is told about its machine. All numbers little-endian.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct BootInfo {
    /// [`MAGIC`].
    pub magic: u64,
    /// [`VERSION`].
    pub version: u32,
    /// Number of vCPUs; each is entered at the same entry point.
    pub vcpus: u32,
    /// Guest-physical address of the command line.
    pub command_line_gpa: u64,
    /// Its length in bytes without the NUL.
    pub command_line_len: u64,
    /// How many of `ranges` are used.
    pub ranges_len: u64,
    /// RAM, lowest first.
    pub ranges: [RamRange; RANGES_MAX],
}

/// Length of [`BootInfo`] in bytes.
pub const BOOT_INFO_LEN: usize = size_of::<BootInfo>();

const _: () = assert!(BOOT_INFO_LEN == 104);

impl BootInfo {
    /// The bytes that the guest finds in its memory.
    #[must_use]
    pub fn encode(&self) -> [u8; BOOT_INFO_LEN] {
        let mut out = [0; BOOT_INFO_LEN];
        let head = [
            self.magic,
            u64::from(self.version) | u64::from(self.vcpus) << 32,
            self.command_line_gpa,
            self.command_line_len,
            self.ranges_len,
        ];
        let ranges = self.ranges.iter().flat_map(|range| [range.gpa, range.len_bytes]);
        for (slot, word) in out.chunks_exact_mut(8).zip(head.into_iter().chain(ranges)) {
            slot.copy_from_slice(&word.to_le_bytes());
        }
        out
    }
}
