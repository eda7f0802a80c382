//! `coreferry cores`: from a directory and through the API, and every way in which it ends.

mod common;
#[path = "receiver/tiny_sender.rs"]
mod tiny_sender;

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use common::{Serve, coreferry, path_text, run, run_ok, temp_dir};
use serde_json::Value;
use tiny_sender::{TinySender, kernel_dump_header};

/// Sends a sparse dump: 4 KiB at each of `offsets`, announced as `len` bytes.
fn send(serve: &Serve, guest: &str, len: u64, offsets: &[u64]) {
    let mut sender = TinySender::connect(serve.netdump);
    for (index, offset) in offsets.iter().enumerate() {
        sender.data(*offset, &[u8::try_from(index).expect("few") + 1; 4096]);
    }
    sender.header(&kernel_dump_header(len, guest));
    sender.finish();
}

/// Runs a command that must end with `code`; gives both its outputs.
fn ends_with(arguments: &[&str], code: i32) -> (String, String) {
    let output = run(arguments);
    let texts = [output.stdout, output.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
    let [stdout, stderr] = texts;
    assert_eq!(
        output.status.code(),
        Some(code),
        "coreferry {arguments:?}:\n{stdout}\n{stderr}"
    );
    (stdout, stderr)
}

fn json(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|why| panic!("{why}: {text}"))
}

fn text_of(value: &Value) -> &str {
    value.as_str().expect("text")
}

#[test]
fn directory_and_api_say_the_same() {
    let dir = temp_dir();
    let serve = Serve::start(dir.path());
    send(&serve, "one", 4096, &[0]);
    send(&serve, "two", 16384, &[0, 8192]);
    serve.settled_cores(2);
    let (by_dir, by_api) = (["--dir", path_text(dir.path())], ["--api", &serve.api]);
    for verb in [vec!["list"], vec!["info", "latest"]] {
        let with = |place: [&str; 2]| {
            let mut arguments = vec!["cores"];
            arguments.extend_from_slice(&verb);
            arguments.extend_from_slice(&["--json", place[0], place[1]]);
            json(&run_ok(&arguments))
        };
        assert_eq!(with(by_dir), with(by_api), "{verb:?}");
    }
    let list = json(&run_ok(&["cores", "--json", "--dir", by_dir[1]]));
    assert_eq!(list[0]["guest"], "two", "newest first");
    for field in [
        "id",
        "guest",
        "client_addr",
        "received_at",
        "state",
        "panic",
        "signature",
        "format",
        "file_len_bytes",
        "stored_bytes",
        "holes",
        "kernel",
    ] {
        assert!(list[0].get(field).is_some(), "{field} is missing");
    }
    let info = json(&run_ok(&["cores", "info", "latest", "--json", "--dir", by_dir[1]]));
    assert_eq!(info["schema_version"], 1);
    assert_eq!(info["lost_bytes"], 8192);
}

#[test]
fn cores_are_found_by_id_prefix_and_latest() {
    let dir = temp_dir();
    let serve = Serve::start(dir.path());
    send(&serve, "one", 4096, &[0]);
    let place = path_text(dir.path());
    let core = serve.settled_cores(1).remove(0);
    let id = text_of(&core["id"]);
    for name in [id, &id[..20], &id[..1], "latest"] {
        let info = json(&run_ok(&["cores", "info", name, "--json", "--dir", place]));
        assert_eq!(info["id"], id);
    }
    let (_, stderr) = ends_with(&["cores", "info", "ffffffff", "--dir", place], 3);
    assert!(stderr.contains("ffffffff") && stderr.contains("cores list"), "{stderr}");
    ends_with(&["cores", "info", "ffffffff", "--api", &serve.api], 3);
    ends_with(&["cores", "verify", "ffffffff", "--dir", place], 3);
    ends_with(
        &["cores", "fetch", "ffffffff", "--dir", place, "-o", "/nonexistent/x"],
        3,
    );
    send(&serve, "two", 4096, &[0]);
    serve.settled_cores(2);
    let (_, stderr) = ends_with(&["cores", "info", &id[..1], "--dir", place], 2);
    assert!(stderr.contains("2 ids"), "{stderr}");
    ends_with(&["cores", "info", &id[..1], "--api", &serve.api], 2);
}

#[test]
fn filters_that_match_nothing_give_an_empty_list_and_exit_3() {
    let dir = temp_dir();
    let serve = Serve::start(dir.path());
    let place = path_text(dir.path());
    assert_eq!(run_ok(&["cores", "list", "--json", "--dir", place]).trim(), "[]");
    ends_with(&["cores", "info", "latest", "--dir", place], 3);
    send(&serve, "one", 4096, &[0]);
    serve.settled_cores(1);
    for source in [["--dir", place], ["--api", &serve.api]] {
        let list = |filter: [&'static str; 2]| ["cores", "list", "--json", source[0], source[1], filter[0], filter[1]];
        assert_eq!(ends_with(&list(["--guest", "other"]), 3).0.trim(), "[]");
        assert_eq!(ends_with(&list(["--state", "incomplete"]), 3).0.trim(), "[]");
        assert_eq!(ends_with(&list(["--since", "2100-01-01T00:00:00Z"]), 3).0.trim(), "[]");
        assert_eq!(
            json(&ends_with(&list(["--guest", "one"]), 0).0)
                .as_array()
                .expect("a list")
                .len(),
            1
        );
        assert_eq!(
            json(&ends_with(&list(["--state", "complete"]), 0).0)
                .as_array()
                .expect("a list")
                .len(),
            1
        );
        ends_with(&list(["--state", "broken"]), 2);
        ends_with(&list(["--since", "yesterday"]), 2);
    }
}

#[test]
fn a_fetched_core_is_the_stored_one_with_its_holes() {
    let dir = temp_dir();
    let serve = Serve::start(dir.path());
    let len: u64 = 40 << 20;
    send(
        &serve,
        "sparse",
        len,
        &[0, 4096, 12_288, 20 << 20, (20 << 20) + 8192, len - 4096],
    );
    let core = serve.settled_cores(1).remove(0);
    let stored = fs::read(serve.vmcore_path(text_of(&core["id"]))).expect("the vmcore");
    for (name, source) in [
        ("by-dir", ["--dir", path_text(dir.path())]),
        ("by-api", ["--api", &serve.api]),
    ] {
        let target = dir.path().join(name);
        let (_, stderr) = ends_with(
            &[
                "cores",
                "fetch",
                "latest",
                "-o",
                path_text(&target),
                source[0],
                source[1],
            ],
            0,
        );
        assert!(stderr.contains("incomplete"), "{stderr}");
        assert!(
            fs::read(&target).expect("the copy") == stored,
            "{name}: the copy differs"
        );
        let on_disk = fs::metadata(&target).expect("the copy").blocks() * 512;
        assert!(on_disk < len / 4, "{name}: {on_disk} bytes on disk, the holes are gone");
        assert!(!dir.path().join(format!("{name}.part")).exists());
    }
    let (_, stderr) = ends_with(
        &["cores", "fetch", "latest", "--api", &serve.api, "-o", "/nonexistent/x"],
        1,
    );
    assert!(stderr.contains("/nonexistent/x"), "{stderr}");
}

#[test]
fn a_changed_byte_is_found_from_the_directory_and_through_the_api() {
    let dir = temp_dir();
    let serve = Serve::start(dir.path());
    send(&serve, "one", 12_288, &[0, 4096, 8192]);
    let core = serve.settled_cores(1).remove(0);
    let sources = [["--dir", path_text(dir.path())], ["--api", &serve.api]];
    for source in sources {
        let (stdout, _) = ends_with(&["cores", "verify", "latest", "--json", source[0], source[1]], 0);
        assert_eq!(json(&stdout)["ok"], true);
        assert_eq!(json(&stdout)["verified_bytes"], 12_288);
    }
    let path = serve.vmcore_path(text_of(&core["id"]));
    let mut bytes = fs::read(&path).expect("the vmcore");
    bytes[5000] ^= 1;
    fs::write(&path, bytes).expect("the change");
    for source in sources {
        let (stdout, _) = ends_with(&["cores", "verify", "latest", "--json", source[0], source[1]], 4);
        assert_eq!(json(&stdout)["state"], "corrupt");
    }
    let target = dir.path().join("copy");
    for source in sources {
        let fetch = ["cores", "fetch", "latest", source[0], source[1], "-o"];
        let (_, stderr) = ends_with(&[&fetch[..], &[path_text(&target)]].concat(), 4);
        assert!(stderr.contains("digest"), "{stderr}");
        assert!(!target.exists() && !dir.path().join("copy.part").exists());
    }
    fs::remove_file(&path).expect("removed");
    let list = json(&run_ok(&["cores", "list", "--json", "--dir", path_text(dir.path())]));
    assert_eq!(list[0]["state"], "missing");
    ends_with(&["cores", "verify", "latest", "--dir", path_text(dir.path())], 4);
}

#[test]
fn a_wrong_directory_and_an_api_that_is_not_there_are_told_apart() {
    let dir = temp_dir();
    let missing = dir.path().join("missing");
    let (_, stderr) = ends_with(&["cores", "list", "--dir", path_text(&missing)], 1);
    assert!(stderr.contains("missing") && stderr.contains("--dir"), "{stderr}");
    let (_, stderr) = ends_with(&["cores", "list", "--api", "http://127.0.0.1:1"], 6);
    assert!(
        stderr.contains("http://127.0.0.1:1") && stderr.contains("coreferry serve"),
        "{stderr}"
    );
    let socket = format!("unix:{}", path_text(&missing));
    ends_with(&["cores", "list", "--api", &socket], 6);
    ends_with(&["cores", "list", "--api", "nonsense"], 2);
    ends_with(&["cores", "list", "--dir", "/tmp", "--api", "http://127.0.0.1:1"], 2);
    ends_with(&["cores", "nonsense"], 2);
}

#[test]
fn options_come_before_the_environment() {
    let dir = temp_dir();
    let serve = Serve::start(dir.path());
    send(&serve, "one", 4096, &[0]);
    serve.settled_cores(1);
    let list = |variables: &[(&str, &str)], more: &[&str]| {
        let mut command = coreferry();
        command
            .args(["cores", "list", "--json"])
            .args(more)
            .envs(variables.iter().copied());
        let output = command.output().expect("it runs");
        (output.status.code(), output.stdout)
    };
    let place = path_text(dir.path());
    let (code, stdout) = list(&[("COREFERRY_DIR", place)], &[]);
    assert_eq!(code, Some(0));
    assert_eq!(
        json(&String::from_utf8_lossy(&stdout))
            .as_array()
            .expect("a list")
            .len(),
        1
    );
    assert_eq!(list(&[("COREFERRY_API", &serve.api)], &[]).0, Some(0));
    assert_eq!(list(&[("COREFERRY_DIR", "/nonexistent")], &[]).0, Some(1));
    assert_eq!(
        list(&[("COREFERRY_DIR", "/nonexistent")], &["--api", &serve.api]).0,
        Some(0)
    );
    assert_eq!(
        list(&[("COREFERRY_API", "http://127.0.0.1:1")], &["--dir", place]).0,
        Some(0)
    );
}

#[test]
fn reading_a_directory_changes_nothing_in_it() {
    let dir = temp_dir();
    let before = |dir: &Path| fs::read_dir(dir).expect("a directory").count();
    let (stdout, stderr) = ends_with(&["cores", "list", "--json", "--dir", path_text(dir.path())], 0);
    assert_eq!(stdout.trim(), "[]");
    assert!(stderr.contains("no receiver"), "{stderr}");
    assert_eq!(before(dir.path()), 0);
}

#[test]
fn downloads_honour_ranges_and_entity_tags() {
    use std::io::{Read as _, Write as _};
    let dir = temp_dir();
    let serve = Serve::start(dir.path());
    send(&serve, "one", 8192, &[0, 4096]);
    let core = serve.settled_cores(1).remove(0);
    let path = format!("/api/v1/cores/{}/files/vmcore", text_of(&core["id"]));
    let get = |headers: &str| {
        let mut stream = std::net::TcpStream::connect(&serve.api).expect("the API answers");
        let request = format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n{headers}\r\n");
        stream.write_all(request.as_bytes()).expect("sent");
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).expect("an answer");
        let split = answer.windows(4).position(|four| four == b"\r\n\r\n").expect("headers");
        let head = String::from_utf8_lossy(&answer[..split]).to_lowercase();
        (head, answer[split + 4..].to_vec())
    };
    let (head, body) = get("");
    assert!(
        head.starts_with("http/1.1 200") && head.contains("accept-ranges: bytes"),
        "{head}"
    );
    assert_eq!(body.len(), 8192);
    let tag = head
        .lines()
        .find_map(|line| line.strip_prefix("etag: "))
        .expect("an entity tag")
        .to_owned();
    assert!(tag.starts_with('"'), "a strong tag: {tag}");
    let (head, body) = get("Range: bytes=4000-4099\r\n");
    assert!(
        head.starts_with("http/1.1 206") && head.contains("content-range: bytes 4000-4099/8192"),
        "{head}"
    );
    assert_eq!(body, [vec![1; 96], vec![2; 4]].concat());
    let (head, body) = get(&format!("Range: bytes=8000-\r\nIf-Range: {tag}\r\n"));
    assert!(head.starts_with("http/1.1 206"), "{head}");
    assert_eq!(body.len(), 192);
    let (head, body) = get("Range: bytes=8000-\r\nIf-Range: \"another\"\r\n");
    assert!(head.starts_with("http/1.1 200") && body.len() == 8192, "{head}");
    assert!(get(&format!("If-None-Match: {tag}\r\n")).0.starts_with("http/1.1 304"));
    assert!(get("Range: bytes=9000-\r\n").0.starts_with("http/1.1 416"));
}
