//! Stock guests behind a network address translator into `coreferry serve`.

mod common;
#[path = "stock/mod.rs"]
mod stock;

use std::thread;

use common::Serve;
use stock::{Nat, NatKind, Order, StockSender, dense_core, kernel_dump_header};

/// Two guests behind one translator, at the same time.
fn both_complete(kind: NatKind, order: Order, listen: &[&str]) {
    let dir = common::temp_dir();
    let serve = Serve::start_with(dir.path(), listen);
    // With a wildcard the receiver has to answer from the address that was dialled, whichever socket answers.
    let mut server = serve.netdump;
    if server.ip().is_unspecified() {
        server.set_ip(stock::own_address());
    }
    let nat = Nat::start(kind, server);
    let cores: Vec<Vec<u8>> = (1..=2).map(|seed| dense_core(seed, 250)).collect();
    thread::scope(|scope| {
        let running: Vec<_> = cores
            .iter()
            .enumerate()
            .map(|(index, core)| {
                let sender = StockSender::new(order, 1500, nat.inside);
                let header = kernel_dump_header(core.len() as u64, &format!("guest-{index}"), "none");
                scope.spawn(move || sender.dump(core, &header))
            })
            .collect();
        for (index, sent) in running.into_iter().enumerate() {
            let sent = sent.join().expect("the sender does not panic");
            let log = serve.daemon.stderr_text();
            assert!(
                sent.is_ok(),
                "{kind:?}, {order:?}: guest {index} gave up: {sent:?}\n{log}"
            );
        }
    });
    let listed = serve.settled_cores(2);
    for (index, core) in cores.iter().enumerate() {
        let mine = listed.iter().find(|listed| listed["guest"] == format!("guest-{index}"));
        let mine = mine.unwrap_or_else(|| panic!("no core of guest {index}: {listed:?}"));
        assert_eq!(mine["state"], "complete", "{kind:?}, {order:?}: {mine}");
        let address = mine["client_addr"].as_str().expect("an address");
        assert!(address.starts_with(&format!("{}:", nat.outside)), "{address}");
        let stored = serve.vmcore_path(mine["id"].as_str().expect("an id"));
        assert!(
            &std::fs::read(stored).expect("readable") == core,
            "the core of guest {index} differs"
        );
    }
}

#[test]
fn two_guests_behind_a_translator_of_ports_both_complete() {
    for order in Order::ALL {
        both_complete(NatKind::Translating, order, &[]);
    }
}

#[test]
fn two_guests_behind_a_translator_that_lets_only_the_dialled_port_answer_both_complete() {
    for order in Order::ALL {
        both_complete(NatKind::Strict, order, &[]);
    }
}

#[test]
fn answers_through_a_translator_leave_from_the_dialled_address() {
    for kind in [NatKind::Translating, NatKind::Strict] {
        both_complete(
            kind,
            Order::FreeBsd13,
            &["--listen", "0.0.0.0:0", "--allow", "192.0.2.0/24"],
        );
    }
}

#[test]
fn guests_behind_a_strict_translator_survive_a_kill_of_the_receiver() {
    let dir = common::temp_dir();
    let serve = Serve::start(dir.path());
    let nat = Nat::start(NatKind::Strict, serve.netdump);
    let listen = serve.netdump.to_string();
    let core = dense_core(3, 1000);
    let header = kernel_dump_header(core.len() as u64, "natted", "none");
    let senders = [1, 2].map(|_| StockSender::new(Order::FreeBsd13, 1500, nat.inside));
    let serve = thread::scope(|scope| {
        let running = senders
            .each_ref()
            .map(|sender| scope.spawn(|| sender.dump(&core, &header)));
        for sender in &senders {
            common::wait_for("a third of the dump", || {
                (sender.sent.load(std::sync::atomic::Ordering::Relaxed) > 1000).then_some(())
            });
        }
        serve.daemon.kill();
        let serve = Serve::start_with(dir.path(), &["--listen", &listen]);
        for sent in running {
            let sent = sent.join().expect("the sender does not panic");
            assert!(
                sent.is_ok(),
                "a guest gave up: {sent:?}\n{}",
                serve.daemon.stderr_text()
            );
        }
        serve
    });
    for listed in serve.settled_cores(2) {
        assert_eq!(listed["state"], "complete", "{listed}");
        let stored = serve.vmcore_path(listed["id"].as_str().expect("an id"));
        assert!(
            std::fs::read(stored).expect("readable") == core,
            "the stored core differs"
        );
    }
}
