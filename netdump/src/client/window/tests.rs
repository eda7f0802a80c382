use std::{vec, vec::Vec};

use super::*;

/// A window whose next packet has the number `seq`.
fn window_at(seq: u64) -> Window<Vec<u8>> {
    Window {
        base: seq,
        unsent: seq,
        next: seq,
        ..Window::new(vec![0; 1000], 1000, 64)
    }
}

fn message(window: &Window<Vec<u8>>, seq: u64) -> (Header, Vec<u8>) {
    let mut out = [0; 1100];
    let len = window.write(seq, &mut out).unwrap();
    let (header, payload) = Header::parse(&out[..len]).unwrap();
    (header, payload.to_vec())
}

#[test]
fn numbers_wrap_on_the_wire_and_nowhere_else() {
    let first = (1 << 32) - 3;
    let mut window = window_at(first);
    for number in 0..6u8 {
        window.push(Kind::Vmcore, u64::from(number) * 10, &[number; 10]);
    }
    for (seq, number) in (first..).zip(0..6u8) {
        assert_eq!(window.next_to_send(), Some(seq));
        let (header, payload) = message(&window, seq);
        assert_eq!(header.seqno.0, (u32::MAX - 2).wrapping_add(u32::from(number)));
        assert_eq!(payload, [number; 10]);
        assert!(!window.sent(seq, Instant::ZERO));
    }
    // Out of order over the wrap; those that were never sent, and those of the round before, are unknown.
    for (ack, known) in [
        (2, true),
        (3, false),
        (u32::MAX - 1, true),
        (u32::MAX - 3, false),
        (1, true),
        (0, true),
    ] {
        let outcome = window.acknowledge(Seqno(ack));
        assert_eq!(matches!(outcome, AckOutcome::New { .. }), known, "{ack}: {outcome:?}");
    }
    assert_eq!((window.base, window.unacknowledged()), (first, 2));
    assert!(matches!(
        window.acknowledge(Seqno(u32::MAX - 2)),
        AckOutcome::New { .. }
    ));
    assert!(matches!(window.acknowledge(Seqno(u32::MAX)), AckOutcome::New { .. }));
    assert!(window.is_empty() && window.bytes_free() == 1000);
    assert!(matches!(window.acknowledge(Seqno(u32::MAX)), AckOutcome::Again { .. }));
}

#[test]
fn bytes_survive_the_end_of_the_ring() {
    let mut window = window_at(1);
    for round in 0..50u8 {
        let seq = u64::from(round) + 1;
        window.push(Kind::Vmcore, 0, &[round; 300]);
        assert_eq!(message(&window, seq).1, [round; 300]);
        window.sent(seq, Instant::ZERO);
        if seq >= 3 {
            let oldest = seq - 2;
            assert_eq!(message(&window, oldest).1, [round - 2; 300]);
            window.acknowledge(Seqno(u32::from(round) - 1));
        }
    }
}

#[test]
fn sixty_four_packets_fill_the_window_and_a_full_window_takes_none() {
    let mut window = window_at(u64::from(u32::MAX) * 7);
    for number in 0..70 {
        window.push(Kind::Vmcore, number, &[1]);
    }
    assert_eq!((window.packets_free(), window.bytes_free()), (0, 1000 - 64));
    while let Some(seq) = window.next_to_send() {
        window.sent(seq, Instant::ZERO);
    }
    assert_eq!((window.in_flight(), window.unacknowledged()), (64, 64));
    let (lost, next) = window.time_out(Instant::from_nanos(5), Duration::from_nanos(5));
    assert_eq!(
        (lost, next, window.in_flight(), window.unacknowledged()),
        (64, None, 0, 64)
    );
    let first = window.next_to_send().unwrap();
    assert!(window.sent(first, Instant::from_nanos(5)));
    let (lost, next) = window.time_out(Instant::from_nanos(9), Duration::from_nanos(5));
    assert_eq!((lost, next), (0, Some(Instant::from_nanos(10))));
}
