//! What crashed, told by the receiver when a core arrives: in the list, in `cores info`, in `cores log`, in explain.json.

mod common;
#[path = "receiver/tiny_sender.rs"]
mod tiny_sender;

use std::path::Path;

use common::{Serve, path_text, run, run_ok, temp_dir, wait_for};
use serde_json::Value;
use tiny_sender::{TinySender, kernel_dump_header};
use vmcore::elf::{HeaderInput, Layout};
use vmcore::{CoreferryNote, CpuState, MemoryRange, VcpuStop};

const CONSOLE: &str = "[    1.000000] Linux version 6.1.0\n\
    [    9.000000] BUG: kernel NULL pointer dereference, address: 0000000000000018\n\
    [    9.000001] Oops: 0000 [#1] PREEMPT SMP NOPTI\n\
    [    9.000002] CPU: 1 PID: 91 Comm: kworker/u8:2 Not tainted 6.1.0-18-amd64 #1  Debian 6.1.76-1\n\
    [    9.000003] RIP: 0010:ferry_lost\u{1b}[31m+0x2a/0x410 [ferry]\n\
    [    9.000004] RIP: 0010:ferry_land+0x2a/0x410 [ferry]\n\
    [    9.000005] Call Trace:\n\
    [    9.000006]  <TASK>\n\
    [    9.000007]  process_one_work+0x1c7/0x380\n\
    [    9.000008]  </TASK>\n\
    [    9.100000] Kernel panic - not syncing: Fatal exception\n";

/// A core of 64 KiB of memory whose note has this console text and whose notes have this VMCOREINFO.
fn core(console: &str, vmcoreinfo: Option<&[u8]>) -> Vec<u8> {
    let memory = MemoryRange {
        gpa: 0,
        len_bytes: 65_536,
    };
    let layout = Layout::new(&[memory], 1).expect("a layout");
    let note = CoreferryNote {
        console_tail: console.to_owned(),
        troubles: vec!["vCPU 1 did\x1b not stop".to_owned()],
        triggered_at: Some("2026-01-31T12:00:10Z".to_owned()),
        vcpus: vec![VcpuStop {
            index: 0,
            state: "reported".to_owned(),
        }],
        ..CoreferryNote::default()
    };
    let cpu = CpuState {
        rip: 0xffff_ffff_8103_d023,
        r15: 0x0f15,
        cr3: 0x7_1000,
        ..CpuState::default()
    };
    let input = HeaderInput {
        cpus: &[cpu],
        vmcoreinfo,
        coreferry: &note,
        text: None,
    };
    let mut file = layout.header(&input).expect("a header");
    let room = usize::try_from(vmcore::HEADER_ROOM_LEN).expect("1 MiB");
    file.resize(room, 0);
    file.extend(std::iter::repeat_n(0x5a, 65_536));
    file
}

/// Sends a file and gives what `cores info` says once it is explained.
fn explained(serve: &Serve, dir: &Path, name: &str, bytes: &[u8], count: usize) -> Value {
    let file = dir.join(name);
    std::fs::write(&file, bytes).expect("the core is written");
    run_ok(&[
        "send",
        path_text(&file),
        "--to",
        &serve.netdump.to_string(),
        "--hostname",
        name,
    ]);
    let cores = serve.settled_cores(count);
    let core = cores.iter().find(|core| core["guest"] == name).expect("it is listed");
    let id = core["id"].as_str().expect("an id").to_owned();
    wait_for("explain.json", || {
        serve
            .vmcore_path(&id)
            .with_file_name("explain.json")
            .exists()
            .then_some(())
    });
    let info = run_ok(&["cores", "info", &id, "--json", "--api", &serve.api]);
    serde_json::from_str(&info).expect("JSON")
}

#[test]
fn a_core_says_what_crashed_as_soon_as_it_is_there() {
    let (files, dir) = (temp_dir(), temp_dir());
    let serve = Serve::start(dir.path());
    let info = explained(&serve, files.path(), "web-17", &core(CONSOLE, None), 1);

    let crash = &info["crash"];
    assert_eq!(crash["signature"], "null-pointer in ferry_land", "{info}");
    assert_eq!(
        (&crash["task"], &crash["pid"], &crash["cpu"]),
        (&"kworker/u8:2".into(), &91.into(), &1.into())
    );
    assert_eq!(crash["panic"], "Fatal exception");
    let id = info["id"].as_str().expect("an id");
    for place in [["--dir", path_text(dir.path())], ["--api", &serve.api]] {
        let list = wait_for("the signature in the list", || {
            let list = run_ok(&["cores", "list", "--json", place[0], place[1]]);
            let list: Value = serde_json::from_str(&list).expect("JSON");
            (list[0]["signature"] == "null-pointer in ferry_land").then_some(list)
        });
        assert_eq!(list[0]["panic"], "Fatal exception");
        let filter = [
            "cores",
            "list",
            "--signature",
            "null-pointer in ferry_land",
            place[0],
            place[1],
        ];
        assert!(run_ok(&filter).contains("web-17"));
        let shown = run_ok(&["cores", "info", id, place[0], place[1]]);
        for part in [
            "vCPU 1 did\\u{1b} not stop",
            "null-pointer in ferry_land",
            "kworker/u8:2 (process 91) on CPU 1",
            "process_one_work",
            "Linux version 6.1.0",
            // Nine seconds and a bit before the trigger.
            "booted at    2026-01-31T12:00:01Z",
            "uptime       9.100 s",
            "CPU 0: kernel mode, reported",
            "rip     0xffffffff8103d023",
            "r15     0xf15",
            "cr3     0x71000",
            "the only one",
            "not told     no kernel log in its memory",
        ] {
            assert!(shown.contains(part), "`{part}` is not shown:\n{shown}");
        }
        assert!(!shown.contains('\u{1b}'), "{shown:?}");
        let log = run(&["cores", "log", id, place[0], place[1]]);
        assert!(log.status.success());
        let (log, said) = (
            String::from_utf8_lossy(&log.stdout),
            String::from_utf8_lossy(&log.stderr),
        );
        assert!(
            log.contains("ferry_lost\\u{1b}[31m") && !log.contains('\u{1b}'),
            "{log:?}"
        );
        assert!(said.contains("VMCOREINFO") && said.contains("console"), "{said}");
    }
    let explanation = std::fs::read(serve.vmcore_path(id).with_file_name("explain.json")).expect("explain.json");
    let explanation: Value = serde_json::from_slice(&explanation).expect("JSON");
    assert_eq!(explanation["schema_version"], 1);
    assert_eq!(explanation["log_source"], "console");

    // Run by hand, with its output in a file, of which there is something already.
    let printed = files.path().join("printed");
    for times in 1..=2 {
        let file = std::fs::File::options().append(true).create(true).open(&printed);
        let mut command = common::coreferry();
        command.arg("explain-core").args(serve.vmcore_path(id).parent());
        let status = command.stdout(file.expect("a file")).status().expect("it runs");
        assert!(status.success(), "{status}");
        let text = std::fs::read_to_string(&printed).expect("what it printed");
        let all = serde_json::Deserializer::from_str(&text).into_iter::<Value>();
        let all = all.collect::<Result<Vec<_>, _>>().expect("JSON");
        assert_eq!(all, vec![explanation.clone(); times]);
    }
    assert_eq!(serve.daemon.terminate().code(), Some(0));
}

/// A full dump of FreeBSD as far as it matters: an ELF core without notes, in whose memory is a message buffer.
fn freebsd_core(messages: &str) -> Vec<u8> {
    let (memory_at, struct_at) = (4096_usize, 0x6_0fc0_usize);
    let mut file = core("", None)[..64].to_vec();
    file[56..58].copy_from_slice(&1_u16.to_le_bytes());
    for word in [1_u32, 7] {
        file.extend(word.to_le_bytes());
    }
    let len = 0x8_0000_u64;
    for word in [memory_at as u64, 0, 0, len, len, 4096] {
        file.extend(word.to_le_bytes());
    }
    file.resize(memory_at + usize::try_from(len).expect("it is small"), 0);
    let text_len = 0x2_0000_u32;
    let start = struct_at - usize::try_from(text_len).expect("it is small");
    let mut put = |at: usize, bytes: &[u8]| file[memory_at + at..memory_at + at + bytes.len()].copy_from_slice(bytes);
    put(start, messages.as_bytes());
    put(struct_at, &(0xffff_f800_0000_0000 + start as u64).to_le_bytes());
    let sum = messages.bytes().map(u32::from).sum::<u32>();
    let written = u32::try_from(messages.len()).expect("it is short");
    for (at, value) in [
        (8, 0x0006_3062),
        (12, text_len),
        (16, written),
        (24, sum),
        (28, text_len * 16),
    ] {
        put(struct_at + at, &u32::to_le_bytes(value));
    }
    file
}

#[test]
fn a_freebsd_guest_is_explained_by_its_message_buffer() {
    let (files, dir) = (temp_dir(), temp_dir());
    let serve = Serve::start(dir.path());
    let messages = "<2>FreeBSD 14.1-RELEASE releng/14.1-n267679 GENERIC amd64\n<6>em0: link up\n\
        <2>panic: ffs_valloc: dup alloc\ncpuid = 1\ntime = 1700000000\nKDB: stack backtrace:\n\
        #0 0xffffffff80b9002d at kdb_backtrace+0x5d\n#1 0xffffffff80b43132 at vpanic+0x132\n\
        #2 0xffffffff80b42ff3 at panic+0x43\n#3 0xffffffff80dc7ac1 at ffs_valloc+0x8a1\n";
    let info = explained(&serve, files.path(), "bsd", &freebsd_core(messages), 1);
    assert_eq!(
        info["signature"], "panic: ffs_valloc: dup alloc in ffs_valloc",
        "{info}"
    );
    assert_eq!(info["kernel"], "14.1-RELEASE", "{info}");
    assert_eq!(info["log_source"], "memory", "{info}");
    let id = info["id"].as_str().expect("an id");
    let log = run_ok(&["cores", "log", id, "--dir", path_text(dir.path())]);
    assert!(
        log.starts_with("FreeBSD 14.1-RELEASE") && log.ends_with("ffs_valloc+0x8a1\n"),
        "{log}"
    );
    assert_eq!(serve.daemon.terminate().code(), Some(0));
}

#[test]
fn cores_that_tell_nothing_or_lie_are_kept_as_they_are() {
    let (files, dir) = (temp_dir(), temp_dir());
    let serve = Serve::start(dir.path());
    // Every number a kernel may give, as large as it can be; and all of memory one pattern.
    let lies =
        "OSRELEASE=6.1.0\nNUMBER(phys_base)=0\nSYMBOL(init_top_pgt)=ffffffff80000000\nSYMBOL(prb)=ffffffff80001000\n";
    let keys = [
        "printk_ringbuffer.desc_ring",
        "printk_ringbuffer.text_data_ring",
        "prb_desc_ring.count_bits",
    ];
    let lies = keys
        .iter()
        .fold(lies.to_owned(), |text, key| format!("{text}OFFSET({key})=4096\n"));
    let lying = core("", Some(lies.as_bytes()));
    for (count, (name, bytes)) in (1..).zip([("lying", lying), ("garbage", vec![0x41; 100_000])]) {
        let info = explained(&serve, files.path(), name, &bytes, count);
        assert_eq!(info["state"], "complete", "{info}");
        assert_eq!(info["crash"], Value::Null, "{info}");
        assert_eq!(info["signature"], Value::Null, "{info}");
        let id = info["id"].as_str().expect("an id");
        let refused = run(&["cores", "log", id, "--api", &serve.api]);
        assert_eq!(refused.status.code(), Some(1));
        let said = String::from_utf8_lossy(&refused.stderr);
        assert!(said.contains("gives no kernel log"), "{said}");
    }
    assert_eq!(serve.daemon.terminate().code(), Some(0));
}

#[test]
fn cores_of_the_same_fault_are_one_group() {
    let (files, dir) = (temp_dir(), temp_dir());
    let serve = Serve::start(dir.path());
    let elsewhere = CONSOLE.replace("ferry_land", "ferry_sink");
    let mut last = Value::Null;
    for (count, (guest, console, release)) in (1..).zip([
        ("web-1", CONSOLE, "6.1.1"),
        ("db-1", elsewhere.as_str(), "6.1.2"),
        ("web-2", CONSOLE, "6.1.3"),
    ]) {
        let vmcoreinfo = format!("OSRELEASE={release}\n");
        let bytes = core(console, Some(vmcoreinfo.as_bytes()));
        last = explained(&serve, files.path(), guest, &bytes, count);
    }
    let id = last["id"].as_str().expect("an id");
    for place in [["--dir", path_text(dir.path())], ["--api", &serve.api]] {
        let groups = wait_for("the groups", || {
            let groups = run_ok(&["cores", "groups", "--json", place[0], place[1]]);
            let groups: Value = serde_json::from_str(&groups).expect("JSON");
            (groups[0]["count"] == 2).then_some(groups)
        });
        assert_eq!(groups.as_array().map(Vec::len), Some(2), "{groups}");
        assert_eq!(groups[0]["signature"], "null-pointer in ferry_land");
        assert_eq!(groups[0]["guests"], serde_json::json!(["web-1", "web-2"]));
        assert_eq!(groups[0]["kernels"], serde_json::json!(["Linux 6.1.1", "Linux 6.1.3"]));
        assert_eq!(groups[0]["last_id"], id);
        assert_eq!(
            (&groups[0]["regressed"], &groups[1]["regressed"]),
            (&true.into(), &false.into())
        );
        let table = run_ok(&["cores", "groups", place[0], place[1]]);
        let lines: Vec<&str> = table.lines().collect();
        assert!(
            lines[1].contains("ferry_land") && lines[1].ends_with("regressed"),
            "{table}"
        );
        let shown = run_ok(&["cores", "info", id, place[0], place[1]]);
        assert!(
            shown.contains("2nd of 2, first seen with Linux 6.1.1 on web-1 at "),
            "{shown}"
        );
    }
    let client = api::Client::tcp(&serve.api).expect("an address");
    let page: api::Page<api::CoreGroup> = client.get("/api/v1/groups?limit=1").expect("a page");
    let cursor = page.next_cursor.expect("there is more");
    let next: api::Page<api::CoreGroup> = client
        .get(&format!("/api/v1/groups?limit=1&cursor={cursor}"))
        .expect("the next page");
    assert_eq!(page.items[0].signature, "null-pointer in ferry_land");
    assert_eq!(next.items[0].signature, "null-pointer in ferry_sink");
    assert_eq!(next.next_cursor, None);
    assert_eq!(serve.daemon.terminate().code(), Some(0));
}

/// Bytes of a core in as many messages as it takes, all but those at `lost`.
fn send_all_but(sender: &mut TinySender, bytes: &[u8], lost: std::ops::Range<u64>) {
    for (offset, page) in (0_u64..).step_by(4096).zip(bytes.chunks(4096)) {
        if !lost.contains(&offset) && page.iter().any(|byte| *byte != 0) {
            sender.data(offset, page);
        }
    }
}

#[test]
fn partial_cores_are_explained_as_far_as_they_go() {
    let dir = temp_dir();
    let serve = Serve::start(dir.path());
    let bytes = core(CONSOLE, None);
    let room = vmcore::HEADER_ROOM_LEN;
    // Of the first one some memory is lost, of the second its head; both end without FINISHED's promise being true.
    for (lost, hostname) in [(room..room + 4096, "torn"), (0..4096, "headless")] {
        let mut header = kernel_dump_header(bytes.len() as u64, hostname);
        let panic = b"page fault";
        header[320..320 + panic.len()].copy_from_slice(panic);
        let words = header[..508].chunks_exact(4);
        let parity = words.fold([0_u8; 4], |sum, word| {
            [sum[0] ^ word[0], sum[1] ^ word[1], sum[2] ^ word[2], sum[3] ^ word[3]]
        });
        header[508..].copy_from_slice(&parity);
        let mut sender = TinySender::connect(serve.netdump);
        send_all_but(&mut sender, &bytes, lost);
        sender.header(&header);
        sender.finish();
    }
    serve.settled_cores(2);
    let info = |guest: &str, key: &str| {
        wait_for("the explanation", || {
            let list = run_ok(&["cores", "list", "--json", "--guest", guest, "--api", &serve.api]);
            let list: Value = serde_json::from_str(&list).expect("JSON");
            let id = list[0]["id"].as_str().expect("an id");
            let info = run_ok(&["cores", "info", id, "--json", "--api", &serve.api]);
            let info: Value = serde_json::from_str(&info).expect("JSON");
            (!info[key].is_null()).then_some(info)
        })
    };
    let torn = info("torn", "crash");
    assert_eq!(torn["state"], "incomplete", "{torn}");
    assert_eq!(torn["signature"], "null-pointer in ferry_land", "{torn}");
    assert_eq!(torn["cpus"][0]["registers"]["rip"], "0xffffffff8103d023", "{torn}");
    assert_eq!(torn["banner"], "Linux version 6.1.0", "{torn}");
    // What the kernel dump header says is all that is left.
    let headless = info("headless", "crash");
    assert_eq!(headless["state"], "incomplete", "{headless}");
    assert_eq!(headless["signature"], "panic: page fault", "{headless}");
    assert!(
        headless["problems"][0]
            .as_str()
            .expect("a problem")
            .contains("the beginning of the core"),
        "{headless}"
    );
    assert_eq!(serve.daemon.terminate().code(), Some(0));
}
