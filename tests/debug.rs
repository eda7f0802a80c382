//! `cores debug`: the debugger that is started, on which file, with which symbols; and what is said when there are none.

mod common;

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use common::{Serve, coreferry, path_text, run_ok, temp_dir, wait_for};
use serde_json::Value;
use vmcore::elf::{HeaderInput, Layout};
use vmcore::{CoreferryNote, CpuState, KeptKernelNote, MemoryRange};

const BUILD_ID: &str = "00112233445566778899aabbccddeeff00112233";
const OTHER_ID: &str = "ffeeddccbbaa99887766554433221100ffeeddcc";

/// A core whose VMCOREINFO names a kernel, and whose note the file that it was started from.
fn core(kernel_file: &Path) -> Vec<u8> {
    core_of("6.1.0-56-cloud-amd64", kernel_file)
}

fn core_of(release: &str, kernel_file: &Path) -> Vec<u8> {
    let memory = MemoryRange {
        gpa: 0,
        len_bytes: 65_536,
    };
    let layout = Layout::new(&[memory], 1).expect("a layout");
    let vmcoreinfo = format!("OSRELEASE={release}\nBUILD-ID={BUILD_ID}\nKERNELOFFSET=1e000000\n");
    let note = CoreferryNote {
        kernel_file: Some(path_text(kernel_file).to_owned()),
        ..CoreferryNote::default()
    };
    let input = HeaderInput {
        cpus: &[CpuState::default()],
        vmcoreinfo: Some(vmcoreinfo.as_bytes()),
        coreferry: &note,
        text: None,
    };
    let mut file = layout.header(&input).expect("a header");
    file.resize(usize::try_from(vmcore::HEADER_ROOM_LEN).expect("1 MiB"), 0);
    file.extend(std::iter::repeat_n(0x5a, 65_536));
    file
}

/// An ELF file with this build id.
fn elf(dir: &Path, name: &str, build_id: &str, options: &[&str]) -> PathBuf {
    let (source, file) = (dir.join(format!("{name}.c")), dir.join(name));
    fs::write(&source, "int banner = 1;\n").expect("a source");
    let mut cc = Command::new("cc");
    cc.args(["-shared", "-nostdlib"]).args(options);
    cc.arg(format!("-Wl,--build-id=0x{build_id}"));
    let made = cc.arg("-o").arg(&file).arg(&source).output().expect("cc runs");
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    file
}

/// A program that does what these lines of shell say.
fn program(dir: &Path, name: &str, lines: &str) {
    let file = dir.join(name);
    fs::write(&file, format!("#!/bin/sh\n{lines}\n")).expect("a program");
    fs::set_permissions(&file, fs::Permissions::from_mode(0o755)).expect("it can be run");
}

/// Debuggers that print what they are given, and nothing else in `PATH` but a shell's own folders.
fn debug(bin: &Path, args: &[&str], urls: &str) -> Output {
    let mut command = coreferry();
    command.args(["cores", "debug", "latest"]).args(args);
    command.env("PATH", format!("{}:/bin:/usr/bin", bin.display()));
    command.env("DEBUGINFOD_URLS", urls).output().expect("it runs")
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn printed(output: &Output) -> String {
    assert!(output.status.success(), "{}", said(output));
    String::from_utf8_lossy(&output.stdout).trim().to_owned()
}

#[test]
fn the_debugger_gets_the_symbols_of_exactly_that_kernel() {
    let (files, dir, bin) = (temp_dir(), temp_dir(), temp_dir());
    let serve = Serve::start(dir.path());
    let sent = files.path().join("core");
    let kernel_file = files.path().join("vmlinux-started");
    fs::write(&sent, core(&kernel_file)).expect("the core is written");
    run_ok(&["send", path_text(&sent), "--to", &serve.netdump.to_string()]);
    let cores = serve.settled_cores(1);
    let vmcore = serve.vmcore_path(cores[0]["id"].as_str().expect("an id"));
    let vmcore = path_text(&vmcore);
    for name in ["crash", "drgn", "gdb"] {
        program(bin.path(), name, &format!("echo {name} \"$@\""));
    }
    let from = ["--dir", path_text(dir.path())];
    let with_symbols = |more: &[&str], urls: &str| debug(bin.path(), &[&from[..], more].concat(), urls);

    // Nothing there: what is missing, and the way to it.
    let symbols = files.path().join("symbols");
    fs::create_dir_all(symbols.join("boot")).expect("a folder");
    let symbols_text = path_text(&symbols).to_owned();
    elf(&symbols.join("boot"), "vmlinux-other", OTHER_ID, &["-g"]);
    elf(&symbols.join("boot"), "vmlinux-bare", BUILD_ID, &[]);
    let missing = with_symbols(&["--symbols", &symbols_text, "--print"], "");
    assert_eq!(missing.status.code(), Some(1));
    for part in [
        "6.1.0-56-cloud-amd64",
        BUILD_ID,
        "linux-image-6.1.0-56-cloud-amd64-dbg",
        "no debuginfod server",
        &symbols_text,
    ] {
        assert!(
            said(&missing).contains(part),
            "`{part}` is not said:\n{}",
            said(&missing)
        );
    }
    let bare = path_text(&symbols.join("boot/vmlinux-bare")).to_owned();
    let bare = with_symbols(&["--symbols", &bare, "--print"], "");
    assert!(said(&bare).contains("without debug information"), "{}", said(&bare));

    // By debuginfod, if a server is named.
    let served = elf(files.path(), "served", BUILD_ID, &["-g"]);
    let answer = format!(
        "[ \"$1 $2\" = \"debuginfo {BUILD_ID}\" ] && echo '{}'",
        served.display()
    );
    program(bin.path(), "debuginfod-find", &answer);
    let print = with_symbols(&["--with", "crash", "--print"], "http://127.0.0.1:9");
    assert_eq!(printed(&print), format!("crash {} {vmcore}", served.display()));

    // Among other files of a folder; and it is run, not only printed.
    let right = elf(&symbols.join("boot"), "vmlinux-right", BUILD_ID, &["-g"]);
    let right = path_text(&right);
    let run = with_symbols(&["--symbols", &symbols_text], "");
    assert_eq!(printed(&run), format!("crash {right} {vmcore}"));
    let run = with_symbols(&["--symbols", &symbols_text, "--with", "drgn"], "");
    assert_eq!(printed(&run), format!("drgn -c {vmcore} -s {right}"));
    let print = with_symbols(&["--symbols", &symbols_text, "--with", "gdb", "--print", "--json"], "");
    let print: Value = serde_json::from_str(&printed(&print)).expect("JSON");
    assert_eq!(
        print["command"][3],
        format!("symbol-file -o 0x1e000000 {right}"),
        "{print}"
    );

    // By build id, which comes before everything else in a folder.
    let place = symbols.join(".build-id/00");
    fs::create_dir_all(&place).expect("a folder");
    let by_id = place.join(format!("{}.debug", &BUILD_ID[2..]));
    fs::copy(right, &by_id).expect("copied");
    let print = with_symbols(&["--symbols", &symbols_text, "--print"], "");
    assert_eq!(printed(&print), format!("crash {} {vmcore}", by_id.display()));

    // The file that the guest was started from, if it is that kernel's and has symbols.
    fs::copy(right, &kernel_file).expect("copied");
    let print = with_symbols(&["--print"], "");
    assert_eq!(printed(&print), format!("crash {} {vmcore}", kernel_file.display()));
    elf(files.path(), "vmlinux-started", OTHER_ID, &["-g"]);
    let other = with_symbols(&["--print"], "");
    assert!(
        said(&other).contains("vmlinux-started is of another kernel"),
        "{}",
        said(&other)
    );

    // From a receiver a file is needed first.
    let api = debug(bin.path(), &["--api", &serve.api, "--symbols", &symbols_text], "");
    assert_eq!(api.status.code(), Some(2));
    assert!(said(&api).contains("cores fetch"), "{}", said(&api));
    let args = ["--api", &serve.api, "--symbols", &symbols_text, "--vmcore", vmcore];
    assert_eq!(
        printed(&debug(bin.path(), &args, "")),
        format!("crash {} {vmcore}", by_id.display())
    );
    assert_eq!(serve.daemon.terminate().code(), Some(0));
}

/// A core with this file as its kernel behind the memory.
fn core_with(kernel: &Path) -> Vec<u8> {
    let memory = MemoryRange {
        gpa: 0,
        len_bytes: 65_536,
    };
    let bytes = fs::read(kernel).expect("a kernel");
    let layout = Layout::new(&[memory], 1).expect("a layout");
    let layout = layout.with_kernel(bytes.len() as u64).expect("room");
    let vmcoreinfo = format!("OSRELEASE=6.1.0-kept\nBUILD-ID={BUILD_ID}\nKERNELOFFSET=0\n");
    let note = CoreferryNote {
        booted_build_id: Some(OTHER_ID.to_owned()),
        kept_kernel: Some(KeptKernelNote {
            name: "vmlinux-6.1.0-kept".to_owned(),
            file_offset: layout.memory_end(),
            len_bytes: bytes.len() as u64,
            digest: format!("blake3:{}", blake3::hash(&bytes).to_hex()),
        }),
        ..CoreferryNote::default()
    };
    let input = HeaderInput {
        cpus: &[CpuState::default()],
        vmcoreinfo: Some(vmcoreinfo.as_bytes()),
        coreferry: &note,
        text: None,
    };
    let mut file = layout.header(&input).expect("a header");
    file.resize(usize::try_from(vmcore::HEADER_ROOM_LEN).expect("1 MiB"), 0);
    file.extend(std::iter::repeat_n(0x5a, 65_536));
    file.extend(bytes);
    file
}

#[test]
fn a_kernel_that_came_with_the_core_has_its_symbols() {
    let (files, dir, bin) = (temp_dir(), temp_dir(), temp_dir());
    let serve = Serve::start(dir.path());
    program(bin.path(), "crash", "echo crash");
    let cache = files.path().join("cache");
    let print = |vmcore: &Path| {
        let mut command = coreferry();
        command.args([
            "cores", "debug", "latest", "--with", "crash", "--print", "--api", &serve.api,
        ]);
        command.arg("--vmcore").arg(vmcore).env("XDG_CACHE_HOME", &cache);
        command.env("PATH", format!("{}:/bin:/usr/bin", bin.path().display()));
        command.env("DEBUGINFOD_URLS", "").output().expect("it runs")
    };
    let send = |bytes: &[u8], count: usize| {
        let sent = files.path().join("core");
        fs::write(&sent, bytes).expect("the core is written");
        run_ok(&["send", path_text(&sent), "--to", &serve.netdump.to_string()]);
        let cores = serve.settled_cores(count);
        let vmcore = serve.vmcore_path(cores[0]["id"].as_str().expect("an id"));
        // It tells the build id that symbols are found by, a moment after the core has come.
        wait_for("explain.json", || {
            vmcore.with_file_name("explain.json").exists().then_some(())
        });
        vmcore
    };

    for (count, (name, id, options, why)) in [
        ("other", OTHER_ID, &["-g"][..], "of another kernel"),
        ("bare", BUILD_ID, &[][..], "this kernel without debug information"),
    ]
    .into_iter()
    .enumerate()
    {
        let vmcore = send(&core_with(&elf(files.path(), name, id, options)), count + 1);
        let missing = print(&vmcore);
        let sentence = format!("vmlinux-6.1.0-kept in the core is {why}");
        assert!(said(&missing).contains(&sentence), "{}", said(&missing));
    }
    assert!(!cache.exists(), "nothing is written out that is of no use");

    // As after kexec: the guest's own word counts, and both are named.
    let info = run_ok(&["cores", "info", "latest", "--dir", path_text(dir.path())]);
    for line in [
        format!("build id     {BUILD_ID}"),
        format!("booted with  another kernel, build id {OTHER_ID}"),
    ] {
        assert!(info.lines().any(|there| there == line), "{line}\n{info}");
    }

    let right = elf(files.path(), "right", BUILD_ID, &["-g"]);
    let vmcore = send(&core_with(&right), 3);
    for _ in 0..2 {
        let command = printed(&print(&vmcore));
        let mut words = command.split(' ').skip(1);
        let symbols = Path::new(words.next().expect("symbols"));
        assert!(symbols.starts_with(&cache), "{command}");
        assert!(fs::read(symbols).expect("written out") == fs::read(&right).expect("the kernel"));
        assert_eq!(words.next(), Some(path_text(&vmcore)));
    }
    assert_eq!(serve.daemon.terminate().code(), Some(0));
}

#[test]
fn a_crash_that_is_too_old_for_the_kernel_is_named_before_it_starts() {
    let (files, dir, bin) = (temp_dir(), temp_dir(), temp_dir());
    let serve = Serve::start(dir.path());
    let sent = files.path().join("core");
    let symbols = elf(files.path(), "vmlinux", BUILD_ID, &["-g"]);
    fs::write(&sent, core_of("6.12.117+deb12-amd64", &symbols)).expect("the core is written");
    run_ok(&["send", path_text(&sent), "--to", &serve.netdump.to_string()]);
    serve.settled_cores(1);
    let print = |version: &str, tool: &str| {
        program(bin.path(), "crash", &format!("echo; echo 'crash {version}'"));
        program(bin.path(), "drgn", "echo drgn");
        let dir = path_text(dir.path());
        let output = debug(bin.path(), &["--dir", dir, "--with", tool, "--print"], "");
        assert!(printed(&output).starts_with(tool), "{}", printed(&output));
        said(&output)
    };
    for (version, is_too_old) in [("8.0.2", true), ("8.0.5", true), ("8.0.6", false), ("9.0.2", false)] {
        let said = print(version, "crash");
        assert_eq!(said.contains("--with drgn"), is_too_old, "{version}: {said}");
        assert_eq!(
            said.contains(&format!("crash {version} does not open")),
            is_too_old,
            "{said}"
        );
    }
    assert!(!print("8.0.2", "drgn").contains("does not open"));
    assert_eq!(serve.daemon.terminate().code(), Some(0));
}
