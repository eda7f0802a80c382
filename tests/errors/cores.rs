//! `cores` and `vms` when there is nothing to show, or nobody to ask.

use crate::common::{coreferry, path_text, run, temp_dir};
use crate::fails_with;

/// Nobody serves an API there.
const NO_API: &str = "http://127.0.0.77:9";

#[test]
fn a_directory_that_is_not_there_is_named() {
    let dir = temp_dir();
    let nowhere = dir.path().join("nowhere");
    for verb in [
        &["list"][..],
        &["list", "--json"],
        &["info", "latest"],
        &["verify", "latest"],
    ] {
        let output = run(&[&["cores", "--dir", path_text(&nowhere)], verb].concat());
        fails_with(&output, 1, &[path_text(&nowhere), "--dir"]);
        assert!(output.stdout.is_empty(), "{verb:?} has printed something");
        assert!(!nowhere.exists(), "{verb:?} has made the directory");
    }
}

#[test]
fn an_empty_list_is_no_error_and_a_filter_that_matches_nothing_is_3() {
    let dir = temp_dir();
    let list = |more: &[&str]| run(&[&["cores", "list", "--json", "--dir", path_text(dir.path())], more].concat());

    let empty = list(&[]);
    fails_with(&empty, 0, &[]);
    assert_eq!(String::from_utf8_lossy(&empty.stdout).trim(), "[]");
    for filter in [
        ["--guest", "nosuch"],
        ["--state", "corrupt"],
        ["--since", "2026-01-01T00:00:00Z"],
    ] {
        let none = list(&filter);
        fails_with(&none, 3, &[]);
        assert_eq!(String::from_utf8_lossy(&none.stdout).trim(), "[]", "{filter:?}");
    }
    fails_with(&list(&["--state", "perfect"]), 2, &["perfect", "complete"]);
    fails_with(&list(&["--since", "yesterday"]), 2, &["yesterday"]);
}

#[test]
fn a_core_that_is_not_there_matches_nothing() {
    let dir = temp_dir();
    for verb in ["info", "verify", "fetch"] {
        let output = run(&["cores", verb, "nosuch", "--dir", path_text(dir.path())]);
        fails_with(&output, 3, &["nosuch", "cores list"]);
    }
}

#[test]
fn an_api_that_is_not_there_is_unreachable() {
    for verb in [&["list"][..], &["info", "latest"], &["verify", "latest"]] {
        let output = run(&[&["cores", "--api", NO_API], verb].concat());
        fails_with(&output, 6, &[NO_API, "coreferry serve", "--dir"]);
    }
    let by_variable = coreferry()
        .args(["cores", "list"])
        .env("COREFERRY_API", NO_API)
        .output();
    fails_with(&by_variable.expect("coreferry can be run"), 6, &[NO_API]);
    fails_with(&run(&["cores", "list", "--api", "nonsense"]), 2, &["nonsense", "--api"]);
    fails_with(
        &run(&["vms", "info", "web", "--api", "/nosuch/web.sock"]),
        6,
        &["/nosuch/web.sock"],
    );
}
