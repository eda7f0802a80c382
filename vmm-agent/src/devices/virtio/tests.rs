//! The transport as a driver sees it: through configuration space and the BAR, as Linux's virtio_pci does it.
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use proptest::prelude::*;
use virtio_queue::desc::{RawDescriptor, split::Descriptor};
use virtio_queue::mock::MockSplitQueue;

use super::balloon::Balloon;
use super::block::Block;
use super::device::{F_EVENT_IDX, F_VERSION_1};
use super::entropy::Entropy;
use super::net::Net;
use super::queue::QueueSetup;
use super::rig::{Rig, SIZE, setup};
use super::{VirtioDevice, VirtioPci};
use crate::devices::IoOutcome;
use crate::devices::bus::{Shared, lock};
use crate::devices::pci::intx::{IntxLines, Raised, Recorder};
use crate::devices::pci::{PciRoot, test_access};
use crate::devices::worker::{Waker, Workers};
use crate::memory::{Bytes, GuestAddress, GuestMemory};
use crate::net::{UserConfig, UserWire};

/// GSI of device 1.
const GSI: u32 = 17;
const BUFFER: u64 = 0x1_0000;

/// An entropy device on a bus, with its worker.
struct Board {
    root: Shared<PciRoot>,
    memory: Arc<GuestMemory>,
    recorder: Arc<Recorder>,
    workers: Workers,
    bar: u64,
    /// Offsets in the BAR: common configuration, notifications, ISR, device configuration; by structure type.
    at: [u64; 6],
    msix_at: u32,
}

impl Board {
    fn new() -> Board {
        Board::with(Box::new(Entropy::open().unwrap()))
    }

    /// A board with this device in the place of the entropy device.
    fn with(device: Box<dyn VirtioDevice>) -> Board {
        let memory = Arc::new(GuestMemory::create(16).unwrap());
        let recorder = Arc::new(Recorder::default());
        let lines = IntxLines::new(recorder.clone());
        let waker = Waker::new().unwrap();
        let (function, job) = VirtioPci::new(device, memory.clone(), &lines, recorder.clone(), waker.clone()).unwrap();
        let function = Arc::new(Mutex::new(function));
        let mut root = PciRoot::new().unwrap();
        let place = root.add(function.clone()).unwrap();
        lock(&function).connect(place.gsi.unwrap());
        let mut workers = Workers::default();
        workers.spawn("entropy", waker, job).unwrap();
        let mut board = Board {
            root: Arc::new(Mutex::new(root)),
            memory,
            recorder,
            workers,
            bar: 0,
            at: [0; 6],
            msix_at: 0,
        };
        board.bar = u64::from(board.config_read(0x10));
        board.find_capabilities();
        board.config_write(4, 6);
        board
    }

    fn config_read(&mut self, register: u32) -> u32 {
        test_access::read(&mut self.root, register)
    }

    fn config_write(&mut self, register: u32, value: u32) {
        test_access::write(&mut self.root, register, value);
    }

    /// Walks the list of capabilities as a driver does.
    fn find_capabilities(&mut self) {
        let mut next = self.config_read(0x34) & 0xff;
        while next != 0 {
            let [id, after, _len, kind] = self.config_read(next).to_le_bytes();
            if id == 0x11 {
                self.msix_at = next;
            } else {
                assert_eq!(id, 9);
                assert_eq!(self.config_read(next + 4) & 0xff, 0, "all in BAR 0");
                self.at[usize::from(kind)] = u64::from(self.config_read(next + 8));
            }
            next = after.into();
        }
    }

    fn read(&mut self, offset: u64, len: usize) -> u64 {
        let found = lock(&self.root).find_memory(self.bar + offset, len).unwrap();
        let mut data = vec![0; len];
        assert_eq!(found.read(&mut data), IoOutcome::Done, "{offset:#x}");
        data.iter().rev().fold(0, |value, byte| value << 8 | u64::from(*byte))
    }

    fn write(&mut self, offset: u64, len: usize, value: u64) {
        let found = lock(&self.root).find_memory(self.bar + offset, len).unwrap();
        assert_eq!(found.write(&value.to_le_bytes()[..len]), IoOutcome::Done, "{offset:#x}");
    }

    fn common(&mut self, field: u64, len: usize) -> u64 {
        self.read(self.at[1] + field, len)
    }

    fn set_common(&mut self, field: u64, len: usize, value: u64) {
        self.write(self.at[1] + field, len, value);
    }

    fn status(&mut self) -> u64 {
        self.common(0x14, 1)
    }

    /// Waits for the end of the reset, as drivers must.
    fn reset(&mut self) {
        self.set_common(0x14, 1, 0);
        self.status_becomes(|status| status == 0);
    }

    fn status_becomes(&mut self, wanted: impl Fn(u64) -> bool) {
        let deadline = Instant::now() + Duration::from_secs(60);
        while !wanted(self.status()) {
            assert!(Instant::now() < deadline, "status {:#x}", self.status());
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    fn negotiate(&mut self, features: u64) {
        self.reset();
        self.set_common(0x14, 1, 1);
        self.set_common(0x14, 1, 3);
        for half in [0, 1] {
            self.set_common(0x08, 4, half);
            self.set_common(0x0c, 4, features >> (32 * half) & 0xffff_ffff);
        }
        self.set_common(0x14, 1, 11);
    }

    fn set_queue(&mut self, queue: &QueueSetup) {
        self.set_common(0x16, 2, 0);
        self.set_common(0x18, 2, queue.size.into());
        self.set_common(0x1a, 2, 0);
        for (field, gpa) in [
            (0x20, queue.descriptors_gpa),
            (0x28, queue.driver_gpa),
            (0x30, queue.device_gpa),
        ] {
            self.set_common(field, 4, gpa & 0xffff_ffff);
            self.set_common(field + 4, 4, gpa >> 32);
        }
        self.set_common(0x1c, 2, 1);
    }

    fn start(&mut self) {
        self.negotiate(F_VERSION_1);
        assert_eq!(self.status(), 11);
        self.set_queue(&setup(0));
        self.set_common(0x14, 1, 15);
        assert_eq!(self.status(), 15);
    }

    /// Makes a buffer of 16 bytes available as number `n` and notifies.
    fn offer(&mut self, n: u16) {
        let ram = self.memory.ram();
        let mut descriptor = BUFFER.to_le_bytes().to_vec();
        descriptor.extend([16, 0, 0, 0, 2, 0, 0, 0]);
        let queue = setup(0);
        ram.write_slice(&descriptor, GuestAddress(queue.descriptors_gpa))
            .unwrap();
        let slot = GuestAddress(queue.driver_gpa + 4 + u64::from(n % SIZE) * 2);
        ram.write_obj(0_u16, slot).unwrap();
        ram.write_obj(n + 1, GuestAddress(queue.driver_gpa + 2)).unwrap();
        self.write(self.at[2], 2, 0);
    }

    fn used(&self) -> u16 {
        self.memory
            .ram()
            .read_obj(GuestAddress(setup(0).device_gpa + 2))
            .unwrap()
    }

    fn waits_for(&self, raised: Raised) -> bool {
        let deadline = Instant::now() + Duration::from_secs(10);
        let mut seen = Vec::new();
        while Instant::now() < deadline {
            seen.extend(self.recorder.take());
            if seen.contains(&raised) {
                return true;
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        false
    }
}

#[test]
fn a_driver_finds_every_structure_and_the_features() {
    let mut board = Board::new();
    assert_eq!(board.config_read(0), 0x1044_1af4);
    assert_eq!(board.at, [0, 0, 0x3000, 0x1000, 0x2000, 0]);
    assert_eq!(board.msix_at, 0x40);
    assert_eq!(board.config_read(0x40) >> 16, 1, "two vectors");
    board.set_common(0, 4, 1);
    assert_eq!(board.common(4, 4) & 1, 1, "version 1");
    assert_eq!((board.common(0x12, 2), board.common(0x18, 2)), (1, 256));
}

#[test]
fn features_that_were_not_offered_are_refused() {
    let mut board = Board::new();
    for features in [0, F_EVENT_IDX, F_VERSION_1 | 1 << 40, F_VERSION_1 | 1] {
        board.negotiate(features);
        assert_eq!(board.status() & 8, 0, "{features:#x}");
    }
    board.negotiate(F_VERSION_1 | F_EVENT_IDX);
    assert_eq!(board.status() & 8, 8);
}

#[test]
fn used_buffers_interrupt_by_line_until_the_isr_is_read() {
    let mut board = Board::new();
    board.start();
    board.offer(0);
    assert!(board.waits_for(Raised::Line(GSI, true)));
    assert_eq!(board.used(), 1);
    assert_eq!(board.config_read(4) >> 19 & 1, 1, "status shows the interrupt");
    assert_eq!(board.read(board.at[3], 1), 1);
    assert!(board.waits_for(Raised::Line(GSI, false)));
    assert_eq!(board.read(board.at[3], 1), 0);
}

#[test]
fn used_buffers_interrupt_by_message_where_the_driver_wants_it() {
    let mut board = Board::new();
    board.start();
    for (n, word) in [0xfee0_0000_u64, 0, 0x55, 0].into_iter().enumerate() {
        board.write(0x4000 + n as u64 * 4, 4, word);
    }
    let msix_at = board.msix_at;
    board.config_write(msix_at, 0x8000_0000);
    board.offer(0);
    assert!(board.waits_for(Raised::Msi(0xfee0_0000, 0x55)));
    assert_eq!(board.read(board.at[3], 1), 0, "no line beside it");
    board.set_common(0x1a, 2, 7);
    assert_eq!(board.common(0x1a, 2), 0xffff, "a vector that is not there");
}

#[test]
fn without_bus_master_nothing_is_touched() {
    let mut board = Board::new();
    board.config_write(4, 2);
    board.start();
    board.offer(0);
    std::thread::sleep(Duration::from_millis(30));
    assert_eq!(board.used(), 0);
    board.config_write(4, 6);
    assert!(board.waits_for(Raised::Line(GSI, true)));
}

#[test]
fn a_reset_forgets_everything_and_the_device_works_again() {
    let mut board = Board::new();
    board.start();
    board.offer(0);
    assert!(board.waits_for(Raised::Line(GSI, true)));
    board.reset();
    assert!(board.waits_for(Raised::Line(GSI, false)));
    assert_eq!((board.common(0x1c, 2), board.common(0x20, 4)), (0, 0));
    board.offer(1);
    std::thread::sleep(Duration::from_millis(30));
    assert_eq!(board.used(), 1, "a reset device touches nothing");
    let zeroes = vec![0; 0x1_0000];
    board
        .memory
        .ram()
        .write_slice(&zeroes, GuestAddress(setup(0).descriptors_gpa))
        .unwrap();
    board.start();
    board.offer(0);
    assert!(board.waits_for(Raised::Line(GSI, true)));
}

/// A device whose backend does not answer as long as somebody else has the lock.
struct Hanging {
    entropy: Entropy,
    backend: Arc<Mutex<()>>,
    inside: std::sync::mpsc::Sender<()>,
}

impl VirtioDevice for Hanging {
    fn identity(&self) -> super::Identity {
        self.entropy.identity()
    }

    fn features(&self) -> u64 {
        0
    }

    fn queue_sizes(&self) -> Vec<u16> {
        self.entropy.queue_sizes()
    }

    fn config(&self) -> Vec<u8> {
        Vec::new()
    }

    fn work(
        &mut self,
        queues: &mut [super::queue::VirtQueue],
        memory: &GuestMemory,
    ) -> Result<crate::devices::worker::After, super::queue::Broken> {
        let _ = self.inside.send(());
        let _answered = lock(&self.backend);
        self.entropy.work(queues, memory)
    }
}

#[test]
fn a_reset_does_not_wait_for_a_backend_that_hangs_but_its_end_does() {
    let backend = Arc::new(Mutex::new(()));
    let (inside, entered) = std::sync::mpsc::channel();
    let mut board = Board::with(Box::new(Hanging {
        entropy: Entropy::open().unwrap(),
        backend: Arc::clone(&backend),
        inside,
    }));
    let held = lock(&backend);
    board.start();
    entered.recv_timeout(Duration::from_secs(60)).unwrap();
    // On a thread of its own: the vCPU that waits here for ever is what must not be.
    let (sender, returned) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        board.set_common(0x14, 1, 0);
        let during = board.status();
        board.set_common(0x14, 1, 1);
        let _ = sender.send((during, board));
    });
    let (during, mut board) = returned.recv_timeout(Duration::from_secs(60)).unwrap();
    assert_ne!(during, 0, "the reset has not ended");
    drop(held);
    board.status_becomes(|status| status == 0);
    board.start();
    board.offer(0);
    assert!(board.waits_for(Raised::Line(GSI, true)));
}

#[test]
fn queues_that_are_misplaced_need_a_reset() {
    let good = setup(0);
    for bad in [
        QueueSetup { size: 3, ..good },
        QueueSetup { size: 0, ..good },
        QueueSetup { size: 512, ..good },
        QueueSetup {
            descriptors_gpa: 8,
            ..good
        },
        QueueSetup {
            driver_gpa: 16 << 20,
            ..good
        },
        QueueSetup {
            device_gpa: u64::MAX - 3,
            ..good
        },
    ] {
        let mut board = Board::new();
        board.negotiate(F_VERSION_1);
        board.set_queue(&bad);
        board.status_becomes(|status| status & 64 != 0);
        board.set_common(0x14, 1, 15);
        board.write(board.at[2], 2, 0);
    }
}

#[test]
fn a_broken_ring_says_that_only_a_reset_helps() {
    let mut board = Board::new();
    board.start();
    let index = GuestAddress(setup(0).driver_gpa + 2);
    board.memory.ram().write_obj(1000_u16, index).unwrap();
    board.write(board.at[2], 2, 0);
    assert!(board.waits_for(Raised::Line(GSI, true)));
    assert_eq!(board.read(board.at[3], 1), 2, "a change of the configuration");
    assert_eq!(board.status() & 64, 64);
}

#[test]
fn a_frozen_guest_gets_nothing_until_it_is_thawed() {
    let mut board = Board::new();
    board.start();
    board.workers.pause(Duration::from_secs(5)).unwrap();
    board.offer(0);
    std::thread::sleep(Duration::from_millis(30));
    assert_eq!(board.used(), 0);
    board.workers.resume();
    assert!(board.waits_for(Raised::Line(GSI, true)));
}

#[test]
fn the_window_in_configuration_space_reaches_the_bar() {
    let mut board = Board::new();
    board.config_write(0x94, 0);
    board.config_write(0x98, 0x12);
    board.config_write(0x9c, 2);
    assert_eq!(board.config_read(0xa0), 1, "number of queues");
    board.config_write(0x98, 0x14);
    board.config_write(0x9c, 1);
    board.config_write(0xa0, 1);
    assert_eq!(board.status(), 1);
    board.config_write(0x98, u32::MAX);
    board.config_write(0xa0, 1);
    board.config_read(0xa0);
}

#[test]
fn the_mock_driver_is_served_through_indirect_tables() {
    let mut rig = Rig::new(Box::new(Balloon::new()), 0);
    let memory = Arc::new(GuestMemory::create(16).unwrap());
    let mock = MockSplitQueue::create(memory.ram(), GuestAddress(0x10_0000), SIZE);
    memory.ram().write_slice(&[1; 0x2000], GuestAddress(0x20_0000)).unwrap();
    memory
        .ram()
        .write_slice(
            &Descriptor::new(0x20_0000, 0x2000, 2, 0).addr().0.to_le_bytes(),
            GuestAddress(0x30_0000),
        )
        .unwrap();
    let table = [0x2000_u32.to_le_bytes(), [2, 0, 0, 0]].concat();
    memory.ram().write_slice(&table, GuestAddress(0x30_0008)).unwrap();
    let indirect = RawDescriptor::from(Descriptor::new(0x30_0000, 16, 4, 0));
    mock.add_desc_chains(&[indirect], 0).unwrap();
    let queue = QueueSetup {
        size: SIZE,
        descriptors_gpa: mock.desc_table_addr().0,
        driver_gpa: mock.avail_addr().0,
        device_gpa: mock.used_addr().0,
    };
    rig.queues[2].start(memory.ram(), &queue, false).unwrap();
    rig.queues[0].reset();
    rig.queues[1].reset();
    rig.device.work(&mut rig.queues, &memory).unwrap();
    let range = vmcore::MemoryRange {
        gpa: 0x20_0000,
        len_bytes: 0x2000,
    };
    assert_eq!(memory.data_extents(range).unwrap(), []);
}

fn device(kind: u8) -> Box<dyn VirtioDevice> {
    match kind {
        0 => Box::new(Entropy::open().unwrap()),
        1 => Box::new(Balloon::new()),
        2 => {
            let wire = UserWire::open(UserConfig::guest()).unwrap();
            Box::new(Net::new(Box::new(wire), [2, 0, 0, 0, 0, 1]))
        }
        _ => {
            let image = tempfile::NamedTempFile::new().unwrap();
            image.as_file().set_len(4096).unwrap();
            Box::new(Block::open(image.path(), "disk0").unwrap())
        }
    }
}

/// Descriptors whose fields are mostly near something that matters.
fn descriptor() -> impl Strategy<Value = (u64, u32, u16, u16)> {
    let gpa = prop_oneof![0_u64..16 << 20, (16_u64 << 20) - 64..(16 << 20) + 64, any::<u64>()];
    let len = prop_oneof![0_u32..64, 500_u32..1600, any::<u32>()];
    let flags = prop_oneof![0_u16..8, any::<u16>()];
    (gpa, len, flags, 0_u16..SIZE + 2)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Whatever lies in the rings: bounded work, no panic, and at most as many buffers back as were offered.
    #[test]
    fn no_ring_makes_a_device_hang_or_panic(
        kind in 0_u8..4,
        queue in 0_usize..3,
        descriptors in proptest::collection::vec(descriptor(), usize::from(SIZE)),
        heads in proptest::collection::vec(0_u16..SIZE + 2, 1..usize::from(SIZE)),
        index in prop_oneof![3 => Just(None), 1 => any::<u16>().prop_map(Some)],
    ) {
        let mut rig = Rig::new(device(kind), 0);
        let queue = queue % rig.queues.len();
        for (n, (gpa, len, flags, next)) in (0_u64..).zip(&descriptors) {
            let mut bytes = gpa.to_le_bytes().to_vec();
            bytes.extend(len.to_le_bytes());
            bytes.extend(flags.to_le_bytes());
            bytes.extend(next.to_le_bytes());
            rig.write(setup(queue).descriptors_gpa + n * 16, &bytes);
        }
        for head in &heads {
            rig.make_available(queue, *head);
        }
        if let Some(index) = index {
            rig.write(setup(queue).driver_gpa + 2, &index.to_le_bytes());
        }
        let result = rig.try_run();
        let used = rig.memory().ram().read_obj::<u16>(GuestAddress(setup(queue).device_gpa + 2));
        // The device may have written over its own rings, as the descriptors told it to.
        if result.is_ok() && kind == 0 && index.is_none() && descriptors.iter().all(|(gpa, ..)| *gpa > 16 << 20) {
            prop_assert!(usize::from(used.unwrap()) <= heads.len());
        }
    }
}
