//! A sender that speaks netdump by bytes of its own, so that it shares no mistake with the protocol's crate.
#![allow(
    dead_code,
    clippy::unwrap_used,
    reason = "a module of tests, where a failure is to end the test"
)]

use std::net::{SocketAddr, SocketAddrV4, UdpSocket};
use std::time::Duration;

/// One dump, stop and wait.
#[derive(Debug)]
pub(crate) struct Sender {
    socket: UdpSocket,
    to: SocketAddr,
    seqno: u32,
}

impl Sender {
    /// Sends a herald and waits for its acknowledgement.
    pub(crate) fn connect(to: SocketAddrV4, path: &[u8]) -> Self {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        socket.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        let mut sender = Self {
            socket,
            to: to.into(),
            seqno: 1,
        };
        sender.to = sender.exchange(1, 1, 0, path, to.into());
        sender
    }

    /// The same from another address of this host; none if nobody answers within `patience`.
    pub(crate) fn try_connect(from: &str, to: SocketAddrV4, patience: Duration) -> Option<Self> {
        let socket = UdpSocket::bind((from, 0)).unwrap();
        socket.set_read_timeout(Some(patience)).unwrap();
        let mut sender = Self {
            socket,
            to: to.into(),
            seqno: 1,
        };
        sender.to = sender.try_exchange(1, 1, 0, b"", to.into())?;
        Some(sender)
    }

    /// Sends the herald again, as clients do; whether somebody answered.
    pub(crate) fn herald_until_answered(from: &str, to: SocketAddrV4, times: usize) -> Option<Self> {
        let socket = UdpSocket::bind((from, 0)).unwrap();
        socket.set_read_timeout(Some(Duration::from_secs(1))).unwrap();
        let mut sender = Self {
            socket,
            to: to.into(),
            seqno: 1,
        };
        sender.to = (0..times).find_map(|_| sender.try_exchange(1, 1, 0, b"", to.into()))?;
        Some(sender)
    }

    /// Sends bytes of the dump file in one message; whether they were acknowledged within a moment.
    pub(crate) fn try_data(&mut self, offset: u64, bytes: &[u8]) -> bool {
        self.socket.set_read_timeout(Some(Duration::from_millis(300))).unwrap();
        self.seqno += 1;
        self.try_exchange(3, self.seqno, offset, bytes, self.to).is_some()
    }

    /// The receiver's port of this session.
    pub(crate) fn port(&self) -> u16 {
        self.to.port()
    }

    /// Sends the same herald again, to the known port; gives the port that answered.
    pub(crate) fn herald_again(&self, to: SocketAddrV4, path: &[u8]) -> u16 {
        self.exchange(1, 1, 0, path, to.into()).port()
    }

    /// Sends bytes of the dump file, in pieces that fit a datagram.
    pub(crate) fn data(&mut self, offset: u64, bytes: &[u8]) {
        for (index, piece) in bytes.chunks(8192).enumerate() {
            self.message(3, offset + index as u64 * 8192, piece);
        }
    }

    /// Sends the kernel dump header.
    pub(crate) fn kernel_header(&mut self, header: &[u8]) {
        self.message(4, 0, header);
    }

    /// Sends bytes of the key.
    pub(crate) fn key(&mut self, offset: u64, bytes: &[u8]) {
        self.message(5, offset, bytes);
    }

    /// Sends FINISHED and waits for its acknowledgement.
    pub(crate) fn finish(&mut self) {
        self.message(2, 0, &[]);
    }

    fn message(&mut self, kind: u32, offset: u64, bytes: &[u8]) {
        self.seqno += 1;
        let from = self.exchange(kind, self.seqno, offset, bytes, self.to);
        assert_eq!(from, self.to, "an acknowledgement from elsewhere");
    }

    /// Sends one message and waits for its acknowledgement; gives where that came from.
    fn exchange(&self, kind: u32, seqno: u32, offset: u64, bytes: &[u8], to: SocketAddr) -> SocketAddr {
        let answered = self.try_exchange(kind, seqno, offset, bytes, to);
        answered.expect("an acknowledgement in time")
    }

    /// The same; none when no acknowledgement comes.
    fn try_exchange(&self, kind: u32, seqno: u32, offset: u64, bytes: &[u8], to: SocketAddr) -> Option<SocketAddr> {
        let mut datagram = Vec::new();
        datagram.extend_from_slice(&kind.to_be_bytes());
        datagram.extend_from_slice(&seqno.to_be_bytes());
        datagram.extend_from_slice(&offset.to_be_bytes());
        datagram.extend_from_slice(&u32::try_from(bytes.len()).unwrap().to_be_bytes());
        // Old senders leave this word as it was.
        datagram.extend_from_slice(&0xdead_beef_u32.to_be_bytes());
        datagram.extend_from_slice(bytes);
        self.socket.send_to(&datagram, to).unwrap();
        let mut ack = [0; 64];
        let (len, from) = self.socket.recv_from(&mut ack).ok()?;
        assert_eq!(
            ack[..len],
            seqno.to_be_bytes(),
            "exactly the sequence number comes back"
        );
        Some(from)
    }
}
