//! Addresses that are told what happens: signed, tried again, given up, and never waited for.
#![allow(clippy::unwrap_used, reason = "in helpers of tests, a failure is to end the test")]

#[path = "webhooks/peer.rs"]
mod peer;
mod sender;

use std::time::{Duration, Instant};

use api::CoreService as _;
use api::webhook::WebhookUrl;
use base64::Engine as _;
use hmac::Mac as _;
use peer::{Delivery, Peer};
use sender::Sender;
use server::{Receiver, ReceiverConfig, Webhook, WebhookSecret, Webhooks, dead_letters};
use vmcore::kernel_header::KernelDumpHeader;

const PATIENCE: Duration = Duration::from_secs(20);
const KEY: &[u8] = b"a key of more than sixteen bytes";

/// A receiver that tells one address; tries come soon after each other.
fn start(dir: &std::path::Path, url: &str, kinds: &[&str], delays: &[u64]) -> Receiver {
    let mut config = ReceiverConfig::new(dir);
    config.listen = vec!["127.0.0.1:0".parse().unwrap()];
    config.rules.linger = Duration::from_millis(100);
    config.webhooks = Webhooks {
        targets: vec![Webhook {
            url: WebhookUrl::parse(url).unwrap(),
            secret: WebhookSecret::parse(std::str::from_utf8(KEY).unwrap()).unwrap(),
            kinds: kinds.iter().map(|kind| (*kind).to_owned()).collect(),
            ca: None,
        }],
        delays: delays.iter().map(|ms| Duration::from_millis(*ms)).collect(),
    };
    Receiver::start(config).unwrap()
}

/// Sends a dump of one page.
fn dump(receiver: &Receiver) {
    let mut sender = Sender::connect(receiver.netdump_addr(), b"");
    sender.data(0, &[1; 4096]);
    let header = KernelDumpHeader {
        version: 4,
        dump_len_bytes: 4096,
        hostname: "web-17".to_owned(),
        panic_string: "page fault".to_owned(),
        ..KernelDumpHeader::default()
    };
    sender.kernel_header(&header.encode());
    sender.finish();
}

/// Checks the signature with other code than ours (the hmac and sha2 crates), as Standard Webhooks 1.0 describes it.
fn assert_signed(delivery: &Delivery) {
    let header = |name: &str| {
        delivery
            .header(name)
            .unwrap_or_else(|| panic!("no {name}: {}", delivery.head))
    };
    let sent: i64 = header("webhook-timestamp").parse().unwrap();
    let now = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .unwrap()
        .as_secs();
    assert!(
        sent.abs_diff(i64::try_from(now).unwrap()) < 300,
        "the time is one of now: {sent}"
    );
    let mut mac = hmac::Hmac::<sha2::Sha256>::new_from_slice(KEY).unwrap();
    mac.update(format!("{}.{sent}.", header("webhook-id")).as_bytes());
    mac.update(&delivery.body);
    let signature = header("webhook-signature").strip_prefix("v1,").unwrap();
    let signature = base64::engine::general_purpose::STANDARD.decode(signature).unwrap();
    mac.verify_slice(&signature).expect("the signature is of this body");
}

/// Waits until `ready` gives something.
fn wait<T>(what: &str, mut ready: impl FnMut() -> Option<T>) -> T {
    let began = Instant::now();
    loop {
        if let Some(value) = ready() {
            return value;
        }
        assert!(began.elapsed() < PATIENCE, "in vain for {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

#[test]
fn each_event_is_delivered_signed_with_the_body_that_listeners_get() {
    let dir = tempfile::tempdir().unwrap();
    let peer = Peer::answering(&[200]);
    let receiver = start(dir.path(), &peer.url("/told?by=us"), &[], &[]);
    dump(&receiver);
    let all = [peer.next(), peer.next()];
    for delivery in &all {
        assert_signed(delivery);
        assert!(
            delivery.head.starts_with("POST /told?by=us HTTP/1.1\r\n"),
            "{}",
            delivery.head
        );
        assert_eq!(delivery.header("content-type"), Some("application/cloudevents+json"));
    }
    let told: Vec<_> = receiver
        .service()
        .events()
        .after(0)
        .into_iter()
        .map(|(_, event)| event)
        .collect();
    let kinds: Vec<&str> = told.iter().map(|event| event.kind.as_str()).collect();
    assert_eq!(kinds, ["dump.started", "core.complete"]);
    for (delivery, event) in all.iter().zip(&told) {
        assert_eq!(delivery.body, serde_json::to_vec(&**event).unwrap());
        assert_eq!(delivery.header("webhook-id"), Some(event.id.as_str()));
    }
}

#[test]
fn a_delivery_that_fails_is_made_again_with_the_same_id_until_it_is_taken() {
    let dir = tempfile::tempdir().unwrap();
    let peer = Peer::answering(&[500, 503, 200]);
    let receiver = start(dir.path(), &peer.url("/"), &["core.complete"], &[1, 1, 1, 1]);
    dump(&receiver);
    let ids: Vec<String> = (0..3)
        .map(|_| {
            let delivery = peer.next();
            assert_signed(&delivery);
            delivery.header("webhook-id").unwrap().to_owned()
        })
        .collect();
    assert!(ids.iter().all(|id| *id == ids[0]), "{ids:?}");
    let name = "coreferry_webhook_deliveries_total";
    wait("the numbers", || {
        let text = receiver.service().metrics();
        let has = |result: &str, count| text.contains(&format!("{name}{{result=\"{result}\"}} {count}\n"));
        (has("delivered", 1) && has("retried", 2) && has("dead", 0)).then_some(())
    });
    assert!(dead_letters(dir.path()).unwrap().is_empty());
}

#[test]
fn after_the_last_try_it_is_a_dead_letter_and_redirects_are_failures() {
    let dir = tempfile::tempdir().unwrap();
    let peer = Peer::answering(&[302]);
    let receiver = start(dir.path(), &peer.url("/secret-path"), &["core.complete"], &[1, 1]);
    dump(&receiver);
    for _ in 0..3 {
        peer.next();
    }
    let dead = wait("a dead letter", || dead_letters(dir.path()).unwrap().pop());
    assert_eq!((dead.tries, dead.event.kind.as_str()), (3, "core.complete"));
    assert_eq!(dead.last_error.as_deref(), Some("it answered with status 302"));
    assert!(
        peer.url("").starts_with(&dead.to) && !dead.to.contains("secret"),
        "{}",
        dead.to
    );
    assert!(peer.nothing_more(), "nobody goes where a redirect leads");
    let page = receiver.service().dead_letters(None, 50).unwrap();
    assert_eq!((page.items.as_slice(), page.next_cursor), ([dead].as_slice(), None));
    assert!(receiver.service().dead_letters(Some("x"), 50).is_err());
}

#[test]
fn what_waits_outlives_the_receiver_with_its_tries() {
    let dir = tempfile::tempdir().unwrap();
    let peer = Peer::answering(&[500]);
    let url = peer.url("/");
    let receiver = start(dir.path(), &url, &["core.complete"], &[3_600_000, 1]);
    dump(&receiver);
    let first = peer.next();
    // It is written down that it was tried once, and the next try is an hour away.
    wait("the first failure", || {
        let text = receiver.service().metrics();
        text.contains("{result=\"retried\"} 1\n").then_some(())
    });
    receiver.stop();
    let receiver = start(dir.path(), &url, &["core.complete"], &[3_600_000, 1]);
    let again = [peer.next(), peer.next()];
    assert!(again.iter().all(|delivery| delivery.body == first.body));
    let dead = wait("a dead letter", || dead_letters(dir.path()).unwrap().pop());
    assert_eq!(dead.tries, 3);
    receiver.stop();
    // An address that nobody names any more gets nothing, and what waited for it is not lost silently.
    let receiver = start(dir.path(), &url, &[], &[3_600_000]);
    dump(&receiver);
    peer.next();
    peer.next();
    receiver.stop();
    let other = Peer::answering(&[200]);
    let receiver = start(dir.path(), &other.url("/"), &[], &[1]);
    let dead = dead_letters(dir.path()).unwrap();
    assert_eq!(dead.len(), 3, "{dead:?}");
    let why = dead[0].last_error.as_deref().unwrap();
    assert!(why.contains("not configured any more"), "{why}");
    drop(receiver);
}

#[test]
fn an_address_that_never_answers_delays_no_core_and_no_stop() {
    let dir = tempfile::tempdir().unwrap();
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/", listener.local_addr().unwrap());
    let receiver = start(dir.path(), &url, &[], &[1]);
    for count in 1..=3 {
        dump(&receiver);
        receiver.wait_for_cores(count, PATIENCE).unwrap();
    }
    // It was called, and is given no answer.
    let called = listener.accept().unwrap();
    receiver.stop();
    let waiting = std::fs::read_dir(dir.path().join("webhooks")).unwrap();
    let waiting: usize = waiting
        .map(|entry| std::fs::read_dir(entry.unwrap().path()).unwrap().count())
        .sum();
    assert_eq!(waiting, 6, "a beginning and an end for each dump are kept for later");
    drop(called);
}
