//! A guest's own dump from end to end in one thread: its memory, the emulated em, a receiver; time is counted, not read.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::cast_possible_truncation,
    reason = "a test ends where it fails, and its numbers are small"
)]

use std::collections::VecDeque;
use std::net::Ipv4Addr;

use guest_shim::boot::RamRange;
use guest_shim::self_dump::polled::{Bus, FRAME_LEN_MAX, PolledError, WINDOW_LEN, Window};
use guest_shim::self_dump::{
    CHUNK_LEN, CoreLayout, HEADERS_LEN, KernelHeader, Machine, SEND_BUFFER_LEN, Scratch, SelfDump, SelfDumpError,
};
use netdump::{Accepted, ClientStats, Header, Instant, Session, SessionLimits, Station, StationConfig, StationState};
use nic_emu::device::{Actions, Dma, DmaError, Em, EmConfig, FrameSink, Offloads, TxFrame};

const MIB: usize = 1 << 20;
const GUEST_MAC: [u8; 6] = [2, 0, 0, 0, 0, 1];
const GUEST: Ipv4Addr = Ipv4Addr::new(10, 0, 1, 157);
const RECEIVER: Ipv4Addr = Ipv4Addr::new(10, 0, 1, 236);
const RECEIVER_PORT: u16 = 20023;
/// RAM in two ranges with a gap, the second one at 16 MiB.
const LOW_LEN: usize = 3 * MIB;
const HIGH_GPA: usize = 16 * MIB;
const HIGH_LEN: usize = MIB + 8192;
/// Where the driver works.
const WINDOW_GPA: usize = MIB;

fn config(mac: [u8; 6], client: Ipv4Addr, server: Ipv4Addr, client_port: u16) -> StationConfig {
    StationConfig {
        mac,
        client,
        prefix_len: 24,
        gateway: None,
        server,
        client_port,
        mtu: 1500,
    }
}

/// RAM as the device and the guest reach it.
struct Ram(Vec<u8>);

impl Ram {
    fn at(&mut self, gpa: u64, len_bytes: usize) -> Result<&mut [u8], DmaError> {
        let start = usize::try_from(gpa).unwrap();
        self.0
            .get_mut(start..start + len_bytes)
            .ok_or(DmaError { gpa, len_bytes })
    }
}

impl Dma for Ram {
    fn read(&mut self, gpa: u64, buf: &mut [u8]) -> Result<(), DmaError> {
        buf.copy_from_slice(self.at(gpa, buf.len())?);
        Ok(())
    }

    fn write(&mut self, gpa: u64, bytes: &[u8]) -> Result<(), DmaError> {
        self.at(gpa, bytes.len())?.copy_from_slice(bytes);
        Ok(())
    }
}

/// The receiver: a host with a session, on a wire that loses some frames.
struct Receiver {
    station: Station,
    session: Option<Session>,
    file: Vec<u8>,
    kernel_header: Vec<u8>,
    finished: bool,
    /// Answers nothing.
    dead: bool,
    /// Every frame of this number is lost.
    lost_every: Option<usize>,
    frames: usize,
    now: Instant,
    outbox: VecDeque<Vec<u8>>,
}

impl Receiver {
    fn new() -> Self {
        let own = config([2, 0, 0, 0, 0, 2], RECEIVER, GUEST, RECEIVER_PORT);
        Self {
            station: Station::new(own, Instant::ZERO).unwrap(),
            session: None,
            file: Vec::new(),
            kernel_header: Vec::new(),
            finished: false,
            dead: false,
            lost_every: None,
            frames: 0,
            now: Instant::ZERO,
            outbox: VecDeque::new(),
        }
    }

    fn is_lost(&mut self) -> bool {
        self.frames += 1;
        self.dead || self.lost_every.is_some_and(|every| self.frames.is_multiple_of(every))
    }

    fn take(&mut self, frame: &[u8]) {
        if self.is_lost() {
            return;
        }
        let datagram = self
            .station
            .handle_frame(self.now, frame)
            .map(|udp| udp.payload.to_vec());
        if let Some(datagram) = datagram {
            assert!(
                datagram.len() <= 1472,
                "one datagram for each packet, not a burst of them"
            );
            self.hear(&datagram);
        }
        self.answer();
    }

    fn hear(&mut self, datagram: &[u8]) {
        let Some(session) = &mut self.session else {
            let (header, payload) = Header::parse(datagram).unwrap();
            self.session = Some(Session::new(SessionLimits::default(), &header, payload, self.now));
            return;
        };
        let (place, ticket, offset, bytes) = match session.handle_datagram(self.now, datagram) {
            Ok(Accepted::Data {
                ticket, offset, bytes, ..
            }) => (&mut self.file, ticket, offset, bytes),
            Ok(Accepted::KernelHeader {
                ticket, offset, bytes, ..
            }) => (&mut self.kernel_header, ticket, offset, bytes),
            Ok(Accepted::Finished { ticket }) => {
                session.durable(self.now, ticket);
                self.finished = true;
                return;
            }
            _ => return,
        };
        let start = usize::try_from(offset).unwrap();
        place.resize(place.len().max(start + bytes.len()), 0);
        place[start..start + bytes.len()].copy_from_slice(bytes);
        session.received(ticket).unwrap();
    }

    /// ARP, and acknowledgements one by one.
    fn answer(&mut self) {
        let mut frame = [0; 2048];
        while let Some(len) = self.station.poll_frame(self.now, &mut frame) {
            self.outbox.push_back(frame[..len].to_vec());
        }
        if self.station.state() != StationState::Ready {
            return;
        }
        let Some(session) = &mut self.session else { return };
        session.handle_timeout(self.now);
        let mut acks = [0; 256];
        loop {
            let len = session.poll_acks(&mut acks);
            if len == 0 {
                return;
            }
            for ack in acks[..len].chunks(4) {
                let len = self.station.encapsulate(20024, ack, &mut frame).unwrap();
                self.outbox.push_back(frame[..len].to_vec());
            }
        }
    }
}

impl FrameSink for Receiver {
    fn offloads(&self) -> Offloads {
        Offloads::default()
    }

    fn send(&mut self, frames: &[TxFrame<'_>]) {
        for frame in frames {
            self.take(frame.bytes);
        }
    }
}

/// A guest that has just panicked.
struct Guest {
    em: Em,
    ram: Ram,
    receiver: Receiver,
    now_ns: u64,
}

impl Guest {
    fn new(receiver: Receiver) -> Self {
        let mut em = Em::new(EmConfig::new(GUEST_MAC));
        em.set_bus_master(true);
        let mut ram = vec![0; HIGH_GPA + HIGH_LEN];
        for (at, byte) in ram.iter_mut().enumerate() {
            *byte = (at.wrapping_mul(2_654_435_761) >> 13) as u8;
        }
        Self {
            em,
            ram: Ram(ram),
            receiver,
            now_ns: 0,
        }
    }

    fn act(&mut self, actions: Actions) {
        while actions.transmit && self.em.transmit_pending() {
            self.em.transmit(self.now_ns, &mut self.ram, &mut self.receiver);
        }
    }

    fn ranges() -> [RamRange; 2] {
        [(0, LOW_LEN), (HIGH_GPA, HIGH_LEN)].map(|(gpa, len)| RamRange {
            gpa: gpa as u64,
            len_bytes: len as u64,
        })
    }

    fn dump(&mut self) -> Result<ClientStats, SelfDumpError> {
        let plan = SelfDump {
            station: config(GUEST_MAC, GUEST, RECEIVER, 20024),
            herald_port: RECEIVER_PORT,
            window: Window {
                gpa: WINDOW_GPA as u64,
                len_bytes: WINDOW_LEN as u64,
            },
            layout: CoreLayout::new(&Self::ranges()),
            header: KernelHeader {
                hostname: "guest",
                version: "a kernel\n",
                panic: "why",
            },
        };
        let (mut send_buffer, mut chunk) = ([0; SEND_BUFFER_LEN], [0; CHUNK_LEN]);
        let mut frame = [0; FRAME_LEN_MAX];
        let scratch = Scratch {
            send_buffer: &mut send_buffer,
            chunk: &mut chunk,
            frame: &mut frame,
        };
        plan.run(self, scratch)
    }
}

impl Bus for Guest {
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
        self.ram.read(gpa, buf).unwrap();
    }

    fn write_memory(&mut self, gpa: u64, bytes: &[u8]) {
        self.ram.write(gpa, bytes).unwrap();
    }
}

impl Machine for Guest {
    fn now(&mut self) -> Instant {
        self.now_ns += 10_000;
        Instant::from_nanos(self.now_ns)
    }

    fn read_ram(&mut self, gpa: u64, buf: &mut [u8]) {
        self.ram.read(gpa, buf).unwrap();
    }

    /// Time passes, and the wire brings what the receiver has sent.
    fn pause(&mut self) {
        self.now_ns += 100_000;
        self.receiver.now = Instant::from_nanos(self.now_ns);
        self.em.handle_timeout(self.now_ns);
        self.receiver.answer();
        while let Some(frame) = self.receiver.outbox.front().cloned() {
            if !self.receiver.is_lost() && self.em.receive(self.now_ns, &mut self.ram, &[&frame]) == 0 {
                return;
            }
            self.receiver.outbox.pop_front();
        }
    }
}

/// The file must hold all of RAM as it is now, but for what the driver has written since.
fn is_the_memory(guest: &Guest) {
    let file = &guest.receiver.file;
    assert_eq!(file.len(), HEADERS_LEN + LOW_LEN + HIGH_LEN);
    let (low, high) = file[HEADERS_LEN..].split_at(LOW_LEN);
    let ram = &guest.ram.0;
    assert!(low[..WINDOW_GPA] == ram[..WINDOW_GPA]);
    let behind = WINDOW_GPA + WINDOW_LEN;
    assert!(low[behind..] == ram[behind..LOW_LEN]);
    assert!(high == &ram[HIGH_GPA..]);
}

#[test]
fn all_ram_arrives_behind_elf_headers_and_the_receiver_confirms_it() {
    let mut guest = Guest::new(Receiver::new());
    let stats = guest.dump().unwrap();

    assert!(guest.receiver.finished);
    is_the_memory(&guest);
    let len = (HEADERS_LEN + LOW_LEN + HIGH_LEN) as u64;
    assert_eq!(stats.acked_bytes, len + 512);
    assert_eq!(stats.retransmitted_packets, 0);

    let file = &guest.receiver.file;
    let word = |at: usize| u64::from_le_bytes(file[at..at + 8].try_into().unwrap());
    assert_eq!(file[..8], *b"\x7fELF\x02\x01\x01\0");
    assert_eq!(file[16..20], [4, 0, 62, 0]);
    assert_eq!((word(32), file[54], file[56]), (64, 56, 2));
    let [low, high] = Guest::ranges();
    for (at, range, offset) in [(64, low, HEADERS_LEN), (120, high, HEADERS_LEN + LOW_LEN)] {
        assert_eq!(word(at), 1 | 7 << 32);
        let found = [8, 24, 32, 40].map(|field| word(at + field));
        assert_eq!(found, [offset as u64, range.gpa, range.len_bytes, range.len_bytes]);
    }
    let header = &guest.receiver.kernel_header;
    let words = header
        .chunks(4)
        .map(|word| u32::from_be_bytes(word.try_into().unwrap()));
    assert_eq!((header.len(), words.fold(0, |parity, word| parity ^ word)), (512, 0));
    assert_eq!(header[40..48], len.to_be_bytes());
    assert_eq!(header[320..324], *b"why\0");
}

#[test]
fn frames_that_are_lost_come_again() {
    let mut guest = Guest::new(Receiver {
        lost_every: Some(97),
        ..Receiver::new()
    });
    let stats = guest.dump().unwrap();
    assert!(stats.retransmitted_packets > 0, "{stats:?}");
    assert!(guest.receiver.finished);
    is_the_memory(&guest);
}

#[test]
fn a_receiver_that_is_not_there_ends_the_dump() {
    let mut guest = Guest::new(Receiver {
        dead: true,
        ..Receiver::new()
    });
    assert_eq!(guest.dump(), Err(SelfDumpError::NoNextHop { who: RECEIVER }));
}

#[test]
fn a_card_that_is_unplugged_ends_the_dump() {
    let mut guest = Guest::new(Receiver::new());
    guest.em.set_link(0, false);
    assert!(matches!(
        guest.dump(),
        Err(SelfDumpError::Driver(PolledError::NoLink { .. }))
    ));
}
