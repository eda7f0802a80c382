//! `coreferry send` to `coreferry serve`, and to nobody.

mod common;

use std::fs;
use std::os::unix::fs::{FileExt as _, MetadataExt as _};
use std::path::Path;
use std::time::{Duration, UNIX_EPOCH};

use common::{Serve, complaint, path_text, run, temp_dir};

/// Bytes that differ everywhere.
fn noise(len: usize, seed: u64) -> Vec<u8> {
    let mut state = seed | 1;
    let mut bytes = Vec::with_capacity(len + 8);
    while bytes.len() < len {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend_from_slice(&state.to_le_bytes());
    }
    bytes.truncate(len);
    bytes
}

/// Runs `send` and demands that it succeeds.
fn send(file: &Path, serve: &Serve, more: &[&str]) {
    let to = serve.netdump.to_string();
    let mut arguments = vec!["send", path_text(file), "--to", &to];
    arguments.extend_from_slice(more);
    let output = run(&arguments);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn a_file_arrives_byte_by_byte_with_its_facts() {
    let dir = temp_dir();
    let serve = Serve::start(dir.path());
    let file = dir.path().join("image");
    // No multiple of any packet, page or chunk; zeros in the middle are sent like everything else.
    let mut bytes = noise(5_000_011, 7);
    bytes[2_000_000..3_500_000].fill(0);
    fs::write(&file, &bytes).expect("the file is written");
    send(&file, &serve, &["--hostname", "db-3", "--panic", "out of\x1bluck"]);
    let core = serve.settled_cores(1).remove(0);
    assert_eq!(core["state"], "complete");
    assert_eq!(core["guest"], "db-3");
    assert_eq!(core["panic"], "out of\\u{1b}luck");
    assert_eq!(core["file_len_bytes"], 5_000_011);
    assert_eq!(core["stored_bytes"], 5_000_011);
    assert_eq!(core["holes"], serde_json::json!([]));
    assert!(core["client_addr"].as_str().expect("text").starts_with("127.0.0.1"));
    let stored = fs::read(serve.vmcore_path(core["id"].as_str().expect("text"))).expect("the vmcore is there");
    assert!(stored == bytes, "the stored bytes differ");
}

#[test]
fn a_core_of_our_own_layout_arrives_with_its_holes() {
    let dir = temp_dir();
    let serve = Serve::start(dir.path());
    let file = dir.path().join("core");
    let len = write_own_core(&file, "vm-9");
    send(&file, &serve, &[]);
    let core = serve.settled_cores(1).remove(0);
    assert_eq!(core["state"], "complete");
    assert_eq!(core["format"], "elf");
    assert_eq!(core["guest"], "vm-9");
    assert_eq!(core["panic"], "no luck");
    assert_eq!(core["kernel"], "linux 6.1.0");
    assert_eq!(core["file_len_bytes"], len);
    let stored_bytes = core["stored_bytes"].as_u64().expect("a number");
    assert!(stored_bytes < len / 4, "{stored_bytes} of {len} bytes were sent");
    let path = serve.vmcore_path(core["id"].as_str().expect("text"));
    assert!(
        fs::read(&path).expect("the vmcore") == fs::read(&file).expect("the file"),
        "the bytes differ"
    );
    let on_disk = fs::metadata(&path).expect("the vmcore").blocks() * 512;
    assert!(
        on_disk < len / 2,
        "{on_disk} bytes on disk for a file of {len}: the holes are not kept"
    );
}

#[test]
fn a_core_that_is_sent_later_is_not_younger_for_that() {
    let dir = temp_dir();
    let serve = Serve::start(dir.path());
    let (image, core) = (dir.path().join("image"), dir.path().join("core"));
    fs::write(&image, noise(5000, 3)).expect("the file is written");
    write_own_core(&core, "web-9");
    let (written, triggered) = (Duration::from_secs(1_700_000_000), 1_600_000_000);
    for file in [&image, &core] {
        let file = fs::File::options().write(true).open(file).expect("it is there");
        file.set_modified(UNIX_EPOCH + written).expect("a time");
    }
    for (count, (file, expected)) in [(&image, written.as_secs()), (&core, triggered)]
        .into_iter()
        .enumerate()
    {
        send(file, &serve, &[]);
        let core = serve.settled_cores(count + 1).remove(0);
        let info = run(&[
            "cores",
            "info",
            core["id"].as_str().expect("an id"),
            "--json",
            "--dir",
            path_text(dir.path()),
        ]);
        let info: serde_json::Value = serde_json::from_slice(&info.stdout).expect("JSON");
        assert_eq!(info["kernel_header"]["dump_time_s"], expected, "{}", file.display());
    }
}

#[test]
fn a_core_that_contradicts_its_own_trailer_is_corrupt() {
    let dir = temp_dir();
    let serve = Serve::start(dir.path());
    let file = dir.path().join("core");
    write_own_core(&file, "vm-9");
    let handle = fs::OpenOptions::new().write(true).open(&file).expect("the file");
    handle
        .write_all_at(b"changed", (1 << 20) + 4096 + 17)
        .expect("the change");
    send(&file, &serve, &[]);
    let core = serve.settled_cores(1).remove(0);
    assert_eq!(core["state"], "corrupt");
}

#[test]
fn nobody_there_is_exit_6_with_the_way_out() {
    let dir = temp_dir();
    let file = dir.path().join("image");
    fs::write(&file, noise(1000, 3)).expect("the file is written");
    // A port that is ours and that nobody answers on.
    let silent = std::net::UdpSocket::bind("127.0.0.1:0").expect("a socket");
    let to = silent.local_addr().expect("its address").to_string();
    let text = complaint(&["send", path_text(&file), "--to", &to], 6);
    assert!(text.contains(&to) && text.contains("coreferry serve"), "{text}");
}

#[test]
fn mistakes_have_their_codes_and_name_the_thing() {
    let dir = temp_dir();
    let missing = dir.path().join("nothing-here");
    let text = complaint(&["send", path_text(&missing), "--to", "127.0.0.1"], 1);
    assert!(text.contains("nothing-here"), "{text}");
    let empty = dir.path().join("empty");
    fs::write(&empty, "").expect("the file is written");
    let text = complaint(&["send", path_text(&empty), "--to", "127.0.0.1"], 1);
    assert!(text.contains("empty"), "{text}");
    complaint(&["send", path_text(dir.path()), "--to", "127.0.0.1"], 1);
    complaint(&["send", path_text(&empty)], 2);
    complaint(&["send", path_text(&empty), "--to", "127.0.0.1:0"], 2);
    complaint(&["send", path_text(&empty), "--to", "127.0.0.1:70000"], 2);
    complaint(&["send", path_text(&empty), "--to", ":20023"], 2);
}

/// Writes a core as the agent writes it: 8 MiB of memory, of which 1 MiB is not zero. Gives its length.
fn write_own_core(path: &Path, vm: &str) -> u64 {
    use vmcore::elf::{HeaderInput, Layout};
    use vmcore::trailer::{Pages, TrailerBuilder};
    let memory = vmcore::MemoryRange {
        gpa: 0,
        len_bytes: 8 << 20,
    };
    let layout = Layout::new(&[memory], 1).expect("a layout");
    let note = vmcore::CoreferryNote {
        schema_version: 1,
        dump_id: "0192f0c1-1111-7abc-8def-000000000000".to_owned(),
        vm: vm.to_owned(),
        trigger: "panic-record".to_owned(),
        panic: Some("no luck".to_owned()),
        os: Some("linux".to_owned()),
        release: Some("6.1.0".to_owned()),
        triggered_at: Some("2020-09-13T12:26:40Z".to_owned()),
        ..vmcore::CoreferryNote::default()
    };
    let input = HeaderInput {
        cpus: &[vmcore::CpuState::default()],
        vmcoreinfo: None,
        coreferry: &note,
        text: None,
    };
    let head = layout.header(&input).expect("a header");
    let file = fs::File::create(path).expect("the file is made");
    let mut trailer = TrailerBuilder::new(&layout);
    trailer.header(&head).expect("the header fits");
    file.write_all_at(&head, 0).expect("written");
    let filled = noise(1 << 20, 11);
    let begin = layout.file_offset_of(0).expect("memory begins at 0");
    file.write_all_at(&filled, begin).expect("written");
    trailer.pages(begin, Pages::Stored(&filled)).expect("in place");
    trailer
        .pages(begin + (1 << 20), Pages::Zero(7 << 20))
        .expect("in place");
    let trailer = trailer.finish().expect("a trailer");
    file.write_all_at(&trailer, layout.memory_end()).expect("written");
    layout.memory_end() + trailer.len() as u64
}
