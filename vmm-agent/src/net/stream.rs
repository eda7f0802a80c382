//! The wire to a unix stream socket: passt(1), QEMU's `-netdev stream`, and whatever else speaks length-prefixed frames.

use std::fmt;
use std::io::{ErrorKind, Read, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use nic_emu::device::{FrameSink, Offloads, TxFrame};
use nix::poll::PollFlags;

use super::drops::Drops;
use super::framing::{Backlog, Deframer};
use super::limits::{MTU_JUMBO, RECEIVE_BATCH, SEND_WAIT_MS};
use super::wait::wait_for;
use super::{Wire, WireError};

/// Bytes taken from the socket in one read.
const READ_LEN: usize = 64 << 10;

/// A connected unix stream socket that carries frames.
#[derive(Debug)]
pub struct StreamWire {
    name: String,
    socket: UnixStream,
    deframer: Deframer,
    backlog: Backlog,
    read_buffer: Box<[u8]>,
    /// How long a frame waits for a peer that is behind.
    send_wait: Duration,
    /// Frames that the peer was too slow to take.
    drops: Drops,
    /// Why nothing passes any more, once that is so.
    lost: Option<String>,
}

impl StreamWire {
    /// Connects to the socket at `path`.
    ///
    /// # Errors
    /// [`WireError::Open`] with what to do.
    pub fn connect(path: &Path) -> Result<Self, WireError> {
        let name = format!("stream={}", path.display());
        let socket = UnixStream::connect(path).map_err(|error| {
            let advice = match error.kind() {
                ErrorKind::NotFound => {
                    "no such socket: start passt (passt --socket PATH) or QEMU's -netdev stream there first"
                }
                ErrorKind::ConnectionRefused => {
                    "nobody listens on this socket: is passt, or whatever made it, still running?"
                }
                ErrorKind::PermissionDenied => "this user may not connect: give it the right to write to the socket",
                _ => "cannot connect",
            };
            WireError::open(&name, format!("{advice} ({error})"))
        })?;
        Self::from_socket(socket, name)
    }

    /// Takes a connected socket, e.g. one end of a socket pair.
    ///
    /// # Errors
    /// [`WireError::Open`] when it cannot be made non-blocking.
    pub fn from_socket(socket: UnixStream, name: String) -> Result<Self, WireError> {
        socket
            .set_nonblocking(true)
            .map_err(|error| WireError::open(&name, format!("cannot make the socket non-blocking: {error}")))?;
        Ok(Self {
            name,
            socket,
            deframer: Deframer::default(),
            backlog: Backlog::default(),
            read_buffer: vec![0; READ_LEN].into_boxed_slice(),
            send_wait: Duration::from_millis(SEND_WAIT_MS.into()),
            drops: Drops::default(),
            lost: None,
        })
    }

    /// A wire on which no send ever waits: what a peer that is behind does not take at once is dropped. Only whole frames
    /// are; one that left in part is finished later.
    #[must_use]
    pub fn without_waiting(mut self) -> Self {
        self.send_wait = Duration::ZERO;
        self
    }

    /// Frames that were lost because the peer did not read.
    pub fn dropped_frames(&self) -> u64 {
        self.drops.count()
    }

    /// Writes what waits, as far as the socket takes it now.
    fn flush(&mut self) {
        while self.lost.is_none() && !self.backlog.unwritten().is_empty() {
            match (&self.socket).write(self.backlog.unwritten()) {
                Ok(len_bytes) => self.backlog.advance(len_bytes),
                Err(error) if error.kind() == ErrorKind::WouldBlock => return,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => self.lost = Some(format!("cannot write to the socket: {error}")),
            }
        }
    }

    /// Queues one frame; gives a slow peer a moment, where the wire may wait, before the frame is lost.
    fn push(&mut self, frame: &[u8]) {
        if self.backlog.push(frame) {
            return;
        }
        self.flush();
        if self.backlog.push(frame) {
            return;
        }
        if !self.send_wait.is_zero() {
            let _ = wait_for(self.socket.as_fd(), PollFlags::POLLOUT, self.send_wait);
            self.flush();
            if self.backlog.push(frame) {
                return;
            }
        }
        let why = self.lost.as_deref().unwrap_or("the other end does not read");
        self.drops.add(1, &self.name, why);
    }

    fn check_lost(&self) -> Result<(), WireError> {
        self.lost
            .as_ref()
            .map_or(Ok(()), |why| Err(WireError::lost(&self.name, why.as_str())))
    }

    /// Delivers whole frames that are there, at most a batch.
    fn deliver_pending(&mut self, deliver: &mut dyn FnMut(&[u8])) -> usize {
        let mut count = 0;
        while count < RECEIVE_BATCH {
            match self.deframer.next_frame() {
                Ok(Some(frame)) => {
                    deliver(frame);
                    count += 1;
                }
                Ok(None) => break,
                Err(out_of_step) => {
                    self.lost = Some(out_of_step.to_string());
                    break;
                }
            }
        }
        count
    }
}

impl FrameSink for StreamWire {
    fn offloads(&self) -> Offloads {
        Offloads::default()
    }

    fn send(&mut self, frames: &[TxFrame<'_>]) {
        for frame in frames {
            self.push(frame.bytes);
        }
        self.flush();
    }
}

impl Wire for StreamWire {
    fn receive(&mut self, deliver: &mut dyn FnMut(&[u8])) -> Result<usize, WireError> {
        self.flush();
        let mut count = self.deliver_pending(deliver);
        if count > 0 {
            return Ok(count);
        }
        self.check_lost()?;
        match (&self.socket).read(&mut self.read_buffer) {
            Ok(0) => self.lost = Some("the other end closed the socket".to_owned()),
            Ok(len_bytes) => {
                self.deframer
                    .extend(self.read_buffer.get(..len_bytes).unwrap_or_default());
                count = self.deliver_pending(deliver);
            }
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => {}
            Err(error) => self.lost = Some(format!("cannot read from the socket: {error}")),
        }
        // Frames that came before the end still count; the next call tells the loss.
        if count == 0 {
            self.check_lost().map(|()| 0)
        } else {
            Ok(count)
        }
    }

    fn wait(&self, timeout: Duration) -> Result<(), WireError> {
        self.check_lost()?;
        if self.deframer.has_frame() {
            return Ok(());
        }
        let mut events = PollFlags::POLLIN;
        if !self.backlog.unwritten().is_empty() {
            events |= PollFlags::POLLOUT;
        }
        // A peer that hung up ends the wait; the next receive says so.
        wait_for(self.socket.as_fd(), events, timeout)
            .map(drop)
            .map_err(|errno| WireError::lost(&self.name, format!("cannot wait on the socket: {errno}")))
    }

    fn name(&self) -> String {
        self.name.clone()
    }

    fn mtu_max(&self) -> u16 {
        MTU_JUMBO
    }

    fn hint(&self) -> Option<String> {
        let dropped_frames = self.dropped_frames();
        (dropped_frames > 0).then(|| format!("the other end of {} did not take {} frames", self.name, dropped_frames))
    }
}

impl AsFd for StreamWire {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

impl fmt::Display for StreamWire {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use nic_emu::device::Offload;

    fn pair() -> (StreamWire, UnixStream) {
        let (ours, theirs) = UnixStream::pair().unwrap();
        (StreamWire::from_socket(ours, "stream=test".to_owned()).unwrap(), theirs)
    }

    fn send(wire: &mut StreamWire, frame: &[u8]) {
        wire.send(&[TxFrame {
            bytes: frame,
            offload: Offload::default(),
        }]);
    }

    fn received(wire: &mut StreamWire) -> Vec<Vec<u8>> {
        let mut frames = Vec::new();
        while wire.receive(&mut |frame| frames.push(frame.to_vec())).unwrap() > 0 {}
        frames
    }

    #[test]
    fn frames_pass_both_ways_with_their_length_before_them() {
        let (mut wire, mut peer) = pair();
        send(&mut wire, &[9; 60]);
        let mut sent = [0; 64];
        peer.read_exact(&mut sent).unwrap();
        assert_eq!(sent[..4], [0, 0, 0, 60]);
        assert_eq!(sent[4..], [9; 60]);
        peer.write_all(&[0, 0, 0, 3, 1, 2, 3, 0, 0]).unwrap();
        assert_eq!(received(&mut wire), [[1, 2, 3]]);
        peer.write_all(&[0, 2, 4]).unwrap();
        assert_eq!(received(&mut wire), Vec::<Vec<u8>>::new(), "half a frame is none");
        peer.write_all(&[5]).unwrap();
        assert_eq!(received(&mut wire), [[4, 5]]);
    }

    #[test]
    fn a_guests_wire_never_waits_for_a_peer_that_does_not_read() {
        let (wire, _peer) = pair();
        let mut wire = wire.without_waiting();
        let frame = [7; 1500];
        while wire.dropped_frames() == 0 {
            send(&mut wire, &frame);
        }
        let start = std::time::Instant::now();
        for _ in 0..500 {
            send(&mut wire, &frame);
        }
        assert_eq!(wire.dropped_frames(), 501);
        // With a wait for each it would be ten seconds.
        assert!(start.elapsed() < Duration::from_secs(2), "{:?}", start.elapsed());
    }

    #[test]
    fn a_peer_that_does_not_read_costs_frames_and_never_the_framing() {
        let (mut wire, mut peer) = pair();
        let frame = [7; 1500];
        while wire.dropped_frames() == 0 {
            send(&mut wire, &frame);
        }
        let hint = wire.hint().unwrap();
        assert!(hint.contains("did not take 1 frames"), "{hint}");
        // Read all of it: whole frames only.
        let mut deframer = Deframer::default();
        let mut buffer = vec![0; 100_000];
        peer.set_nonblocking(true).unwrap();
        let mut count = 0;
        loop {
            match peer.read(&mut buffer) {
                Ok(len) => deframer.extend(&buffer[..len]),
                Err(_) if wire.backlog.unwritten().is_empty() => break,
                Err(_) => wire.flush(),
            }
            while let Some(got) = deframer.next_frame().unwrap() {
                assert_eq!(got, frame);
                count += 1;
            }
        }
        assert!(count > 100, "{count}");
    }

    #[test]
    fn a_closed_socket_is_lost_for_good_after_its_last_frame() {
        let (mut wire, mut peer) = pair();
        peer.write_all(&[0, 0, 0, 1, 42]).unwrap();
        drop(peer);
        wire.wait(Duration::from_secs(5)).unwrap();
        let mut frames = Vec::new();
        assert_eq!(wire.receive(&mut |frame| frames.push(frame.to_vec())).unwrap(), 1);
        assert_eq!(frames, [[42]]);
        for _ in 0..2 {
            let lost = wire.receive(&mut |_| ()).unwrap_err().to_string();
            assert_eq!(lost, "stream=test is gone: the other end closed the socket");
        }
        send(&mut wire, &[1]);
    }

    #[test]
    fn a_length_that_no_frame_has_is_lost_for_good() {
        let (mut wire, mut peer) = pair();
        peer.write_all(&[0xff; 8]).unwrap();
        let lost = wire.receive(&mut |_| ()).unwrap_err().to_string();
        assert!(
            lost.contains("4294967295 bytes") && lost.contains("out of step"),
            "{lost}"
        );
    }

    #[test]
    fn a_missing_socket_says_what_to_start() {
        let error = StreamWire::connect(Path::new("/nonexistent/passt.sock"))
            .unwrap_err()
            .to_string();
        assert!(
            error.starts_with("stream=/nonexistent/passt.sock: no such socket: start passt"),
            "{error}"
        );
    }
}
