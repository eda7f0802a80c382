//! The parts of the REST contract that programs lean on: pages that neither repeat nor skip, and events of an earlier run.

mod common;
#[path = "web/dumps.rs"]
mod dumps;
#[path = "web/http.rs"]
mod http;
#[path = "receiver/tiny_sender.rs"]
mod tiny_sender;

use std::io::{BufRead as _, BufReader};

use common::{Serve, temp_dir};
use http::{get, send};
use serde_json::Value;

/// The ids of a page.
fn ids(page: &Value) -> Vec<String> {
    let items = page["items"].as_array().expect("items");
    items
        .iter()
        .map(|core| core["id"].as_str().expect("an id").to_owned())
        .collect()
}

#[test]
fn pages_neither_repeat_nor_skip_while_cores_arrive_and_odd_cursors_are_refused() {
    let dir = temp_dir();
    let serve = Serve::start(dir.path());
    for guest in ["a", "b", "a"] {
        dumps::send(&serve, guest, "panic");
    }
    let all: Vec<String> = serve
        .settled_cores(3)
        .iter()
        .map(|core| core["id"].as_str().expect("an id").to_owned())
        .collect();
    let first = get(&serve.api, "/api/v1/cores?limit=2").expect(200).json();
    assert_eq!(ids(&first), all[..2], "newest first");
    // What comes meanwhile is newer than all of the first page, and does not move the second.
    dumps::send(&serve, "c", "panic");
    serve.settled_cores(4);
    let cursor = first["next_cursor"].as_str().expect("there is more");
    let second = get(&serve.api, &format!("/api/v1/cores?limit=2&cursor={cursor}"))
        .expect(200)
        .json();
    assert_eq!(
        (ids(&second), &second["next_cursor"]),
        (all[2..].to_vec(), &Value::Null)
    );
    // A filter goes with a cursor.
    let page = get(&serve.api, "/api/v1/cores?limit=1&guest=a").expect(200).json();
    let cursor = page["next_cursor"].as_str().expect("there is more");
    let page = get(&serve.api, &format!("/api/v1/cores?limit=1&guest=a&cursor={cursor}"))
        .expect(200)
        .json();
    assert_eq!((ids(&page), &page["next_cursor"]), (all[2..].to_vec(), &Value::Null));
    for query in [
        "cursor=nonsense",
        "limit=0",
        "limit=x",
        "since=yesterday",
        "state=x",
        "odd=1",
    ] {
        get(&serve.api, &format!("/api/v1/cores?{query}")).problem(400, "bad-request");
    }
    get(&serve.api, "/api/v1/dead-letters?cursor=nonsense").problem(400, "bad-request");
    let letters = get(&serve.api, "/api/v1/dead-letters").expect(200).json();
    assert_eq!(
        (&letters["items"], &letters["next_cursor"]),
        (&Value::Array(Vec::new()), &Value::Null)
    );
}

#[test]
fn a_listener_that_comes_back_after_a_restart_of_the_receiver_hears_all_that_is_new() {
    let dir = temp_dir();
    let serve = Serve::start(dir.path());
    dumps::send(&serve, "before", "panic");
    serve.settled_cores(1);
    let listen = |serve: &Serve, last: &str| {
        let header = format!("Last-Event-ID: {last}");
        let stream = send(&serve.api, "GET", "/api/v1/events?types=core.complete", &[&header], "");
        BufReader::new(stream).lines().map(|line| line.expect("a line in time"))
    };
    let seen = listen(&serve, "0")
        .find_map(|line| line.strip_prefix("id: ").map(str::to_owned))
        .expect("an id");
    serve.daemon.terminate();
    let serve = Serve::start(dir.path());
    dumps::send(&serve, "after", "panic");
    serve.settled_cores(2);
    let data = listen(&serve, &seen)
        .find_map(|line| line.strip_prefix("data: ").map(str::to_owned))
        .expect("an event");
    let event: Value = serde_json::from_str(&data).expect("JSON");
    assert_eq!(
        event["data"]["guest"], "after",
        "ids of an earlier run are older than everything"
    );
    assert_ne!(event["id"], seen.as_str());
}
