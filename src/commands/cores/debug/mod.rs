//! `cores debug`: a debugger on a core, with the symbols of exactly that kernel.
//!
//! ```text
//! core ─► its kernel (release, build id, KASLR) ─► symbols (folders, the core itself, debuginfod) ─► command of crash, drgn or gdb ─► exec
//! ```

mod advice;
mod age;
mod kept;
mod symbols;
mod tool;

use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};

use api::{CoreInfo, CoreState};
use serde_json::json;

use self::symbols::{Symbols, Wanted};
use self::tool::Tool;
use super::bytes;
use super::source::{Source, refused};
use crate::cli_failure::{Exit, Failure, Outcome};
use crate::output;

/// Arguments of `cores debug`.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Full id, the beginning of one, or `latest`.
    #[arg(value_name = "ID", add = clap_complete::ArgValueCandidates::new(super::complete::ids))]
    id: String,
    /// Debugger to start; without it the first one that is installed.
    #[arg(long, value_name = "crash|drgn|gdb")]
    with: Option<Tool>,
    /// Where to look for symbols first: a vmlinux or .debug file, a folder of them, or one laid out by build id; may repeat.
    #[arg(long, value_name = "PATH")]
    symbols: Vec<PathBuf>,
    /// The core's file, where `cores fetch` or `cores export` wrote it; needed with --api.
    #[arg(long, value_name = "FILE")]
    vmcore: Option<PathBuf>,
    /// Print the command instead of running it.
    #[arg(long)]
    print: bool,
}

/// What is known of the kernel that crashed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Kernel {
    release: Option<String>,
    build_id: Option<String>,
    /// How far KASLR moved it, as hexadecimal with `0x`.
    offset: Option<String>,
}

/// Starts the debugger; comes back only if it cannot be started, or with --print.
pub(super) fn run(source: &Source, args: &Args, as_json: bool) -> Outcome {
    let info = source.info(&args.id)?;
    let vmcore = vmcore(source, &info, args.vmcore.as_deref())?;
    let kernel = kernel(source, &info);
    let tool = Tool::choose(args.with)?;
    let wanted = Wanted::new(kernel.release.as_deref(), kernel.build_id.as_deref());
    let booted = info.note.as_ref().and_then(|note| note.kernel_file.as_deref());
    let kept = || {
        let kernel = info.note.as_ref()?.kept_kernel.as_ref()?;
        let core = bytes::open(source, &info).ok()?;
        Some(kept::symbols(&wanted, &info, kernel, &*core))
    };
    let found = symbols::find(&wanted, &args.symbols, kept, booted.map(Path::new));
    let Some(Symbols { file, is_proven }) = found.symbols else {
        return Err(Failure::new(
            Exit::Failed,
            advice::missing(&info, &kernel, &found.looked_at),
        ));
    };
    if !is_proven {
        output::say(&format!(
            "{} is taken by its name: the core does not tell the build id of its kernel",
            file.display()
        ));
    }
    if info.summary.state == CoreState::Incomplete {
        output::say("this core is incomplete: what is lost reads as zeros");
    }
    if tool == Tool::Crash
        && let Some(sentence) = age::crash_is_too_old(kernel.release.as_deref())
    {
        output::say(&sentence);
    }
    let command = tool.command(&file, &vmcore, kernel.offset.as_deref());
    if args.print {
        if as_json {
            output::json(&json!({ "schema_version": api::SCHEMA_VERSION, "command": command }))?;
        } else {
            let words: Vec<String> = command.iter().map(|word| quoted(word)).collect();
            output::line(&words.join(" "))?;
        }
        return Ok(Exit::Ok);
    }
    let (program, arguments) = command
        .split_first()
        .map_or(("", &[][..]), |(first, rest)| (first, rest));
    let why = std::process::Command::new(program).args(arguments).exec();
    Err(Failure::new(Exit::Failed, format!("cannot run {program}: {why}")))
}

/// The file that the debugger opens.
fn vmcore(source: &Source, info: &CoreInfo, given: Option<&Path>) -> Result<PathBuf, Failure> {
    let id = &info.summary.id;
    let path = match (given, source) {
        (Some(file), _) => file.to_owned(),
        (None, Source::Dir(cores)) => cores.vmcore(id).map_err(|why| refused(&why))?.path,
        (None, Source::Api(_)) => {
            let sentence = format!(
                "a debugger needs the file: `coreferry cores fetch {id} -o vmcore`, then add `--vmcore vmcore` to this command"
            );
            return Err(Failure::new(Exit::Usage, sentence));
        }
    };
    match path.metadata() {
        Ok(_) => Ok(path),
        Err(why) => {
            let sentence = format!("cannot open the core's file {}: {why}", path.display());
            Err(Failure::new(Exit::Failed, sentence))
        }
    }
}

/// What explanation and note say; a core that was not explained yet is looked at now.
fn kernel(source: &Source, info: &CoreInfo) -> Kernel {
    let note = info.note.as_ref();
    let listed = || {
        let kernel = info.summary.kernel.as_deref()?;
        kernel.rsplit(' ').next().map(str::to_owned)
    };
    let mut kernel = Kernel {
        release: note.and_then(|note| note.release.clone()).or_else(listed),
        build_id: info.build_id.clone().or_else(|| note?.build_id.clone()),
        offset: info.kernel_offset.clone(),
    };
    if kernel.build_id.is_none()
        && let Source::Dir(cores) = source
        && let Ok(dir) = cores.dir(&info.summary.id)
        && let Ok(told) = server::explain(&dir)
    {
        kernel.release = told.release.or(kernel.release);
        kernel.build_id = told.build_id;
        kernel.offset = told.kernel_offset.or(kernel.offset);
    }
    kernel
}

/// A word as a shell takes it.
fn quoted(word: &str) -> String {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "_-./=:,+@%".contains(c);
    if !word.is_empty() && word.chars().all(is_plain) {
        return word.to_owned();
    }
    format!("'{}'", word.replace('\'', r"'\''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_quoted_where_a_shell_would_split_them() {
        assert_eq!(
            quoted("/var/crash/cores/2026/01/0199-ab/vmcore"),
            "/var/crash/cores/2026/01/0199-ab/vmcore"
        );
        assert_eq!(quoted("symbol-file -o 0x1 a'b"), r"'symbol-file -o 0x1 a'\''b'");
        assert_eq!(quoted(""), "''");
    }
}
