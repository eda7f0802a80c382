//! Downloads: what goes over the wire, and what happens when the one who fetches is killed.

mod common;
#[path = "web/dumps.rs"]
mod dumps;
#[path = "download/proxy.rs"]
mod proxy;
#[path = "receiver/tiny_sender.rs"]
mod tiny_sender;

use std::os::unix::fs::MetadataExt as _;

use common::{Daemon, PATIENCE, Serve, coreferry, path_text, run, run_ok, temp_dir, wait_for};
use nix::sys::signal::Signal;
use proxy::Proxy;
use serde_json::Value;
use tiny_sender::TinySender;

/// Sends a sparse core: `count` runs of `run_len` bytes, far apart in `file_len`.
fn send_sparse(serve: &Serve, file_len: u64, count: u64, run_len: u64) {
    const MESSAGE: usize = 8192;
    let mut sender = TinySender::connect(serve.netdump);
    for run in 0..count {
        for (number, at) in (0..run_len).step_by(MESSAGE).enumerate() {
            let byte = u8::try_from(number % 255).expect("it fits") + 1;
            sender.data(run * (file_len / count) + at, &[byte; MESSAGE]);
        }
    }
    sender.header(&dumps::header(file_len, "web", "panic"));
    sender.finish();
    serve.settled_cores(1);
}

#[test]
fn a_killed_fetch_goes_on_where_it_was_and_the_whole_is_what_the_manifest_says() {
    let dir = temp_dir();
    let serve = Serve::start(&dir.path().join("store"));
    // Three downloads of 1 MiB each.
    send_sparse(&serve, 96 << 20, 3, 1 << 20);
    let file = dir.path().join("vmcore");
    // The second one stops in its middle.
    let proxy = Proxy::holding(&serve.api, 2, 512 << 10);
    let mut command = coreferry();
    command.args(["cores", "fetch", "latest", "--api", &proxy.api, "-o", path_text(&file)]);
    let fetching = Daemon::start(command);
    let part = dir.path().join("vmcore.part");
    wait_for("the first MiB and a part of the second", || {
        let blocks = std::fs::metadata(&part).ok()?.blocks() * 512;
        (blocks > (1 << 20) + (128 << 10)).then_some(())
    });
    fetching.kill();
    assert!(!file.exists() && part.exists(), "nothing is called whole that is not");
    let counting = Proxy::counting(&serve.api);
    let fetch = [
        "cores",
        "fetch",
        "latest",
        "--api",
        &counting.api,
        "-o",
        path_text(&file),
        "--json",
    ];
    let told: Value = serde_json::from_str(&run_ok(&fetch)).expect("JSON");
    assert_eq!(
        told["resumed_bytes"],
        1 << 20,
        "the first MiB was there and is proven: {told}"
    );
    let came = counting.answer_bytes();
    assert!(
        ((2 << 20)..(2 << 20) + (64 << 10)).contains(&came),
        "{came} bytes came for the other two"
    );
    let id = told["id"].as_str().expect("an id");
    let stored = std::fs::read(serve.vmcore_path(id)).expect("the stored core");
    assert!(std::fs::read(&file).expect("the copy") == stored, "the copy differs");
    assert!(!part.exists() && !dir.path().join("vmcore.part.tag").exists());
    // The manifest's own digests are those of the copy.
    let verified = run(&[
        "cores",
        "verify",
        "latest",
        "--json",
        "--dir",
        path_text(&dir.path().join("store")),
    ]);
    let verified: Value = serde_json::from_slice(&verified.stdout).expect("JSON");
    assert_eq!(verified["verified_bytes"], 3 << 20, "{verified}");
}

#[test]
fn a_sparse_core_costs_what_it_holds() {
    let is_full = std::env::var_os("COREFERRY_ALL").is_some();
    let (count, run_len) = if is_full { (64, 16 << 20) } else { (16, 512 << 10) };
    let (file_len, content) = (64 << 30, count * run_len);
    let dir = temp_dir();
    let serve = Serve::start(&dir.path().join("store"));
    send_sparse(&serve, file_len, count, run_len);
    let proxy = Proxy::counting(&serve.api);
    let file = dir.path().join("vmcore");
    run_ok(&["cores", "fetch", "latest", "--api", &proxy.api, "-o", path_text(&file)]);
    let came = proxy.answer_bytes();
    // Headers, and for each MiB its digest in JSON: less than 2 in 1000, and 64 KiB for what is asked for once.
    let most = content + content / 500 + (64 << 10);
    assert!(
        (content..most).contains(&came),
        "{came} bytes on the wire for {content} bytes of content, {most} at most"
    );
    let copy = std::fs::metadata(&file).expect("the copy");
    assert_eq!(copy.len(), file_len);
    assert!(
        copy.blocks() * 512 < content + content / 8,
        "{} bytes on disk",
        copy.blocks() * 512
    );
}

#[test]
fn an_interrupted_fetch_goes_on_where_it_was_and_proves_all_of_it() {
    let dir = temp_dir();
    let serve = Serve::start(&dir.path().join("store"));
    dumps::send_apart(&serve);
    let file = dir.path().join("vmcore");
    let fetch = |api: &str| {
        run(&[
            "cores",
            "fetch",
            "latest",
            "--api",
            api,
            "-o",
            path_text(&file),
            "--json",
        ])
    };
    let output = fetch(&Proxy::cutting(&serve.api, 2).api);
    assert_eq!(
        output.status.code(),
        Some(6),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    assert!(
        !file.exists() && dir.path().join("vmcore.part").exists(),
        "the part is kept"
    );
    let output = fetch(&serve.api);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let told: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    assert_eq!(told["resumed_bytes"], 4096, "the first part was there");
    let bytes = std::fs::read(&file).expect("the core");
    assert_eq!(
        (bytes[0], bytes[4 << 20], bytes[8 << 20], bytes.len()),
        (1, 2, 3, (8 << 20) + 4096)
    );
    assert!(!dir.path().join("vmcore.part").exists() && !dir.path().join("vmcore.part.tag").exists());
    // Only what has content was moved.
    let audit = std::fs::read_to_string(dir.path().join("store/audit.jsonl")).expect("an audit file");
    let lines = audit
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).expect("JSON"));
    let moved: u64 = lines.map(|line| line["length"].as_u64().expect("a length")).sum();
    assert_eq!(moved, 3 * 4096, "{audit}");
    // A part of another core, or of one that changed, is begun anew.
    std::fs::write(dir.path().join("vmcore.part"), [9; 4096]).expect("written");
    std::fs::write(dir.path().join("vmcore.part.tag"), "another").expect("written");
    let told: Value = serde_json::from_slice(&fetch(&serve.api).stdout).expect("JSON");
    assert_eq!(told["resumed_bytes"], 0);
}

#[test]
fn a_stopped_command_leaves_only_what_it_would_go_on_from() {
    let dir = temp_dir();
    let serve = Serve::start(&dir.path().join("store"));
    send_sparse(&serve, 96 << 20, 3, 1 << 20);
    let part = dir.path().join("out.part");
    let stopped = |command: &[&str], signal| {
        let proxy = Proxy::holding(&serve.api, 1, 512 << 10);
        let mut stopped = coreferry();
        stopped.args(command).args(["--api", &proxy.api, "-o"]);
        stopped.arg(dir.path().join("out"));
        let mut stopped = Daemon::start(stopped);
        wait_for("a part of the download", || {
            (proxy.answer_bytes() > 256 << 10 && part.exists()).then_some(())
        });
        stopped.signal(signal);
        assert_eq!(stopped.exit_within(PATIENCE).code(), Some(130));
        stopped
    };
    let export = stopped(&["cores", "export", "latest", "--format", "elf"], Signal::SIGINT);
    wait_for("what became of the part", || {
        export.stderr_text().contains("out.part is removed").then_some(())
    });
    let left = std::fs::read_dir(dir.path()).expect("it can be listed").count();
    assert_eq!(left, 1, "only the receiver's directory");
    let fetch = stopped(&["cores", "fetch", "latest"], Signal::SIGTERM);
    wait_for("what became of the part", || {
        fetch.stderr_text().contains("out.part is kept").then_some(())
    });
    assert!(part.exists() && dir.path().join("out.part.tag").exists());
}
