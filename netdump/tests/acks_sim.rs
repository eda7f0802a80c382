//! Paired acknowledgements against the stock clients with their fault, and everything against everything.
//! `NETDUMP_SEED=n` plays one seed alone, `NETDUMP_SEEDS=n` more of them.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test ends where it fails")]

use netdump::{
    AckPolicy, ClientConfig, DisplacedPage, Instant, SessionLimits,
    sim::{
        From, Link, LinkConfig, MTUS, Network, Order, OurIngest, OurReceiver, OurSender, Plan, Report, Restarted, Rng,
        Scenario, SendOutcome, Sender, StockConfig, StockSender, StorageConfig, long_dump, no_silent_hole, run,
    },
    time::Duration,
};

const END_BY: Instant = Instant::from_nanos(24 * 3600 * 1_000_000_000);
const FAULTY_13: StockConfig = StockConfig {
    order: Order::FreeBsd13,
    mtu: 1500,
    shift_fault: true,
};

/// Seeds to play: `count`, or what the environment says.
fn seeds(count: u64) -> std::ops::Range<u64> {
    let setting = |name| std::env::var(name).ok().and_then(|value| value.parse::<u64>().ok());
    match setting("NETDUMP_SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..setting("NETDUMP_SEEDS").unwrap_or(count),
    }
}

fn receiver(ack_policy: AckPolicy, seed: u64) -> OurReceiver {
    let limits = SessionLimits {
        ack_policy,
        ..SessionLimits::default()
    };
    OurReceiver::new(limits, StorageConfig::instant(), 49152, seed)
}

fn send(sender: &mut dyn Sender, receiver: &mut OurReceiver, link: &LinkConfig, seed: u64) -> Report {
    let mut network = Network {
        up: Link::new(link.clone(), seed ^ 0xa11ce),
        down: Link::new(link.clone(), seed ^ 0xb0b),
    };
    let report = run(sender, receiver, &mut network, END_BY).unwrap_or_else(|v| panic!("seed {seed}: {v}"));
    receiver.check_coverage().unwrap_or_else(|v| panic!("seed {seed}: {v}"));
    report
}

const fn lossy(loss_ppm: u32) -> LinkConfig {
    LinkConfig {
        loss_ppm,
        ..LinkConfig::clean()
    }
}

#[test]
fn at_one_percent_loss_paired_acks_leave_no_hole_where_immediate_ones_do() {
    let seeds = seeds(12);
    let (count, mut holed) = (seeds.end - seeds.start, 0);
    for seed in seeds {
        let plan = Plan::minidump(Order::FreeBsd13, 1 << 20, seed);
        let mut sender = StockSender::new(FAULTY_13, 0, &plan);
        let mut paired = receiver(AckPolicy::Paired, seed);
        let report = send(&mut sender, &mut paired, &lossy(10_000), seed);
        assert_eq!(report.outcome, SendOutcome::Finished, "seed {seed}");
        plan.check_arrived(&paired)
            .unwrap_or_else(|v| panic!("seed {seed}: {v}"));
        assert_eq!(paired.known_lost(plan.file_len), [], "seed {seed}");

        let mut sender = StockSender::new(FAULTY_13, 0, &plan);
        let mut immediate = receiver(AckPolicy::Immediate, seed);
        let report = send(&mut sender, &mut immediate, &lossy(10_000), seed);
        assert_eq!(report.outcome, SendOutcome::Finished, "seed {seed}");
        let holes = no_silent_hole(&immediate, &plan).unwrap_or_else(|what| panic!("seed {seed}: {what}"));
        holed += u64::from(!holes.is_empty());
    }
    assert!(
        holed * 10 >= count * 9,
        "only {holed} of {count} dumps had holes without pairing"
    );
}

#[test]
fn every_sender_completes_at_every_mtu_and_loss() {
    let orders = [Order::FreeBsd12, Order::FreeBsd13, Order::Sandvine, Order::TestClient];
    let stock = orders
        .into_iter()
        .flat_map(|order| [(Some(order), false), (Some(order), true)]);
    let senders: Vec<_> = stock.chain([(None, false)]).collect();
    for seed in seeds(1) {
        for mtu in MTUS {
            for loss_ppm in [0, 5_000, 10_000, 50_000] {
                for (order, shift_fault) in &senders {
                    let what = format!("seed {seed}, MTU {mtu}, {loss_ppm} ppm, {order:?}, fault {shift_fault}");
                    let plan = Plan::minidump(order.unwrap_or(Order::FreeBsd13), 100 * 1024, seed);
                    let mut sender: Box<dyn Sender> = match *order {
                        None => Box::new(OurSender::new(ClientConfig::stock(mtu), "", &plan).unwrap()),
                        Some(order) => {
                            let config = StockConfig {
                                order,
                                mtu,
                                shift_fault: *shift_fault,
                            };
                            Box::new(StockSender::new(config, 0, &plan))
                        }
                    };
                    let mut receiver = receiver(AckPolicy::Paired, seed);
                    let report = send(&mut *sender, &mut receiver, &lossy(loss_ppm), seed);
                    assert_eq!(report.outcome, SendOutcome::Finished, "{what}");
                    plan.check_arrived(&receiver).unwrap_or_else(|v| panic!("{what}: {v}"));
                }
            }
        }
    }
}

/// The time of a dump of 1 MiB in full bursts without losses, and the number of bursts.
fn time_of(config: StockConfig, link: &LinkConfig, policy: AckPolicy) -> (Duration, u32) {
    let plan = Plan::dense(config.order, 1 << 20, 1);
    let mut sender = StockSender::new(config, 0, &plan);
    let mut receiver = receiver(policy, 1);
    let report = send(&mut sender, &mut receiver, link, 1);
    plan.check_arrived(&receiver).unwrap();
    let bursts = u32::try_from(plan.writes.len()).unwrap() + 2;
    (report.sent_at.since(Instant::ZERO), bursts)
}

#[test]
fn without_losses_pairing_costs_at_most_one_tick_a_burst() {
    const TICK: Duration = Duration::from_micros(500);
    // On a slower link the packets behind the 32nd, for which the fault does not wait, take longer than a tick.
    for rate in [None, Some(110_000_000), Some(125_000_000), Some(1_250_000_000)] {
        let link = LinkConfig {
            rate,
            ..LinkConfig::clean()
        };
        for mtu in MTUS {
            for shift_fault in [false, true] {
                let config = StockConfig {
                    mtu,
                    shift_fault,
                    ..FAULTY_13
                };
                let (paired, bursts) = time_of(config, &link, AckPolicy::Paired);
                let (immediate, _) = time_of(config, &link, AckPolicy::Immediate);
                let more = paired.saturating_sub(immediate);
                assert!(
                    more <= TICK * bursts,
                    "{config:?}, {rate:?}: {paired:?} and {immediate:?}"
                );
                let no_difference = paired == immediate;
                assert!(shift_fault || no_difference, "{config:?}: {paired:?} and {immediate:?}");
            }
        }
    }
}

#[test]
fn our_client_is_never_held_and_another_one_with_a_window_completes() {
    for mtu in MTUS {
        let plan = Plan::dense(Order::FreeBsd13, 4 << 20, 1);
        let sender = || OurSender::new(ClientConfig::stock(mtu), "", &plan).unwrap();
        let mut ours = sender();
        let mut paired = receiver(AckPolicy::Paired, 1);
        send(&mut ours, &mut paired, &LinkConfig::clean(), 1);
        let stats = ours.client().stats();
        assert_eq!(
            (stats.retransmitted_packets, stats.overtaken_packets),
            (0, 0),
            "MTU {mtu}"
        );
        assert_eq!(paired.session().unwrap().stats().held_acks, 0, "MTU {mtu}");

        let mut other = sender().undeclared();
        let report = send(&mut other, &mut receiver(AckPolicy::Paired, 1), &LinkConfig::clean(), 1);
        let took = report.sent_at.since(Instant::ZERO);
        assert_eq!(report.outcome, SendOutcome::Finished, "MTU {mtu}");
        assert!(took < Duration::from_secs(3), "MTU {mtu}: {took:?}");
    }
}

#[test]
fn the_first_page_of_a_second_dump_is_put_where_it_belongs() {
    for seed in seeds(8) {
        // Shorter than the first dump, longer, and ending where that one did.
        for (old_len, file_len) in [(1 << 20, 1 << 19), (1 << 19, 1 << 20), (1 << 19, 1 << 19)] {
            let plan = Plan::minidump(Order::FreeBsd13, file_len, seed);
            let mut sender = StockSender::new(FAULTY_13, 0, &plan).after_a_dump_of(old_len);
            let mut receiver = receiver(AckPolicy::Paired, seed);
            let report = send(&mut sender, &mut receiver, &lossy(10_000), seed);
            assert_eq!(report.outcome, SendOutcome::Finished, "seed {seed}");
            let page = DisplacedPage {
                offset: old_len,
                len_bytes: 4096,
            };
            assert_eq!(receiver.repaired(), Some(page), "seed {seed}");
            plan.check_arrived(&receiver)
                .unwrap_or_else(|v| panic!("seed {seed}: {v}"));
            assert_eq!(receiver.known_lost(file_len), [], "seed {seed}");
        }
    }
}

#[test]
fn every_pairing_keeps_the_rules_under_any_seed() {
    for seed in seeds(300) {
        let scenario = Scenario::of_seed(seed);
        if let Err(what) = scenario.run() {
            panic!("seed {seed}: {what}\n{scenario:?}");
        }
    }
}

#[test]
fn the_seeds_draw_every_sender_and_every_interruption() {
    let scenarios: Vec<Scenario> = (0..600).map(Scenario::of_seed).collect();
    let stock = |scenario: &Scenario, wanted| matches!(scenario.from, From::Stock { order, .. } if order == wanted);
    for order in [Order::FreeBsd12, Order::FreeBsd13, Order::Sandvine, Order::TestClient] {
        assert!(scenarios.iter().any(|scenario| stock(scenario, order)));
    }
    assert!(
        scenarios
            .iter()
            .any(|scenario| matches!(scenario.from, From::Ours { .. }))
    );
    assert!(scenarios.iter().any(|scenario| scenario.cut_at.is_some()));
    assert!(scenarios.iter().any(|scenario| scenario.restart_at.is_some()));
    let second = |scenario: &Scenario| matches!(scenario.from, From::Stock { old_len: Some(_), .. });
    assert!(scenarios.iter().any(second));
}

/// In this run two bursts lose their last packet twice in a row, kilobytes apart, and so look like no stock client's.
#[test]
fn a_sender_that_lost_the_ends_of_two_bursts_is_still_a_stock_client() {
    let dump = long_dump(FAULTY_13, 8 << 20, 10_000, AckPolicy::Paired, 489).unwrap();
    assert!(dump.finished);
    assert_eq!((dump.holes, dump.missing_bytes), (0, 0));
    let without = long_dump(FAULTY_13, 8 << 20, 10_000, AckPolicy::Immediate, 489).unwrap();
    assert!(without.holes > 0);
}

/// A receiver that is killed in the middle of a dump and back within eight seconds: no dump ends by it, and none of the
/// acknowledgements that were held gets lost with their reason.
#[test]
fn a_receiver_that_was_killed_goes_on_and_leaves_no_hole() {
    let orders = [Order::FreeBsd12, Order::FreeBsd13, Order::Sandvine, Order::TestClient];
    for seed in seeds(20) {
        let mut rng = Rng::new(seed);
        let millis = Duration::from_millis;
        for mtu in [576, 1076, 1280, 1500, 9000] {
            for order in orders {
                let loss_ppm = if rng.chance(500_000) { 10_000 } else { 0 };
                let plan = Plan::minidump(order, 4096 * rng.within(20..200), seed);
                let mut sender = StockSender::new(
                    StockConfig {
                        order,
                        mtu,
                        shift_fault: true,
                    },
                    0,
                    &plan,
                );
                let down_at = Instant::ZERO + rng.duration(&(Duration::from_micros(500)..millis(20)));
                let storage = StorageConfig {
                    write: Duration::ZERO..millis(2),
                    ..StorageConfig::instant()
                };
                let ingest = OurIngest::new(SessionLimits::default(), storage, 49152, seed);
                let mut receiver = Restarted::new(ingest, down_at, rng.duration(&(millis(0)..millis(8000))));
                let link = lossy(loss_ppm);
                let mut network = Network {
                    up: Link::new(link.clone(), seed ^ 0xa11ce),
                    down: Link::new(link, seed ^ 0xb0b),
                };
                let what = format!("seed {seed}, MTU {mtu}, {order:?}, {loss_ppm} ppm, down at {down_at}");
                let report = run(&mut sender, &mut receiver, &mut network, END_BY)
                    .unwrap_or_else(|violation| panic!("{what}: {violation}"));
                assert_eq!(report.outcome, SendOutcome::Finished, "{what}");
                let sessions: Vec<_> = receiver.ingest().sessions().collect();
                assert_eq!(sessions.len(), 1, "{what}");
                plan.check_arrived(sessions[0])
                    .unwrap_or_else(|violation| panic!("{what}: {violation}"));
            }
        }
    }
}
