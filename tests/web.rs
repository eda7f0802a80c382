//! The receiver's API and web page as programs and browsers see them.

mod common;
#[path = "web/dumps.rs"]
mod dumps;
#[path = "web/http.rs"]
mod http;
#[path = "receiver/tiny_sender.rs"]
mod tiny_sender;

use std::io::{BufRead as _, BufReader};

use common::{Serve, coreferry, path_text, run, run_ok, temp_dir, wait_for};
use http::{get, request, send};
use tiny_sender::TinySender;

/// A panic text that a page must not take for markup.
const HOSTILE: &str = "<script>alert(1)</script><img src=x onerror=alert(2)>\"'&amp;</pre>";

#[test]
fn markup_in_a_panic_stays_text_and_pages_carry_their_policy() {
    let dir = temp_dir();
    let serve = Serve::start(dir.path());
    dumps::send(&serve, "<b>web</b>", HOSTILE);
    let id = dumps::id(&serve);
    for path in [
        "/",
        &format!("/cores/{id}"),
        "/groups",
        "/health",
        "/cores/none",
        "/?guest=%3Cb%3Eweb%3C%2Fb%3E",
    ] {
        let answer = get(&serve.api, path);
        assert_eq!(answer.status, if path == "/cores/none" { 404 } else { 200 }, "{path}");
        let policy = answer.header("content-security-policy").expect("a policy");
        assert!(
            policy.starts_with("default-src 'none'") && !policy.contains("unsafe"),
            "{policy}"
        );
        assert_eq!(answer.header("x-content-type-options"), Some("nosniff"));
        let text = answer.text();
        for forbidden in [
            "<script>",
            "<img",
            "<b>",
            "onerror=alert(2)>\"",
            " style=",
            "<style",
            "javascript:",
        ] {
            assert!(!text.contains(forbidden), "{path} has `{forbidden}`:\n{text}");
        }
        for (at, _) in text.match_indices("<script") {
            assert!(
                text[at..].starts_with("<script src=\"/assets/"),
                "{path} has a script of its own"
            );
        }
        assert!(text.len() < 100 * 1024, "{path} is small");
    }
    let text = get(&serve.api, &format!("/cores/{id}")).expect(200).text();
    assert!(
        text.contains("&lt;script&gt;alert(1)&lt;/script&gt;"),
        "the panic is shown:\n{text}"
    );
    assert!(
        text.contains(&format!("coreferry cores fetch {id}")),
        "commands to copy"
    );
    let list = get(&serve.api, "/").expect(200).text();
    assert!(list.contains(&format!("href=\"/cores/{id}\"")), "{list}");
    let none = get(&serve.api, "/?guest=nobody").expect(200).text();
    assert!(
        none.contains("No core matches") && !none.contains(&id),
        "the address filters"
    );
    for asset in ["style.css", "script.js", "icon.svg"] {
        get(&serve.api, &format!("/assets/{asset}")).expect(200);
    }
}

#[test]
fn notes_and_pins_need_the_tag_of_what_was_read_and_a_pinned_core_stays() {
    let dir = temp_dir();
    let serve = Serve::start(dir.path());
    dumps::send(&serve, "web", "panic");
    let id = dumps::id(&serve);
    let path = format!("/api/v1/cores/{id}");
    let read = get(&serve.api, &path).expect(200);
    let tag = read.header("etag").expect("an entity tag").to_owned();
    let edit = |tag: &[&str], body: &str| request(&serve.api, "PATCH", &path, tag, body);
    edit(&[], "{}").problem(428, "condition-missing");
    edit(&["If-Match: \"old\""], "{}").problem(412, "changed");
    edit(&["If-Match: *"], r#"{"colour":1}"#).problem(400, "bad-request");
    edit(&["If-Match: *"], &format!(r#"{{"note":"{}"}}"#, "x".repeat(5000))).problem(400, "bad-request");
    let matching = format!("If-Match: {tag}");
    let body = r#"{"pinned":true,"note":"<i>seen</i>","labels":{"bug":"17"}}"#;
    let changed = edit(&[&matching], body).expect(200);
    assert_eq!(changed.json()["written"]["note"], "<i>seen</i>");
    assert_eq!(changed.json()["pinned"], true);
    edit(&[&matching], body).problem(412, "changed");
    let page = get(&serve.api, &format!("/cores/{id}")).text();
    assert!(
        page.contains("&lt;i&gt;seen&lt;/i&gt;") && page.contains("pinned"),
        "{page}"
    );
    request(&serve.api, "DELETE", &path, &[], "").problem(409, "wrong-state");
    edit(&["If-Match: *"], r#"{"pinned":false}"#).expect(200);
    request(&serve.api, "DELETE", &path, &[], "").expect(204);
    get(&serve.api, &path).problem(404, "not-found");
    assert!(serve.cores().is_empty(), "the directory says the same");
    // What people wrote outlives nothing, what they did does.
    let audit = std::fs::read_to_string(dir.path().join("audit.jsonl")).expect("an audit file");
    assert!(audit.contains("\"remove\"") && audit.contains(&id), "{audit}");
}

#[test]
fn each_download_is_written_down_with_its_range() {
    let dir = temp_dir();
    let serve = Serve::start(dir.path());
    dumps::send(&serve, "web", "panic");
    let id = dumps::id(&serve);
    let path = format!("/api/v1/cores/{id}/files/vmcore");
    assert_eq!(
        request(&serve.api, "GET", &path, &["Range: bytes=4000-4099"], "")
            .expect(206)
            .body
            .len(),
        100
    );
    get(&serve.api, &format!("/api/v1/cores/{id}/files/none")).problem(404, "not-found");
    let audit = std::fs::read_to_string(dir.path().join("audit.jsonl")).expect("an audit file");
    let lines: Vec<serde_json::Value> = audit
        .lines()
        .map(|line| serde_json::from_str(line).expect("JSON"))
        .collect();
    assert_eq!(lines.len(), 1, "{audit}");
    let line = &lines[0];
    assert_eq!((&line["what"], &line["file"]), (&"download".into(), &"vmcore".into()));
    assert_eq!((&line["offset"], &line["length"]), (&4000.into(), &100.into()));
    assert_eq!((&line["core"], &line["by"]), (&id.clone().into(), &"127.0.0.1".into()));
}

#[test]
fn events_come_as_they_happen_and_again_after_the_last_one_seen() {
    let dir = temp_dir();
    let serve = Serve::start(dir.path());
    get(&serve.api, "/api/v1/events?types=nothing").problem(400, "bad-request");
    let listen = |headers: &[&str], query: &str| {
        let path = format!("/api/v1/events{query}");
        let lines = BufReader::new(send(&serve.api, "GET", &path, headers, "")).lines();
        lines.map(|line| line.expect("a line in time"))
    };
    // The comment in front says that the listener has its place.
    let mut live = listen(&[], "");
    live.find(|line| line == ": coreferry").expect("a beginning");
    let mut sender = TinySender::connect(serve.netdump);
    sender.data(0, &[7; 4096]);
    let progress = live.find(|line| line.starts_with("event: dump.progress"));
    assert!(progress.is_some(), "a running dump is told of");
    sender.header(&dumps::header(4096, "web", "panic"));
    sender.finish();
    live.find(|line| line == "event: core.complete").expect("its end");
    let data = live
        .find_map(|line| line.strip_prefix("data: ").map(str::to_owned))
        .expect("its data");
    let event: serde_json::Value = serde_json::from_str(&data).expect("JSON");
    assert_eq!(
        (&event["specversion"], &event["data"]["panic"]),
        (&"1.0".into(), &"panic".into())
    );
    // Everything that is kept, then what came after the first of it.
    let mut all = listen(&["Last-Event-ID: 0"], "?types=dump.started,core.complete");
    let first = all
        .find_map(|line| line.strip_prefix("id: ").map(str::to_owned))
        .expect("an id");
    all.find(|line| line == "event: dump.started").expect("the beginning");
    all.find(|line| line == "event: core.complete").expect("the end");
    let mut rest = listen(&[&format!("Last-Event-ID: {first}")], "");
    let next = rest.find(|line| line.starts_with("event: ")).expect("an event");
    assert_ne!(next, "event: dump.started", "that one was seen");
}

#[test]
fn health_says_what_was_looked_at() {
    let dir = temp_dir();
    let serve = Serve::start(dir.path());
    assert_eq!(get(&serve.api, "/livez").expect(200).text(), "ok\n");
    assert_eq!(get(&serve.api, "/readyz").expect(200).text(), "ok\n");
    let verbose = get(&serve.api, "/readyz?verbose").expect(200).text();
    assert!(
        verbose.contains("ok   store-writable") && verbose.contains("ok   free-space"),
        "{verbose}"
    );
    let health = get(&serve.api, "/api/v1/health").expect(200).json();
    assert_eq!((&health["ready"], &health["cores"]), (&true.into(), &0.into()));
}

#[test]
fn a_receiver_that_takes_no_dump_for_want_of_space_says_so() {
    let dir = temp_dir();
    let settings = dir.path().join("serve.toml");
    std::fs::write(&settings, "[limits]\nfree-min = \"100%\"\n").expect("the file is written");
    let serve = Serve::start_with(dir.path(), &["--config", path_text(&settings)]);
    wait_for("a warning", || {
        let log = serve.daemon.stderr_text();
        (log.contains("WARN") && log.contains("(free-min): no dump is taken")).then_some(())
    });
    let unready = get(&serve.api, "/readyz?verbose").expect(503).text();
    assert!(
        unready.contains("free-space") && unready.contains("no dump is taken"),
        "{unready}"
    );
    let health = get(&serve.api, "/api/v1/health").expect(200).json();
    assert_eq!(health["ready"], false);
}

#[test]
fn with_a_token_there_is_no_way_past_it_and_memory_needs_its_own_scope() {
    let dir = temp_dir();
    let serve = Serve::start(dir.path());
    dumps::send(&serve, "web", "panic");
    let id = dumps::id(&serve);
    let place = path_text(dir.path());
    get(&serve.api, "/api/v1/cores").expect(200);
    request(&serve.api, "GET", "/api/v1/cores", &["Authorization: Bearer cft_x"], "").problem(401, "unauthenticated");
    let add = |name: &str, scopes: &str| {
        let secret = run_ok(&["tokens", "add", name, "--scope", scopes, "--dir", place]);
        secret.trim().to_owned()
    };
    let (reader, admin) = (add("reader", "read-meta"), add("boss", "read-meta,read-core,admin"));
    let with = |secret: &str, method: &str, path: &str| {
        request(
            &serve.api,
            method,
            path,
            &[&format!("Authorization: Bearer {secret}")],
            "",
        )
    };
    let (core, vmcore) = (
        format!("/api/v1/cores/{id}"),
        format!("/api/v1/cores/{id}/files/vmcore"),
    );
    for path in [
        "/api/v1/cores",
        core.as_str(),
        vmcore.as_str(),
        "/metrics",
        "/",
        "/live",
        "/api/v1/events",
    ] {
        let refused = get(&serve.api, path).problem(401, "unauthenticated");
        assert!(
            refused
                .header("www-authenticate")
                .is_some_and(|value| value.starts_with("Bearer")),
            "{path}"
        );
    }
    for path in ["/livez", "/readyz", "/openapi.json", "/login", "/assets/style.css"] {
        get(&serve.api, path).expect(200);
    }
    with(&reader, "GET", &core).expect(200);
    with(&reader, "GET", &vmcore).problem(403, "denied");
    with(&reader, "HEAD", &vmcore).expect(403);
    with(&reader, "GET", &format!("{core}/extents")).problem(403, "denied");
    with(&reader, "DELETE", &core).problem(403, "denied");
    with(&admin, "GET", &vmcore).expect(200);
    let audit = std::fs::read_to_string(dir.path().join("audit.jsonl")).expect("an audit file");
    assert!(audit.contains("token boss") && !audit.contains(&admin), "{audit}");
    // A browser is led to the login page and comes back with a cookie.
    let page = request(&serve.api, "GET", "/", &["Accept: text/html"], "").expect(303);
    assert_eq!(page.header("location"), Some("/login"));
    let form = ["Content-Type: application/x-www-form-urlencoded"];
    let logged_in = request(&serve.api, "POST", "/login", &form, &format!("token={reader}")).expect(303);
    let cookie = logged_in.header("set-cookie").expect("a cookie").to_owned();
    assert!(
        cookie.contains("HttpOnly") && cookie.contains("SameSite=Strict"),
        "{cookie}"
    );
    let cookie = cookie.split(';').next().expect("a pair");
    request(&serve.api, "GET", "/", &[&format!("Cookie: {cookie}")], "").expect(200);
    // The command line shows what the environment holds.
    let list = |secret: &str| {
        let mut command = coreferry();
        command
            .args(["cores", "list", "--api", &serve.api])
            .env("COREFERRY_TOKEN", secret);
        command.output().expect("it runs").status.code()
    };
    assert_eq!((list(&reader), list("cft_x")), (Some(0), Some(5)));
    run_ok(&["tokens", "remove", "reader", "--dir", place]);
    with(&reader, "GET", &core).problem(401, "unauthenticated");
}

#[test]
fn an_open_api_is_for_this_host_only() {
    let dir = temp_dir();
    let serve = Serve::start(dir.path());
    // A page elsewhere whose name was made to mean this address.
    let mut answer = String::new();
    let mut stream = std::net::TcpStream::connect(&serve.api).expect("it answers");
    std::io::Write::write_all(
        &mut stream,
        b"GET /api/v1/cores HTTP/1.1\r\nHost: evil.example\r\nConnection: close\r\n\r\n",
    )
    .expect("sent");
    std::io::Read::read_to_string(&mut stream, &mut answer).expect("an answer");
    assert!(answer.starts_with("HTTP/1.1 401"), "{answer}");
    let output = run(&[
        "serve",
        "--dir",
        path_text(dir.path()),
        "--api",
        "0.0.0.0:0",
        "--listen",
        "127.0.0.1:0",
    ]);
    assert_eq!(output.status.code(), Some(2), "it does not start");
    assert!(
        String::from_utf8_lossy(&output.stderr).contains("not a loopback address"),
        "and says why"
    );
}

#[test]
fn a_canary_goes_the_whole_way_and_the_receiver_shows_when() {
    let dir = temp_dir();
    let serve = Serve::start(dir.path());
    let name = "coreferry_last_canary_success_timestamp_seconds";
    assert!(
        get(&serve.api, "/metrics").text().contains(&format!("\n{name} 0\n")),
        "none came yet"
    );
    let report = run_ok(&["doctor", "--to", &serve.netdump.to_string(), "--json"]);
    let report: serde_json::Value = serde_json::from_str(&report).expect("JSON");
    assert_eq!(report["ok"], true, "{report}");
    let core = serve.settled_cores(1).remove(0);
    assert_eq!(
        (&core["format"], &core["state"]),
        (&"canary".into(), &"complete".into())
    );
    let health = get(&serve.api, "/api/v1/health").expect(200).json();
    assert_eq!(health["last_canary"], core["received_at"]);
    let metrics = get(&serve.api, "/metrics").text();
    assert!(
        metrics.contains(name) && !metrics.contains(&format!("\n{name} 0\n")),
        "{metrics}"
    );
    assert!(
        !get(&serve.api, "/health").text().contains("none yet"),
        "the page shows it"
    );
}

#[test]
fn a_canary_to_nobody_says_so() {
    let nobody = std::net::UdpSocket::bind("127.0.0.1:0").expect("a socket");
    let to = nobody.local_addr().expect("an address").to_string();
    drop(nobody);
    let output = run(&["doctor", "--to", &to]);
    let texts = [output.stdout, output.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
    assert_eq!(output.status.code(), Some(6), "{texts:?}");
    assert!(
        texts[0].contains("ok   look up") && texts[0].contains("FAIL canary"),
        "{texts:?}"
    );
}

#[test]
fn every_number_is_documented_and_those_of_a_dump_move() {
    let dir = temp_dir();
    let serve = Serve::start(dir.path());
    let read = || {
        let text = get(&serve.api, "/metrics").expect(200).text();
        let samples = text.lines().filter(|line| !line.starts_with('#')).filter_map(|line| {
            let (name, value) = line.rsplit_once(' ')?;
            Some((name.to_owned(), value.parse::<f64>().expect("a number")))
        });
        (samples.collect::<std::collections::BTreeMap<_, _>>(), text)
    };
    let (before, text) = read();
    let documented =
        std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/operations.md")).expect("a document");
    let names = text
        .lines()
        .filter_map(|line| line.strip_prefix("# TYPE ")?.split(' ').next());
    for name in names {
        assert!(
            documented.contains(&format!("`{name}")),
            "docs/operations.md does not say what {name} is"
        );
        assert!(text.contains(&format!("# HELP {name} ")), "{name} has no help");
    }
    dumps::send(&serve, "web", "panic");
    serve.settled_cores(1);
    let (after, _) = read();
    for name in [
        "coreferry_sessions_total",
        "coreferry_heralds_total",
        "coreferry_packets_total",
        "coreferry_received_bytes_total",
        "coreferry_stored_bytes",
        "coreferry_quota_ratio",
        "coreferry_cores{state=\"complete\"}",
        "coreferry_core_bytes_count{kind=\"logical\"}",
        "coreferry_core_bytes_sum{kind=\"stored\"}",
        "coreferry_receive_duration_seconds_count",
        "coreferry_receive_duration_seconds_sum",
        "coreferry_ack_latency_seconds_count",
        "coreferry_fsync_duration_seconds_count",
        "coreferry_crashes_total{guest_os=\"other\"}",
    ] {
        assert!(
            after[name] > before[name],
            "{name} is {} after {}",
            after[name],
            before[name]
        );
    }
    // What dashboard and alerts ask for is there.
    for file in ["grafana.json", "alerts.yml"] {
        let path = format!("{}/docs/{file}", env!("CARGO_MANIFEST_DIR"));
        let asked = std::fs::read_to_string(&path).expect("a file");
        if file == "grafana.json" {
            let dashboard: serde_json::Value = serde_json::from_str(&asked).expect("a dashboard is JSON");
            assert!(dashboard["panels"].as_array().is_some_and(|panels| panels.len() >= 6));
        }
        let words = asked.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_'));
        let named: std::collections::BTreeSet<&str> = words.filter(|word| word.starts_with("coreferry_")).collect();
        assert!(!named.is_empty(), "{file} asks for nothing");
        for name in named {
            assert!(
                text.contains(&format!("# TYPE {name} ")),
                "{file} asks for {name}, which is no number of ours"
            );
        }
    }
}

#[test]
fn notes_pins_and_removal_by_command_line() {
    let dir = temp_dir();
    let serve = Serve::start(dir.path());
    dumps::send(&serve, "web", "panic");
    let id = dumps::id(&serve);
    let place = path_text(dir.path());
    run_ok(&["cores", "note", "latest", "seen", "--api", &serve.api]);
    run_ok(&["cores", "pin", &id, "--dir", place]);
    let info = get(&serve.api, &format!("/api/v1/cores/{id}")).expect(200).json();
    assert_eq!(
        (&info["written"]["note"], &info["pinned"]),
        (&"seen".into(), &true.into())
    );
    assert_eq!(
        run(&["cores", "rm", &id, "--dir", place]).status.code(),
        Some(1),
        "it is pinned"
    );
    run_ok(&["cores", "unpin", &id, "--api", &serve.api]);
    let line = run_ok(&["cores", "list", "--jsonl", "--dir", place]);
    let core: serde_json::Value = serde_json::from_str(line.trim_end()).expect("one line of JSON");
    assert_eq!(core["pinned"], false);
    run_ok(&["cores", "rm", &id, "--dir", place]);
    assert!(serve.cores().is_empty());
    get(&serve.api, &format!("/api/v1/cores/{id}")).problem(404, "not-found");
    assert!(std::fs::read_to_string(dir.path().join("audit.jsonl")).is_ok_and(|audit| audit.contains("uid ")));
}
