//! `coreferry serve` as a whole: start, stop, refusals, losses, a full disk.

mod common;
#[path = "receiver/files.rs"]
mod files;
#[path = "stock/mod.rs"]
mod stock;
#[path = "receiver/text.rs"]
mod text;
#[path = "receiver/tiny_sender.rs"]
mod tiny_sender;

use std::fs;
use std::process::Stdio;

use common::{Daemon, Serve, complaint, coreferry, path_text, run, skip, temp_dir, wait_for};
use nix::sys::signal::Signal;
use tiny_sender::{TinySender, kernel_dump_header};

#[test]
fn it_says_that_it_is_ready_in_one_line_and_ends_on_a_signal() {
    for signal in [Signal::SIGTERM, Signal::SIGINT] {
        let dir = temp_dir();
        let mut command = coreferry();
        command.args([
            "serve",
            "--dir",
            path_text(dir.path()),
            "--listen",
            "127.0.0.1:0",
            "--api",
            "127.0.0.1:0",
        ]);
        command.stdout(Stdio::piped()).stderr(Stdio::null());
        let mut child = command.spawn().expect("it starts");
        let mut stdout = child.stdout.take().expect("a pipe");
        let reader = std::thread::spawn(move || {
            let mut text = String::new();
            std::io::Read::read_to_string(&mut stdout, &mut text).map(|_| text)
        });
        wait_for("the directories of the store", || {
            dir.path().join("spool").is_dir().then_some(())
        });
        std::thread::sleep(std::time::Duration::from_millis(300));
        let pid = nix::unistd::Pid::from_raw(i32::try_from(child.id()).expect("a process id"));
        nix::sys::signal::kill(pid, signal).expect("the signal is sent");
        assert!(child.wait().expect("it ends").success(), "{signal}");
        let text = reader.join().expect("the reader ends").expect("text");
        assert_eq!(text.lines().count(), 1, "{text}");
        assert!(
            text.starts_with("ready netdump=127.0.0.1:") && text.contains(" api=127.0.0.1:"),
            "{text}"
        );
        assert!(!text.contains(":0 ") && text.ends_with('\n'), "{text}");
    }
}

#[test]
fn a_socket_is_told_as_unix_path_and_removed_at_the_end() {
    let dir = temp_dir();
    let socket = dir.path().join("api.sock");
    let api = format!("unix:{}", path_text(&socket));
    let serve = Serve::start_with(dir.path(), &["--api", &api]);
    assert_eq!(serve.api, api);
    let output = run(&["cores", "list", "--json", "--api", &api]);
    assert_eq!(String::from_utf8_lossy(&output.stdout).trim(), "[]");
    assert!(serve.daemon.terminate().success());
    assert!(!socket.exists());
}

#[test]
fn listening_to_the_world_without_saying_to_whom_is_a_usage_error() {
    let dir = temp_dir();
    let dir = path_text(dir.path());
    let text = complaint(
        &["serve", "--dir", dir, "--listen", "0.0.0.0:0", "--api", "127.0.0.1:0"],
        2,
    );
    assert!(text.contains("--allow") && text.contains("0.0.0.0"), "{text}");
    complaint(&["serve", "--dir", dir, "--api", "0.0.0.0:0"], 2);
    complaint(&["serve", "--dir", dir, "--allow", "10.0.0.0/33"], 2);
    complaint(&["serve", "--dir", dir, "--listen", "nowhere"], 2);
}

#[test]
fn a_file_says_what_options_leave_open_and_its_mistakes_are_named() {
    let dir = temp_dir();
    let file = dir.path().join("serve.toml");
    fs::write(
        &file,
        "listen = '0.0.0.0:0'\nallow = ['192.0.2.0/24']\napi = '127.0.0.1:0'\n",
    )
    .expect("the file is written");
    let mut command = coreferry();
    command.args(["serve", "--dir", path_text(dir.path()), "--config", path_text(&file)]);
    let daemon = Daemon::start(command);
    let line = daemon.line_starting("ready ");
    assert!(
        line.contains("netdump=0.0.0.0:") && line.contains("api=127.0.0.1:"),
        "{line}"
    );
    assert!(daemon.terminate().success());

    for (text, named) in [
        ("colour = 'red'", "`colour`"),
        ("listen = 'x'", "`listen`"),
        ("dir =", "line 1"),
    ] {
        fs::write(&file, text).expect("the file is written");
        let said = complaint(&["serve", "--config", path_text(&file)], 2);
        assert!(said.contains("serve.toml") && said.contains(named), "{said}");
    }
    let said = complaint(&["serve", "--config", path_text(&dir.path().join("gone.toml"))], 1);
    assert!(said.contains("gone.toml") && said.contains("--config"), "{said}");
}

#[test]
fn with_a_list_of_networks_it_listens_everywhere_and_takes_loopback() {
    let dir = temp_dir();
    let serve = Serve::start_with(dir.path(), &["--listen", "0.0.0.0:0", "--allow", "192.0.2.0/24"]);
    // A multi-homed host: the answers come from the very address that was dialled.
    let to = format!("127.0.0.77:{}", serve.netdump.port())
        .parse()
        .expect("an address");
    let mut sender = TinySender::connect(to);
    assert_eq!(sender.answered_by().ip().to_string(), "127.0.0.77");
    sender.data(0, &[5; 4096]);
    sender.header(&kernel_dump_header(4096, "multi"));
    sender.finish();
    assert_eq!(serve.settled_cores(1)[0]["state"], "complete");
}

#[test]
fn a_directory_that_cannot_be_used_is_named() {
    let dir = temp_dir();
    let missing = dir.path().join("not/there");
    let text = complaint(
        &[
            "serve",
            "--dir",
            path_text(&missing),
            "--listen",
            "127.0.0.1:0",
            "--api",
            "127.0.0.1:0",
        ],
        1,
    );
    assert!(text.contains("not/there") && text.contains("--dir"), "{text}");
    let file = dir.path().join("file");
    fs::write(&file, "").expect("the file is written");
    let text = complaint(
        &[
            "serve",
            "--dir",
            path_text(&file),
            "--listen",
            "127.0.0.1:0",
            "--api",
            "127.0.0.1:0",
        ],
        1,
    );
    assert!(text.contains("file"), "{text}");
}

#[test]
fn a_taken_port_is_named() {
    let dir = temp_dir();
    let serve = Serve::start(dir.path());
    let other = temp_dir();
    let (other, listen) = (path_text(other.path()), serve.netdump.to_string());
    let text = complaint(
        &["serve", "--dir", other, "--listen", &listen, "--api", "127.0.0.1:0"],
        1,
    );
    assert!(text.contains(&listen) && text.contains("--listen"), "{text}");
    let text = complaint(
        &["serve", "--dir", other, "--listen", "127.0.0.1:0", "--api", &serve.api],
        1,
    );
    assert!(text.contains(&serve.api) && text.contains("--api"), "{text}");
}

#[test]
fn lost_bytes_are_acknowledged_as_finished_and_listed_as_holes() {
    let dir = temp_dir();
    let serve = Serve::start(dir.path());
    let mut sender = TinySender::connect(serve.netdump);
    sender.data(0, &[1; 4096]);
    sender.data(8192, &[2; 4096]);
    let spool: Vec<_> = fs::read_dir(dir.path().join("spool")).expect("the spool").collect();
    assert_eq!(spool.len(), 1);
    let receiving = serve.cores();
    assert_eq!(receiving[0]["state"], "receiving");
    sender.header(&kernel_dump_header(16384, "lossy"));
    sender.finish();
    let core = serve.settled_cores(1).remove(0);
    assert_eq!(core["state"], "incomplete");
    assert_eq!(core["stored_bytes"], 8192);
    assert_eq!(core["file_len_bytes"], 16384);
    assert_eq!(
        core["holes"],
        serde_json::json!([{"offset": 4096, "length": 4096}, {"offset": 12288, "length": 4096}])
    );
    assert_eq!(core["id"], receiving[0]["id"]);
    complaint(&["cores", "verify", "latest", "--dir", path_text(dir.path())], 4);
    let info = fs::read_to_string(
        serve
            .vmcore_path(core["id"].as_str().expect("text"))
            .with_file_name("info.txt"),
    );
    let info = info.expect("info.txt");
    assert!(
        info.contains("Dump Status: bad") && info.contains("Hostname: lossy"),
        "{info}"
    );
}

#[test]
fn acknowledged_bytes_survive_the_death_of_the_receiver() {
    let dir = temp_dir();
    let serve = Serve::start(dir.path());
    let mut sender = TinySender::connect(serve.netdump);
    for page in 0..50_u64 {
        sender.data(page * 4096, &[u8::try_from(page).expect("small") + 1; 4096]);
    }
    serve.daemon.kill();
    let serve = Serve::start(dir.path());
    let core = serve.settled_cores(1).remove(0);
    assert_eq!(core["state"], "incomplete");
    assert_eq!(core["stored_bytes"], 50 * 4096);
    let bytes = fs::read(serve.vmcore_path(core["id"].as_str().expect("text"))).expect("the vmcore");
    let expected: Vec<u8> = (1..=50).flat_map(|page| vec![page; 4096]).collect();
    assert!(bytes == expected, "the bytes differ");
    assert_eq!(fs::read_dir(dir.path().join("spool")).expect("the spool").count(), 0);
}

#[test]
fn a_full_disk_keeps_what_came_and_hurts_no_other_session() {
    if !nix::unistd::geteuid().is_root() {
        return skip("a disk of limited size needs a mount, and that needs root");
    }
    let dir = temp_dir();
    let full = dir.path().join("small");
    fs::create_dir(&full).expect("the mount point");
    let script = "mount -t tmpfs -o size=16m tmpfs \"$1\" && exec \"$0\" serve --dir \"$1\" \
                  --listen 127.0.0.1:0 --api 127.0.0.1:0";
    let plain = coreferry();
    let mut command = std::process::Command::new("unshare");
    command
        .args(["--mount", "sh", "-c", script])
        .arg(plain.get_program())
        .arg(&full);
    let daemon = Daemon::start(command);
    let ready = daemon.line_starting("ready ");
    let field = |name: &str| {
        let found = ready.split_whitespace().find_map(|word| word.strip_prefix(name));
        found.unwrap_or_else(|| panic!("{name} in {ready}")).to_owned()
    };
    let to: std::net::SocketAddrV4 = field("netdump=").parse().expect("an address");
    let mut small = TinySender::connect(to);
    small.data(0, &[3; 4096]);

    let big = dir.path().join("big");
    fs::write(&big, vec![0xa5; 32 << 20]).expect("the file is written");
    let text = complaint(
        &["send", path_text(&big), "--to", &to.to_string(), "--hostname", "big"],
        6,
    );
    assert!(text.contains("disk"), "{text}");

    // The disk is full now. What was acknowledged before is safe, and its records can be written.
    small.header(&kernel_dump_header(4096, "small"));
    small.finish();
    let api = field("api=");
    let cores = run(&["cores", "list", "--json", "--api", &api]);
    let cores: Vec<serde_json::Value> = serde_json::from_slice(&cores.stdout).expect("an array");
    let by_guest = |guest: &str| {
        let core = cores.iter().find(|core| core["guest"] == guest);
        core.unwrap_or_else(|| panic!("no core of {guest} in {cores:?}\n{}", daemon.stderr_text()))
    };
    assert_eq!(by_guest("small")["state"], "complete");
    let big = cores
        .iter()
        .find(|core| core["guest"] != "small")
        .expect("the core of the big dump");
    assert_eq!(big["state"], "incomplete");
    assert!(big["stored_bytes"].as_u64().expect("a number") > 8 << 20, "{big}");
    let id = big["id"].as_str().expect("text");
    let info = run(&["cores", "info", id, "--api", &api]);
    let info = String::from_utf8_lossy(&info.stdout).into_owned();
    assert!(info.contains("No space left"), "{info}");
    assert!(daemon.terminate().success());
}

#[test]
fn the_api_serves_health_metrics_and_its_own_description() {
    let dir = temp_dir();
    let serve = Serve::start(dir.path());
    let get = |path: &str| http_get(&serve.api, path);
    assert!(get("/livez").starts_with("HTTP/1.1 200"));
    assert!(get("/readyz").starts_with("HTTP/1.1 200"));
    assert!(get("/metrics").contains("coreferry_sessions_total 0"));
    assert!(get("/openapi.json").contains("\"openapi\":\"3.1"));
    let missing = get("/api/v1/cores/nothing");
    assert!(
        missing.starts_with("HTTP/1.1 404") && missing.contains("application/problem+json"),
        "{missing}"
    );
    let wrong = get("/api/v1/cores?limit=0");
    assert!(
        wrong.starts_with("HTTP/1.1 400") && wrong.contains("application/problem+json"),
        "{wrong}"
    );
    assert!(get("/nowhere").starts_with("HTTP/1.1 404"));
}

/// A whole answer, headers and all.
fn http_get(api: &str, path: &str) -> String {
    use std::io::{Read as _, Write as _};
    let mut stream = std::net::TcpStream::connect(api).expect("the API answers");
    let request = format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).expect("sent");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("an answer in text");
    answer
}
