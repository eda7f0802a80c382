//! `coreferry cores export`: from a directory and from a receiver, into files and into pipes. What the forms hold is tested where
//! they are made, and what other tools make of them in `tools.rs`.

mod common;

use std::fs;
use std::os::unix::fs::{FileTypeExt as _, symlink};
use std::os::unix::net::UnixListener;
use std::path::Path;

use common::{Serve, complaint, path_text, run, run_ok, temp_dir};
use vmcore::elf::{HeaderInput, Layout};
use vmcore::limits::{HEADER_ROOM_LEN, PAGE_LEN};
use vmcore::trailer::{Pages, TrailerBuilder};
use vmcore::{CoreferryNote, CpuState, MemoryRange};

/// A core of 300 pages: every third one is zero, the last ten are left out.
fn write_core(path: &Path) {
    let range = MemoryRange {
        gpa: 0,
        len_bytes: 300 * PAGE_LEN,
    };
    let layout = Layout::new(&[range], 1).expect("the range makes a layout");
    let header = layout.header(&HeaderInput {
        cpus: &[CpuState::default()],
        vmcoreinfo: None,
        coreferry: &CoreferryNote::default(),
        text: None,
    });
    let header = header.expect("the header fits");
    let mut file = header.clone();
    file.resize(usize::try_from(layout.memory_end()).expect("it is short"), 0);
    let mut trailer = TrailerBuilder::new(&layout);
    for (page, at) in (0_u64..300).zip((HEADER_ROOM_LEN..).step_by(4096)) {
        let start = usize::try_from(at).expect("it is short");
        let bytes = &mut file[start..start + 4096];
        let pages = match page {
            290.. => Pages::Excluded(PAGE_LEN),
            _ if page % 3 == 0 => Pages::Zero(PAGE_LEN),
            _ => {
                bytes.fill(page.to_le_bytes()[0] | 1);
                Pages::Stored(bytes)
            }
        };
        trailer.pages(at, pages).expect("pages come in order");
    }
    trailer.header(&header).expect("the header was not there yet");
    file.extend(trailer.finish().expect("every page was told"));
    fs::write(path, file).expect("the core is written");
}

/// A receiver that has the core.
fn serve(dir: &Path) -> Serve {
    let core = dir.join("core");
    write_core(&core);
    let serve = Serve::start(&dir.join("store"));
    run_ok(&["send", path_text(&core), "--to", &serve.netdump.to_string()]);
    serve.settled_cores(1);
    serve
}

#[test]
fn files_and_pipes_from_a_directory_and_from_a_receiver_have_the_same_bytes() {
    let dir = temp_dir();
    let serve = serve(dir.path());
    let api = format!("http://{}", serve.api);
    let to = dir.path().join("out");
    for (format, can_pipe) in [("elf", true), ("kdump-flat-zlib", true), ("kdump-zstd", false)] {
        let mut files = Vec::new();
        for from in [["--dir", path_text(&serve.dir)], ["--api", &api]] {
            let export = ["cores", "export", "latest", from[0], from[1], "--format", format, "-o"];
            let said = run_ok(&[&export[..], &[path_text(&to), "--json"]].concat());
            let said: serde_json::Value = serde_json::from_str(&said).expect("--json prints JSON");
            assert_eq!(said["pages"], 290, "{said}");
            assert_eq!(said["excluded_pages"], 10, "{said}");
            let bytes = fs::read(&to).expect("the file is there");
            assert_eq!(said["file_len_bytes"], bytes.len());
            files.push(bytes);
            if can_pipe {
                let output = run(&[&export[..], &["-"]].concat());
                assert!(output.status.success());
                files.push(output.stdout);
            }
        }
        assert!(
            files.iter().all(|file| *file == files[0]),
            "{format}: not the same bytes"
        );
    }
    // Nothing else is left.
    let mut left: Vec<String> = fs::read_dir(dir.path())
        .expect("it can be listed")
        .map(|entry| entry.expect("an entry").file_name().to_string_lossy().into_owned())
        .collect();
    left.sort();
    assert_eq!(left, ["core", "out", "store"]);
}

#[test]
fn what_cannot_be_exported_is_said_with_the_way_out() {
    let dir = temp_dir();
    let serve = serve(dir.path());
    let to = dir.path().join("out");
    let (store, to) = (path_text(&serve.dir), path_text(&to));
    let export = |id, format, output, more: &[&str], code| {
        let arguments = ["cores", "export", id, "--dir", store, "--format", format, "-o", output];
        complaint(&[&arguments[..], more].concat(), code)
    };
    for (said, expected) in [
        (export("latest", "kdump-zstd", "-", &[], 2), "kdump-flat-zstd"),
        (export("latest", "kdump-bzip2", to, &[], 2), "kdump-lzo"),
        (export("latest", "elf", to, &["--filter", "32"], 2), "0 to 31"),
        (export("latest", "elf", to, &["--threads", "0"], 2), "1 to"),
        (export("latest", "elf", "-", &["--json"], 2), "--json"),
        (export("latest", "raw", to, &[], 1), "10 pages were left out"),
        (export("ffff", "elf", to, &[], 3), "cores list"),
        (
            export("latest", "elf", "/no/such/folder/out", &[], 1),
            "/no/such/folder/out",
        ),
        (export("latest", "elf", "/dev/full/x", &[], 1), "/dev/full/x"),
    ] {
        assert!(said.contains(expected), "{said:?} does not say {expected:?}");
    }
    assert!(!Path::new(to).exists() && !Path::new(&format!("{to}.part")).exists());
    // Without page structures nothing is left out, and that is said.
    let said = export("latest", "kdump-zlib", to, &["--filter", "31"], 0);
    assert!(said.contains("not filtered") && said.contains("VMCOREINFO"), "{said}");
}

#[test]
fn an_output_takes_the_place_of_files_only() {
    let dir = temp_dir();
    let serve = serve(dir.path());
    let at = |name: &str| dir.path().join(name);
    let store = ["--dir", path_text(&serve.dir)];
    let export = ["cores", "export", "latest", "--format", "elf", store[0], store[1], "-o"];
    let fetch = ["cores", "fetch", "latest", store[0], store[1], "-o"];
    let _listener = UnixListener::bind(at("socket")).expect("a socket");
    symlink(at("socket"), at("to-socket")).expect("a link");
    symlink(at("nothing"), at("to-nothing")).expect("a link");
    symlink(at("file"), at("to-file")).expect("a link");
    let id = serve.cores()[0]["id"].as_str().expect("an id").to_owned();
    let stored = serve.vmcore_path(&id);
    let beside = stored.with_file_name("mine");
    for command in [&export[..], &fetch] {
        let said = |output: &Path| complaint(&[command, &[path_text(output)]].concat(), 1);
        for (name, expected) in [
            ("socket", "a pipe or a socket"),
            ("to-socket", "a pipe or a socket"),
            ("to-nothing", "symbolic link"),
            (".", "is a directory"),
        ] {
            let said = said(&at(name));
            assert!(said.contains(expected), "{name}: {said}");
        }
        for output in [&stored, &beside] {
            assert!(said(output).contains("of a stored core"), "{}", output.display());
        }
        assert!(fs::symlink_metadata(at("socket")).is_ok_and(|there| there.file_type().is_socket()));
        // A link goes on naming what it named.
        fs::write(at("file"), "older").expect("it can be written");
        run_ok(&[command, &[path_text(&at("to-file"))]].concat());
        assert!(fs::symlink_metadata(at("to-file")).is_ok_and(|there| there.is_symlink()));
        assert!(fs::read(at("file")).is_ok_and(|bytes| bytes.starts_with(b"\x7fELF")));
    }
    assert!(!beside.exists() && !stored.with_file_name("vmcore.part").exists());
    run_ok(&["cores", "verify", "latest", store[0], store[1]]);
    let said = complaint(&[&fetch[..], &["-"]].concat(), 2);
    assert!(said.contains("--format elf -o -"), "{said}");
}

#[test]
fn two_commands_do_not_write_one_file() {
    let dir = temp_dir();
    let serve = serve(dir.path());
    let to = dir.path().join("out");
    let part = dir.path().join("out.part");
    let store = path_text(&serve.dir);
    let export = [
        "cores",
        "export",
        "latest",
        "--format",
        "elf",
        "--dir",
        store,
        "-o",
        path_text(&to),
    ];
    let fetch = ["cores", "fetch", "latest", "--dir", store, "-o", path_text(&to)];
    let other = fs::File::create(&part).expect("another command's file");
    other.lock().expect("it is locked");
    fs::write(&part, "what the other wrote").expect("it can be written");
    for command in [&export[..], &fetch] {
        let said = complaint(command, 1);
        assert!(said.contains("another command is writing"), "{said}");
    }
    assert_eq!(fs::read(&part).expect("it is still there"), b"what the other wrote");
    // One that was killed left its part, and no lock.
    drop(other);
    for command in [&export[..], &fetch] {
        run_ok(command);
        assert!(fs::read(&to).is_ok_and(|bytes| bytes.starts_with(b"\x7fELF")));
        assert!(!part.exists());
        fs::write(&part, "left over").expect("it can be written");
    }
}
