//! The dump port: an em of the agent's own, apart from the guest's. The same device as the guest's, driven through its
//! public registers by the polled driver, with rings and buffers in a private window of memory that only it sees. So the
//! guest's own card and memory stay as the crash left them.

use std::fmt;
use std::time::{Duration, Instant};

use nic_emu::device::{Actions, Dma, DmaError, Em, EmConfig, FrameSink, Offloads, TxFrame};
use nic_emu::polled::{self, Bus, DatagramHeaders, Polled, PolledError, QueueError, Window};

use super::limits::{PORT_LINK_WAIT, PORT_WINDOW_GPA};
use crate::net::limits::RECEIVE_BATCH;
use crate::net::{Wire, WireError};

/// An em with its driver, its memory and its wire.
pub struct DumpPort {
    hardware: Hardware,
    driver: Polled,
    /// Frames that the wire brought and the device has not seen yet.
    inbound: Inbound,
}

/// The device could not be brought up.
#[derive(Debug, thiserror::Error)]
#[error("the dump port's network card does not start: {0}")]
pub struct PortError(#[from] PolledError);

impl DumpPort {
    /// Makes an em with this station address on this wire and brings it up.
    ///
    /// # Errors
    /// [`PortError`], which no configuration should cause.
    pub fn open(wire: Box<dyn Wire>, mac: [u8; 6]) -> Result<Self, PortError> {
        let mut em = Em::new(EmConfig::new(mac));
        em.set_bus_master(true);
        let memory = vec![0; polled::WINDOW_LEN].into_boxed_slice();
        let mut hardware = Hardware {
            em,
            memory: PrivateMemory(memory),
            wire,
            epoch: Instant::now(),
            now_ns: 0,
        };
        hardware.tick();
        let driver = start_driver(&mut hardware, mac)?;
        Ok(Self {
            hardware,
            driver,
            inbound: Inbound::default(),
        })
    }

    /// The wire behind the device.
    #[must_use]
    pub fn wire(&self) -> &dyn Wire {
        &*self.hardware.wire
    }

    /// Puts a frame into the transmit ring. It leaves with the next [`DumpPort::flush`], or now if the ring is full.
    pub fn queue(&mut self, frame: &[u8]) {
        if let Err(QueueError::Full) = self.driver.queue(&mut self.hardware, frame) {
            self.flush();
            // Still full cannot be: the device sends everything within the register write. A lost frame comes again.
            if let Err(error) = self.driver.queue(&mut self.hardware, frame) {
                tracing::debug!("dump port: {error}");
            }
        }
    }

    /// Puts a UDP datagram into the transmit ring, as [`DumpPort::queue`] does a frame. Datagrams of one length that follow
    /// each other become one packet, which the device, or a wire that can, cuts again.
    pub fn queue_datagram(&mut self, headers: &DatagramHeaders, payload: &[u8]) {
        let mut outcome = self.driver.queue_datagram(&mut self.hardware, headers, payload);
        if outcome == Err(QueueError::Full) {
            self.flush();
            outcome = self.driver.queue_datagram(&mut self.hardware, headers, payload);
        }
        if let Err(error) = outcome {
            tracing::debug!("dump port: {error}");
        }
    }

    /// Tells the device of everything queued; it sends before this returns.
    pub fn flush(&mut self) {
        self.hardware.tick();
        self.driver.kick(&mut self.hardware);
    }

    /// Hands every frame that came in to `deliver`, after it went through the device; returns how many.
    ///
    /// # Errors
    /// [`WireError::Lost`] when no frame will ever pass again.
    pub fn receive(&mut self, deliver: &mut dyn FnMut(&[u8])) -> Result<usize, WireError> {
        let Self {
            hardware,
            driver,
            inbound,
        } = self;
        hardware.tick();
        inbound.clear();
        hardware.wire.receive(&mut |frame| inbound.push(frame))?;
        let mut delivered = driver.poll(hardware, deliver);
        let mut offered = 0;
        while offered < inbound.len() {
            let taken = inbound.offer(offered, hardware);
            let polled = driver.poll(hardware, deliver);
            delivered += polled;
            if taken == 0 && polled == 0 {
                break;
            }
            offered += taken;
        }
        Ok(delivered)
    }

    /// Waits until a frame may have come, at most for `timeout`.
    ///
    /// # Errors
    /// [`WireError::Lost`] when no frame will ever pass again.
    pub fn wait(&self, timeout: Duration) -> Result<(), WireError> {
        self.hardware.wire.wait(timeout)
    }
}

impl Drop for DumpPort {
    fn drop(&mut self) {
        self.driver.stop(&mut self.hardware);
    }
}

impl fmt::Debug for DumpPort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DumpPort")
            .field("wire", &self.hardware.wire.name())
            .finish_non_exhaustive()
    }
}

/// Starts the driver, and again while the link is still coming up.
fn start_driver(hardware: &mut Hardware, mac: [u8; 6]) -> Result<Polled, PolledError> {
    let window = Window {
        gpa: PORT_WINDOW_GPA,
        len_bytes: polled::WINDOW_LEN as u64,
    };
    let give_up_at = Instant::now() + PORT_LINK_WAIT;
    loop {
        match Polled::start(hardware, window, mac) {
            Err(PolledError::NoLink { .. }) if Instant::now() < give_up_at => {
                std::thread::sleep(Duration::from_millis(1));
                hardware.tick();
            }
            other => return other,
        }
    }
}

/// What the driver drives: the device, the memory that it reaches, and its wire.
struct Hardware {
    em: Em,
    memory: PrivateMemory,
    wire: Box<dyn Wire>,
    epoch: Instant,
    now_ns: u64,
}

impl Hardware {
    /// Tells the device the time.
    fn tick(&mut self) {
        self.now_ns = u64::try_from(self.epoch.elapsed().as_nanos()).unwrap_or(u64::MAX);
        if self.em.poll_timeout().is_some_and(|due| due <= self.now_ns) {
            let actions = self.em.handle_timeout(self.now_ns);
            self.act(actions);
        }
    }

    /// Interrupts stay masked and frames are offered by `receive`, so only transmitting is left to do.
    fn act(&mut self, actions: Actions) {
        if actions.transmit {
            while self.em.transmit_pending() {
                self.em
                    .transmit(self.now_ns, &mut self.memory, &mut Outlet(&mut *self.wire));
            }
        }
    }
}

impl Bus for Hardware {
    fn read_register(&mut self, offset: u32) -> u32 {
        let mut data = [0; 4];
        let actions = self.em.mmio_read(self.now_ns, offset, &mut data);
        self.act(actions);
        u32::from_le_bytes(data)
    }

    fn write_register(&mut self, offset: u32, value: u32) {
        let actions = self.em.mmio_write(self.now_ns, offset, &value.to_le_bytes());
        self.act(actions);
    }

    fn read_memory(&mut self, gpa: u64, buf: &mut [u8]) {
        let outcome = self.memory.read(gpa, buf);
        debug_assert_eq!(outcome, Ok(()), "the driver stays inside its window");
    }

    fn write_memory(&mut self, gpa: u64, bytes: &[u8]) {
        let outcome = self.memory.write(gpa, bytes);
        debug_assert_eq!(outcome, Ok(()), "the driver stays inside its window");
    }
}

/// The window: nothing else exists for this device.
struct PrivateMemory(Box<[u8]>);

impl PrivateMemory {
    fn range(gpa: u64, len_bytes: usize) -> Option<std::ops::Range<usize>> {
        let start = usize::try_from(gpa.checked_sub(PORT_WINDOW_GPA)?).ok()?;
        Some(start..start.checked_add(len_bytes)?)
    }
}

impl Dma for PrivateMemory {
    fn read(&mut self, gpa: u64, buf: &mut [u8]) -> Result<(), DmaError> {
        let missing = DmaError {
            gpa,
            len_bytes: buf.len(),
        };
        let bytes = Self::range(gpa, buf.len())
            .and_then(|range| self.0.get(range))
            .ok_or(missing)?;
        buf.copy_from_slice(bytes);
        Ok(())
    }

    fn write(&mut self, gpa: u64, bytes: &[u8]) -> Result<(), DmaError> {
        let missing = DmaError {
            gpa,
            len_bytes: bytes.len(),
        };
        let room = Self::range(gpa, bytes.len())
            .and_then(|range| self.0.get_mut(range))
            .ok_or(missing)?;
        room.copy_from_slice(bytes);
        Ok(())
    }
}

/// The wire as the device's sink.
struct Outlet<'w>(&'w mut dyn Wire);

impl FrameSink for Outlet<'_> {
    fn offloads(&self) -> Offloads {
        self.0.offloads()
    }

    fn send(&mut self, frames: &[TxFrame<'_>]) {
        self.0.send(frames);
    }
}

/// Frames one after the other, so that a batch costs no allocation.
#[derive(Debug, Default)]
struct Inbound {
    bytes: Vec<u8>,
    ends: Vec<usize>,
}

impl Inbound {
    fn clear(&mut self) {
        self.bytes.clear();
        self.ends.clear();
    }

    fn push(&mut self, frame: &[u8]) {
        self.bytes.extend_from_slice(frame);
        self.ends.push(self.bytes.len());
    }

    fn len(&self) -> usize {
        self.ends.len()
    }

    /// Offers the frames from `first` on to the device; returns how many it is done with.
    fn offer(&self, first: usize, hardware: &mut Hardware) -> usize {
        let mut frames: [&[u8]; RECEIVE_BATCH] = [&[]; RECEIVE_BATCH];
        let mut start = first
            .checked_sub(1)
            .and_then(|before| self.ends.get(before))
            .copied()
            .unwrap_or(0);
        let ends = self.ends.get(first..).unwrap_or_default();
        let mut count = 0;
        for (slot, &end) in frames.iter_mut().zip(ends) {
            *slot = self.bytes.get(start..end).unwrap_or_default();
            start = end;
            count += 1;
        }
        let batch = frames.get(..count).unwrap_or_default();
        hardware.em.receive(hardware.now_ns, &mut hardware.memory, batch)
    }
}

#[cfg(test)]
#[expect(clippy::cast_possible_truncation, reason = "memory of a test is small")]
mod tests {
    use super::*;
    use crate::net::StreamWire;
    use std::io::{Read, Write};
    use std::os::unix::net::UnixStream;

    const MAC: [u8; 6] = [2, 0, 0, 0, 0, 7];

    fn port() -> (DumpPort, UnixStream) {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let wire = StreamWire::from_socket(ours, "stream=test".to_owned()).unwrap();
        (DumpPort::open(Box::new(wire), MAC).unwrap(), theirs)
    }

    fn frame_to(mac: [u8; 6], len: usize, fill: u8) -> Vec<u8> {
        let mut frame = vec![fill; len];
        frame[..6].copy_from_slice(&mac);
        frame
    }

    #[test]
    fn frames_of_every_length_leave_unchanged_and_in_order() {
        let (mut port, mut peer) = port();
        for len in [60, 1514, 4162, 9014] {
            port.queue(&frame_to([2; 6], len, 0x5a));
        }
        port.flush();
        for len in [60, 1514, 4162, 9014] {
            let mut got = vec![0; 4 + len];
            peer.read_exact(&mut got).unwrap();
            assert_eq!(got[..4], u32::try_from(len).unwrap().to_be_bytes());
            assert!(got[4..] == frame_to([2; 6], len, 0x5a));
        }
    }

    #[test]
    fn more_frames_than_the_ring_holds_all_leave() {
        let (mut port, mut peer) = port();
        let reader = std::thread::spawn(move || {
            let mut got = vec![0; 1000 * 64];
            peer.read_exact(&mut got).map(|()| got)
        });
        for number in 0..1000u32 {
            let mut frame = frame_to([2; 6], 60, 0);
            frame[14..18].copy_from_slice(&number.to_be_bytes());
            port.queue(&frame);
        }
        port.flush();
        let got = reader.join().unwrap().unwrap();
        for (number, framed) in got.chunks(64).enumerate() {
            assert_eq!(framed[18..22], (number as u32).to_be_bytes());
        }
    }

    #[test]
    fn frames_come_in_through_the_device_which_drops_what_is_not_for_it() {
        let (mut port, mut peer) = port();
        for (mac, fill) in [(MAC, 1), ([2, 9, 9, 9, 9, 9], 2), ([0xff; 6], 3)] {
            peer.write_all(&64u32.to_be_bytes()).unwrap();
            peer.write_all(&frame_to(mac, 64, fill)).unwrap();
        }
        let mut fills = Vec::new();
        while port.receive(&mut |frame| fills.push(frame[20])).unwrap() > 0 {}
        assert_eq!(fills, [1, 3]);
    }

    #[test]
    fn a_burst_longer_than_the_receive_ring_comes_in_whole() {
        let (mut port, mut peer) = port();
        let mut burst = Vec::new();
        for number in 0..300u32 {
            let mut frame = frame_to(MAC, 60, 0);
            frame[14..18].copy_from_slice(&number.to_be_bytes());
            burst.extend_from_slice(&60u32.to_be_bytes());
            burst.extend_from_slice(&frame);
        }
        // In one write: many small ones would fill the socket, and nobody reads yet.
        peer.write_all(&burst).unwrap();
        let mut numbers = Vec::new();
        while port
            .receive(&mut |frame| numbers.push(u32::from_be_bytes(frame[14..18].try_into().unwrap())))
            .unwrap()
            > 0
        {}
        assert_eq!(numbers, (0..300).collect::<Vec<_>>());
    }

    #[test]
    fn a_wire_that_is_gone_is_told() {
        let (mut port, peer) = port();
        drop(peer);
        assert!(matches!(port.receive(&mut |_| ()), Err(WireError::Lost { .. })));
    }
}
