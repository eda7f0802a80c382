//! Which acknowledgements a session holds, for whom, and until when.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test ends where it fails")]

use netdump::{
    Accepted, AckPolicy, DisplacedPage, Header, Instant, Kind, Seqno, Session, SessionLimits, time::Duration,
};

/// Data bytes of a packet at an MTU of 1500, and of the last one of a full burst.
const LEN: u32 = 1448;
const LAST_LEN: u32 = 65_536 - 45 * LEN;

const fn ms(millis: u64) -> Instant {
    Instant::from_nanos(millis * 1_000_000)
}

/// A session with paired acknowledgements, and the time.
struct Bench {
    session: Session,
    now: Instant,
}

impl Bench {
    fn new() -> Self {
        Self::with_herald(1)
    }

    fn with_herald(seqno: u32) -> Self {
        let limits = SessionLimits {
            ack_policy: AckPolicy::Paired,
            ..SessionLimits::default()
        };
        let herald = Header {
            kind: Kind::Herald,
            seqno: Seqno(seqno),
            offset: 0,
            len: 0,
            aux2: 0,
        };
        let session = Session::new(limits, &herald, &[], ms(0));
        let mut bench = Self { session, now: ms(0) };
        assert_eq!(bench.acks(), [seqno]);
        bench
    }

    /// Sends a message, has it stored and returns what is acknowledged then.
    fn send(&mut self, kind: Kind, seqno: u32, offset: u64, bytes: &[u8]) -> Vec<u32> {
        let len = u32::try_from(bytes.len()).unwrap();
        let header = Header {
            kind,
            seqno: Seqno(seqno),
            offset,
            len,
            aux2: 0,
        };
        let datagram = [header.encode().as_slice(), bytes].concat();
        match self.session.handle_datagram(self.now, &datagram).unwrap() {
            Accepted::Data { ticket, .. } | Accepted::KernelHeader { ticket, .. } | Accepted::Key { ticket, .. } => {
                self.session.received(ticket).unwrap();
            }
            Accepted::Finished { ticket } => self.session.durable(self.now, ticket),
            Accepted::Herald | Accepted::Repeated => {}
        }
        self.acks()
    }

    /// Sends data of packet `index` of a burst that begins with number `start` at file offset `at`.
    fn data(&mut self, start: u32, at: u64, index: u32, full: u32, len: u32) -> Vec<u32> {
        let bytes = vec![7; usize::try_from(len).unwrap()];
        let offset = at + u64::from(index) * u64::from(full);
        self.send(Kind::Vmcore, start + index, offset, &bytes)
    }

    /// One packet of a full burst at an MTU of 1500.
    fn full(&mut self, start: u32, at: u64, index: u32) -> Vec<u32> {
        let len = if index == 45 { LAST_LEN } else { LEN };
        self.data(start, at, index, LEN, len)
    }

    fn wait(&mut self, millis: u64) -> Vec<u32> {
        self.now = self.now + Duration::from_millis(millis);
        self.session.handle_timeout(self.now);
        self.acks()
    }

    fn acks(&mut self) -> Vec<u32> {
        let mut out = [0; 1024];
        let len = self.session.poll_acks(&mut out);
        let acks = out[..len].chunks(4);
        acks.map(|ack| u32::from_be_bytes(ack.try_into().unwrap())).collect()
    }

    fn policy(&self) -> AckPolicy {
        self.session.ack_policy()
    }

    /// The header page that every minidump begins with: three packets.
    fn header_page(&mut self) {
        assert_eq!(self.data(2, 0, 0, LEN, LEN), []);
        assert_eq!(self.data(2, 0, 1, LEN, LEN), []);
        assert_eq!(self.data(2, 0, 2, LEN, 1200), [2, 3, 4]);
    }
}

#[test]
fn packets_that_share_a_bit_are_acknowledged_together_and_the_others_at_once() {
    let mut bench = Bench::new();
    bench.header_page();
    for index in 0..46 {
        let acks = bench.full(5, 4096, index);
        match index {
            0..14 => assert_eq!(acks, [], "{index}"),
            14..32 => assert_eq!(acks, [5 + index]),
            _ => assert_eq!(acks, [5 + index - 32, 5 + index]),
        }
    }
    assert_eq!(bench.session.stats().held_acks, 2 + 14);
    assert_eq!(
        (bench.policy(), bench.full(51, 4096 + 65_536, 0)),
        (AckPolicy::Paired, vec![])
    );
}

#[test]
fn a_lost_packet_holds_its_partner_and_nothing_else_until_it_comes() {
    let mut bench = Bench::new();
    bench.header_page();
    let acked: usize = (0..46)
        .filter(|index| *index != 33)
        .map(|index| bench.full(5, 4096, index).len())
        .sum();
    assert_eq!(acked, 44);
    // A second later the client sends both again.
    assert_eq!(bench.wait(1000), []);
    assert_eq!(bench.full(5, 4096, 1), []);
    assert_eq!(bench.full(5, 4096, 33), [6, 38]);
    // Acknowledgements may be lost, too.
    assert_eq!(bench.full(5, 4096, 33), [38]);
}

#[test]
fn short_bursts_are_released_by_their_last_packet_in_any_order() {
    let mut bench = Bench::new();
    assert_eq!(bench.data(2, 0, 2, LEN, 1200), []);
    assert_eq!(bench.data(2, 0, 1, LEN, LEN), [3, 4]);
    assert_eq!(bench.data(2, 0, 0, LEN, LEN), [2]);
    assert_eq!(bench.policy(), AckPolicy::Paired);
}

#[test]
fn a_burst_of_126_packets_is_held_in_groups_of_four() {
    let mut bench = Bench::new();
    for index in 0..8 {
        bench.data(2, 0, index, 524, if index == 7 { 428 } else { 524 });
    }
    let mut acked = Vec::new();
    for index in 0..126 {
        let acks = bench.data(10, 4096, index, 524, if index == 125 { 36 } else { 524 });
        match index {
            0..94 => assert_eq!(acks, [], "{index}"),
            // Groups of three: 30 and 31 have no member above 93 and 95.
            94 | 95 => assert_eq!(acks.len(), 3),
            _ => assert_eq!(acks.len(), 4, "{index}"),
        }
        acked.extend(acks);
    }
    acked.sort_unstable();
    assert_eq!(acked, (10..136).collect::<Vec<_>>());
}

#[test]
fn everything_but_data_is_acknowledged_at_once() {
    let mut bench = Bench::new();
    assert_eq!(bench.send(Kind::Key, 2, 0, &[1; 1448]), [2]);
    assert_eq!(bench.send(Kind::Key, 3, 1448, &[1; 1448]), [3]);
    assert_eq!(bench.send(Kind::Key, 4, 2896, &[1; 1200]), [4]);
    assert_eq!(bench.data(5, 0, 0, LEN, LEN), []);
    assert_eq!(bench.data(5, 0, 1, LEN, LEN), []);
    assert_eq!(bench.data(5, 0, 2, LEN, 1200), [5, 6, 7]);
    assert_eq!(bench.send(Kind::KernelHeader, 8, 0, &[1; 512]), [8]);
    assert_eq!(
        (bench.policy(), bench.send(Kind::Finished, 9, 0, &[])),
        (AckPolicy::Paired, vec![9])
    );
}

#[test]
fn packets_of_2048_bytes_share_no_bits_and_are_not_held() {
    let mut bench = Bench::new();
    assert_eq!(bench.data(2, 0, 0, 2048, 2048), [2]);
    assert_eq!(bench.policy(), AckPolicy::Immediate);
}

#[test]
fn a_sender_that_begins_with_number_zero_is_not_held() {
    let mut bench = Bench::with_herald(0);
    assert_eq!(bench.data(1, 0, 0, 1000, 1000), [1]);
}

#[test]
fn a_sender_that_goes_on_before_a_burst_is_over_is_not_held_any_more() {
    let mut bench = Bench::new();
    for index in (0..45).filter(|index| *index != 3) {
        bench.data(2, 1 << 20, index, LEN, LEN);
    }
    // The 46th packet of full length exceeds 64 KiB: this is a window. Packets 13 to 15 waited for 45 to 47, which the
    // first burst might have had behind a HERALD in parts; 35 waited for 3.
    let acks = bench.data(2, 1 << 20, 45, LEN, LEN);
    assert_eq!((acks, bench.policy()), (vec![15, 16, 17, 37, 47], AckPolicy::Immediate));

    let mut bench = Bench::new();
    bench.header_page();
    assert_eq!(bench.data(5, 4096, 1, LEN, LEN), []);
    assert_eq!(bench.data(5, 4096, 2, LEN, 1200), [6, 7]);
    assert_eq!(bench.data(8, 8192, 0, LEN, LEN), [8]);
    assert_eq!(bench.policy(), AckPolicy::Immediate);
}

#[test]
fn data_that_is_not_in_one_piece_is_no_burst() {
    let mut bench = Bench::new();
    assert_eq!(bench.data(2, 0, 0, 1024, 1024), []);
    assert_eq!(bench.data(2, 1 << 20, 1, 1024, 1024), [2, 3]);
    assert_eq!(bench.policy(), AckPolicy::Immediate);
}

#[test]
fn a_burst_without_a_visible_end_is_released_after_one_round_of_repeats() {
    let mut bench = Bench::new();
    for index in 0..4 {
        assert_eq!(bench.data(2, 0, index, 1024, 1024), []);
    }
    assert_eq!(bench.wait(999), []);
    for index in 0..4 {
        assert_eq!(bench.data(2, 0, index, 1024, 1024), []);
    }
    assert_eq!((bench.wait(99), bench.wait(1)), (vec![], vec![2, 3, 4, 5]));
    // The next burst begins behind it and ends with 64 KiB.
    let acks: Vec<u32> = (0..64)
        .flat_map(|index| bench.data(6, 4096, index, 1024, 1024))
        .collect();
    assert_eq!((acks.len(), bench.policy()), (64, AckPolicy::Paired));
}

#[test]
fn a_burst_whose_tail_was_lost_is_not_taken_for_a_shorter_one() {
    let mut bench = Bench::new();
    // Eight of 64 packets came: two blocks, which could be a whole burst.
    for index in 0..8 {
        assert_eq!(bench.data(2, 0, index, 1024, 1024), []);
    }
    assert_eq!(bench.wait(1000), []);
    let acks: Vec<u32> = (0..64).flat_map(|index| bench.data(2, 0, index, 1024, 1024)).collect();
    assert_eq!((acks.len(), bench.policy()), (64, AckPolicy::Paired));
}

#[test]
fn copies_made_by_the_network_are_no_round_of_repeats() {
    let mut bench = Bench::new();
    for index in [0, 1, 2, 3, 3] {
        assert_eq!(bench.data(2, 0, index, 1024, 1024), []);
    }
    assert_eq!(bench.wait(500), []);
}

#[test]
fn a_sender_of_one_odd_message_at_a_time_is_recognised_without_any_repeat() {
    let mut bench = Bench::new();
    assert_eq!(bench.data(2, 0, 0, 1000, 1000), []);
    assert_eq!((bench.wait(99), bench.wait(1)), (vec![], vec![2]));
    assert_eq!(bench.data(3, 1000, 0, 1000, 1000), []);
    assert_eq!(bench.wait(100), [3]);
    assert_eq!(
        (bench.data(4, 2000, 0, 1000, 1000), bench.policy()),
        (vec![4], AckPolicy::Immediate)
    );
}

#[test]
fn a_client_that_never_pauses_is_released_after_four_rounds() {
    let mut bench = Bench::new();
    for index in 0..4 {
        bench.data(2, 0, index, 1024, 1024);
    }
    bench.wait(60);
    for round in 0..8 {
        bench.wait(50);
        let acks: Vec<u32> = (0..4).flat_map(|index| bench.data(2, 0, index, 1024, 1024)).collect();
        // Rounds less than 100 ms apart count once. The packet that ends the wait is acknowledged twice.
        assert_eq!(acks.len(), [0, 0, 0, 0, 0, 0, 5, 4][round], "{round}");
    }
}

#[test]
fn nobody_waits_for_a_packet_that_never_comes() {
    let mut bench = Bench::new();
    let first: Vec<u32> = [0, 2]
        .into_iter()
        .flat_map(|index| bench.data(2, 0, index, LEN, LEN))
        .collect();
    assert_eq!(first, []);
    let mut acks = Vec::new();
    for _ in 0..8 {
        acks.extend(bench.wait(1000));
        acks.extend(bench.data(2, 0, 0, LEN, LEN));
        acks.extend(bench.data(2, 0, 2, LEN, LEN));
    }
    assert_eq!((acks, bench.policy()), (vec![2, 4, 2, 4], AckPolicy::Immediate));
}

#[test]
fn a_herald_part_that_was_answered_elsewhere_costs_nothing() {
    // Number 2 was the rest of a long path; the data begins with 3.
    let mut bench = Bench::new();
    for index in 0..7 {
        assert_eq!(bench.data(3, 0, index, 524, 524), []);
    }
    assert_eq!(bench.data(3, 0, 7, 524, 428), (3..11).collect::<Vec<_>>());
    let acks: Vec<u32> = (0..126)
        .flat_map(|index| bench.data(11, 4096, index, 524, if index == 125 { 36 } else { 524 }))
        .collect();
    assert_eq!((acks.len(), bench.policy()), (126, AckPolicy::Paired));
}

#[test]
fn what_is_held_leaves_when_the_caller_knows_better_or_finished_comes() {
    let mut bench = Bench::new();
    assert_eq!(bench.data(2, 0, 0, LEN, LEN), []);
    bench.session.acknowledge_at_once();
    assert_eq!((bench.acks(), bench.data(3, 1448, 0, LEN, LEN)), (vec![2], vec![3]));

    let mut bench = Bench::new();
    assert_eq!(bench.data(2, 0, 0, LEN, LEN), []);
    assert_eq!(bench.send(Kind::Finished, 3, 0, &[]), [2, 3]);
}

#[test]
fn sequence_numbers_wrap_within_a_burst() {
    let mut bench = Bench::new();
    // A key with a number far ahead moves the start there.
    bench.send(Kind::Key, 0x7fff_0000, 0, b"k");
    bench.send(Kind::Key, 0xfffe_0000, 0, b"k");
    bench.send(Kind::Key, u32::MAX - 20, 0, b"k");
    let start = u32::MAX - 19;
    let mut acked = 0;
    for index in 0..46_u32 {
        let len = if index == 45 { LAST_LEN } else { LEN };
        let offset = u64::from(index) * u64::from(LEN);
        let bytes = vec![1; usize::try_from(len).unwrap()];
        acked += bench
            .send(Kind::Vmcore, start.wrapping_add(index), offset, &bytes)
            .len();
    }
    assert_eq!((acked, bench.policy()), (46, AckPolicy::Paired));
}

fn page_of_a_minidump() -> Vec<u8> {
    let mut page = b"minidump FreeBSD/amd64\0\0".to_vec();
    page.resize(4096, 0xaa);
    page
}

/// Sends `page` in three packets with numbers from 2 on.
fn send_page(bench: &mut Bench, at: u64, page: &[u8]) {
    for (number, (index, part)) in (2..).zip(page.chunks(1448).enumerate()) {
        bench.send(Kind::Vmcore, number, at + index as u64 * 1448, part);
    }
}

#[test]
fn the_first_page_of_a_second_dump_is_reported_once_the_dump_goes_on_at_4096() {
    let (mut bench, old_end) = (Bench::new(), 300 << 20);
    send_page(&mut bench, old_end, &page_of_a_minidump());
    assert_eq!(bench.session.displaced_page(), None);
    assert_eq!(bench.session.received_extents().covered_bytes(), 4096);
    bench.full(5, 4096, 0);
    let page = DisplacedPage {
        offset: old_end,
        len_bytes: 4096,
    };
    assert_eq!(bench.session.displaced_page(), Some(page));
    let covered: Vec<_> = bench.session.received_extents().iter().collect();
    assert_eq!(covered.first(), Some(&(4096..4096 + 1448)));
    assert_eq!(covered.len(), 1);
    // A late copy is answered and not stored over the data of that place, which counts when it comes.
    assert_eq!(bench.send(Kind::Vmcore, 2, old_end, &page_of_a_minidump()[..1448]), [2]);
    assert_eq!(bench.session.received_extents().covered_bytes(), 1448);
    (1..46).for_each(|index| _ = bench.full(5, 4096, index));
    bench.data(51, old_end, 0, LEN, LEN);
    assert_eq!(bench.session.received_extents().covered_bytes(), 65_536 + 1448);
    assert_eq!(bench.session.displaced_page(), Some(page));
}

#[test]
fn a_copy_of_the_displaced_page_that_is_stored_late_covers_nothing() {
    let (mut bench, old_end) = (Bench::new(), 300 << 20);
    let page = page_of_a_minidump();
    send_page(&mut bench, old_end, &page);
    let header = Header {
        kind: Kind::Vmcore,
        seqno: Seqno(4),
        offset: old_end + 2896,
        len: 1200,
        aux2: 0,
    };
    let datagram = [header.encode().as_slice(), &page[2896..]].concat();
    let copy = bench.session.handle_datagram(ms(0), &datagram).unwrap();
    let Accepted::Data { ticket, .. } = copy else {
        panic!("{copy:?}")
    };
    bench.full(5, 4096, 0);
    bench.session.received(ticket).unwrap();
    assert_eq!(
        (bench.acks(), bench.session.received_extents().end()),
        (vec![4], 4096 + 1448)
    );
}

#[test]
fn a_page_is_not_displaced_if_offset_zero_comes_or_the_dump_goes_on_behind_it() {
    let mut bench = Bench::new();
    send_page(&mut bench, 1 << 20, &page_of_a_minidump());
    bench.data(5, (1 << 20) + 4096, 0, LEN, LEN);
    bench.data(6, 4096, 0, LEN, LEN);
    assert_eq!(bench.session.displaced_page(), None);
    assert_eq!(bench.session.received_extents().covered_bytes(), 4096 + 1448 * 2);

    let mut bench = Bench::new();
    send_page(&mut bench, 1 << 20, &page_of_a_minidump());
    bench.data(5, 4096, 0, LEN, LEN);
    assert!(bench.session.displaced_page().is_some());
    bench.data(6, 0, 0, LEN, LEN);
    assert_eq!(bench.session.displaced_page(), None);

    for (at, page) in [(0, page_of_a_minidump()), (1 << 20, vec![0xaa; 4096])] {
        let mut bench = Bench::new();
        send_page(&mut bench, at, &page);
        bench.data(5, 4096, 0, LEN, LEN);
        assert_eq!(bench.session.displaced_page(), None);
    }
}
