//! The memory of a FreeBSD guest, made by hand: a message buffer, and nothing else.

use std::ops::Range;

/// How the panic is told.
pub(crate) const SIGNATURE: &str = "panic: ffs_valloc: dup alloc in ffs_valloc";

const MESSAGES: &[u8] = b"<2>FreeBSD 14.1-RELEASE releng/14.1-n267679 GENERIC amd64\n<6>em0: link up\n\
    <2>panic: ffs_valloc: dup alloc\ncpuid = 1\ntime = 1700000000\nKDB: stack backtrace:\n\
    #0 0xffffffff80b9002d at kdb_backtrace+0x5d\n#1 0xffffffff80b43132 at vpanic+0x132\n\
    #2 0xffffffff80b42ff3 at panic+0x43\n#3 0xffffffff80dc7ac1 at ffs_valloc+0x8a1\n";
/// Where the buffer's own structure is, behind its text (`struct msgbuf`, sys/sys/msgbuf.h), and how long the text may be.
const STRUCTURE: usize = 0x6_0fc0;
const TEXT_LEN: u32 = 0x2_0000;

/// Memory by physical address, and where in it the structure and the messages are.
pub(crate) fn memory() -> (Vec<u8>, usize, Range<usize>) {
    let mut memory = vec![0; 1 << 20];
    let start = STRUCTURE - usize::try_from(TEXT_LEN).expect("it is small");
    let mut put = |at: usize, bytes: &[u8]| memory[at..at + bytes.len()].copy_from_slice(bytes);
    put(start, MESSAGES);
    put(STRUCTURE, &(0xffff_f800_0000_0000 + start as u64).to_le_bytes());
    let sum: u32 = MESSAGES.iter().map(|byte| u32::from(*byte)).sum();
    let written = u32::try_from(MESSAGES.len()).expect("it is short");
    for (at, value) in [
        (8, 0x0006_3062),
        (12, TEXT_LEN),
        (16, written),
        (24, sum),
        (28, TEXT_LEN * 16),
    ] {
        put(STRUCTURE + at, &u32::to_le_bytes(value));
    }
    (memory, STRUCTURE, start..start + MESSAGES.len())
}
