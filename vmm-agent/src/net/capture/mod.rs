//! Writes down what crosses wires, as a pcapng file that tcpdump(1) and Wireshark read.
//!
//! ```text
//!  wire A ─┐ frame (cut, stamped)
//!  wire B ─┴──► queue, bounded ──► thread `capture` ──► FILE, bounded
//!                  │ full: counted, never waited for
//! ```
//!
//! A wire never waits for the file: whoever sends may be a vCPU. What the file lacks is counted per interface and stands in
//! its last blocks.

pub mod pcapng;

use std::fmt;
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::net::Ipv4Addr;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use nic_emu::device::{FrameSink, Offloads, TxFrame};

use super::limits::{CAPTURE_FILE_LEN_MAX, CAPTURE_INTERFACES_MAX, CAPTURE_QUEUE_LEN_MAX};
use super::{Link, Wire, WireError};
use pcapng::{Direction, Packet};

/// A capture file could not be begun.
#[derive(Debug, thiserror::Error)]
#[error("cannot write a capture to {}: {source}; name a file in a directory that can be written", path.display())]
pub struct CaptureError {
    /// Where it should be.
    path: PathBuf,
    /// Why not.
    source: io::Error,
}

/// A capture file. Clones write to the same one; with the last of them it ends.
#[derive(Clone, Debug)]
pub struct Capture(Arc<Recorder>);

struct Recorder {
    shared: Arc<Shared>,
    snap_len: u32,
    len_max: u64,
    writer: Option<JoinHandle<()>>,
}

/// What wires and the writer have in common.
#[derive(Debug, Default)]
struct Shared {
    queue: Mutex<Queue>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct Queue {
    /// Whole blocks that are not yet written.
    bytes: Vec<u8>,
    interfaces: Vec<Interface>,
    /// Bytes of packets that ever came in here.
    accepted_bytes: u64,
    /// The file has its full length, or cannot be written.
    closed: bool,
    /// Nothing more comes.
    ended: bool,
}

#[derive(Debug)]
struct Interface {
    name: String,
    missed: u64,
}

impl Capture {
    /// Begins a file, in place of what was there, for its owner only: frames hold a guest's memory. Of each frame the first
    /// `snap_len` bytes are kept.
    ///
    /// # Errors
    /// [`CaptureError`].
    pub fn create(path: &Path, snap_len: u32) -> Result<Self, CaptureError> {
        Self::create_bounded(path, snap_len, CAPTURE_FILE_LEN_MAX)
    }

    fn create_bounded(path: &Path, snap_len: u32, len_max: u64) -> Result<Self, CaptureError> {
        let fail = |source| CaptureError {
            path: path.to_owned(),
            source,
        };
        let mut open = OpenOptions::new();
        open.write(true).create(true).truncate(true).mode(0o600);
        let file = open.open(path).map_err(fail)?;
        let shared = Arc::new(Shared::default());
        pcapng::section_header(&mut lock(&shared.queue).bytes);
        let mut writer = Writer {
            file,
            path: path.to_owned(),
        };
        let theirs = Arc::clone(&shared);
        let thread = std::thread::Builder::new().name("capture".to_owned());
        let writer = thread.spawn(move || writer.run(&theirs)).map_err(fail)?;
        Ok(Self(Arc::new(Recorder {
            shared,
            snap_len,
            len_max,
            writer: Some(writer),
        })))
    }

    /// Puts the recording around a wire. The frames stand under `name`; a wire that is opened again has the same one.
    #[must_use]
    pub fn around(&self, wire: Box<dyn Wire>, name: &str) -> Box<dyn Wire> {
        match self.interface(name) {
            Some(interface) => Box::new(CapturedWire {
                wire,
                capture: self.clone(),
                interface,
            }),
            None => wire,
        }
    }

    /// The number of the interface of this name, described now if it is new.
    fn interface(&self, name: &str) -> Option<usize> {
        let mut queue = lock(&self.0.shared.queue);
        if let Some(known) = queue.interfaces.iter().position(|known| known.name == name) {
            return Some(known);
        }
        if queue.interfaces.len() == CAPTURE_INTERFACES_MAX {
            return None;
        }
        let number = queue.interfaces.len();
        queue.interfaces.push(Interface {
            name: name.to_owned(),
            missed: 0,
        });
        pcapng::interface(&mut queue.bytes, name, self.0.snap_len);
        Some(number)
    }

    fn record<'f>(&self, interface: usize, direction: Direction, frames: impl Iterator<Item = &'f [u8]>) {
        let at_ns = now_ns();
        let snap_len = usize::try_from(self.0.snap_len).unwrap_or(usize::MAX);
        let mut queue = lock(&self.0.shared.queue);
        for frame in frames {
            let kept = frame.len().min(snap_len);
            if queue.takes((kept + pcapng::PACKET_OVERHEAD_MAX) as u64, self.0.len_max) {
                let interface = u32::try_from(interface).unwrap_or(u32::MAX);
                pcapng::packet(
                    &mut queue.bytes,
                    &Packet {
                        interface,
                        at_ns,
                        direction,
                        frame,
                        snap_len,
                    },
                );
            } else if let Some(interface) = queue.interfaces.get_mut(interface) {
                interface.missed += 1;
            }
        }
        drop(queue);
        self.0.shared.changed.notify_one();
    }
}

impl Drop for Recorder {
    fn drop(&mut self) {
        lock(&self.shared.queue).ended = true;
        self.shared.changed.notify_one();
        if let Some(writer) = self.writer.take() {
            let _ = writer.join();
        }
    }
}

impl fmt::Debug for Recorder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Recorder")
            .field("snap_len", &self.snap_len)
            .finish_non_exhaustive()
    }
}

impl Queue {
    /// Whether a packet of this length is written down; says once that the file is full.
    fn takes(&mut self, len_bytes: u64, len_max: u64) -> bool {
        if self.closed || self.bytes.len() >= CAPTURE_QUEUE_LEN_MAX {
            return false;
        }
        self.accepted_bytes += len_bytes;
        self.closed = self.accepted_bytes > len_max;
        if self.closed {
            tracing::warn!("the capture has its {len_max} bytes; what crosses from now on is only counted");
        }
        !self.closed
    }
}

/// The thread's side.
struct Writer {
    file: File,
    path: PathBuf,
}

impl Writer {
    fn run(&mut self, shared: &Shared) {
        let mut bytes = Vec::new();
        loop {
            let mut queue = lock(&shared.queue);
            while queue.bytes.is_empty() && !queue.ended {
                queue = shared.changed.wait(queue).unwrap_or_else(PoisonError::into_inner);
            }
            let ended = queue.ended;
            bytes.clear();
            std::mem::swap(&mut bytes, &mut queue.bytes);
            if ended {
                count_missed(&queue.interfaces, &mut bytes);
            }
            drop(queue);
            if let Err(error) = self.file.write_all(&bytes) {
                tracing::warn!("the capture ends: cannot write to {}: {error}", self.path.display());
                lock(&shared.queue).closed = true;
                return;
            }
            if ended {
                return;
            }
        }
    }
}

/// The last blocks of the file, and a sentence, about what is not in it.
fn count_missed(interfaces: &[Interface], bytes: &mut Vec<u8>) {
    let at_ns = now_ns();
    for (number, interface) in interfaces.iter().enumerate() {
        pcapng::statistics(
            bytes,
            u32::try_from(number).unwrap_or(u32::MAX),
            at_ns,
            interface.missed,
        );
        if interface.missed > 0 {
            tracing::warn!("the capture lacks {} frames of {}", interface.missed, interface.name);
        }
    }
}

/// A wire with a recording around it.
struct CapturedWire {
    wire: Box<dyn Wire>,
    capture: Capture,
    interface: usize,
}

impl FrameSink for CapturedWire {
    fn offloads(&self) -> Offloads {
        self.wire.offloads()
    }

    /// A frame that the wire is to cut is written down uncut, as it crosses.
    fn send(&mut self, frames: &[TxFrame<'_>]) {
        let bytes = frames.iter().map(|frame| frame.bytes);
        self.capture.record(self.interface, Direction::Outbound, bytes);
        self.wire.send(frames);
    }
}

impl Wire for CapturedWire {
    fn receive(&mut self, deliver: &mut dyn FnMut(&[u8])) -> Result<usize, WireError> {
        let Self {
            wire,
            capture,
            interface,
        } = self;
        wire.receive(&mut |frame| {
            capture.record(*interface, Direction::Inbound, std::iter::once(frame));
            deliver(frame);
        })
    }

    fn wait(&self, timeout: Duration) -> Result<(), WireError> {
        self.wire.wait(timeout)
    }

    fn name(&self) -> String {
        self.wire.name()
    }

    fn mtu_max(&self) -> u16 {
        self.wire.mtu_max()
    }

    fn mtu_towards(&self, server: Ipv4Addr) -> u16 {
        self.wire.mtu_towards(server)
    }

    fn link(&self) -> Option<Box<dyn Link>> {
        self.wire.link()
    }

    fn hint(&self) -> Option<String> {
        self.wire.hint()
    }
}

impl AsFd for CapturedWire {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.wire.as_fd()
    }
}

fn now_ns() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
}

fn lock(queue: &Mutex<Queue>) -> MutexGuard<'_, Queue> {
    queue.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests;
