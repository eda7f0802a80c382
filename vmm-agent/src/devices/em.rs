//! The guest's em (Intel 82540EM) as a PCI function: registers from `nic_emu`, memory through the guest's RAM, frames
//! through a wire.
//!
//! ```text
//!  vCPU: register access ──► EmFunction (lock) ──kick──► worker: ring ──► outbox │ wire ──► network
//!                                       ▲                        (lock)  │ (no lock)
//!                                       └── frames, timers ◄─────────────┴────────── network
//! ```
//!
//! A vCPU that writes the tail register only kicks the worker. The wire is the worker's alone, and the function's lock is
//! never held while the wire works: a network that is slow costs frames, not a vCPU's time.
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use nic_emu::device::{Actions, Dma, DmaError, Em, EmConfig, FrameSink, Offload, Offloads, TxFrame};

use nic_emu::limits::FRAMES_PER_SEND;

use super::bus::{Shared, lock};
use super::pci::intx::{IntxPin, STATUS_INTERRUPT};
use super::pci::{Bar, CONFIG_SPACE_LEN, FunctionConfig, PciFunction};
use super::worker::{After, Job, Waker};
use super::{IoOutcome, put};
use crate::memory::{Bytes, GuestAddress, GuestMemory};
use crate::net::Wire;

/// Intel 82540EM (82540EM SDM, 4.1).
const VENDOR: u16 = 0x8086;
const DEVICE: u16 = 0x100e;
/// "PRO/1000 MT Desktop"; the EEPROM names the same subsystem.
const SUBSYSTEM: u16 = 0x001e;
const REVISION: u8 = 2;
/// Registers, and the I/O BAR with IOADDR and IODATA, as long as other emulations make it; drivers look for the first BAR
/// in I/O space.
const REGISTERS_BAR: usize = 0;
const REGISTERS_LEN: u64 = 128 << 10;
const IO_LEN: u64 = 64;

/// Command register: the function may access memory.
const COMMAND_BUS_MASTER: u16 = 1 << 2;

/// Frames that are kept while the guest has no buffers: one batch of the wire.
const PENDING_MAX: usize = 64;
/// After sending, the wire is looked at again this soon: some hold answers that their descriptor does not show.
const AFTER_SEND: Duration = Duration::from_millis(5);

/// The em as a PCI function.
pub struct EmFunction {
    em: Em,
    ram: RamDma,
    pin: IntxPin,
    waker: Waker,
    started: Instant,
    /// The deadline that the worker waits for.
    told_deadline_ns: Option<u64>,
}

/// The worker's side: frames both ways, and timers.
pub struct EmJob {
    function: Shared<EmFunction>,
    wire: Box<dyn Wire>,
    outbox: Outbox,
    pending: Vec<Vec<u8>>,
    lost: bool,
}

/// Frames that left the ring and go to the wire once the function's lock is released.
#[derive(Debug, Default)]
struct Outbox {
    offloads: Offloads,
    bytes: Vec<u8>,
    /// Where each frame ends, and what the wire has still to do.
    frames: Vec<(usize, Offload)>,
}

/// Memory as the device sees it: RAM, and nothing else.
#[derive(Debug)]
struct RamDma(Arc<GuestMemory>);

impl EmFunction {
    /// An em with this address on `wire`, as a function, and the job that its worker does, woken by `waker`.
    #[must_use]
    pub fn new(
        wire: Box<dyn Wire>,
        mac: [u8; 6],
        memory: Arc<GuestMemory>,
        pin: IntxPin,
        waker: Waker,
    ) -> (Shared<EmFunction>, EmJob) {
        let function = Arc::new(Mutex::new(EmFunction {
            em: Em::new(EmConfig::new(mac)),
            ram: RamDma(memory),
            pin,
            waker,
            started: Instant::now(),
            told_deadline_ns: None,
        }));
        let job = EmJob {
            function: Arc::clone(&function),
            outbox: Outbox {
                offloads: wire.offloads(),
                ..Outbox::default()
            },
            wire,
            pending: Vec::new(),
            lost: false,
        };
        (function, job)
    }

    /// The line that the function's pin is wired to.
    pub fn connect(&mut self, gsi: u32) {
        self.pin.connect(gsi);
    }

    fn now_ns(&self) -> u64 {
        u64::try_from(self.started.elapsed().as_nanos()).unwrap_or(u64::MAX)
    }

    /// Does what an access or an event entails; what takes time is the worker's.
    fn act(&mut self, actions: Actions) {
        self.pin.set(self.em.irq_level());
        let deadline = self.em.poll_timeout();
        let sooner = deadline.is_some_and(|due| self.told_deadline_ns.is_none_or(|told| due < told));
        if actions.transmit || actions.receive || sooner {
            self.waker.wake();
        }
    }
}

impl PciFunction for EmFunction {
    fn config(&self) -> FunctionConfig {
        FunctionConfig {
            vendor: VENDOR,
            device: DEVICE,
            // Network controller, Ethernet.
            class: 0x02_00_00,
            revision: REVISION,
            subsystem_vendor: VENDOR,
            subsystem: SUBSYSTEM,
            bars: [
                Some(Bar::Memory {
                    len_bytes: REGISTERS_LEN,
                }),
                Some(Bar::Io { len_bytes: IO_LEN }),
                None,
                None,
                None,
                None,
            ],
            interrupt_pin: true,
            ..FunctionConfig::default()
        }
    }

    fn bar_read(&mut self, bar: usize, offset: u64, data: &mut [u8]) -> IoOutcome {
        let Ok(offset) = u32::try_from(offset) else {
            return put(data, 0);
        };
        let now_ns = self.now_ns();
        let actions = if bar == REGISTERS_BAR {
            self.em.mmio_read(now_ns, offset, data)
        } else {
            self.em.io_read(now_ns, offset, data)
        };
        self.act(actions);
        IoOutcome::Done
    }

    fn bar_write(&mut self, bar: usize, offset: u64, data: &[u8]) -> IoOutcome {
        let Ok(offset) = u32::try_from(offset) else {
            return IoOutcome::Done;
        };
        let now_ns = self.now_ns();
        let actions = if bar == REGISTERS_BAR {
            self.em.mmio_write(now_ns, offset, data)
        } else {
            self.em.io_write(now_ns, offset, data)
        };
        self.act(actions);
        IoOutcome::Done
    }

    fn config_written(&mut self, _offset: usize, space: &[u8; CONFIG_SPACE_LEN]) -> IoOutcome {
        let command = u16::from_le_bytes([space[4], space[5]]);
        self.pin.set_command(command);
        let actions = self.em.set_bus_master(command & COMMAND_BUS_MASTER != 0);
        self.act(actions);
        IoOutcome::Done
    }

    fn config_read(&mut self, offset: usize, data: &mut [u8; 4]) {
        if offset == 4 && self.pin.is_wanted() {
            data[2] |= STATUS_INTERRUPT.to_le_bytes()[0];
        }
    }
}

impl Job for EmJob {
    fn round(&mut self) -> After {
        let received = self.take_from_wire();
        let mut function = lock(&self.function);
        let now_ns = function.now_ns();
        if !self.pending.is_empty() {
            let frames: Vec<&[u8]> = self.pending.iter().map(Vec::as_slice).collect();
            let EmFunction { em, ram, .. } = &mut *function;
            let done = em.receive(now_ns, ram, &frames);
            self.pending.drain(..done.min(frames.len()));
        }
        let mut actions = function.em.handle_timeout(now_ns);
        if function.em.transmit_pending() {
            let EmFunction { em, ram, .. } = &mut *function;
            em.transmit(now_ns, ram, &mut self.outbox);
            actions.irq_changed = true;
        }
        // Once for everything that happened, so that a batch is one interrupt.
        actions.transmit = false;
        function.act(actions);
        drop(function);
        let sent = self.outbox.empty_into(&mut *self.wire);
        let mut function = lock(&self.function);
        if (received && self.pending.is_empty()) || function.em.transmit_pending() {
            return After::Again;
        }
        let deadline = function.em.poll_timeout();
        function.told_deadline_ns = deadline;
        let until = deadline.map(|due| Duration::from_nanos(due.saturating_sub(function.now_ns())));
        let look_again = sent.then_some(AFTER_SEND);
        After::Wait {
            readable: self.pending.is_empty() && !self.lost && function.em.can_receive(),
            timeout: until.into_iter().chain(look_again).min(),
        }
    }

    fn descriptor(&self) -> io::Result<Option<OwnedFd>> {
        Ok(Some(self.wire.as_fd().try_clone_to_owned()?))
    }
}

impl FrameSink for Outbox {
    fn offloads(&self) -> Offloads {
        self.offloads
    }

    fn send(&mut self, frames: &[TxFrame<'_>]) {
        for frame in frames {
            self.bytes.extend_from_slice(frame.bytes);
            self.frames.push((self.bytes.len(), frame.offload));
        }
    }
}

impl Outbox {
    /// Hands everything to the wire, in batches; true if there was something. One `transmit` of the device bounds what lies
    /// here.
    fn empty_into(&mut self, wire: &mut dyn Wire) -> bool {
        let mut start = 0;
        for batch in self.frames.chunks(FRAMES_PER_SEND) {
            let frames: Vec<TxFrame<'_>> = batch
                .iter()
                .map(|(end, offload)| {
                    let bytes = self.bytes.get(start..*end).unwrap_or_default();
                    start = *end;
                    TxFrame {
                        bytes,
                        offload: *offload,
                    }
                })
                .collect();
            wire.send(&frames);
        }
        let sent = !self.frames.is_empty();
        self.frames.clear();
        self.bytes.clear();
        sent
    }
}

impl EmJob {
    /// Takes a batch off the wire, if the last one is gone and the guest can take more; true if there was something.
    fn take_from_wire(&mut self) -> bool {
        if self.lost || !self.pending.is_empty() || !lock(&self.function).em.can_receive() {
            return false;
        }
        let EmJob { wire, pending, .. } = self;
        let received = wire.receive(&mut |frame| {
            if pending.len() < PENDING_MAX {
                pending.push(frame.to_vec());
            }
        });
        match received {
            Ok(count) => count > 0,
            Err(error) => {
                tracing::warn!(%error, "the guest's network is gone");
                self.lost = true;
                let mut function = lock(&self.function);
                let now_ns = function.now_ns();
                let actions = function.em.set_link(now_ns, false);
                function.act(actions);
                false
            }
        }
    }
}

impl Dma for RamDma {
    fn read(&mut self, gpa: u64, buf: &mut [u8]) -> Result<(), DmaError> {
        let len_bytes = buf.len();
        let read = self.0.ram().read_slice(buf, GuestAddress(gpa));
        read.map_err(|_| DmaError { gpa, len_bytes })
    }

    fn write(&mut self, gpa: u64, bytes: &[u8]) -> Result<(), DmaError> {
        let len_bytes = bytes.len();
        let written = self.0.ram().write_slice(bytes, GuestAddress(gpa));
        written.map_err(|_| DmaError { gpa, len_bytes })
    }
}

impl std::fmt::Debug for EmFunction {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("EmFunction")
            .field("mac", &self.em.mac())
            .field("pin", &self.pin)
            .finish_non_exhaustive()
    }
}

impl std::fmt::Debug for EmJob {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("EmJob")
            .field("wire", &self.wire.name())
            .field("pending", &self.pending.len())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::os::fd::BorrowedFd;
    use std::os::unix::net::UnixStream;
    use std::sync::mpsc;

    use nic_emu::spec::registers as reg;

    use super::super::pci::PciRoot;
    use super::super::pci::intx::{IntxLines, Raised, Recorder};
    use super::super::{PioDevice, worker::Workers};
    use super::*;
    use crate::net::{StreamWire, WireError};

    const MAC: [u8; 6] = [2, 0, 0, 0, 0, 9];
    const RX_RING: u64 = 0x1_0000;
    const TX_RING: u64 = 0x2_0000;
    const RX_BUFFERS: u64 = 0x10_0000;
    const TX_BUFFER: u64 = 0x20_0000;

    /// An em on a bus, driven as e1000 drivers do: by its BARs.
    struct Board {
        root: Shared<PciRoot>,
        memory: Arc<GuestMemory>,
        recorder: Arc<Recorder>,
        peer: UnixStream,
        io_port: u16,
        registers_gpa: u64,
        _workers: Workers,
    }

    impl Board {
        fn new() -> Board {
            let (ours, peer) = UnixStream::pair().unwrap();
            let wire = StreamWire::from_socket(ours, "stream=test".to_owned()).unwrap();
            Board::on(Box::new(wire), peer)
        }

        fn on(wire: Box<dyn Wire>, peer: UnixStream) -> Board {
            let memory = Arc::new(GuestMemory::create(16).unwrap());
            let recorder = Arc::new(Recorder::default());
            let lines = IntxLines::new(recorder.clone());
            peer.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
            let waker = Waker::new().unwrap();
            let (function, job) = EmFunction::new(wire, MAC, memory.clone(), lines.pin(), waker.clone());
            let mut root = PciRoot::new().unwrap();
            let place = root.add(function.clone()).unwrap();
            lock(&function).connect(place.gsi.unwrap());
            let mut workers = Workers::default();
            workers.spawn("em0", waker, job).unwrap();
            let mut board = Board {
                root: Arc::new(Mutex::new(root)),
                memory,
                recorder,
                peer,
                io_port: 0,
                registers_gpa: 0,
                _workers: workers,
            };
            board.registers_gpa = u64::from(board.config_read(0x10));
            board.io_port = u16::try_from(board.config_read(0x14) & !3).unwrap();
            board.config_write(4, 7);
            board
        }

        fn config_read(&mut self, register: u32) -> u32 {
            let address = 0x8000_0000_u32 | 1 << 11 | register;
            assert_eq!(
                PioDevice::write(&mut self.root, 0, &address.to_le_bytes()),
                IoOutcome::Done
            );
            let mut data = [0; 4];
            assert_eq!(PioDevice::read(&mut self.root, 4, &mut data), IoOutcome::Done);
            u32::from_le_bytes(data)
        }

        fn config_write(&mut self, register: u32, value: u32) {
            self.config_read(register);
            let outcome = PioDevice::write(&mut self.root, 4, &value.to_le_bytes());
            assert_eq!(outcome, IoOutcome::Done);
        }

        fn read(&mut self, register: u32) -> u32 {
            let found = lock(&self.root)
                .find_memory(self.registers_gpa + u64::from(register), 4)
                .unwrap();
            let mut data = [0; 4];
            assert_eq!(found.read(&mut data), IoOutcome::Done);
            u32::from_le_bytes(data)
        }

        fn write(&mut self, register: u32, value: u32) {
            let found = lock(&self.root)
                .find_memory(self.registers_gpa + u64::from(register), 4)
                .unwrap();
            assert_eq!(found.write(&value.to_le_bytes()), IoOutcome::Done);
        }

        fn io_write(&mut self, offset: u16, value: u32) {
            let found = lock(&self.root).find_port(self.io_port + offset, 4).unwrap();
            assert_eq!(found.write(&value.to_le_bytes()), IoOutcome::Done);
        }

        /// As drivers do on `ifconfig up`: rings of eight, buffers of 2 KiB, interrupts for what they want.
        fn open(&mut self) {
            for n in 0..8_u64 {
                let descriptor = (RX_BUFFERS + n * 2048).to_le_bytes();
                let ram = self.memory.ram();
                ram.write_slice(&descriptor, GuestAddress(RX_RING + n * 16)).unwrap();
            }
            for (register, value) in [
                (reg::TDBAL, TX_RING),
                (reg::TDLEN, 128),
                (reg::TDT, 0),
                (reg::TDH, 0),
                (reg::TCTL, 0x0103_f0fa),
                (reg::RDBAL, RX_RING),
                (reg::RDLEN, 128),
                (reg::RDH, 0),
                (reg::RDT, 0),
                (reg::RCTL, 0x8002),
                (reg::RDT, 7),
                (reg::IMS, 0x9d),
            ] {
                self.write(register, u32::try_from(value).unwrap());
            }
        }
    }

    fn eventually(mut what: impl FnMut() -> bool) -> bool {
        let deadline = Instant::now() + Duration::from_secs(10);
        while !what() {
            if Instant::now() > deadline {
                return false;
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        true
    }

    #[test]
    fn drivers_find_the_device_its_io_bar_and_its_address() {
        let mut board = Board::new();
        assert_eq!(board.config_read(0), 0x100e_8086);
        assert_eq!(board.config_read(0x2c), 0x001e_8086);
        assert_eq!(board.config_read(0x34), 0, "no capabilities");
        assert_eq!(board.config_read(0x3c) >> 8, 1, "interrupt pin A");
        assert_eq!(board.registers_gpa % REGISTERS_LEN, 0);
        assert_eq!(board.read(reg::STATUS) & 2, 2, "link");
        assert_eq!(board.read(reg::RAL), u32::from_le_bytes([2, 0, 0, 0]));
        board.write(reg::IMS, 0x9d);
        // The reset that 82540 drivers do: by IOADDR and IODATA.
        board.io_write(0, reg::CTRL);
        board.io_write(4, 0x0414_0240);
        assert_eq!(board.read(reg::IMS), 0);
        assert_eq!(board.read(reg::CTRL) & 1 << 26, 0);
    }

    #[test]
    fn a_frame_leaves_with_the_tail_write_and_interrupts_by_level() {
        let mut board = Board::new();
        board.open();
        board
            .memory
            .ram()
            .write_slice(&[0x5a; 64], GuestAddress(TX_BUFFER))
            .unwrap();
        // Legacy descriptor of 64 bytes: end of packet, insert the checksum, report status.
        let mut descriptor = TX_BUFFER.to_le_bytes().to_vec();
        descriptor.extend([64, 0, 0, 0x0b, 0, 0, 0, 0]);
        board
            .memory
            .ram()
            .write_slice(&descriptor, GuestAddress(TX_RING))
            .unwrap();
        board.recorder.take();
        board.write(reg::TDT, 1);
        let mut sent = [0; 68];
        board.peer.read_exact(&mut sent).unwrap();
        assert_eq!(board.read(reg::TDH), 1, "taken before it left");
        assert_eq!(sent[4..], [0x5a; 64]);
        assert_eq!(board.recorder.take(), [Raised::Line(17, true)]);
        assert_eq!(board.config_read(4) & 1 << 19, 1 << 19, "status shows the interrupt");
        assert_eq!(board.read(reg::ICR) & 1, 1);
        assert_eq!(board.recorder.take(), [Raised::Line(17, false)]);
    }

    #[test]
    fn frames_from_the_wire_arrive_without_any_access_and_wait_for_buffers() {
        let mut board = Board::new();
        let mut frame = [0x77; 100];
        frame[..6].copy_from_slice(&MAC);
        let mut framed = 100_u32.to_be_bytes().to_vec();
        framed.extend(frame);
        for _ in 0..9 {
            board.peer.write_all(&framed).unwrap();
        }
        board.open();
        let status = |board: &Board, n: u64| {
            let mut byte = [0];
            let gpa = GuestAddress(RX_RING + n * 16 + 12);
            board.memory.ram().read_slice(&mut byte, gpa).unwrap();
            byte[0]
        };
        assert!(eventually(|| status(&board, 6) & 1 == 1), "seven buffers are filled");
        assert_eq!(status(&board, 7), 0);
        let mut stored = [0; 100];
        board
            .memory
            .ram()
            .read_slice(&mut stored, GuestAddress(RX_BUFFERS))
            .unwrap();
        assert_eq!(stored, frame);
        assert!(eventually(|| board.recorder.take().contains(&Raised::Line(17, true))));
        board.write(reg::RDT, 1);
        assert!(eventually(|| status(&board, 7) & 1 == 1), "the frame that waited");
    }

    /// A wire whose network stands still until it is told otherwise.
    struct Stuck {
        inside: mpsc::Sender<()>,
        go_on: mpsc::Receiver<()>,
        /// Whether it was told before it gave up.
        told: mpsc::Sender<bool>,
        socket: UnixStream,
    }

    impl FrameSink for Stuck {
        fn offloads(&self) -> Offloads {
            Offloads::default()
        }

        fn send(&mut self, _frames: &[TxFrame<'_>]) {
            self.inside.send(()).unwrap();
            let told = self.go_on.recv_timeout(Duration::from_secs(30)).is_ok();
            self.told.send(told).unwrap();
        }
    }

    impl AsFd for Stuck {
        fn as_fd(&self) -> BorrowedFd<'_> {
            self.socket.as_fd()
        }
    }

    impl Wire for Stuck {
        fn receive(&mut self, _deliver: &mut dyn FnMut(&[u8])) -> Result<usize, WireError> {
            Ok(0)
        }

        fn wait(&self, _timeout: Duration) -> Result<(), WireError> {
            Ok(())
        }

        fn name(&self) -> String {
            "stuck".to_owned()
        }

        fn mtu_max(&self) -> u16 {
            1500
        }
    }

    #[test]
    fn a_vcpu_reaches_every_register_while_the_network_stands_still() {
        let (socket, peer) = UnixStream::pair().unwrap();
        let (inside, is_inside) = mpsc::channel();
        let (tell, go_on) = mpsc::channel();
        let (told, was_told) = mpsc::channel();
        let stuck = Stuck {
            inside,
            go_on,
            told,
            socket,
        };
        let mut board = Board::on(Box::new(stuck), peer);
        board.open();
        let mut descriptor = TX_BUFFER.to_le_bytes().to_vec();
        descriptor.extend([64, 0, 0, 0x0b, 0, 0, 0, 0]);
        let ring = descriptor.repeat(2);
        board.memory.ram().write_slice(&ring, GuestAddress(TX_RING)).unwrap();
        board.write(reg::TDT, 1);
        is_inside.recv_timeout(Duration::from_secs(30)).unwrap();
        board.write(reg::TDT, 2);
        assert_eq!(board.read(reg::ICR) & 1, 1, "the first frame is reported");
        assert_eq!((board.read(reg::TDH), board.read(reg::TDT)), (1, 2));
        tell.send(()).unwrap();
        tell.send(()).unwrap();
        assert!(was_told.recv().unwrap(), "the vCPU waited for the network");
        assert!(eventually(|| board.read(reg::TDH) == 2));
        assert!(was_told.recv().unwrap());
    }

    #[test]
    fn nothing_reaches_memory_without_bus_master() {
        let mut board = Board::new();
        board.config_write(4, 3);
        board.open();
        let mut descriptor = TX_BUFFER.to_le_bytes().to_vec();
        descriptor.extend([64, 0, 0, 0x0b, 0, 0, 0, 0]);
        board
            .memory
            .ram()
            .write_slice(&descriptor, GuestAddress(TX_RING))
            .unwrap();
        board.write(reg::TDT, 1);
        assert_eq!(board.read(reg::TDH), 0);
        board.config_write(4, 7);
        assert!(eventually(|| board.read(reg::TDH) == 1), "what waited leaves");
    }
}
