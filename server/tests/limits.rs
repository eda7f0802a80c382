//! The limits of the receiver: each keeps what it bounds, is counted, and hurts nobody else.
#![allow(clippy::unwrap_used, reason = "in helpers of tests, a failure is to end the test")]

mod sender;

use std::path::Path;
use std::time::Duration;

use api::{CoreService as _, CoreState, CoreSummary};
use sender::Sender;
use server::{Limits, Rate, Receiver, ReceiverConfig, Share};

const PATIENCE: Duration = Duration::from_secs(20);
/// How long nobody answers to somebody who is refused.
const NO_ANSWER: Duration = Duration::from_millis(300);

fn start(dir: &Path, limits: Limits, sessions_max: usize) -> Receiver {
    let mut config = ReceiverConfig::new(dir);
    config.listen = vec!["127.0.0.1:0".parse().unwrap()];
    config.limits = limits;
    config.rules.sessions_max = sessions_max;
    config.rules.silent_after = Duration::from_secs(2);
    config.rules.silent_after_ours = Duration::from_secs(2);
    config.rules.linger = Duration::from_millis(100);
    Receiver::start(config).unwrap()
}

/// How often something was refused for this reason.
fn refused(receiver: &Receiver, reason: &str) -> u64 {
    let metrics = receiver.service().metrics();
    let row = format!("coreferry_refused_total{{reason=\"{reason}\"}} ");
    let count = metrics.lines().find_map(|line| line.strip_prefix(&row));
    count
        .unwrap_or_else(|| panic!("no {reason} in {metrics}"))
        .parse()
        .unwrap()
}

fn cores(receiver: &Receiver, count: usize) -> Vec<CoreSummary> {
    receiver.wait_for_cores(count, PATIENCE).expect("cores within the time")
}

fn entries(dir: &Path) -> usize {
    std::fs::read_dir(dir).unwrap().count()
}

#[test]
fn a_dump_may_be_as_long_as_dump_max_and_no_longer() {
    let dir = tempfile::tempdir().unwrap();
    let limits = Limits {
        dump_max: Share::Bytes(8192),
        ..Limits::default()
    };
    let receiver = start(dir.path(), limits, 10);
    let mut sender = Sender::connect(receiver.netdump_addr(), b"");
    sender.data(0, &[1; 4096]);
    sender.data(4096, &[2; 4096]);
    assert!(!sender.try_data(8192, &[3; 1]), "one byte beyond was acknowledged");
    assert!(
        !sender.try_data(u64::MAX - 10, &[3; 100]),
        "an end beyond 2^64 was acknowledged"
    );
    assert_eq!(refused(&receiver, "dump-bytes"), 2);
    let core = cores(&receiver, 1).remove(0);
    assert_eq!((core.state, core.stored_bytes), (CoreState::Aborted, 8192));
}

#[test]
fn a_guest_may_store_as_much_as_guest_max_and_others_are_not_concerned() {
    let dir = tempfile::tempdir().unwrap();
    let limits = Limits {
        guest_max: Share::Bytes(300_000),
        free_min: Share::Bytes(0),
        ..Limits::default()
    };
    let receiver = start(dir.path(), limits, 10);
    let to = receiver.netdump_addr();
    let mut first = Sender::try_connect("127.0.0.2", to, PATIENCE).unwrap();
    first.data(0, &vec![1; 200_000]);
    first.finish();
    cores(&receiver, 1);
    let mut second = Sender::try_connect("127.0.0.2", to, PATIENCE).unwrap();
    assert!(
        !second.try_data(0, &[2; 8192]),
        "the records alone are too much by then"
    );
    assert!(refused(&receiver, "guest-bytes") >= 1);
    let mut other = Sender::try_connect("127.0.0.3", to, PATIENCE).unwrap();
    other.data(0, &vec![3; 150_000]);
    other.finish();
    assert_eq!(cores(&receiver, 2).len(), 2);

    // Somebody makes room by hand: the next dump finds it.
    std::fs::remove_dir_all(dir.path().join("cores")).unwrap();
    std::thread::sleep(server::limits::RECOUNT_AFTER);
    let mut third = Sender::try_connect("127.0.0.2", to, PATIENCE).unwrap();
    third.data(0, &vec![4; 100_000]);
}

#[test]
fn all_cores_may_take_total_max_and_what_came_until_then_is_kept() {
    let dir = tempfile::tempdir().unwrap();
    let limits = Limits {
        total_max: Share::Bytes(300_000),
        free_min: Share::Bytes(0),
        ..Limits::default()
    };
    let receiver = start(dir.path(), limits, 10);
    let mut sender = Sender::connect(receiver.netdump_addr(), b"");
    let stored = (0..100)
        .take_while(|page| sender.try_data(page * 4096, &[1; 4096]))
        .count();
    let stored_bytes = stored as u64 * 4096;
    assert!((200_000..=300_000).contains(&stored_bytes), "{stored_bytes}");
    assert_eq!(refused(&receiver, "total-bytes"), 1);
    let core = cores(&receiver, 1).remove(0);
    assert_eq!((core.state, core.stored_bytes), (CoreState::Aborted, stored_bytes));
    let info = receiver.service().info(&core.id).unwrap();
    assert!(
        info.reason.as_deref().is_some_and(|why| why.contains("total-max")),
        "{info:?}"
    );
}

#[test]
fn a_reserve_that_is_not_free_is_not_touched_and_no_file_is_made() {
    let dir = tempfile::tempdir().unwrap();
    let limits = Limits {
        free_min: Share::Percent(100),
        ..Limits::default()
    };
    let receiver = start(dir.path(), limits, 10);
    let mut sender = Sender::connect(receiver.netdump_addr(), b"");
    assert!(!sender.try_data(0, &[1; 4096]));
    assert_eq!(refused(&receiver, "free-space"), 1);
    assert_eq!(entries(&dir.path().join("spool")), 0);
    assert_eq!(entries(&dir.path().join("cores")), 0);
}

#[test]
fn sessions_beyond_the_number_are_refused_until_one_ends() {
    let dir = tempfile::tempdir().unwrap();
    let receiver = start(dir.path(), Limits::default(), 2);
    let to = receiver.netdump_addr();
    let mut running: Vec<Sender> = (0..2).map(|_| Sender::connect(to, b"")).collect();
    running.iter_mut().for_each(|sender| sender.data(0, &[1; 4096]));
    assert!(Sender::try_connect("127.0.0.1", to, NO_ANSWER).is_none());
    assert!(refused(&receiver, "sessions") >= 1);
    running.iter_mut().for_each(Sender::finish);
    assert!(
        Sender::herald_until_answered("127.0.0.1", to, 20).is_some(),
        "places were free again"
    );
}

#[test]
fn half_open_sessions_give_way_to_whoever_comes_again() {
    let dir = tempfile::tempdir().unwrap();
    let limits = Limits {
        half_open_max: 3,
        ..Limits::default()
    };
    let receiver = start(dir.path(), limits, 100);
    let to = receiver.netdump_addr();
    let mut dumping = Sender::connect(to, b"");
    dumping.data(0, &[1; 4096]);
    let idle: Vec<Sender> = (0..3).map(|_| Sender::connect(to, b"")).collect();
    assert!(
        Sender::try_connect("127.0.0.1", to, NO_ANSWER).is_none(),
        "one with data does not count"
    );
    assert_eq!(refused(&receiver, "half-open"), 1);
    let mut late = Sender::herald_until_answered("127.0.0.1", to, 12).expect("a place");
    late.data(0, &[2; 4096]);
    dumping.data(4096, &[1; 4096]);
    drop(idle);
}

#[test]
fn one_address_begins_only_so_many_dumps_at_once() {
    let dir = tempfile::tempdir().unwrap();
    let limits = Limits {
        source_heralds: Rate { per_s: 0, burst: 3 },
        ..Limits::default()
    };
    let receiver = start(dir.path(), limits, 100);
    let to = receiver.netdump_addr();
    let answered = (0..5).filter(|_| Sender::try_connect("127.0.0.1", to, NO_ANSWER).is_some());
    assert_eq!(answered.count(), 3);
    assert_eq!(refused(&receiver, "source-rate"), 2);
    let mut other = Sender::try_connect("127.0.0.3", to, PATIENCE).expect("another address has its own");
    other.data(0, &[1; 4096]);
}

#[test]
fn all_together_begin_only_so_many_dumps_and_a_client_that_comes_again_gets_in() {
    let dir = tempfile::tempdir().unwrap();
    let limits = Limits {
        heralds: Rate { per_s: 0, burst: 2 },
        ..Limits::default()
    };
    let receiver = start(dir.path(), limits, 100);
    let to = receiver.netdump_addr();
    let address = |number| format!("127.0.0.{number}");
    let answered = (1..6).filter(|number| Sender::try_connect(&address(*number), to, NO_ANSWER).is_some());
    assert_eq!(answered.count(), 2);
    assert_eq!(refused(&receiver, "total-rate"), 3);
    let mut client = Sender::herald_until_answered("127.0.0.9", to, 5).expect("who comes again gets in");
    client.data(0, &[1; 4096]);
}
