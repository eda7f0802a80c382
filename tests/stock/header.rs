//! The kernel dump header that a FreeBSD kernel sends: 512 bytes, version 4 (sys/sys/kerneldump.h).

/// Length of the header.
pub(crate) const LEN: usize = 512;

/// A header of an uncompressed amd64 dump of `dump_len` bytes.
pub(crate) fn kernel_dump_header(dump_len: u64, hostname: &str, panic: &str) -> Vec<u8> {
    let mut header = vec![0; LEN];
    put(&mut header, 0, b"FreeBSD Kernel Dump");
    put(&mut header, 20, b"amd64");
    put(&mut header, 32, &4_u32.to_be_bytes());
    put(&mut header, 36, &2_u32.to_be_bytes());
    put(&mut header, 40, &dump_len.to_be_bytes());
    put(&mut header, 48, &1_655_412_790_u64.to_be_bytes());
    put(&mut header, 56, &0_u32.to_be_bytes());
    put(&mut header, 60, &4096_u32.to_be_bytes());
    put(&mut header, 64, hostname.as_bytes());
    put(
        &mut header,
        128,
        b"FreeBSD 14.0-TEST #0: test\n    root@build:/obj/sys/GENERIC\n",
    );
    put(&mut header, 320, panic.as_bytes());
    put(&mut header, 496, &dump_len.to_be_bytes());
    let parity = parity(&header);
    put(&mut header, 508, &parity.to_be_bytes());
    header
}

/// The header of the protocol's published example: 256 MiB, host `devvm`.
pub(crate) fn reference_header() -> Vec<u8> {
    kernel_dump_header(0x1000_0000, "devvm", "kdb_sysctl_panic")
}

/// The same header with other bytes from `at` on, and the parity that they need.
pub(crate) fn with_field(mut header: Vec<u8>, at: usize, bytes: &[u8]) -> Vec<u8> {
    put(&mut header, at, bytes);
    put(&mut header, 508, &[0; 4]);
    let parity = parity(&header);
    put(&mut header, 508, &parity.to_be_bytes());
    header
}

/// The word that makes the exclusive or of all 128 words zero, while its own place is still zero.
fn parity(header: &[u8]) -> u32 {
    header.chunks_exact(4).fold(0, |sum, word| {
        sum ^ u32::from_be_bytes(word.try_into().expect("four bytes"))
    })
}

fn put(header: &mut [u8], at: usize, bytes: &[u8]) {
    header[at..at + bytes.len()].copy_from_slice(bytes);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_published_example_has_its_published_parity() {
        let header = reference_header();
        assert_eq!(header[508..], [0x37, 0xd8, 0xf4, 0x34]);
        assert_eq!(parity(&header), 0);
    }
}
