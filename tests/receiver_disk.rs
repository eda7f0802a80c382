//! Disks that are slow, that fill up, that fail, and that lose their power: what was acknowledged is kept, what is called
//! complete is complete, and one dump's trouble is not another's.

mod common;
#[path = "receiver_disk/fault.rs"]
mod fault;
#[path = "receiver_disk/power.rs"]
mod power;
#[path = "stock/mod.rs"]
mod stock;
#[path = "receiver/tiny_sender.rs"]
mod tiny_sender;

use std::fs;
use std::path::Path;

use common::{cores_list, path_text, run, wait_for};
use fault::{Place, Receiver, fault_library};
use serde_json::Value;
use stock::{Order, StockSender, kernel_dump_header};
use tiny_sender::TinySender;

/// A dump without a zero page, so that every byte of it has to arrive.
fn dense_core(seed: u64) -> Vec<u8> {
    let mut state = seed;
    let words = (0..117 * 512_u64).map(|_| {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (state >> 8) | 1
    });
    words.flat_map(u64::to_le_bytes).collect()
}

/// Each write takes 200 ms, a burst several of them; each sync takes half a second.
#[test]
fn a_slow_disk_ends_no_dump_of_a_stock_sender() {
    let place = Place::new();
    let Some(library) = fault_library(&place.beside("")) else {
        return;
    };
    let store = place.store();
    let slow = [
        ("FAULT_PATH", path_text(&store)),
        ("FAULT_WRITE_MS", "200"),
        ("FAULT_SYNC_MS", "500"),
    ];
    let receiver = Receiver::with_faults(&store, &library, &slow);
    let core = dense_core(1);
    let header = kernel_dump_header(core.len() as u64, "stockhost", "slow");
    let sender = StockSender::new(Order::FreeBsd13, 1500, receiver.netdump);

    sender.dump(&core, &header).expect("the sender does not give up");

    let cores = receiver.cores();
    assert_eq!(cores[0]["state"], "complete", "{}", cores[0]);
    let dir = path_text(&store);
    assert!(run(&["cores", "verify", "latest", "--dir", dir]).status.success());
}

/// What became of a dump of some pages when one call of the receiver's failed.
struct Ended {
    /// Pages that were acknowledged.
    pages: u64,
    /// FINISHED was.
    finished: bool,
    /// The file on which the call failed; none if there were fewer calls.
    failed_on: Option<String>,
}

/// The pages of the dump.
const PAGES: u64 = 3;

fn page(number: u64) -> Vec<u8> {
    vec![u8::try_from(number).expect("small") + 1; 4096]
}

/// A dump while call number `at` of its kind fails, and a second one after it; then the receiver is killed.
fn dump_with_fault(place: &Place, library: &Path, call: &str, errno: i32, at: u32) -> Ended {
    let (store, mark) = (place.store(), place.beside("mark"));
    let (errno, number) = (errno.to_string(), at.to_string());
    let variables = [
        ("FAULT_PATH", path_text(&store)),
        ("FAULT_CALL", call),
        ("FAULT_ERRNO", &errno),
        ("FAULT_AT", &number),
        ("FAULT_MARK", path_text(&mark)),
    ];
    let receiver = Receiver::with_faults(&store, library, &variables);
    let mut sender = TinySender::connect(receiver.netdump);
    let pages = (0..PAGES)
        .take_while(|number| sender.try_data(number * 4096, &page(*number)))
        .count() as u64;
    let finished =
        pages == PAGES && sender.try_header(&kernel_dump_header(PAGES * 4096, "first", "none")) && sender.try_finish();

    let failed_on = fs::read_to_string(&mark).ok();
    if failed_on.is_none() {
        receiver.daemon.kill();
        return Ended {
            pages,
            finished,
            failed_on,
        };
    }
    let mut second = TinySender::connect(receiver.netdump);
    second.data(0, &page(9));
    second.header(&kernel_dump_header(4096, "second", "none"));
    second.finish();
    receiver.daemon.kill();
    Ended {
        pages,
        finished,
        failed_on,
    }
}

/// The core of a guest in a store whose receiver is gone; one that was left over is made a core by the next one.
fn core_of(store: &Path, guest: &str, address: &str) -> Option<Value> {
    let is_of = |core: &Value| core["guest"] == guest || core["guest"] == address;
    let settled = |cores: &[Value]| cores.iter().all(|core| core["state"] != "receiving");
    if !cores_list(store).iter().any(|core| core["guest"] == guest) {
        let receiver = Receiver::start(store);
        wait_for("left-over sessions to be cores", || {
            settled(&receiver.cores()).then_some(())
        });
    }
    cores_list(store).into_iter().find(is_of)
}

/// Looks at the store after a dump during which call number `at` failed; whether there was such a call.
fn look_after(place: &Place, ended: &Ended, what: &str) -> bool {
    let store = place.store();
    let Some(failed_on) = &ended.failed_on else {
        assert!(ended.finished, "{what}: nothing failed");
        return false;
    };
    let second = core_of(&store, "second", "").unwrap_or_else(|| panic!("{what}: the second dump is gone"));
    assert_eq!(second["state"], "complete", "{what}: the second dump is hurt: {second}");

    let first = core_of(&store, "first", "127.0.0.1");
    let stored = first
        .as_ref()
        .map_or(0, |core| core["stored_bytes"].as_u64().expect("a number"));
    let acknowledged = ended.pages * 4096;
    assert!(
        stored >= acknowledged,
        "{what}: {acknowledged} bytes were acknowledged: {first:?}"
    );
    let is_complete = first.as_ref().is_some_and(|core| core["state"] == "complete");
    assert!(
        is_complete || !ended.finished,
        "{what}: FINISHED was acknowledged: {first:?}"
    );
    let data_failed = failed_on.ends_with("/vmcore.part");
    assert!(
        !data_failed || !is_complete,
        "{what}: called complete after its data failed: {first:?}"
    );
    if let Some(core) = first.filter(|_| is_complete) {
        let id = core["id"].as_str().expect("text");
        let verified = run(&["cores", "verify", id, "--dir", path_text(&store)]);
        let said = String::from_utf8_lossy(&verified.stderr);
        assert!(verified.status.success(), "{what}: {said}");
    }
    true
}

/// Runs one dump for each call that can fail, until one ends before its call comes. Gives how many there were.
fn each_call_fails_once(call: &str, errno: i32) -> Option<u32> {
    let built = common::temp_dir();
    let library = fault_library(built.path())?;
    let failed = |at: u32| {
        let place = Place::new();
        let ended = dump_with_fault(&place, &library, call, errno, at);
        look_after(&place, &ended, &format!("{call} {at} on {:?}", ended.failed_on))
    };
    // Some at a time: they mostly wait for answers that do not come.
    let mut at = 1;
    loop {
        let all_failed = std::thread::scope(|scope| {
            let runs: Vec<_> = (at..at + 6).map(|at| scope.spawn(move || failed(at))).collect();
            let ended = runs
                .into_iter()
                .map(|run| run.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)));
            ended.take_while(|failed| *failed).count()
        });
        at += u32::try_from(all_failed).expect("a few");
        if all_failed < 6 {
            return Some(at - 1);
        }
        assert!(at < 200, "200 {call} calls for {PAGES} pages");
    }
}

#[test]
fn a_write_that_finds_the_disk_full_costs_nothing_that_was_acknowledged() {
    let Some(calls) = each_call_fails_once("write", libc::ENOSPC) else {
        return;
    };
    println!("{calls} writes failed, one after the other");
    assert!(calls >= u32::try_from(PAGES).expect("a few"), "only {calls} writes");
}

#[test]
fn a_sync_that_fails_is_never_made_good_by_another() {
    let Some(calls) = each_call_fails_once("sync", libc::EIO) else {
        return;
    };
    println!("{calls} syncs failed, one after the other");
    assert!(calls >= 3, "only {calls} syncs");
}
