//! Stock ends of the wire against ours: every stock sender into `coreferry serve`, `coreferry send` into a stock receiver.

mod common;
#[path = "stock/mod.rs"]
mod stock;

use std::{
    net::{Ipv4Addr, UdpSocket},
    sync::{Mutex, PoisonError},
    time::Duration,
};

use common::Serve;
use stock::{AckBits, End, Loss, Order, StockReceiver, StockSender, kernel_dump_header};

/// The sizes at which the senders' packets fall into different shapes: smallest, payloads that divide a page, the common
/// ones, the largest that stock receivers take, jumbo frames.
const MTUS: [usize; 7] = [576, 1076, 1280, 1500, 2100, 4148, 9000];

/// A dump without a zero page, so that every byte of it has to arrive, and of no round number of bursts.
fn dense_core(seed: u64) -> Vec<u8> {
    stock::dense_core(seed, 117)
}

/// One stock dump into a fresh receiver: it must be stored byte for byte and be listed as complete.
fn arrives_whole(sender: impl FnOnce(&Serve) -> StockSender) {
    arrives_whole_with(&[], sender);
}

/// The same with more options of `serve`. Gives the number of packets that the sender had to send again.
fn arrives_whole_with(options: &[&str], sender: impl FnOnce(&Serve) -> StockSender) -> u64 {
    let dir = common::temp_dir();
    let serve = Serve::start_with(dir.path(), options);
    let sender = sender(&serve);
    let core = dense_core(sender.mtu as u64);
    let header = kernel_dump_header(core.len() as u64, "stockhost", "page fault in a test");

    let sent = sender.dump(&core, &header);

    let what = format!("{:?} at MTU {}", sender.order, sender.mtu);
    assert!(
        sent.is_ok(),
        "{what}: the sender gave up: {sent:?}\n{}",
        serve.daemon.stderr_text()
    );
    let cores = serve.settled_cores(1);
    assert_eq!(cores[0]["state"], "complete", "{what}: {}", cores[0]);
    assert_eq!(cores[0]["holes"], serde_json::json!([]), "{what}");
    assert_eq!(cores[0]["panic"], "page fault in a test", "{what}");
    assert_eq!(cores[0]["file_len_bytes"], core.len() as u64, "{what}");
    let address = cores[0]["client_addr"].as_str().expect("an address");
    assert!(
        address.starts_with(&sender.client.ip().to_string()),
        "{what}: {address}"
    );
    let stored = serve.vmcore_path(cores[0]["id"].as_str().expect("an id"));
    assert!(
        std::fs::read(&stored).expect("the stored core can be read") == core,
        "{what}: the stored core differs"
    );
    sent.unwrap_or(0)
}

fn every_mtu(order: Order) {
    for mtu in MTUS {
        arrives_whole(|serve| StockSender::new(order, mtu, serve.netdump));
    }
}

#[test]
fn serve_stores_a_sandvine_dump_whole_at_every_mtu() {
    every_mtu(Order::Sandvine);
}

#[test]
fn serve_stores_a_freebsd_12_dump_whole_at_every_mtu() {
    every_mtu(Order::FreeBsd12);
}

#[test]
fn serve_stores_a_freebsd_13_dump_whole_at_every_mtu() {
    every_mtu(Order::FreeBsd13);
}

#[test]
fn serve_stores_a_stop_and_wait_dump_whole_at_every_mtu() {
    every_mtu(Order::StopAndWait);
}

#[test]
fn serve_stores_a_dump_with_a_path_and_a_key() {
    for order in [Order::FreeBsd12, Order::FreeBsd13] {
        arrives_whole(|serve| StockSender {
            path: Some("lab/rack1"),
            key: Some([&[2][..], &[7; 4095]].concat()),
            ..StockSender::new(order, 1500, serve.netdump)
        });
    }
}

#[test]
fn serve_stores_a_dump_whole_over_a_link_that_loses_one_percent() {
    for (order, seed) in [(Order::FreeBsd12, 12), (Order::FreeBsd13, 13)] {
        arrives_whole(|serve| StockSender {
            loss: Loss::seeded(seed, 10),
            // A client that notices each loss, and soon, so that the test takes no minute.
            bits: AckBits::Own,
            round: Duration::from_millis(100),
            ..StockSender::new(order, 1500, serve.netdump)
        });
    }
}

/// A sender that waits in vain for an acknowledgement repeats at least the packets of one burst that have a partner.
#[test]
fn no_stock_sender_waits_in_vain_under_either_ack_policy() {
    for policy in ["paired", "immediate"] {
        for order in Order::ALL {
            for mtu in [576, 1500] {
                let again = arrives_whole_with(&["--ack-policy", policy], |serve| {
                    StockSender::new(order, mtu, serve.netdump)
                });
                assert!(
                    again < 28,
                    "{policy}, {order:?} at MTU {mtu}: {again} packets sent again"
                );
            }
        }
    }
}

/// Released kernels take the ack of packet 37 of a burst for that of packet 5 and never send packet 5 again. Acknowledged
/// together, both arrive; acknowledged each by itself, a byte is missing, and such a core is never called complete.
#[test]
fn a_loss_that_a_stock_sender_would_miss_is_made_good_or_told() {
    for (policy, whole) in [("paired", true), ("immediate", false)] {
        let dir = common::temp_dir();
        let serve = Serve::start_with(dir.path(), &["--ack-policy", policy]);
        let core = dense_core(1500);
        let header = kernel_dump_header(core.len() as u64, "stockhost", "none");
        // Before it: the herald and its ack, the first page in 3 packets and their acks, packets 0 to 4 of the first burst.
        let loss = Loss::only(2 + 6 + 5 + 1);
        let sender = StockSender {
            loss,
            round: Duration::from_millis(200),
            ..StockSender::new(Order::FreeBsd13, 1500, serve.netdump)
        };

        sender
            .dump(&core, &header)
            .expect("the sender believes that all went well");

        let cores = serve.settled_cores(1);
        let stored = serve.vmcore_path(cores[0]["id"].as_str().expect("an id"));
        let is_whole = std::fs::read(stored).expect("the stored core can be read") == core;
        assert_eq!(is_whole, whole, "{policy}: {}", cores[0]);
        assert_eq!(cores[0]["state"] == "complete", whole, "{policy}: {}", cores[0]);
        assert_eq!(
            cores[0]["holes"] == serde_json::json!([]),
            whole,
            "{policy}: {}",
            cores[0]
        );
    }
}

/// `coreferry send` of a dense file into a stock receiver that loses some datagrams.
fn send_arrives_whole(loss: Loss) {
    static ONE_SENDER: Mutex<()> = Mutex::new(());
    let _turn = ONE_SENDER.lock().unwrap_or_else(PoisonError::into_inner);
    client_port_is_free();
    let dir = common::temp_dir();
    let file = dir.path().join("vmcore");
    let core = dense_core(7);
    std::fs::write(&file, &core).expect("the file can be written");
    let receiver = StockReceiver::start(loss);

    let to = receiver.address().to_string();
    common::run_ok(&[
        "send",
        common::path_text(&file),
        "--to",
        &to,
        "--hostname",
        "web-17",
        "--panic",
        "gone",
    ]);

    // The receiver acknowledges FINISHED first and puts the dump away afterwards.
    let dumps = common::wait_for("the stock receiver to put the dump away", || {
        Some(receiver.dumps()).filter(|dumps| !dumps.is_empty())
    });
    assert_eq!(dumps.len(), 1);
    let dump = &dumps[0];
    assert_eq!((dump.end, dump.oversized), (End::Finished, 0));
    assert!(
        dump.core == core,
        "the stored core differs: {} bytes of {}",
        dump.core.len(),
        core.len()
    );
    assert!(
        matches!(dump.path.as_deref(), None | Some(".")),
        "stock receivers take only the current directory"
    );
    let header = dump.header.as_deref().expect("a kernel dump header came");
    assert_eq!(
        header[40..48],
        (core.len() as u64).to_be_bytes(),
        "the header's dump length is the file's"
    );
    assert!(header[64..].starts_with(b"web-17\0"), "the host name is in its place");
    assert!(header[320..].starts_with(b"gone\0"), "the panic text is in its place");
    let parity = header.chunks_exact(4).fold(0, |sum, word| {
        sum ^ u32::from_be_bytes(word.try_into().expect("four bytes"))
    });
    assert_eq!(parity, 0, "the header's parity is right");
}

/// A stock receiver answers to port 20024 only; another program of this machine may have it for a moment.
fn client_port_is_free() {
    common::wait_for("UDP port 20024 of 127.0.0.1 to be free", || {
        UdpSocket::bind((Ipv4Addr::LOCALHOST, 20024)).ok().map(drop)
    });
}

#[test]
fn send_completes_into_a_stock_receiver() {
    send_arrives_whole(Loss::none());
}

#[test]
fn send_completes_into_a_stock_receiver_that_loses_one_percent() {
    for seed in [1, 2, 3] {
        send_arrives_whole(Loss::seeded(seed, 10));
    }
}

/// The models against each other: what a stock receiver stores of a stock sender, and what it does not.
mod models {
    use super::*;

    fn stock_to_stock(sender: &StockSender, receiver: &StockReceiver) -> Option<stock::StockDump> {
        let core = dense_core(1);
        let header = kernel_dump_header(core.len() as u64, "stockhost", "none");
        sender.dump(&core, &header).ok()?;
        let dump = common::wait_for("the dump to end", || receiver.dumps().pop());
        assert!(dump.core[..core.len()] == core, "the stored core differs");
        assert_eq!(dump.header.as_deref(), Some(&header[..]));
        Some(dump)
    }

    #[test]
    fn every_stock_sender_completes_into_the_stock_receiver() {
        for order in Order::ALL {
            let receiver = StockReceiver::start(Loss::none());
            let sender = StockSender {
                path: Some("."),
                ..StockSender::new(order, 1500, receiver.address())
            };
            let dump = stock_to_stock(&sender, &receiver).expect("the dump completes");
            assert_eq!(
                (dump.end, dump.path.as_deref(), dump.oversized),
                (End::Finished, Some("."), 0),
                "{order:?}"
            );
        }
    }

    #[test]
    fn the_stock_receiver_drops_jumbo_packets_and_the_sender_gives_up() {
        let receiver = StockReceiver::start(Loss::none());
        let sender = StockSender {
            round: Duration::from_millis(20),
            ..StockSender::new(Order::FreeBsd13, 9000, receiver.address())
        };
        assert!(stock_to_stock(&sender, &receiver).is_none());
    }

    #[test]
    fn a_loss_is_made_good_by_a_sender_that_keeps_its_acks_apart() {
        let receiver = StockReceiver::start(Loss::seeded(5, 10));
        let sender = StockSender {
            bits: AckBits::Own,
            round: Duration::from_millis(50),
            ..StockSender::new(Order::FreeBsd13, 1500, receiver.address())
        };
        let dump = stock_to_stock(&sender, &receiver).expect("the dump completes");
        assert_eq!(dump.client, *sender.client.ip());
    }
}
