//! What tcpdump(1) of the testbed says about a capture of ours.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::testbed;

/// The program, if the testbed has it.
pub(crate) fn find() -> Option<PathBuf> {
    testbed::program("tcpdump")
}

/// One line for each frame of the file: `SECONDS.NANOSECONDS TEXT`.
fn lines(program: &Path, file: &Path) -> Vec<String> {
    let mut tcpdump = Command::new(program);
    // As root it would become a user that only an installed tcpdump has.
    tcpdump
        .args(["-Z", "root", "-n", "-tt", "--time-stamp-precision=nano", "-r"])
        .arg(file);
    let output = tcpdump.output().expect("tcpdump runs");
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{said}");
    assert!(said.contains("Ethernet"), "{said}");
    let text = String::from_utf8(output.stdout).expect("text");
    text.lines().map(str::to_owned).collect()
}

/// The file shows a dump from its ARP to its last acknowledgement, in the order of time.
pub(crate) fn assert_is_a_dump(program: &Path, file: &Path) {
    let lines = lines(program, file);
    let (times, texts): (Vec<_>, Vec<_>) = lines.iter().filter_map(|line| line.split_once(' ')).unzip();
    assert!(
        times
            .iter()
            .all(|time| time.split('.').next_back().is_some_and(|part| part.len() == 9))
    );
    assert!(times.is_sorted(), "time goes back");
    let count = |what: &str| texts.iter().filter(|text| text.contains(what)).count();
    let shown = texts.get(..10.min(texts.len()));
    assert!(texts[0].contains("Request who-has 10.9.0.1 tell 10.9.0.2"), "{shown:?}");
    assert_eq!(count("Reply 10.9.0.1 is-at"), 1, "{shown:?}");
    assert!(count("10.9.0.2.20024 > 192.0.2.7.20023: UDP") >= 1, "{shown:?}");
    // What is not zero of a megabyte of memory, and an answer to each packet of it, of four bytes behind the headers.
    let answers = texts
        .iter()
        .filter(|text| text.starts_with("IP 192.0.2.7.") && text.ends_with("UDP, length 4"));
    let sent = texts
        .iter()
        .filter(|text| text.starts_with("IP 10.9.0.2.20024 > 192.0.2.7."));
    let lengths = sent.filter_map(|text| text.rsplit_once("length ")?.1.parse::<u64>().ok());
    let sent_bytes: u64 = lengths.sum();
    assert!(sent_bytes > 600_000, "{sent_bytes}");
    assert!(answers.count() > 100, "{shown:?}");
}
