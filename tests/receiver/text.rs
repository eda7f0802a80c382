//! Texts from the network that try to be something else: wherever they are shown or written, they are text.

use std::fs;

use crate::common::{Serve, path_text, run_ok, temp_dir};
use crate::stock::{kernel_dump_header, with_field};
use crate::tiny_sender::TinySender;

/// Moves a terminal's cursor, rings, sets its title; ends the line and poses as the next; turns the direction of text;
/// hides; ends strings, attributes and cells of whatever it is put into.
const HOSTILE: &str = "\x1b[2J\x1b]0;owned\x07\r\nDump complete\n  Panic String: forged\u{9b}1m\u{202e}txet\u{2066}\u{200b}\u{feff}\x7f\"'<b>|,{";

/// Whether a character does more than to be seen.
fn is_active(c: char) -> bool {
    c != '\n' && c.is_control()
        || matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{feff}')
}

fn is_harmless(what: &str, text: &str) {
    let active: Vec<char> = text.chars().filter(|c| is_active(*c)).collect();
    assert!(active.is_empty(), "{what} has {active:?}:\n{text:?}");
    for line in ["Dump complete", "  Panic String: forged"] {
        assert!(
            text.lines().all(|other| !other.starts_with(line)),
            "{what} has the forged line `{line}`:\n{text}"
        );
    }
}

#[test]
fn texts_of_a_guest_are_escaped_wherever_they_are_shown_or_written() {
    let dir = temp_dir();
    let serve = Serve::start(dir.path());
    let mut sender = TinySender::connect_with(serve.netdump, format!("{HOSTILE}\0").as_bytes());
    sender.data(0, &[1; 4096]);
    let receiving = serve.cores();
    assert_eq!(receiving[0]["state"], "receiving");
    let api = serve.api.clone();
    let from: [[&str; 2]; 2] = [["--dir", path_text(dir.path())], ["--api", &api]];
    let shown = |id: &str| {
        for from in from {
            for command in [
                &["list"][..],
                &["list", "--json"],
                &["info", id],
                &["info", id, "--json"],
            ] {
                let arguments = [&["cores"], command, &from].concat();
                is_harmless(&arguments.join(" "), &run_ok(&arguments));
            }
            let table = run_ok(&[&["cores", "list"][..], &from].concat());
            assert_eq!(table.lines().count(), 2, "a header and one core:\n{table}");
        }
    };
    shown(receiving[0]["id"].as_str().expect("text"));

    // Longer than what was announced to come, so that the core is incomplete and has its reason.
    let header = kernel_dump_header(8192, HOSTILE, HOSTILE);
    let header = with_field(header, 20, b"\x1b[31m\n");
    let header = with_field(header, 128, HOSTILE.as_bytes());
    sender.header(&header);
    sender.finish();
    let core = serve.settled_cores(1).remove(0);
    assert_eq!(core["state"], "incomplete");
    let id = core["id"].as_str().expect("text");
    shown(id);
    let core_dir = serve.vmcore_path(id);
    for name in ["info.txt", "manifest.json"] {
        let text = fs::read_to_string(core_dir.with_file_name(name)).expect("text");
        assert!(text.contains("owned"), "{name} tells nothing of it:\n{text}");
        is_harmless(name, &text);
    }
    let log = serve.daemon.stderr_text();
    assert!(log.contains("owned"), "the log tells nothing of it:\n{log}");
    is_harmless("the log", &log);
    let raw = fs::read(core_dir.with_file_name("kdh.bin")).expect("the header");
    assert!(raw == header, "the raw header is kept as it came");
    let inside = fs::read_dir(dir.path()).expect("the store").count();
    assert!(inside <= 3, "a path in a herald is a label, and makes no file");
}
