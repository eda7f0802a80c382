//! The kernel file that a guest was started from: its build id, told by somebody else too, and its way with the core.

mod common;
#[path = "road/machine.rs"]
mod machine;
#[path = "common/testbed.rs"]
mod testbed;
#[path = "receiver/tiny_sender.rs"]
mod tiny_sender;

use std::fs::{self, File, OpenOptions};
use std::io::{Seek as _, Write as _};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use common::{path_text, run_ok};
use machine::Host;
use object::Object as _;
use serde_json::{Value, json};
use testbed::testbed;
use tiny_sender::{TinySender, kernel_dump_header};
use vmm_agent::kernel::build_id;

const PAGE: usize = 4096;

/// Build id of an ELF file, by a reader that is not ours.
fn id_of(elf: &Path) -> String {
    let file = object::ReadCache::new(File::open(elf).expect("an ELF file"));
    let elf = object::File::parse(&file).expect("ELF headers");
    let id = elf.build_id().expect("notes").expect("an id");
    id.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// What we say of a kernel of the testbed.
fn ours(kernel: &Path) -> String {
    build_id::of(&File::open(kernel).expect("a kernel")).expect("an id")
}

/// A kernel has the build id of its own symbols, packed and as it is.
fn agrees_with_symbols(kernel: &str, symbols: &str) {
    let (Some(kernel), Some(symbols)) = (testbed(kernel), testbed(symbols)) else {
        return;
    };
    let id = id_of(&symbols);
    assert_eq!((ours(&kernel), ours(&symbols)), (id.clone(), id));
}

#[test]
fn debians_6_1_for_clouds_packed_by_lz4_has_the_build_id_of_its_symbols() {
    agrees_with_symbols("guests/6.1-cloud/vmlinuz", "vmlinux");
}

#[test]
#[ignore = "needs the symbols of the whole matrix"]
fn the_other_kernels_have_the_build_ids_of_their_symbols() {
    for kernel in ["6.1-generic", "6.12-cloud", "6.12-generic"] {
        agrees_with_symbols(
            &format!("guests/{kernel}/vmlinuz"),
            &format!("symbols/{kernel}/vmlinux"),
        );
    }
}

/// The vmlinux of a bzImage, unpacked by `unpack` from where its payload begins with `magic`, into a file.
fn unpacked(kernel: &Path, magic: &[u8], unpack: impl FnOnce(&[u8], File)) -> tempfile::NamedTempFile {
    let image = fs::read(kernel).expect("a kernel");
    let at = image.windows(magic.len()).position(|window| window == magic);
    let file = tempfile::NamedTempFile::new().expect("a file");
    unpack(&image[at.expect("a payload")..], file.reopen().expect("the same file"));
    file
}

#[test]
fn debians_6_1_packed_by_xz_has_the_build_id_that_xz_itself_unpacks() {
    let (Some(kernel), Some(xz)) = (testbed("guests/6.1-generic/vmlinuz"), testbed("bin/xz")) else {
        return;
    };
    // The .xz file format, 2.1.1.
    let vmlinux = unpacked(&kernel, b"\xfd7zXZ\0", |payload, out| {
        let mut packed = tempfile::tempfile().expect("a file");
        packed.write_all(payload).and_then(|()| packed.rewind()).expect("room");
        // It complains about what the kernel has behind its payload.
        let mut xz = Command::new(xz);
        xz.args(["--decompress", "--stdout"]).stdin(packed).stdout(out);
        xz.stderr(Stdio::null()).status().expect("xz runs");
    });
    assert_eq!(ours(&kernel), id_of(vmlinux.path()));
}

#[test]
fn debians_6_12_packed_by_zstd_has_the_build_id_of_all_that_is_unpacked() {
    for kernel in ["guests/6.12-cloud/vmlinuz", "guests/6.12-generic/vmlinuz"] {
        let Some(kernel) = testbed(kernel) else { return };
        // RFC 8878, 3.1.1.
        let vmlinux = unpacked(&kernel, &[0x28, 0xb5, 0x2f, 0xfd], |payload, mut out| {
            let mut payload = zstd::stream::read::Decoder::new(payload)
                .expect("memory")
                .single_frame();
            std::io::copy(&mut payload, &mut out).expect("a whole frame");
        });
        assert_eq!(ours(&kernel), id_of(vmlinux.path()));
    }
}

/// What `cores info` says of a core of a directory.
fn info(cores: &Path, id: &str) -> Value {
    let text = run_ok(&["cores", "info", id, "--json", "--dir", path_text(cores)]);
    serde_json::from_str(&text).expect("`cores info --json` is JSON")
}

/// Runs `cores kernel ID -o OUT` with more arguments, which must end with this code; gives what it said.
fn take_kernel(id: &str, out: &Path, more: &[&str], code: i32) -> String {
    let mut arguments = vec!["cores", "kernel", id, "-o", path_text(out)];
    arguments.extend(more);
    let output = common::run(&arguments);
    let text = [output.stdout, output.stderr].concat();
    let text = String::from_utf8_lossy(&text).into_owned();
    assert_eq!(output.status.code(), Some(code), "{arguments:?}: {text}");
    text
}

#[test]
fn a_kernel_that_is_kept_comes_out_as_it_went_in() {
    let Some(host) = Host::new() else { return };
    let serve = host.serve();
    let target = serve.netdump.to_string();
    let mut machine = host.run("guest", "mode=panic", &["--keep-kernel", "--netdump", &target]);
    assert_eq!(machine.ends(), 10, "{}", machine.said());
    assert_eq!(serve.settled_cores(1)[0]["state"], "complete");

    let kernel = fs::read(host.kernel()).expect("the kernel");
    let told = &info(&serve.dir, "latest")["note"];
    let kept = &told["kept_kernel"];
    assert_eq!(
        (&kept["name"], &kept["length_bytes"]),
        (&json!("kernel.elf"), &json!(kernel.len()))
    );
    // The guest says it too, in its panic record.
    let id = json!(id_of(&host.kernel()));
    assert_eq!((&told["booted_build_id"], &told["build_id"]), (&id, &id));
    let text = run_ok(&["cores", "info", "latest", "--dir", path_text(&serve.dir)]);
    assert!(
        text.contains("kernel kept  kernel.elf, ") && !text.contains("booted with"),
        "{text}"
    );

    let out = host.path("out");
    let api = format!("http://{}", serve.api);
    for source in [["--dir", path_text(&serve.dir)], ["--api", &api]] {
        let said = take_kernel("latest", &out, &source, 0);
        assert!(said.contains("kernel.elf of "), "{said}");
        assert!(fs::read(&out).expect("the kernel") == kernel, "{source:?}");
        fs::remove_file(&out).expect("it was there");
    }
    let streamed = common::run(&["cores", "kernel", "latest", "-o", "-", "--dir", path_text(&serve.dir)]);
    assert!(streamed.status.success() && streamed.stdout == kernel);
    run_ok(&["cores", "verify", "latest", "--dir", path_text(&serve.dir)]);
    // What is exported has no kernel, and does not claim one.
    for format in ["elf", "raw", "kdump-zstd"] {
        let output = path_text(&out);
        run_ok(&[
            "cores",
            "export",
            "latest",
            "--format",
            format,
            "-o",
            output,
            "--dir",
            path_text(&serve.dir),
        ]);
        let mut notes = vec![0; 1 << 20];
        let exported = File::open(&out).expect("the exported core");
        exported
            .read_exact_at(&mut notes, 0)
            .expect("notes stand in the beginning");
        let claim = br#""kept_kernel":{"#;
        assert!(!notes.windows(claim.len()).any(|window| window == claim), "{format}");
        assert!(fs::remove_file(&out).is_ok(), "{format}");
    }
}

#[test]
fn a_guest_that_cannot_say_anything_is_known_by_its_kernels_file() {
    let Some(host) = Host::new() else { return };
    let serve = host.serve();
    let target = serve.netdump.to_string();
    let mut machine = host.run("guest", "mode=triple-fault", &["--netdump", &target]);
    assert_eq!(machine.ends(), 10, "{}", machine.said());
    serve.settled_cores(1);
    let note = &info(&serve.dir, "latest")["note"];
    assert_eq!(note["build_id"], json!(id_of(&host.kernel())), "{note}");
    let said = take_kernel("latest", &host.path("out"), &["--dir", path_text(&serve.dir)], 3);
    assert!(
        said.contains("no kernel file in it") && said.contains("--keep-kernel"),
        "{said}"
    );
}

#[test]
fn a_file_that_is_replaced_still_comes_and_one_that_is_overwritten_does_not() {
    let Some(host) = Host::new() else { return };
    let serve = host.serve();
    let target = serve.netdump.to_string();
    let kernel = fs::read(host.kernel()).expect("the kernel");
    let machine = host.run("guest", "mode=heartbeat", &["--keep-kernel", "--netdump", &target]);
    machine.info_when("running");
    let (same, next) = (host.path("same.elf"), host.path("next.elf"));
    fs::hard_link(host.kernel(), &same).expect("another name");
    fs::write(&next, b"the kernel of tomorrow").expect("room");
    fs::rename(&next, host.kernel()).expect("as a package does it");
    let (dir, out) = (["--dir", path_text(&serve.dir)], host.path("out"));

    let dumped = host.vms(&["dump", "guest"]);
    assert!(dumped.status.success(), "{}", machine.said());
    serve.settled_cores(1);
    take_kernel("latest", &out, &dir, 0);
    assert!(fs::read(&out).expect("the kernel") == kernel, "it is what was booted");

    let file = OpenOptions::new().write(true).open(&same).expect("the booted file");
    file.write_all_at(b"overwritten", 4096).expect("written");
    let dumped = host.vms(&["dump", "guest"]);
    assert!(dumped.status.success(), "{}", machine.said());
    let cores = serve.settled_cores(2);
    let said = take_kernel("latest", &host.path("none"), &dir, 3);
    assert!(said.contains("overwritten since the guest was started"), "{said}");
    assert!(!host.path("none").exists());
    assert!(cores.iter().all(|core| core["state"] == "complete"), "{cores:?}");
    assert_eq!(machine.terminate(), 0);
}

/// The spooled core, with its kernel, of a guest that has panicked.
fn spooled(host: &Host) -> PathBuf {
    let spool = host.path("spool");
    let mut machine = host.run("guest", "mode=panic", &["--keep-kernel", "--spool", path_text(&spool)]);
    assert_eq!(machine.ends(), 10, "{}", machine.said());
    fs::read_dir(&spool)
        .expect("a spool")
        .next()
        .expect("a core")
        .expect("a core")
        .path()
}

#[test]
fn a_partial_core_gives_its_kernel_if_that_is_whole_and_says_so_if_not() {
    let Some(host) = Host::new() else { return };
    let core = fs::read(spooled(&host)).expect("the core");
    let kernel = fs::read(host.kernel()).expect("the kernel");
    let at = core
        .windows(kernel.len())
        .rposition(|window| window == kernel)
        .expect("the kernel is in it");
    assert_eq!(at % PAGE, 0);
    // The last page of memory that is not zero, and the second one of the kernel.
    let in_memory = core[..at]
        .chunks(PAGE)
        .rposition(|page| page.iter().any(|byte| *byte != 0));
    let serve = host.serve();
    let out = host.path("out");
    for (count, lost) in [(1, in_memory.expect("memory")), (2, at / PAGE + 1)] {
        send_without(&core, lost, &serve);
        let cores = serve.settled_cores(count);
        let id = cores[0]["id"].as_str().expect("an id");
        assert_eq!(
            (&cores[0]["state"], &cores[0]["holes"][0]["offset"]),
            (&json!("incomplete"), &json!(lost * PAGE))
        );
        let text = run_ok(&["cores", "info", id, "--dir", path_text(&serve.dir)]);
        let dir = ["--dir", path_text(&serve.dir)];
        if count == 1 {
            assert!(!text.contains("bytes of it are lost"), "{text}");
            take_kernel(id, &out, &dir, 0);
            assert!(fs::read(&out).expect("the kernel") == kernel);
        } else {
            assert!(text.contains(", 4096 bytes of it are lost"), "{text}");
            let said = take_kernel(id, &host.path("none"), &dir, 4);
            assert!(
                said.contains("4096 of the kernel's") && said.contains("did not arrive"),
                "{said}"
            );
            let streamed = common::run(&["cores", "kernel", id, "-o", "-", "--dir", path_text(&serve.dir)]);
            assert!(streamed.status.code() == Some(4) && streamed.stdout.is_empty());
        }
    }
}

#[test]
fn a_spooled_core_brings_its_kernel_when_it_is_sent_later() {
    let Some(host) = Host::new() else { return };
    let spooled = spooled(&host);
    let serve = host.serve();
    run_ok(&["send", path_text(&spooled), "--to", &serve.netdump.to_string()]);
    assert_eq!(serve.settled_cores(1)[0]["state"], "complete");
    let out = host.path("out");
    take_kernel("latest", &out, &["--dir", path_text(&serve.dir)], 0);
    assert!(fs::read(&out).expect("the kernel") == fs::read(host.kernel()).expect("the kernel"));
}

/// Sends a core as a stock sender of sparse files does, but for a page.
fn send_without(core: &[u8], lost: usize, serve: &common::Serve) {
    let mut sender = TinySender::connect(serve.netdump);
    sender.header(&kernel_dump_header(core.len() as u64, "guest"));
    for (index, page) in core.chunks(PAGE).enumerate() {
        if index == lost || page.iter().all(|byte| *byte == 0) {
            continue;
        }
        for (part, bytes) in page.chunks(1024).enumerate() {
            sender.data((index * PAGE + part * 1024) as u64, bytes);
        }
    }
    sender.finish();
}
