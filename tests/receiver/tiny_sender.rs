//! The smallest sender: one message at a time, each waited for. By bytes of its own, so that it shares no mistake with
//! the program under test.
#![allow(dead_code, reason = "each test file uses its own part of this module")]

use std::net::{SocketAddr, SocketAddrV4, UdpSocket};

use super::common::PATIENCE;

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
        let socket = UdpSocket::bind("127.0.0.1:0").expect("a socket");
        socket.set_read_timeout(Some(PATIENCE)).expect("a time-out");
        let mut sender = Self {
            socket,
            to: to.into(),
            seqno: 0,
        };
        sender.to = sender.message(1, 0, &[]);
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

    /// Sends one message and waits for its acknowledgement; gives where that came from.
    fn message(&mut self, kind: u32, offset: u64, bytes: &[u8]) -> SocketAddr {
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
        let (len, from) = self.socket.recv_from(&mut ack).expect("an acknowledgement in time");
        assert_eq!(
            ack[..len],
            self.seqno.to_be_bytes(),
            "the acknowledgement is the sequence number"
        );
        from
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
