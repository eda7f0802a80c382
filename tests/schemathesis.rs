//! The API held against the document that it serves: schemathesis makes requests out of the document, sound ones and
//! broken ones, and looks whether the answers are among those that the document names.

mod common;
#[path = "web/dumps.rs"]
mod dumps;
#[path = "web/http.rs"]
mod http;
#[path = "common/testbed.rs"]
mod testbed;
#[path = "receiver/tiny_sender.rs"]
mod tiny_sender;

use std::path::Path;
use std::process::Command;

use common::{Serve, path_text, run_ok, temp_dir};
use http::get;
use testbed::testbed;

/// What of the document a receiver does not serve, for it runs no machines, and the events, whose answers do not end.
const LEFT_OUT: &str = "^/api/v1/(vms|dumps|events)";

/// Runs schemathesis against a receiver; `headers` go with every request. Gives what it printed.
fn tried(program: &Path, serve: &Serve, headers: &[String]) -> String {
    let home = temp_dir();
    let examples = if std::env::var_os("COREFERRY_ALL").is_some() {
        "60"
    } else {
        "2"
    };
    let mut command = Command::new(program);
    command.current_dir(home.path()).env("HOME", home.path());
    command.args([
        "run",
        &format!("http://{}/openapi.json", serve.api),
        "--exclude-path-regex",
        LEFT_OUT,
    ]);
    command.args([
        "--checks",
        "not_a_server_error,status_code_conformance,content_type_conformance",
    ]);
    command.args(["--checks", "response_headers_conformance,response_schema_conformance"]);
    command.args([
        "--phases",
        "examples,coverage,fuzzing",
        "--continue-on-failure",
        "--max-failures",
        "20",
    ]);
    // A seed, so that a run can be repeated; deadlines are for machines that have nothing else to do.
    command.args([
        "--max-examples",
        examples,
        "--seed",
        "20260131",
        "--request-timeout",
        "60",
        "--workers",
        "1",
    ]);
    command.args(["--suppress-health-check", "all", "--warnings", "off", "--no-color"]);
    for header in headers {
        command.args(["--header", header]);
    }
    let output = command.output().expect("schemathesis runs");
    let text = [output.stdout, output.stderr]
        .map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
        .concat();
    assert!(output.status.success(), "{}\n{text}", output.status);
    let tested = format!("Tested: {}\n", operations(serve));
    assert!(text.contains(&tested), "not every operation was tried:\n{text}");
    text
}

/// How many operations of the document a receiver serves, events left out.
fn operations(serve: &Serve) -> usize {
    let document = get(&serve.api, "/openapi.json").expect(200).json();
    let paths = document["paths"].as_object().expect("paths").iter();
    let is_served = |path: &str| {
        !["vms", "dumps", "events"]
            .iter()
            .any(|word| path.starts_with(&format!("/api/v1/{word}")))
    };
    let served = paths.filter(|(path, _)| is_served(path));
    let count = served
        .map(|(_, item)| item.as_object().map_or(0, serde_json::Map::len))
        .sum();
    assert!(count >= 11, "{document}");
    count
}

/// How many requests were made.
fn cases(text: &str) -> u32 {
    let line = text.lines().find(|line| line.contains(" generated, "));
    let number = line.and_then(|line| line.split_whitespace().next()?.parse().ok());
    number.unwrap_or_else(|| panic!("no number of test cases:\n{text}"))
}

#[test]
fn every_answer_is_one_that_the_document_names_with_a_token_and_without() {
    let Some(program) = testbed("schemathesis/bin/run") else {
        return;
    };
    let dir = temp_dir();
    let serve = Serve::start(dir.path());
    for guest in ["web-16", "web-17"] {
        dumps::send(&serve, guest, "page fault");
    }
    serve.settled_cores(2);
    let place = path_text(dir.path());
    let scopes = "read-meta,read-core,trigger,admin";
    let secret = run_ok(&["tokens", "add", "tester", "--scope", scopes, "--dir", place]);
    let known = tried(&program, &serve, &[format!("Authorization: Bearer {}", secret.trim())]);
    assert!(cases(&known) > 100, "{known}");
    let unknown = tried(&program, &serve, &[]);
    assert!(cases(&unknown) > 100, "{unknown}");
    // What it asked did no harm.
    assert_eq!(get(&serve.api, "/readyz").expect(200).text(), "ok\n");
}
