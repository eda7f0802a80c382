//! Alert rules, dashboard and numbers, read by Prometheus's own tool.

mod common;
#[path = "web/dumps.rs"]
mod dumps;
#[path = "web/http.rs"]
mod http;
#[path = "common/testbed.rs"]
mod testbed;
#[path = "receiver/tiny_sender.rs"]
mod tiny_sender;

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use common::{Serve, path_text, temp_dir};
use http::get;
use serde_json::{Value, json};
use testbed::testbed;

/// Rules that are handed out.
const RULES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/alerts.yml");
/// What they must say to made-up numbers.
const CASES: &str = include_str!("alerts/cases.yml");

/// Runs promtool, which must find nothing wrong; gives what it printed.
fn promtool(program: &Path, arguments: &[&str], input: Option<&Path>) -> String {
    let mut command = Command::new(program);
    command.args(arguments);
    command.stdin(input.map_or_else(Stdio::null, |path| fs::File::open(path).expect("the input").into()));
    let output = command.output().expect("promtool runs");
    let text = [output.stdout, output.stderr]
        .map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
        .concat();
    assert!(output.status.success(), "promtool {arguments:?}:\n{text}");
    text
}

#[test]
fn every_alert_is_sound_and_fires_when_it_should_and_only_then() {
    let Some(program) = testbed("promtool") else { return };
    let dir = temp_dir();
    let rules = fs::read_to_string(RULES).expect("the rules");
    let cases = dir.path().join("cases.yml");
    fs::write(dir.path().join("alerts.yml"), &rules).expect("written");
    fs::write(&cases, CASES).expect("written");
    assert!(promtool(&program, &["check", "rules", RULES], None).contains("rules found"));
    promtool(&program, &["test", "rules", path_text(&cases)], None);
    // Each has its case, quiet and loud.
    let alerts = rules.lines().filter_map(|line| line.trim().strip_prefix("- alert: "));
    let alerts: Vec<&str> = alerts.collect();
    assert!(alerts.len() >= 7, "{alerts:?}");
    for alert in alerts {
        assert!(
            CASES.contains(&format!("alertname: {alert}}}")),
            "{alert} is never seen to be quiet"
        );
        assert!(
            CASES.contains(&format!("alertname: {alert}\n")),
            "{alert} is never seen to fire"
        );
    }
}

#[test]
fn the_dashboard_asks_what_prometheus_understands() {
    let Some(program) = testbed("promtool") else { return };
    let text = fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/grafana.json")).expect("a dashboard");
    let dashboard: Value = serde_json::from_str(&text).expect("JSON");
    let targets = dashboard["panels"].as_array().expect("panels").iter();
    let targets = targets.flat_map(|panel| panel["targets"].as_array().cloned().unwrap_or_default());
    // Variables are Grafana's: it puts in their values.
    let asked = targets.map(|target| {
        target["expr"]
            .as_str()
            .expect("an expression")
            .replace("$__rate_interval", "5m")
    });
    let rules: Vec<Value> = asked
        .enumerate()
        .map(|(at, expr)| json!({ "record": format!("asked:{at}"), "expr": expr }))
        .collect();
    assert!(rules.len() >= 6, "{rules:?}");
    let dir = temp_dir();
    // JSON is YAML, too.
    let file = dir.path().join("asked.yml");
    let groups = json!({ "groups": [{ "name": "dashboard", "rules": rules }] });
    fs::write(&file, groups.to_string()).expect("written");
    let said = promtool(&program, &["check", "rules", path_text(&file)], None);
    assert!(said.contains(&format!("{} rules found", rules.len())), "{said}");
}

#[test]
fn the_numbers_are_named_and_told_as_prometheus_wants_them() {
    let Some(program) = testbed("promtool") else { return };
    let dir = temp_dir();
    let serve = Serve::start(&dir.path().join("store"));
    dumps::send(&serve, "web", "page fault");
    serve.settled_cores(1);
    let numbers = get(&serve.api, "/metrics").expect(200).text();
    assert!(numbers.contains("coreferry_received_bytes_total 8"), "{numbers}");
    let file = dir.path().join("metrics");
    fs::write(&file, &numbers).expect("written");
    promtool(&program, &["check", "metrics"], Some(&file));
}
