//! A receiver with something on each of its pages.

use std::path::Path;

use tempfile::TempDir;
use vmcore::elf::{HeaderInput, Layout};
use vmcore::{CoreferryNote, CpuState, MemoryRange, VcpuStop};

use crate::common::{Serve, path_text, run_ok, temp_dir, wait_for};
use crate::dumps::{self, header};
use crate::tiny_sender::TinySender;

/// A panic text that a page must not take for markup: each of its parts would leave a mark if it did.
pub(crate) const HOSTILE: &str =
    "<script>window.hostile=1</script><img src=x onerror=window.hostile=2>\"'&amp;</pre><b id=hostile>";

/// A name that would be a script, a tag or the end of an attribute.
pub(crate) const HOSTILE_NAME: &str = "\"><svg onload=window.hostile=3>";

/// What a Linux that oopses prints.
const CONSOLE: &str = "[    0.000000] Linux version 6.1.0-18-amd64 (debian-kernel@lists.debian.org)\n\
    [    9.000000] BUG: kernel NULL pointer dereference, address: 0000000000000018\n\
    [    9.000001] #PF: supervisor read access in kernel mode\n\
    [    9.000002] Oops: 0000 [#1] PREEMPT SMP NOPTI\n\
    [    9.000003] CPU: 1 PID: 91 Comm: kworker/u8:2 Not tainted 6.1.0-18-amd64 #1  Debian 6.1.76-1\n\
    [    9.000004] Hardware name: <i>unknown</i>\n\
    [    9.000005] RIP: 0010:ferry_land+0x2a/0x410 [ferry]\n\
    [    9.000006] Call Trace:\n\
    [    9.000007]  <TASK>\n\
    [    9.000008]  ferry_work+0x94/0xb0 [ferry]\n\
    [    9.000009]  process_one_work+0x1c7/0x380\n\
    [    9.000010]  worker_thread+0x4d/0x380\n\
    [    9.000011]  kthread+0xda/0x100\n\
    [    9.000012]  ret_from_fork+0x22/0x30\n\
    [    9.000013]  </TASK>\n\
    [    9.100000] Kernel panic - not syncing: Fatal exception\n";

/// A core of a Linux that oopsed: 16 MiB of memory, most of it zero.
fn linux_core() -> Vec<u8> {
    let memory = MemoryRange {
        gpa: 0,
        len_bytes: 16 << 20,
    };
    let layout = Layout::new(&[memory], 2).expect("a layout");
    let stop = |index, state: &str| VcpuStop {
        index,
        state: state.to_owned(),
    };
    let note = CoreferryNote {
        console_tail: CONSOLE.to_owned(),
        triggered_at: Some("2026-01-31T12:00:10Z".to_owned()),
        vcpus: vec![stop(0, "halted"), stop(1, "reported")],
        ..CoreferryNote::default()
    };
    let cpu = |rip| CpuState {
        rip,
        rsp: 0xffff_c900_0012_fd58,
        rax: 0x18,
        cr3: 0x7_1000,
        ..CpuState::default()
    };
    let input = HeaderInput {
        cpus: &[cpu(0xffff_ffff_8103_d023), cpu(0xffff_ffff_c04a_202a)],
        vmcoreinfo: None,
        coreferry: &note,
        text: None,
    };
    let mut file = layout.header(&input).expect("a header");
    let room = usize::try_from(vmcore::HEADER_ROOM_LEN).expect("1 MiB");
    file.resize(room + (16 << 20), 0);
    file[room + (2 << 20)..][..1 << 20].fill(0x5a);
    file
}

/// Ids of the cores of a [`Scene`].
#[derive(Debug)]
pub(crate) struct Cores {
    /// A Linux that oopsed, the second of its kind.
    pub(crate) linux: String,
    /// One whose sender chose its texts with care.
    pub(crate) hostile: String,
}

/// A receiver with cores of several kinds.
pub(crate) struct Scene {
    pub(crate) serve: Serve,
    pub(crate) cores: Cores,
    _dir: TempDir,
}

impl Scene {
    pub(crate) fn new() -> Self {
        let dir = temp_dir();
        let serve = Serve::start(&dir.path().join("store"));
        let cores = fill(&serve, dir.path());
        Self {
            serve,
            cores,
            _dir: dir,
        }
    }
}

/// Puts the cores into the receiver.
fn fill(serve: &Serve, files: &Path) -> Cores {
    let file = files.join("linux");
    std::fs::write(&file, linux_core()).expect("the core is written");
    let to = serve.netdump.to_string();
    for guest in ["web-16", "web-17"] {
        run_ok(&["send", path_text(&file), "--to", &to, "--hostname", guest]);
    }
    dumps::send(serve, HOSTILE_NAME, HOSTILE);
    // One with a hole.
    let mut sender = TinySender::connect(serve.netdump);
    for part in [0, 1, 2, 5, 6, 7] {
        sender.data(part * 4096, &[7; 4096]);
    }
    sender.header(&header(8 * 4096, "bsd-3", "page fault"));
    sender.finish();
    run_ok(&["doctor", "--to", &to]);
    let cores = serve.settled_cores(5);
    let id_of = |guest: &str| {
        let core = cores.iter().find(|core| core["guest"] == guest);
        let id = core.unwrap_or_else(|| panic!("no core of {guest}: {cores:?}"))["id"].as_str();
        id.expect("an id").to_owned()
    };
    let linux = id_of("web-17");
    wait_for("both explanations", || {
        let told = ["web-16", "web-17"].map(|guest| serve.vmcore_path(&id_of(guest)).with_file_name("explain.json"));
        told.iter().all(|path| path.exists()).then_some(())
    });
    run_ok(&["cores", "note", &linux, "same as <b>last week</b>", "--api", &serve.api]);
    run_ok(&["cores", "pin", &linux, "--api", &serve.api]);
    Cores {
        linux,
        hostile: id_of(HOSTILE_NAME),
    }
}
