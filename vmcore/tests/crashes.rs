//! What crashed, told from logs: `tests/crashes.txt` is the table.
#![allow(clippy::unwrap_used)] // tests

use proptest::prelude::*;
use vmcore::crash::Crash;

const TABLE: &str = include_str!("crashes.txt");

/// The five things that each excerpt must give.
fn shown(crash: &Crash) -> String {
    let or_none = |text: Option<String>| text.unwrap_or_else(|| "-".to_owned());
    [
        crash.signature.clone(),
        or_none(crash.function.clone()),
        or_none(crash.task.clone()),
        or_none(crash.pid.map(|pid| pid.to_string())),
        or_none(crash.cpu.map(|cpu| cpu.to_string())),
    ]
    .join(" | ")
}

fn excerpts() -> Vec<(&'static str, &'static str)> {
    let blocks = TABLE.split("\n=== ").skip(2);
    blocks.map(|block| block.split_once('\n').unwrap()).collect()
}

#[test]
fn every_excerpt_gives_its_signature() {
    let excerpts = excerpts();
    assert!(excerpts.len() >= 40, "{} excerpts", excerpts.len());
    let mut wrong = Vec::new();
    for (expected, log) in excerpts {
        let found = Crash::from_log(log).map_or_else(|| "nothing".to_owned(), |crash| shown(&crash));
        if found != expected {
            wrong.push(format!("expected {expected}\n   found {found}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn what_stands_before_the_crash_changes_nothing() {
    let (_, boot) = *excerpts().last().unwrap();
    let noise = "[    0.000000] Linux version 6.1.0\n[    0.100000] usb 1-1: new device\n".repeat(500);
    for (expected, log) in excerpts() {
        assert_ne!(log, "");
        let with_noise = format!("{noise}{log}");
        assert_eq!(shown(&Crash::from_log(&with_noise).unwrap()), expected);
    }
    assert_ne!(boot, "");
}

#[test]
fn a_log_without_a_crash_gives_nothing() {
    for log in [
        "",
        "[    0.000000] Linux version 6.1.0\n",
        "[   10.0] WARNING: CPU: 0 PID: 20 at kernel/old.c:1 old_trouble+0x1/0x2\n[ 10.0] ---[ end trace ]---\n",
        "panic_on_oops=1 is set\n",
    ] {
        assert_eq!(Crash::from_log(log), None, "{log}");
    }
}

#[test]
fn the_call_trace_is_that_of_the_fault() {
    let log = excerpts()
        .into_iter()
        .find(|(expected, _)| expected.starts_with("hung-task"))
        .unwrap()
        .1;
    let trace = Crash::from_log(log).unwrap().trace;
    assert_eq!(trace.first().unwrap(), "__schedule");
    assert_eq!(trace.last().unwrap(), "kjournald2");
}

proptest! {
    #[test]
    fn any_text_is_survived(text in "(\\PC|\n){0,400}") {
        let _ = Crash::from_log(&text);
    }

    /// Lines of real logs in any order and cut anywhere.
    #[test]
    fn torn_logs_are_survived(order in proptest::collection::vec((0_usize..700, 0_usize..120), 0..80)) {
        let lines: Vec<&str> = TABLE.lines().collect();
        let torn: Vec<&str> = order.iter().filter_map(|(at, cut)| {
            let line = lines.get(*at)?;
            line.get(..line.floor_char_boundary(*cut))
        }).collect();
        if let Some(crash) = Crash::from_log(&torn.join("\n")) {
            prop_assert!(crash.signature.len() < 4096);
            prop_assert!(crash.trace.len() <= vmcore::limits::CRASH_TRACE_FRAMES_MAX);
        }
    }
}
