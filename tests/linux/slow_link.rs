//! A slow way to a receiver: passes packets on at a small rate for some time, then at once.

use std::io::ErrorKind;
use std::net::{SocketAddr, SocketAddrV4, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::Result;

/// While it is slow. A window of the sender takes half a second then, so acknowledgements keep coming.
const BYTES_PER_SECOND: u32 = 128 << 10;
/// How often the threads look whether they shall end.
const LOOK: Duration = Duration::from_millis(100);

/// A link between whoever sends to [`SlowLink::address`] and the receiver; ends when it is dropped.
#[derive(Debug)]
pub(crate) struct SlowLink {
    /// Where the sender sends.
    pub(crate) address: SocketAddr,
    ends: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl SlowLink {
    /// Slow for that long from the first packet on.
    pub(crate) fn start(receiver: SocketAddrV4, slow_for: Duration) -> Result<Self> {
        let near = UdpSocket::bind("127.0.0.1:0")?;
        let far = UdpSocket::bind("127.0.0.1:0")?;
        near.set_read_timeout(Some(LOOK))?;
        far.set_read_timeout(Some(LOOK))?;
        let address = near.local_addr()?;
        let ends = Arc::new(AtomicBool::new(false));
        let link = Link {
            near,
            far,
            ends: Arc::clone(&ends),
        };
        let thread = thread::spawn(move || link.run(receiver, slow_for));
        Ok(Self {
            address,
            ends,
            thread: Some(thread),
        })
    }
}

impl Drop for SlowLink {
    fn drop(&mut self) {
        self.ends.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

struct Link {
    near: UdpSocket,
    far: UdpSocket,
    ends: Arc<AtomicBool>,
}

impl Link {
    fn run(&self, receiver: SocketAddrV4, slow_for: Duration) {
        // The receiver answers from a port of its own, to which what follows is addressed.
        let ports = Arc::new(std::sync::Mutex::new((None, SocketAddr::V4(receiver))));
        thread::scope(|scope| {
            scope.spawn(|| {
                let mut packet = vec![0; 1 << 16];
                while let Some((len, from)) = self.receive(&self.far, &mut packet) {
                    let mut ports = ports.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
                    ports.1 = from;
                    if let Some(sender) = ports.0 {
                        let _ = self.near.send_to(packet.get(..len).unwrap_or_default(), sender);
                    }
                }
            });
            let mut began = None;
            let mut packet = vec![0; 1 << 16];
            while let Some((len, from)) = self.receive(&self.near, &mut packet) {
                let began: Instant = *began.get_or_insert_with(Instant::now);
                let to = {
                    let mut ports = ports.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
                    ports.0 = Some(from);
                    ports.1
                };
                let _ = self.far.send_to(packet.get(..len).unwrap_or_default(), to);
                if began.elapsed() < slow_for {
                    // What comes meanwhile waits in the socket, and is lost when that is full: as in any router.
                    let len = u32::try_from(len).unwrap_or(u32::MAX);
                    thread::sleep(Duration::from_secs(1) * len / BYTES_PER_SECOND);
                }
            }
        });
    }

    /// The next packet; nothing when the link ends.
    fn receive(&self, socket: &UdpSocket, packet: &mut [u8]) -> Option<(usize, SocketAddr)> {
        while !self.ends.load(Ordering::Relaxed) {
            match socket.recv_from(packet) {
                Ok(received) => return Some(received),
                Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {}
                // A closed port on the other side is no end: it may open again.
                Err(_) => thread::sleep(LOOK),
            }
        }
        None
    }
}
