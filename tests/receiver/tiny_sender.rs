//! The smallest sender: one message at a time, each waited for. By bytes of its own, so that it shares no mistake with
//! the program under test.
#![allow(dead_code, reason = "each test file uses its own part of this module")]

use std::net::{SocketAddr, SocketAddrV4, UdpSocket};
use std::time::Duration;

use super::common::PATIENCE;

/// How long a receiver is waited for that may have ended the session.
const NO_ANSWER: Duration = Duration::from_secs(2);

/// One dump.
#[derive(Debug)]
pub(crate) struct TinySender {
    socket: UdpSocket,
    to: SocketAddr,
    seqno: u32,
}

impl TinySender {
    /// Sends a herald and waits for its acknowledgement.
    pub(crate) fn connect(to: SocketAddrV4) -> Self {
        Self::connect_with(to, &[])
    }

    /// The same, with a path in the herald.
    pub(crate) fn connect_with(to: SocketAddrV4, path: &[u8]) -> Self {
        let socket = UdpSocket::bind("127.0.0.1:0").expect("a socket");
        socket.set_read_timeout(Some(PATIENCE)).expect("a time-out");
        let mut sender = Self {
            socket,
            to: to.into(),
            seqno: 0,
        };
        sender.to = sender.message(1, 0, path);
        sender
    }

    /// Where the acknowledgement of the herald came from.
    pub(crate) fn answered_by(&self) -> SocketAddr {
        self.to
    }

    /// Sends bytes of the dump file.
    pub(crate) fn data(&mut self, offset: u64, bytes: &[u8]) {
        self.message(3, offset, bytes);
    }

    /// Sends the kernel dump header.
    pub(crate) fn header(&mut self, header: &[u8]) {
        self.message(4, 0, header);
    }

    /// Sends FINISHED.
    pub(crate) fn finish(&mut self) {
        self.message(2, 0, &[]);
    }

    /// Sends bytes of the dump file; whether they were acknowledged within [`NO_ANSWER`].
    pub(crate) fn try_data(&mut self, offset: u64, bytes: &[u8]) -> bool {
        self.try_message(3, offset, bytes, NO_ANSWER).is_some()
    }

    /// Sends the kernel dump header; whether it was acknowledged within [`NO_ANSWER`].
    pub(crate) fn try_header(&mut self, header: &[u8]) -> bool {
        self.try_message(4, 0, header, NO_ANSWER).is_some()
    }

    /// Sends FINISHED; whether it was acknowledged within [`NO_ANSWER`].
    pub(crate) fn try_finish(&mut self) -> bool {
        self.try_message(2, 0, &[], NO_ANSWER).is_some()
    }

    /// Sends bytes of the encrypted key.
    pub(crate) fn key(&mut self, offset: u64, bytes: &[u8]) {
        self.message(5, offset, bytes);
    }

    /// Sends one message and waits for its acknowledgement; gives where that came from.
    fn message(&mut self, kind: u32, offset: u64, bytes: &[u8]) -> SocketAddr {
        let answered = self.try_message(kind, offset, bytes, PATIENCE);
        answered.expect("an acknowledgement in time")
    }

    /// The same; none if no acknowledgement comes.
    fn try_message(&mut self, kind: u32, offset: u64, bytes: &[u8], patience: Duration) -> Option<SocketAddr> {
        self.socket.set_read_timeout(Some(patience)).expect("a time-out");
        self.seqno += 1;
        let len = u32::try_from(bytes.len()).expect("a short message");
        let mut datagram = Vec::new();
        for word in [kind, self.seqno] {
            datagram.extend_from_slice(&word.to_be_bytes());
        }
        datagram.extend_from_slice(&offset.to_be_bytes());
        for word in [len, 0] {
            datagram.extend_from_slice(&word.to_be_bytes());
        }
        datagram.extend_from_slice(bytes);
        self.socket.send_to(&datagram, self.to).expect("sent");
        let mut ack = [0; 16];
        let (len, from) = self.socket.recv_from(&mut ack).ok()?;
        assert_eq!(
            ack[..len],
            self.seqno.to_be_bytes(),
            "the acknowledgement is the sequence number"
        );
        Some(from)
    }
}

/// A kernel dump header (`struct kerneldumpheader`, sys/sys/kerneldump.h, version 4) with sound parity.
pub(crate) fn kernel_dump_header(len: u64, hostname: &str) -> [u8; 512] {
    let mut header = [0; 512];
    let mut put = |at: usize, bytes: &[u8]| header[at..at + bytes.len()].copy_from_slice(bytes);
    put(0, b"FreeBSD Kernel Dump");
    put(20, b"amd64");
    put(32, &4_u32.to_be_bytes());
    put(36, &2_u32.to_be_bytes());
    put(40, &len.to_be_bytes());
    put(48, &1_700_000_000_u64.to_be_bytes());
    put(60, &4096_u32.to_be_bytes());
    put(64, hostname.as_bytes());
    let parity = header.chunks_exact(4).fold([0_u8; 4], |sum, word| {
        [sum[0] ^ word[0], sum[1] ^ word[1], sum[2] ^ word[2], sum[3] ^ word[3]]
    });
    header[508..].copy_from_slice(&parity);
    header
}
