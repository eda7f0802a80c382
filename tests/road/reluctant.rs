//! A receiver that answers, but never keeps a core: written from netdump(4) and sys/netinet/netdump/netdump.h alone.

use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

/// Message type of the first message.
const HERALD: u32 = 1;
/// Message type of the last one.
const FINISHED: u32 = 2;
/// Bytes of a message in front of its data: type, sequence number, offset, length, reserved.
const HEADER_LEN: usize = 24;

/// What such a receiver does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Manner {
    /// Takes the first message, and nothing after it.
    Silent,
    /// Takes a packet now and then, so that a dump goes on for as long as a test likes.
    Crawling,
    /// Takes every byte, and never confirms the end.
    Unconfirming,
}

/// A running receiver; it ends with its value.
#[derive(Debug)]
pub(crate) struct Reluctant {
    address: SocketAddr,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Reluctant {
    /// Listens on a free port of 127.0.0.1.
    pub(crate) fn start(manner: Manner) -> Self {
        let socket = UdpSocket::bind("127.0.0.1:0").expect("a free port");
        socket
            .set_read_timeout(Some(Duration::from_millis(50)))
            .expect("a time-out");
        let address = socket.local_addr().expect("an address");
        let stop = Arc::new(AtomicBool::new(false));
        let flag = Arc::clone(&stop);
        let thread = thread::spawn(move || {
            while !flag.load(Ordering::Relaxed) {
                answer_one(&socket, manner);
            }
        });
        Self {
            address,
            stop,
            thread: Some(thread),
        }
    }

    /// Where heralds go.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }
}

impl Drop for Reluctant {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn answer_one(socket: &UdpSocket, manner: Manner) {
    let mut datagram = [0; 10_000];
    let Ok((len, from)) = socket.recv_from(&mut datagram) else {
        return;
    };
    assert!(len >= HEADER_LEN, "a message of {len} bytes");
    let kind = u32::from_be_bytes(datagram[..4].try_into().expect("four bytes"));
    let wanted = match manner {
        Manner::Silent => kind == HERALD,
        Manner::Crawling => true,
        Manner::Unconfirming => kind != FINISHED,
    };
    if manner == Manner::Crawling && kind != HERALD {
        thread::sleep(Duration::from_millis(100));
    }
    if wanted {
        // An acknowledgement is the message's sequence number.
        let _ = socket.send_to(&datagram[4..8], from);
    }
}
