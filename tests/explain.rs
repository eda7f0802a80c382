//! What crashed, told by the receiver when a core arrives: in the list, in `cores info`, in `cores log`, in explain.json.

mod common;

use std::path::Path;

use common::{Serve, path_text, run, run_ok, temp_dir, wait_for};
use serde_json::Value;
use vmcore::elf::{HeaderInput, Layout};
use vmcore::{CoreferryNote, CpuState, MemoryRange};

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
        ..CoreferryNote::default()
    };
    let input = HeaderInput {
        cpus: &[CpuState::default()],
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
        assert!(said.contains("no VMCOREINFO") && said.contains("console"), "{said}");
    }
    let explanation = std::fs::read(serve.vmcore_path(id).with_file_name("explain.json")).expect("explain.json");
    let explanation: Value = serde_json::from_slice(&explanation).expect("JSON");
    assert_eq!(explanation["schema_version"], 1);
    assert_eq!(explanation["log_source"], "console");
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
