//! `cores prune` on a receiver's directory and over its API.

mod common;
#[path = "web/dumps.rs"]
mod dumps;
#[path = "receiver/tiny_sender.rs"]
mod tiny_sender;

use common::{Serve, path_text, run, run_ok, temp_dir};
use serde_json::Value;

#[test]
fn prune_says_what_goes_removes_it_and_writes_it_down_but_no_pinned_core() {
    let dir = temp_dir();
    let serve = Serve::start(dir.path());
    let place = path_text(dir.path());
    for count in 1..=4 {
        dumps::send(&serve, "web", "panic");
        serve.settled_cores(count);
    }
    let id = |core: &Value| core["id"].as_str().expect("an id").to_owned();
    let newest_first: Vec<String> = serve.cores().iter().map(id).collect();
    let prune = |more: &[&str]| -> Vec<Value> {
        let text = run_ok(&[&["cores", "prune", "--json"], more].concat());
        serde_json::from_str(&text).expect("an array")
    };
    run_ok(&["cores", "pin", &newest_first[3], "--dir", place]);
    assert!(
        prune(&["--dir", place]).is_empty(),
        "the defaults keep four young cores"
    );
    let would = prune(&["--dir", place, "--per-guest", "2", "--dry-run"]);
    assert_eq!(would.iter().map(id).collect::<Vec<_>>(), newest_first[2..3]);
    assert_eq!(
        (&would[0]["rule"], &would[0]["removed"]),
        (&"guest".into(), &false.into())
    );
    assert_eq!(serve.cores().len(), 4);

    let gone = prune(&["--dir", place, "--per-guest", "2"]);
    assert_eq!(gone.iter().map(id).collect::<Vec<_>>(), newest_first[2..3]);
    let audit = std::fs::read_to_string(dir.path().join("audit.jsonl")).expect("an audit file");
    assert!(
        audit.contains("(prune by guest)") && audit.contains(&newest_first[2]),
        "{audit}"
    );
    let gone = prune(&["--api", &serve.api, "--max-stored", "1MiB", "--max-age", "1ms"]);
    assert_eq!(gone.len(), 2, "all but the pinned one: {gone:?}");
    assert_eq!(serve.cores().iter().map(id).collect::<Vec<_>>(), newest_first[3..]);
    for wrong in [["--per-guest", "0"], ["--max-stored", "10%"], ["--max-age", "soon"]] {
        let refused = run(&[&["cores", "prune", "--dir", place], &wrong[..]].concat());
        assert_eq!(refused.status.code(), Some(2), "{wrong:?}");
    }
}
