//! Dumps that a test makes.
#![allow(dead_code, reason = "each test file uses its own part of this module")]

use crate::common::Serve;
use crate::tiny_sender::{TinySender, kernel_dump_header};

/// A kernel dump header with a panic text (`kdh_panicstring`: 175 bytes behind 64 of numbers, 64 of the host name and 192 of
/// the version).
pub(crate) fn header(len: u64, guest: &str, panic: &str) -> [u8; 512] {
    let mut header = kernel_dump_header(len, guest);
    header[320..320 + panic.len()].copy_from_slice(panic.as_bytes());
    header[508..].fill(0);
    let parity = header.chunks_exact(4).fold([0_u8; 4], |sum, word| {
        [sum[0] ^ word[0], sum[1] ^ word[1], sum[2] ^ word[2], sum[3] ^ word[3]]
    });
    header[508..].copy_from_slice(&parity);
    header
}

/// Sends a whole dump of 8 KiB.
pub(crate) fn send(serve: &Serve, guest: &str, panic: &str) {
    let mut sender = TinySender::connect(serve.netdump);
    sender.data(0, &[7; 4096]);
    sender.data(4096, &[8; 4096]);
    sender.header(&header(8192, guest, panic));
    sender.finish();
}

/// Sends a dump of three pages so far apart that a download asks for them one by one.
pub(crate) fn send_apart(serve: &Serve) {
    let mut sender = TinySender::connect(serve.netdump);
    for (offset, byte) in [(0, 1), (4 << 20, 2), (8 << 20, 3)] {
        sender.data(offset, &[byte; 4096]);
    }
    sender.header(&header((8 << 20) + 4096, "web", "panic"));
    sender.finish();
    serve.settled_cores(1);
}

/// The id of the one core that there is.
pub(crate) fn id(serve: &Serve) -> String {
    let core = serve.settled_cores(1).remove(0);
    core["id"].as_str().expect("an id").to_owned()
}
