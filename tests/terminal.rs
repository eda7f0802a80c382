//! The command line as a person at a terminal meets it: tables that fit, colour, progress, lists that go on, completion.

mod common;
#[path = "web/dumps.rs"]
mod dumps;
#[path = "download/proxy.rs"]
mod proxy;
#[path = "receiver/tiny_sender.rs"]
mod tiny_sender;

use std::path::Path;
use std::process::Command;

use common::{Daemon, Serve, coreferry, path_text, run_ok, temp_dir};
use proxy::Proxy;

/// The program on a terminal of 72 columns: script(1) of Debian's base makes one. `more` are words of the environment.
fn on_terminal(more: &str, line: &str) -> Command {
    let mut command = Command::new("script");
    let program = env!("CARGO_BIN_EXE_coreferry");
    let shell = format!("stty cols 72 rows 24; exec env -u NO_COLOR {more} '{program}' {line}");
    command
        .args(["-q", "-e", "-c", &shell, "/dev/null"])
        .env("TERM", "xterm");
    command.stdin(std::process::Stdio::null());
    command
}

/// What a command writes to a terminal until it ends.
fn shown(more: &str, line: &str) -> String {
    let output = on_terminal(more, line).output().expect("script(1) runs");
    String::from_utf8_lossy(&output.stdout).replace('\r', "")
}

#[test]
fn tables_fit_the_terminal_and_are_aligned() {
    let dir = temp_dir();
    let serve = Serve::start(dir.path());
    let long = "a very long panic text that would never fit into one line of a terminal";
    dumps::send(&serve, "a-guest-with-a-long-name-indeed", long);
    dumps::send(&serve, "web", "short");
    serve.settled_cores(2);
    for what in ["list", "groups"] {
        let table = shown("", &format!("cores {what} --dir {}", dir.path().display()));
        let lines: Vec<&str> = table.lines().collect();
        assert!(lines.len() > 2 && table.contains("GUEST"), "{table}");
        for line in &lines {
            assert!(line.chars().count() <= 72, "too wide:\n{table}");
        }
        assert!(!table.contains(long), "it was wrapped:\n{table}");
    }
    // Into a pipe a row is a line, whatever its length; its columns begin where those of the header do.
    let table = run_ok(&["cores", "list", "--dir", path_text(dir.path())]);
    let lines: Vec<&str> = table.lines().collect();
    assert_eq!(lines.len(), 3, "{table}");
    let column = |line: &str, word: &str| line.find(word).unwrap_or_else(|| panic!("no {word}:\n{table}"));
    let guests = column(lines[0], "GUEST");
    assert_eq!(
        (column(lines[1], "web"), column(lines[2], "a-guest")),
        (guests, guests),
        "{table}"
    );
    assert!(
        lines[1].contains(" s ago") && lines[1].contains("8.0 KiB/8.0 KiB"),
        "{table}"
    );
}

#[test]
fn colour_is_for_terminals_that_want_it() {
    let has_colour = |text: &str| text.contains("\u{1b}[");
    assert!(has_colour(&shown("", "--help")), "on a terminal");
    assert!(!has_colour(&shown("NO_COLOR=1", "--help")), "that wants none");
    let piped = coreferry()
        .env_remove("NO_COLOR")
        .arg("--help")
        .output()
        .expect("it runs");
    assert!(!has_colour(&String::from_utf8_lossy(&piped.stdout)), "in a pipe");
    // Log lines, too.
    let dir = temp_dir();
    let serve = Serve::start(dir.path());
    assert!(!has_colour(&serve.daemon.stderr_text()));
}

#[test]
fn a_watched_list_shows_what_comes() {
    let dir = temp_dir();
    let serve = Serve::start(dir.path());
    let mut command = coreferry();
    command.args(["cores", "list", "--watch", "--api", &serve.api]);
    let watching = Daemon::start(command);
    watching.line_starting("ID");
    dumps::send(&serve, "web", "panic");
    let id = dumps::id(&serve);
    let line = watching.line_starting(&id);
    assert!(line.contains("web") && line.contains("complete"), "{line}");
}

#[test]
fn a_download_on_a_terminal_shows_its_bar_with_rate_and_time_to_come() {
    let dir = temp_dir();
    let serve = Serve::start(&dir.path().join("store"));
    dumps::send_apart(&serve);
    // The bar is drawn four times a second: the last part is held back until it was seen.
    let proxy = Proxy::holding(&serve.api, 3, 0);
    let file = dir.path().join("vmcore");
    let line = format!("cores fetch latest --api {} -o {}", proxy.api, file.display());
    let mut child = on_terminal("", &line)
        .stdout(std::process::Stdio::piped())
        .spawn()
        .expect("script(1) runs");
    let mut text = String::new();
    let mut output = child.stdout.take().expect("a pipe");
    while !text.contains("8.00 KiB/12.00 KiB") {
        let mut bytes = [0; 4096];
        let len = std::io::Read::read(&mut output, &mut bytes).expect("more of it");
        assert!(len > 0, "two of three parts were never shown: {text:?}");
        text.push_str(&String::from_utf8_lossy(&bytes[..len]));
    }
    let line = text
        .rsplit('\r')
        .find(|line| line.contains("8.00 KiB/12.00 KiB"))
        .expect("the bar");
    let words: Vec<&str> = line.split_whitespace().collect();
    assert!(words.iter().any(|word| word.ends_with("B/s")), "a rate: {line:?}");
    assert!(
        words.last().is_some_and(|word| word.ends_with('s')),
        "the time to come: {line:?}"
    );
    proxy.release();
    std::io::Read::read_to_string(&mut output, &mut text).expect("its end");
    assert!(child.wait().expect("it ends").success(), "{text:?}");
    assert_eq!(std::fs::read(&file).expect("the core").len(), (8 << 20) + 4096);
    // Into a pipe there is none.
    let quiet = coreferry()
        .args(["cores", "fetch", "latest", "--api", &serve.api, "-o", path_text(&file)])
        .output()
        .expect("it runs");
    let stderr = String::from_utf8_lossy(&quiet.stderr);
    assert!(!stderr.contains("/s"), "{stderr}");
}

#[test]
fn a_shell_completes_commands_and_ids() {
    let dir = temp_dir();
    let serve = Serve::start(dir.path());
    for guest in ["web-16", "web-17"] {
        dumps::send(&serve, guest, "panic");
    }
    let cores = serve.settled_cores(2);
    let ids: Vec<&str> = cores.iter().map(|core| core["id"].as_str().expect("an id")).collect();
    let bin = Path::new(env!("CARGO_BIN_EXE_coreferry")).parent().expect("a folder");
    let completed = |words: &[&str]| {
        let script = "source <(coreferry completions bash); COMP_WORDS=(\"$@\"); COMP_CWORD=$(($# - 1)); COMP_TYPE=9; \
                      _clap_complete_coreferry coreferry \"${!#}\" \"\"; printf '%s\\n' \"${COMPREPLY[@]}\"";
        let path = format!("{}:{}", bin.display(), std::env::var("PATH").expect("a PATH"));
        let mut bash = Command::new("bash");
        bash.args(["--norc", "-c", script, "bash", "coreferry"]).args(words);
        bash.env("PATH", path)
            .env_remove("COREFERRY_DIR")
            .env_remove("COREFERRY_API");
        let output = bash.output().expect("bash runs");
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success() && stderr.is_empty(), "{words:?}: {stderr}");
        let text = String::from_utf8(output.stdout).expect("text");
        text.lines().map(|line| line.trim_end().to_owned()).collect::<Vec<_>>()
    };
    let place = path_text(dir.path());
    assert_eq!(completed(&["cor"]), ["cores"]);
    assert!(completed(&["cores", "fe"]).contains(&"fetch".to_owned()));
    for source in [["--dir", place], ["--api", serve.api.as_str()]] {
        let all = completed(&["cores", source[0], source[1], "info", ""]);
        for id in &ids {
            assert!(all.iter().any(|word| word == id), "{id} is not among {all:?}");
        }
        assert!(all.iter().any(|word| word == "latest"), "{all:?}");
        let one = completed(&["cores", source[0], source[1], "fetch", ids[0]]);
        assert_eq!(one, [ids[0]]);
    }
    // Nothing there, nothing said.
    let none = completed(&["cores", "--api", "http://127.0.0.1:1", "info", "0"]);
    assert!(none.iter().all(String::is_empty), "{none:?}");
    // Other shells have theirs.
    for shell in ["zsh", "fish", "elvish", "powershell"] {
        assert!(
            run_ok(&["completions", shell]).contains("COREFERRY_COMPLETE"),
            "{shell}"
        );
    }
}
