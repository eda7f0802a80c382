//! Our ends and models of stock ends over a network that loses, repeats, reorders, delays and corrupts, under many
//! seeds. A failure prints its seed; `NETDUMP_SEED=n` runs that one alone, `NETDUMP_SEEDS=n` runs more of them.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test ends where it fails")]

use netdump::{
    AckPolicy, Client, ClientConfig, ClientError, Extents, Instant, Kind, SessionEvent, SessionLimits,
    server::SessionState,
    sim::{
        Link, LinkConfig, Network, Order, OurReceiver, OurSender, Plan, Receiver, Report, Rng, SendOutcome,
        StockConfig, StockReceiver, StockSender, StorageConfig, run,
    },
    time::Duration,
    wire::HERALD_PORT,
};

const MTUS: [u16; 7] = [576, 1076, 1280, 1500, 2100, 4148, 9000];
const STOCK_ORDERS: [Order; 4] = [Order::FreeBsd12, Order::FreeBsd13, Order::Sandvine, Order::TestClient];

/// Virtual time in which everything must be over.
const END_BY: Instant = Instant::from_nanos(4 * 3600 * 1_000_000_000);

const fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

fn setting(name: &str) -> Option<u64> {
    std::env::var(name).ok().and_then(|value| value.parse().ok())
}

/// Runs `test` under `count` seeds and says under which one it failed.
fn with_seeds(count: u64, test: impl Fn(u64) -> Result<(), String>) {
    let seeds = match setting("NETDUMP_SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..setting("NETDUMP_SEEDS").unwrap_or(count),
    };
    for seed in seeds {
        if let Err(what) = test(seed) {
            panic!("seed {seed}: {what}");
        }
    }
}

fn network(up: LinkConfig, down: LinkConfig, seed: u64) -> Network {
    Network {
        up: Link::new(up, seed ^ 0xa11ce),
        down: Link::new(down, seed ^ 0xb0b),
    }
}

fn clean_network() -> Network {
    network(LinkConfig::clean(), LinkConfig::clean(), 0)
}

/// One `pick` of the seed's generator.
fn pick<T: Copy>(rng: &mut Rng, from: &[T]) -> T {
    from[usize::try_from(rng.below(from.len() as u64)).unwrap()]
}

fn storage(rng: &mut Rng) -> StorageConfig {
    let instant = rng.chance(300_000);
    let write = Duration::from_micros(if instant { 0 } else { rng.below(8_000) });
    let commit = ms(if instant { 0 } else { rng.below(5_000) });
    StorageConfig {
        write: write / 2..write,
        commit: commit / 2..commit,
        ..StorageConfig::instant()
    }
}

/// What must hold however a run of our session ended.
fn check(report: Report, receiver: &OurReceiver, plan: &Plan) -> Result<(), String> {
    receiver.check_coverage().map_err(|violation| violation.to_string())?;
    if report.outcome == SendOutcome::Finished {
        let state = receiver.session().map(netdump::Session::state);
        let expected = (Some(SessionEvent::LingerOver), Some(SessionState::Ended));
        if (receiver.event(), state) != expected {
            return Err(format!(
                "finished, but the session ended with {:?} in {state:?}",
                receiver.event()
            ));
        }
        return plan.check_arrived(receiver).map_err(|violation| violation.to_string());
    }
    Ok(())
}

#[test]
fn our_client_completes_against_our_session_over_any_network() {
    with_seeds(80, |seed| {
        let mut rng = Rng::new(seed);
        let mtu = pick(&mut rng, &MTUS);
        // From time to time far beyond 4 GiB, where 32-bit bookkeeping would show.
        let base = pick(&mut rng, &[0, 0, (1 << 32) - 300_000, 1 << 40]);
        let plan = Plan::sparse(Order::FreeBsd13, base / 4096 * 4096, 4096 * rng.within(1..100), seed);
        let config = ClientConfig {
            window_packets: pick(&mut rng, &[64, 64, 16, 1]),
            ..ClientConfig::stock(mtu)
        };
        let mut sender = OurSender::new(config, pick(&mut rng, &["", "rack1"]), &plan).unwrap();
        let storage = storage(&mut rng);
        let port = pick(&mut rng, &[49152, HERALD_PORT]);
        let mut receiver = OurReceiver::new(SessionLimits::default(), storage, port, seed);
        let mut network = network(LinkConfig::faulty(&mut rng), LinkConfig::faulty(&mut rng), seed);
        let report =
            run(&mut sender, &mut receiver, &mut network, END_BY).map_err(|violation| violation.to_string())?;
        if report.outcome != SendOutcome::Finished {
            return Err(format!("{:?} after {}", sender.error(), report.sent_at));
        }
        if sender.client().stats().acked_bytes != plan.len_bytes() {
            return Err(format!("{:?} of {} bytes", sender.client().stats(), plan.len_bytes()));
        }
        check(report, &receiver, &plan)
    });
}

#[test]
fn our_client_completes_against_a_stock_receiver_over_any_network() {
    with_seeds(60, |seed| {
        let mut rng = Rng::new(seed);
        let plan = Plan::sparse(Order::FreeBsd13, 0, 4096 * rng.within(1..100), seed);
        let config = ClientConfig::stock(pick(&mut rng, &MTUS));
        let mut sender = OurSender::new(config, "", &plan).unwrap();
        let mut receiver = StockReceiver::new(50_000);
        let mut network = network(LinkConfig::faulty(&mut rng), LinkConfig::faulty(&mut rng), seed);
        let report =
            run(&mut sender, &mut receiver, &mut network, END_BY).map_err(|violation| violation.to_string())?;
        plan.check_arrived(&receiver)
            .map_err(|violation| violation.to_string())?;
        match (report.outcome, sender.error()) {
            (SendOutcome::Finished, _) => Ok(()),
            // It does not linger: if that one acknowledgement is lost, there is never another.
            (SendOutcome::Failed, Some(ClientError::Unfinished { .. })) => Ok(()),
            (SendOutcome::Failed, error) => Err(format!("{error:?} after {}", report.sent_at)),
        }
    });
}

#[test]
fn our_client_sends_a_stock_receiver_nothing_that_it_does_not_take() {
    for mtu in MTUS {
        let plan = Plan::sparse(Order::FreeBsd13, 0, 1 << 20, u64::from(mtu));
        let mut sender = OurSender::new(ClientConfig::stock(mtu), "", &plan).unwrap();
        let mut receiver = StockReceiver::new(50_000);
        let report = run(&mut sender, &mut receiver, &mut clean_network(), END_BY).unwrap();
        let stats = sender.client().stats();
        assert_eq!(
            (report.outcome, receiver.dropped()),
            (SendOutcome::Finished, 0),
            "MTU {mtu}"
        );
        assert_eq!(
            (stats.retransmitted_packets, stats.repeated_acks, stats.timeouts),
            (0, 0, 0),
            "MTU {mtu}"
        );
        plan.check_arrived(&receiver).unwrap();
    }
}

#[test]
fn stock_senders_without_the_shift_fault_complete_in_every_order_at_every_mtu() {
    with_seeds(25, |seed| {
        for order in STOCK_ORDERS {
            let mut rng = Rng::new(seed);
            let config = StockConfig {
                order,
                mtu: pick(&mut rng, &MTUS),
                shift_fault: false,
            };
            let plan = Plan::dense(order, 4096 * rng.within(1..60), seed);
            let path_len = pick(&mut rng, &[0, 9, 1000]);
            let path_len = if order == Order::TestClient {
                path_len.min(9)
            } else {
                path_len
            };
            let mut sender = StockSender::new(config, path_len, &plan);
            let storage = StorageConfig {
                commit: ms(0)..ms(2000),
                ..storage(&mut rng)
            };
            let mut receiver = OurReceiver::new(SessionLimits::default(), storage, 49152, seed);
            // Stop-and-wait with a second for each loss: few losses, or the run takes hours of virtual time.
            let lossy = |rng: &mut Rng| LinkConfig {
                burst_ppm: 0,
                rate: None,
                ..LinkConfig::faulty(rng)
            };
            let mut network = network(lossy(&mut rng), lossy(&mut rng), seed);
            let report = run(&mut sender, &mut receiver, &mut network, END_BY)
                .map_err(|violation| format!("{config:?}: {violation}"))?;
            if report.outcome != SendOutcome::Finished {
                return Err(format!("{config:?} failed at {}", report.sent_at));
            }
            check(report, &receiver, &plan).map_err(|what| format!("{config:?}: {what}"))?;
            let session = receiver.session().ok_or("no session")?;
            let none = Extents::new(1);
            let lost = session.received_extents().lost(plan.file_len, &none).count();
            if lost > 0 || (path_len > 0 && session.herald_payload().len() != path_len + 1) {
                return Err(format!(
                    "{config:?}: {lost} lost ranges, path of {}",
                    session.herald_payload().len()
                ));
            }
        }
        Ok(())
    });
}

#[test]
fn every_hole_of_a_stock_sender_with_the_shift_fault_is_known() {
    let holed = std::cell::Cell::new(0);
    with_seeds(8, |seed| {
        for order in [Order::FreeBsd12, Order::FreeBsd13, Order::Sandvine] {
            let mut rng = Rng::new(seed);
            let mtu = pick(&mut rng, &[576, 1280, 1500]);
            let config = StockConfig {
                order,
                mtu,
                shift_fault: true,
            };
            let plan = Plan::dense(order, 1 << 19, seed);
            let mut sender = StockSender::new(config, 0, &plan);
            let limits = SessionLimits {
                ack_policy: AckPolicy::Immediate,
                ..SessionLimits::default()
            };
            let mut receiver = OurReceiver::new(limits, StorageConfig::instant(), 49152, seed);
            let lossy = LinkConfig {
                loss_ppm: 10_000,
                ..LinkConfig::clean()
            };
            let mut network = network(lossy.clone(), lossy, seed);
            run(&mut sender, &mut receiver, &mut network, END_BY).map_err(|v| format!("{config:?}: {v}"))?;
            receiver.check_coverage().map_err(|v| format!("{config:?}: {v}"))?;
            let session = receiver.session().ok_or("no session")?;
            let none = Extents::new(1);
            let lost: u64 = session
                .received_extents()
                .lost(plan.file_len, &none)
                .map(|gap| gap.end - gap.start)
                .sum();
            let missing = plan.check_arrived(&receiver).is_err();
            if missing != (lost > 0) {
                return Err(format!(
                    "{config:?}: missing {missing}, but {lost} bytes are known to be lost"
                ));
            }
            holed.set(holed.get() + u32::from(missing));
        }
        Ok(())
    });
    assert!(
        holed.get() > 8 || setting("NETDUMP_SEED").is_some(),
        "only {} runs had holes",
        holed.get()
    );
}

#[test]
fn a_full_disk_is_never_acknowledged_and_the_sender_knows() {
    with_seeds(20, |seed| {
        let mut rng = Rng::new(seed);
        let plan = Plan::sparse(Order::FreeBsd13, 0, 1 << 20, seed);
        let full_after_bytes = rng.below(400_000);
        let mut sender = OurSender::new(ClientConfig::stock(1500), "", &plan).unwrap();
        let storage = StorageConfig {
            full_after_bytes,
            ..storage(&mut rng)
        };
        let mut receiver = OurReceiver::new(SessionLimits::default(), storage, 49152, seed);
        let mut network = network(LinkConfig::faulty(&mut rng), LinkConfig::faulty(&mut rng), seed);
        let report =
            run(&mut sender, &mut receiver, &mut network, END_BY).map_err(|violation| violation.to_string())?;
        let silent = matches!(sender.error(), Some(ClientError::Silent { .. }));
        let acked = sender.client().stats().acked_bytes;
        if report.outcome != SendOutcome::Failed || !silent || acked > full_after_bytes {
            return Err(format!(
                "{:?}, {acked} acknowledged of {full_after_bytes}",
                sender.error()
            ));
        }
        receiver.check_coverage().map_err(|violation| violation.to_string())
    });
}

#[test]
fn nobody_at_the_other_end_is_told_after_fifteen_seconds() {
    let plan = Plan::sparse(Order::FreeBsd13, 0, 4096, 1);
    let mut sender = OurSender::new(ClientConfig::stock(1500), "", &plan).unwrap();
    let mut receiver = StockReceiver::new(50_000);
    let dead = LinkConfig {
        loss_ppm: 1_000_000,
        ..LinkConfig::clean()
    };
    let report = run(
        &mut sender,
        &mut receiver,
        &mut network(dead, LinkConfig::clean(), 1),
        END_BY,
    )
    .unwrap();
    assert_eq!(report.outcome, SendOutcome::Failed);
    assert_eq!(
        sender.error(),
        Some(ClientError::NoAnswer {
            waited: Duration::from_secs(15)
        })
    );
    assert!(
        sender.client().stats().sent_packets >= 12,
        "{:?}",
        sender.client().stats()
    );
}

/// A run over a link that is dead in both directions for a while, from 100 ms on.
fn with_outage(lasts: Duration, seed: u64) -> (OurSender, OurReceiver, Report) {
    let plan = Plan::dense(Order::FreeBsd13, 4 << 20, seed);
    let start = Instant::ZERO + ms(100);
    let link = LinkConfig {
        delay: ms(5)..ms(6),
        outage: start..start + lasts,
        ..LinkConfig::clean()
    };
    let mut sender = OurSender::new(ClientConfig::stock(1500), "", &plan).unwrap();
    let mut receiver = OurReceiver::new(SessionLimits::default(), StorageConfig::instant(), 49152, seed);
    let report = run(
        &mut sender,
        &mut receiver,
        &mut network(link.clone(), link, seed),
        END_BY,
    )
    .unwrap();
    check(report, &receiver, &plan).unwrap();
    (sender, receiver, report)
}

#[test]
fn a_wire_that_is_gone_for_ten_seconds_is_survived() {
    let (sender, _, report) = with_outage(Duration::from_secs(10), 3);
    assert_eq!((report.outcome, sender.error()), (SendOutcome::Finished, None));
    assert!(
        report.sent_at < Instant::ZERO + Duration::from_secs(13),
        "{}",
        report.sent_at
    );
}

#[test]
fn a_wire_that_stays_away_ends_both_sides() {
    let (sender, receiver, report) = with_outage(Duration::from_secs(500), 4);
    assert!(matches!(sender.error(), Some(ClientError::Silent { waited, .. }) if waited.as_secs() == 12));
    assert!(
        report.sent_at < Instant::ZERO + Duration::from_secs(13),
        "{}",
        report.sent_at
    );
    assert_eq!(receiver.event(), Some(SessionEvent::Silent));
    assert!(report.over_at > report.sent_at && report.over_at < Instant::ZERO + Duration::from_secs(61));
}

/// Bytes a second that the client reaches over a network, with data of `len` bytes.
fn throughput(link: LinkConfig, config: ClientConfig, len: u64) -> (f64, OurSender) {
    let plan = Plan::dense(Order::FreeBsd13, len, 7);
    let mut sender = OurSender::new(config, "", &plan).unwrap();
    let mut receiver = OurReceiver::new(SessionLimits::default(), StorageConfig::instant(), 49152, 7);
    let report = run(&mut sender, &mut receiver, &mut network(link.clone(), link, 7), END_BY).unwrap();
    assert_eq!(report.outcome, SendOutcome::Finished);
    check(report, &receiver, &plan).unwrap();
    let seconds = report.sent_at.since(Instant::ZERO).as_secs_f64();
    (f64::from(u32::try_from(len).unwrap()) / seconds, sender)
}

#[test]
fn the_window_keeps_a_path_of_twenty_milliseconds_full() {
    let delay = ms(10)..ms(10);
    let link = LinkConfig {
        delay: delay.clone(),
        ..LinkConfig::clean()
    };
    // 64 KiB per 20 ms round trip would be 3.28 MB/s.
    let (rate, sender) = throughput(link, ClientConfig::stock(1500), 8 << 20);
    assert!(rate > 3_000_000.0, "{rate} bytes/s, {:?}", sender.client().stats());
    assert_eq!(sender.client().stats().retransmitted_packets, 0);
    // Stock clients fall below 2 MB/s at 0.1 % loss; one lost packet may cost a round trip here, not a second.
    let lossy = LinkConfig {
        delay,
        loss_ppm: 1_000,
        ..LinkConfig::clean()
    };
    let (rate, _) = throughput(lossy, ClientConfig::stock(1500), 8 << 20);
    assert!(rate > 2_400_000.0, "{rate} bytes/s at 0.1 % loss");
}

#[test]
fn losses_cost_little_more_than_what_was_lost() {
    let lossy = LinkConfig {
        loss_ppm: 20_000,
        ..LinkConfig::clean()
    };
    let (_, sender) = throughput(lossy, ClientConfig::stock(1500), 8 << 20);
    let stats = sender.client().stats();
    let spurious = stats.repeated_acks;
    assert!(stats.retransmitted_packets < stats.acked_packets / 20, "{stats:?}");
    assert!(spurious < stats.acked_packets / 40, "{stats:?}");
}

#[test]
fn reordering_teaches_the_client_patience() {
    let link = LinkConfig {
        delay: ms(5)..ms(8),
        ..LinkConfig::clean()
    };
    let (_, sender) = throughput(link, ClientConfig::stock(1500), 8 << 20);
    let stats = sender.client().stats();
    assert!(stats.retransmitted_packets < stats.acked_packets / 10, "{stats:?}");
}

#[test]
fn a_path_slower_than_every_initial_timeout_is_measured_and_not_flooded() {
    let link = LinkConfig {
        delay: ms(300)..ms(310),
        ..LinkConfig::clean()
    };
    let (_, sender) = throughput(link, ClientConfig::stock(1500), 4 << 20);
    let stats = sender.client().stats();
    assert!(stats.retransmitted_packets < 80, "{stats:?}");
    let round_trip = stats.round_trip.unwrap();
    assert!((600..640).contains(&round_trip.as_millis()), "{round_trip:?}");
}

#[test]
fn a_narrow_place_with_a_short_queue_does_not_collapse() {
    let narrow = LinkConfig {
        rate: Some(2_000_000),
        queue_bytes: 20_000,
        delay: ms(2)..ms(2),
        ..LinkConfig::clean()
    };
    let (rate, sender) = throughput(narrow, ClientConfig::stock(1500), 4 << 20);
    assert!(rate > 1_000_000.0, "{rate} bytes/s, {:?}", sender.client().stats());
}

#[test]
fn a_process_that_stood_still_asks_again_before_it_gives_up() {
    let mut out = [0; 2048];
    let mut client = Client::new(ClientConfig::stock(1500), "", vec![0; 65536], Instant::ZERO).unwrap();
    client.poll_transmit(Instant::ZERO, &mut out).unwrap();
    client.handle_datagram(Instant::ZERO, 49152, &[0, 0, 0, 1]);
    assert_eq!(client.push(Kind::Vmcore, 0, &[1; 4096]), 4096);
    while client.poll_transmit(Instant::ZERO, &mut out).is_some() {}
    let later = Instant::ZERO + Duration::from_secs(3600);
    client.handle_timeout(later);
    assert!(!client.is_over());
    assert!(client.poll_transmit(later, &mut out).is_some());
    for seqno in 2..5u32 {
        client.handle_datagram(later + ms(1), 49152, &seqno.to_be_bytes());
    }
    assert!(client.is_idle());
}

#[test]
fn a_receiver_with_a_session_that_nobody_begins_is_over() {
    let receiver = OurReceiver::new(SessionLimits::default(), StorageConfig::instant(), 49152, 0);
    assert!(receiver.is_over() && receiver.rejected() == 0);
}
