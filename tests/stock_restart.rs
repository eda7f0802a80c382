//! `coreferry serve` killed or stopped at any moment of a stock dump, and started again before the sender gives up.

mod common;
#[path = "stock/mod.rs"]
mod stock;

use std::{
    path::Path,
    sync::atomic::Ordering,
    thread,
    time::{Duration, Instant},
};

use common::Serve;
use stock::{Order, StockSender, dense_core, kernel_dump_header};

/// Stock clients give up after 12 s; a receiver may be away for so long.
const AWAY_MAX_MS: u64 = 7500;

/// The numbers of a run: the same ones for the same seed.
struct Dice(u64);

impl Dice {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (self.0 >> 33) % bound.max(1)
    }

    fn one_of<T: Copy>(&mut self, these: &[T]) -> T {
        these[usize::try_from(self.below(these.len() as u64)).expect("few")]
    }
}

/// The seed of this run: new each time, or the one to be repeated.
fn seed() -> u64 {
    let given = std::env::var("COREFERRY_SEED").ok().and_then(|seed| seed.parse().ok());
    let seed = given.unwrap_or_else(|| u64::from(std::process::id()) << 20 | u64::from(rand_by_clock()));
    eprintln!("seed {seed} (COREFERRY_SEED repeats it)");
    seed
}

fn rand_by_clock() -> u32 {
    let now = std::time::SystemTime::now().duration_since(std::time::SystemTime::UNIX_EPOCH);
    now.map_or(0, |now| now.subsec_micros())
}

/// Waits until a sender has sent so many packets.
fn wait_until_sent(sender: &StockSender, packets: u64, what: &str) {
    let began = Instant::now();
    while sender.sent.load(Ordering::Relaxed) < packets {
        assert!(began.elapsed() < common::PATIENCE, "{what}: the sender got stuck");
        thread::sleep(Duration::from_micros(50));
    }
}

/// How a receiver ends.
#[derive(Debug, Clone, Copy)]
enum End {
    /// As by a crash.
    Killed,
    /// As an operator ends it.
    Stopped,
}

/// Ends the receiver, and starts one on the same port after a while.
fn restarted(serve: Serve, dir: &Path, end: End, away: Duration) -> Serve {
    let listen = serve.netdump.to_string();
    match end {
        End::Killed => assert!(!serve.daemon.kill().success()),
        End::Stopped => assert!(serve.daemon.terminate().success()),
    }
    thread::sleep(away);
    Serve::start_with(dir, &["--listen", &listen])
}

/// One dump and one end of its receiver.
fn survives(seed: u64, end: End) {
    let mut dice = Dice(seed);
    let dir = common::temp_dir();
    let serve = Serve::start(dir.path());
    let order = dice.one_of(&[Order::FreeBsd13, Order::FreeBsd13, Order::FreeBsd12, Order::Sandvine]);
    let mtu = dice.one_of(&[1500, 1500, 1500, 576, 1076, 9000]);
    let core = dense_core(seed, 300 + dice.below(1500));
    let header = kernel_dump_header(core.len() as u64, "killhost", "none");
    let sender = StockSender::new(order, mtu, serve.netdump);
    // From before the herald until after FINISHED.
    let kill_at = dice.below(sender.packets(core.len()) as u64 + 1);
    let away = Duration::from_millis(dice.below(AWAY_MAX_MS));
    let what = format!(
        "seed {seed}: {order:?}, MTU {mtu}, {} bytes, {end:?} at packet {kill_at}, away {away:?}",
        core.len()
    );

    let sending = {
        let (sender, core, header) = (sender.clone(), core.clone(), header);
        thread::spawn(move || sender.dump(&core, &header))
    };
    wait_until_sent(&sender, kill_at, &what);
    let serve = restarted(serve, dir.path(), end, away);
    let sent = sending.join().expect("the sender does not panic");

    let log = serve.daemon.stderr_text();
    assert!(sent.is_ok(), "{what}: the sender gave up: {sent:?}\n{log}");
    let cores = serve.settled_cores(1);
    assert_eq!(cores[0]["state"], "complete", "{what}: {}\n{log}", cores[0]);
    let stored = serve.vmcore_path(cores[0]["id"].as_str().expect("an id"));
    let same = std::fs::read(&stored).expect("the stored core can be read") == core;
    assert!(same, "{what}: the stored core differs\n{log}");
}

#[test]
fn every_dump_survives_a_kill_at_a_random_moment() {
    all_survive(End::Killed);
}

#[test]
fn every_dump_survives_a_stop_at_a_random_moment() {
    all_survive(End::Stopped);
}

fn all_survive(end: End) {
    let (ends, at_once) = if std::env::var_os("COREFERRY_ALL").is_some() {
        (50, 10)
    } else {
        (6, 6)
    };
    let seed = seed();
    let began = Instant::now();
    let numbers: Vec<u64> = (0..ends).map(|number| seed.wrapping_add(number)).collect();
    for group in numbers.chunks(at_once) {
        thread::scope(|scope| {
            let runs: Vec<_> = group.iter().map(|seed| scope.spawn(|| survives(*seed, end))).collect();
            runs.into_iter()
                .for_each(|run| run.join().expect("the run that failed has said why"));
        });
    }
    eprintln!(
        "{end:?} {ends} times, all survived, in {:.1} s",
        began.elapsed().as_secs_f64()
    );
}

#[test]
fn several_sessions_survive_a_kill_and_a_stop_together() {
    let dir = common::temp_dir();
    let first = Serve::start(dir.path());
    let netdump = first.netdump;
    let senders: Vec<StockSender> = (0..8)
        .map(|index| {
            let order = Order::ALL[index % Order::ALL.len()];
            StockSender::new(order, 1500, netdump)
        })
        .collect();
    let cores: Vec<Vec<u8>> = (0..8).map(|index| dense_core(index, 1200)).collect();
    let serve = thread::scope(|scope| {
        let running: Vec<_> = senders
            .iter()
            .zip(&cores)
            .enumerate()
            .map(|(index, (sender, core))| {
                let header = kernel_dump_header(core.len() as u64, &format!("host-{index}"), "none");
                scope.spawn(move || sender.dump(core, &header))
            })
            .collect();
        let serve = [(300, End::Killed), (900, End::Stopped)]
            .into_iter()
            .fold(first, |serve, (part, end)| {
                for sender in &senders {
                    wait_until_sent(sender, part, "eight senders");
                }
                restarted(serve, dir.path(), end, Duration::from_millis(500))
            });
        for (index, sent) in running.into_iter().enumerate() {
            let sent = sent.join().expect("the sender does not panic");
            assert!(
                sent.is_ok(),
                "sender {index} gave up: {sent:?}\n{}",
                serve.daemon.stderr_text()
            );
        }
        serve
    });
    let listed = serve.settled_cores(8);
    for (index, core) in cores.iter().enumerate() {
        let host = format!("host-{index}");
        let mine = listed
            .iter()
            .find(|listed| listed["guest"] == host)
            .expect("each guest has its core");
        assert_eq!(mine["state"], "complete", "{mine}");
        let stored = serve.vmcore_path(mine["id"].as_str().expect("an id"));
        assert!(
            &std::fs::read(stored).expect("readable") == core,
            "{host}: the stored core differs"
        );
    }
}
