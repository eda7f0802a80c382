//! Commands that are run when something happens to a dump.
#![allow(clippy::unwrap_used, reason = "in helpers of tests, a failure is to end the test")]

mod sender;

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime};

use api::CoreService as _;
use sender::Sender;
use server::{HookCommand, HookUser, Hooks, Limits, Receiver, ReceiverConfig, Share};
use vmcore::kernel_header::KernelDumpHeader;

const PATIENCE: Duration = Duration::from_secs(20);

/// A receiver, and beside its directory one for what the hooks write.
struct Host {
    dir: tempfile::TempDir,
}

impl Host {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
        fs::create_dir(dir.path().join("out")).unwrap();
        fs::set_permissions(dir.path().join("out"), fs::Permissions::from_mode(0o777)).unwrap();
        Self { dir }
    }

    fn out(&self, name: &str) -> PathBuf {
        self.dir.path().join("out").join(name)
    }

    fn start(&self, hooks: Hooks, limits: Limits) -> Receiver {
        let mut config = ReceiverConfig::new(self.dir.path().join("store"));
        config.listen = vec!["127.0.0.1:0".parse().unwrap()];
        config.hooks = hooks;
        config.limits = limits;
        config.rules.silent_after = Duration::from_millis(600);
        config.rules.linger = Duration::from_millis(100);
        Receiver::start(config).unwrap()
    }

    /// A shell script as a hook; its arguments begin with `$0`, the event.
    fn script(&self, text: &str) -> Option<HookCommand> {
        let out = self.dir.path().join("out");
        Some(HookCommand {
            program: "/bin/sh".into(),
            arguments: vec!["-c".to_owned(), format!("cd {}\n{text}", out.display())],
        })
    }
}

/// What a hook has written, once it has put it into its place.
fn written(path: &Path) -> String {
    let began = Instant::now();
    loop {
        match fs::read_to_string(path) {
            Ok(text) => return text,
            Err(why) => assert!(began.elapsed() < PATIENCE, "{}: {why}", path.display()),
        }
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// Sends a dump of some pages, of which `announced` are announced.
fn dump(receiver: &Receiver, pages: u64, announced: u64, hostname: &str) {
    let mut sender = Sender::connect(receiver.netdump_addr(), b"lab/rack1\0");
    for page in 0..pages {
        sender.data(page * 4096, &[1; 4096]);
    }
    let header = KernelDumpHeader {
        version: 4,
        dump_len_bytes: announced * 4096,
        hostname: hostname.to_owned(),
        panic_string: "page fault\x1b[2J".to_owned(),
        ..KernelDumpHeader::default()
    };
    sender.kernel_header(&header.encode());
    sender.finish();
}

/// Writes arguments and standard input of a hook, and puts them into their place when they are whole.
const RECORD: &str = "printf '%s\\n' \"$0\" \"$@\" > $0.tmp; cat > $0.json; mv $0.tmp $0.args";

#[test]
fn each_event_has_its_command_with_arguments_and_json() {
    let host = Host::new();
    let hooks = Hooks {
        start: host.script(RECORD),
        complete: host.script(RECORD),
        incomplete: host.script(RECORD),
        ..Hooks::default()
    };
    let receiver = host.start(hooks, Limits::default());
    dump(&receiver, 2, 2, "web\n17; rm -rf $(x)");
    let id = receiver.wait_for_cores(1, PATIENCE).unwrap().remove(0).id;

    let start = written(&host.out("start.args"));
    assert_eq!(start.lines().collect::<Vec<_>>()[..3], ["start", &id, "lab/rack1"]);
    let complete = written(&host.out("complete.args"));
    let dir = receiver.cores().dir(&id).unwrap();
    let expected = ["complete", &id, "web\\n17; rm -rf $(x)", dir.to_str().unwrap()];
    assert_eq!(complete.lines().collect::<Vec<_>>(), expected);
    let json: serde_json::Value = serde_json::from_str(&written(&host.out("complete.json"))).unwrap();
    assert_eq!(json["event"], "complete");
    assert_eq!(json["id"], id);
    assert_eq!(json["guest"], "web\\n17; rm -rf $(x)");
    assert_eq!(json["panic"], "page fault\\u{1b}[2J");
    assert_eq!(
        (&json["state"], &json["stored_bytes"]),
        (&"complete".into(), &8192.into())
    );
    assert!(json["client_addr"].as_str().unwrap().starts_with("127.0.0.1:"));
    assert_eq!(json["schema_version"], 1);

    dump(&receiver, 1, 3, "web-18");
    assert!(written(&host.out("incomplete.args")).contains("web-18"));
    let json: serde_json::Value = serde_json::from_str(&written(&host.out("incomplete.json"))).unwrap();
    assert_eq!(json["holes"], serde_json::json!([{"offset": 4096, "length": 8192}]));
    assert!(json["reason"].as_str().unwrap().contains("8192 bytes are lost"));
}

#[test]
fn what_an_earlier_receiver_left_runs_the_hook_and_is_told_of_too() {
    let host = Host::new();
    let receiver = host.start(Hooks::default(), Limits::default());
    let mut sender = Sender::connect(receiver.netdump_addr(), b"lab/rack1\0");
    sender.data(0, &[1; 4096]);
    receiver.stop();
    // Its sender was last heard an hour ago.
    let spool = fs::read_dir(host.dir.path().join("store/spool")).unwrap();
    let session = spool.map(|entry| entry.unwrap().path()).next().unwrap();
    let journal = fs::File::options()
        .append(true)
        .open(session.join("session.journal"))
        .unwrap();
    journal
        .set_modified(SystemTime::now() - Duration::from_secs(3600))
        .unwrap();
    drop(journal);

    let hooks = Hooks {
        incomplete: host.script(RECORD),
        ..Hooks::default()
    };
    let receiver = host.start(hooks, Limits::default());
    let id = receiver.wait_for_cores(1, PATIENCE).unwrap().remove(0).id;
    let arguments = written(&host.out("incomplete.args"));
    assert_eq!(
        arguments.lines().collect::<Vec<_>>()[..3],
        ["incomplete", &id, "lab/rack1"]
    );
    let told = receiver.service().events().after(0);
    let told: Vec<_> = told
        .iter()
        .map(|(_, event)| (event.kind.as_str(), event.subject.as_str()))
        .collect();
    assert_eq!(told, [("core.incomplete", id.as_str())]);
    let found = receiver.cores().info(&id).expect("the id is that of one core");
    assert_eq!(found.summary.id, id);
}

#[test]
fn netdumpds_script_finds_its_arguments() {
    let host = Host::new();
    let script = host.out("handler");
    let out = host.out("said");
    let text = format!(
        "#!/bin/sh\n{{ printf '%s\\n' \"$@\"; pwd; ls \"$4\" \"$5\"; }} > {0}.tmp 2>&1\n/bin/mv {0}.tmp {0}.$1\n",
        out.display()
    );
    fs::write(&script, text).unwrap();
    fs::set_permissions(&script, fs::Permissions::from_mode(0o755)).unwrap();
    let hooks = Hooks {
        netdumpd_script: Some(script),
        ..Hooks::default()
    };
    let receiver = host.start(hooks, Limits::default());
    dump(&receiver, 2, 2, "web-17");
    let said = written(&host.out("said.success"));
    let lines: Vec<&str> = said.lines().collect();
    assert_eq!(lines[..3], ["success", "127.0.0.1", "web-17"]);
    assert!(
        lines[3].starts_with("cores/") && lines[3].ends_with("/info.txt"),
        "{said}"
    );
    assert!(
        lines[4].starts_with("cores/") && lines[4].ends_with("/vmcore"),
        "{said}"
    );
    assert_eq!(lines[5], host.dir.path().join("store").to_str().unwrap());
    assert_eq!(lines[6..], lines[3..5], "both are there, from where it runs");

    let mut silent = Sender::connect(receiver.netdump_addr(), b"");
    silent.data(0, &[1; 4096]);
    assert!(written(&host.out("said.timeout")).starts_with("timeout\n127.0.0.1\n"));
    dump(&receiver, 1, 2, "web-17");
    assert!(written(&host.out("said.error")).starts_with("error\n"));
}

#[test]
fn a_hook_that_takes_its_time_delays_no_dump() {
    let host = Host::new();
    let hooks = Hooks {
        start: host.script("while [ ! -e go ]; do sleep 0.05; done; mv go gone"),
        complete: host.script(RECORD),
        ..Hooks::default()
    };
    let receiver = host.start(hooks, Limits::default());
    dump(&receiver, 2, 2, "web-17");
    receiver.wait_for_cores(1, PATIENCE).unwrap();
    fs::write(host.out("go"), "").unwrap();
    assert!(written(&host.out("complete.args")).starts_with("complete"));
    assert!(host.out("gone").exists(), "one after the other");
}

#[test]
fn a_hook_that_hangs_is_killed_with_all_it_started() {
    let host = Host::new();
    let hooks = Hooks {
        start: host.script("sleep 1000 & echo $! > pid.tmp; mv pid.tmp pid; sleep 1000"),
        complete: host.script(RECORD),
        deadline: Duration::from_secs(1),
        ..Hooks::default()
    };
    let receiver = host.start(hooks, Limits::default());
    dump(&receiver, 2, 2, "web-17");
    let pid: u32 = written(&host.out("pid")).trim().parse().unwrap();
    let began = Instant::now();
    while is_running(pid) {
        assert!(began.elapsed() < PATIENCE, "process {pid} still runs");
        std::thread::sleep(Duration::from_millis(20));
    }
    assert!(written(&host.out("complete.args")).starts_with("complete"));
}

/// Whether a process runs; one that ended and was not waited for does not.
fn is_running(pid: u32) -> bool {
    let status = fs::read_to_string(format!("/proc/{pid}/stat"));
    status.is_ok_and(|text| {
        !text
            .rsplit(')')
            .next()
            .unwrap_or_default()
            .trim_start()
            .starts_with('Z')
    })
}

#[test]
fn hooks_run_as_whom_they_are_told() {
    let host = Host::new();
    let nobody = HookUser {
        uid: 65_534,
        gid: 65_534,
    };
    let is_root = nix::unistd::geteuid().is_root();
    let hooks = Hooks {
        complete: host.script("id -u > tmp; id -G >> tmp; mv tmp ids"),
        user: is_root.then_some(nobody),
        ..Hooks::default()
    };
    let receiver = host.start(hooks, Limits::default());
    dump(&receiver, 1, 1, "web-17");
    let ids = written(&host.out("ids"));
    if is_root {
        assert_eq!(ids, "65534\n65534\n");
    } else {
        assert!(ids.starts_with(&format!("{}\n", nix::unistd::geteuid())), "{ids}");
    }
}

#[test]
fn a_lack_of_space_is_told_as_soon_as_the_length_is_known_and_the_dump_goes_on() {
    let host = Host::new();
    let hooks = Hooks {
        nospace: host.script(RECORD),
        ..Hooks::default()
    };
    let limits = Limits {
        total_max: Share::Bytes(2 << 20),
        free_min: Share::Bytes(0),
        ..Limits::default()
    };
    let receiver = host.start(hooks, limits);
    let mut sender = Sender::connect(receiver.netdump_addr(), b"");
    // A minidump (struct minidumphdr, sys/amd64/include/minidump.h): no message buffer, a bitmap of one page with 1000
    // bits, no page map.
    let mut head = vec![0; 4096];
    head[..22].copy_from_slice(b"minidump FreeBSD/amd64");
    head[24] = 2;
    head[32..36].copy_from_slice(&4096_u32.to_le_bytes());
    sender.data(0, &head);
    let mut bitmap = vec![0; 4096];
    bitmap[..125].fill(0xff);
    sender.data(4096, &bitmap);

    let len_bytes = 8192 + 1000 * 4096_u64;
    let json: serde_json::Value = serde_json::from_str(&{
        written(&host.out("nospace.args"));
        written(&host.out("nospace.json"))
    })
    .unwrap();
    assert_eq!(json["event"], "nospace");
    assert_eq!(json["file_len_bytes"], len_bytes);
    assert!(json["reason"].as_str().unwrap().contains("total-max"), "{json}");
    let listed = receiver.cores().all().remove(0);
    assert_eq!(
        (listed.state, listed.file_len_bytes),
        (api::CoreState::Receiving, len_bytes)
    );
    sender.data(8192, &[7; 4096]);
    drop(sender);
    let core = receiver.wait_for_cores(1, PATIENCE).unwrap().remove(0);
    assert_eq!(
        (core.state, core.file_len_bytes),
        (api::CoreState::Incomplete, len_bytes)
    );
    let holes: Vec<(u64, u64)> = core.holes.iter().map(|hole| (hole.offset, hole.length)).collect();
    assert_eq!(holes, [(12_288, 999 * 4096)]);
}
