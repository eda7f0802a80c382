//! `cores`: what is stored, from a directory or from a receiver's API.

mod bytes;
mod complete;
mod copy;
mod debug;
mod edit;
mod export;
mod fetch;
mod groups;
mod info;
mod kernel;
mod log;
mod print;
mod prune;
mod source;
mod target;
mod verify;

use std::io::IsTerminal as _;
use std::path::PathBuf;
use std::time::Duration;

use api::CoreState;
use clap::Subcommand;

use crate::cli_failure::{Exit, OrExit as _, Outcome};
use crate::output;
use source::{Filter, Source};

use crate::trust::TrustArgs;

/// How often `cores list --watch` looks.
const WATCH_EVERY: Duration = Duration::from_secs(2);

/// Arguments of `cores`.
#[derive(Debug, clap::Args)]
#[command(
    args_conflicts_with_subcommands = false,
    after_help = "ID is a full id, the beginning of one, or `latest`. Without a subcommand, `cores` is `cores list`.\n\
    --dir comes before --api, both before COREFERRY_DIR, and that before COREFERRY_API; without any of them the\n\
    receiver at http://127.0.0.1:20080 is asked.\n\n\
    Example: coreferry cores info latest --dir /var/crash"
)]
pub(crate) struct Args {
    #[command(flatten)]
    from: From,
    #[command(subcommand)]
    verb: Option<Verb>,
}

/// Where the cores are, and how they are shown.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Options of all `cores` commands")]
struct From {
    /// Read the cores of this directory, without a receiver [env: COREFERRY_DIR].
    #[arg(long, global = true, value_name = "DIR", conflicts_with = "api")]
    dir: Option<PathBuf>,
    /// Ask the receiver's API here, http://HOST:PORT, https://HOST:PORT or unix:PATH [env: COREFERRY_API].
    #[arg(long, global = true, value_name = "URL")]
    api: Option<String>,
    #[command(flatten)]
    trust: TrustArgs,
    /// Print JSON.
    #[arg(long, global = true)]
    json: bool,
}

/// What to do with them.
#[derive(Debug, Subcommand)]
enum Verb {
    /// List cores, newest first.
    #[command(
        after_help = "Exits with 3 when a filter matches nothing.\n\nExample: coreferry cores list --state incomplete --json"
    )]
    List(ListArgs),
    /// Show what is known of a core.
    #[command(after_help = "Example: coreferry cores info latest")]
    Info(IdArgs),
    /// Print the kernel log out of a core's memory, or the end of the guest's console.
    #[command(after_help = "Example: coreferry cores log latest | tail")]
    Log(IdArgs),
    /// List cores of the same fault together.
    #[command(
        after_help = "A group has regressed when its fault was seen with a kernel, then not with a newer one that crashed \
        otherwise,\nthen again with a still newer one.\n\nExample: coreferry cores groups --json"
    )]
    Groups,
    /// Start crash, drgn or gdb on a core, with the symbols of its kernel.
    #[command(
        after_help = "Symbols are found by the kernel's build id: below --symbols, in the core itself (`run --keep-kernel`), in\n\
        /usr/lib/debug, and by debuginfod-find(1) if DEBUGINFOD_URLS is set.\n\nExample: coreferry cores debug latest --with crash --symbols /srv/symbols"
    )]
    Debug(debug::Args),
    /// Copy a core's vmcore to a file, holes kept.
    #[command(after_help = "Writes FILE.part first and renames it when all bytes are proven.\n\n\
        Example: coreferry cores fetch latest -o vmcore")]
    Fetch(FetchArgs),
    /// Write out the kernel's file that came with a core.
    #[command(
        after_help = "It is there if the guest was started by `coreferry run --keep-kernel`. Its digest is checked; exits with 3 when\n\
        the core has none, with 4 when it is not whole.\n\nExample: coreferry cores kernel latest -o vmlinuz"
    )]
    Kernel(kernel::Args),
    /// Write a core in the form that a tool wants, filtered if you like.
    #[command(after_help = export::AFTER_HELP)]
    Export(export::ExportArgs),
    /// Write a note on a core; an empty one removes it.
    #[command(after_help = "Example: coreferry cores note latest 'same as last week'")]
    Note(edit::NoteArgs),
    /// Keep a core: it is neither removed nor pruned.
    #[command(after_help = "Example: coreferry cores pin latest")]
    Pin(IdArgs),
    /// Take the pin off a core.
    #[command(after_help = "Example: coreferry cores unpin latest")]
    Unpin(IdArgs),
    /// Remove a core with all its files.
    #[command(after_help = "A pinned core stays.\n\nExample: coreferry cores rm 0192f0c1")]
    Rm(IdArgs),
    /// Remove the cores that the rules do not keep.
    #[command(after_help = prune::AFTER_HELP)]
    Prune(prune::PruneArgs),
    /// Prove a core's bytes by their digests.
    #[command(
        after_help = "Exits with 4 when the core is incomplete or a byte is wrong.\n\nExample: coreferry cores verify latest"
    )]
    Verify(IdArgs),
}

/// Arguments of `cores list`.
#[derive(Debug, Default, clap::Args)]
struct ListArgs {
    /// Only cores of this guest.
    #[arg(long, value_name = "NAME")]
    guest: Option<String>,
    /// Only cores in this state.
    #[arg(long, value_name = "STATE", value_parser = parse_state)]
    state: Option<CoreState>,
    /// Only cores with this crash signature.
    #[arg(long, value_name = "SIGNATURE")]
    signature: Option<String>,
    /// Only cores received at this time (RFC 3339) or later.
    #[arg(long, value_name = "TIME", value_parser = parse_time)]
    since: Option<String>,
    /// Print one JSON object in each line.
    #[arg(long, conflicts_with = "json")]
    jsonl: bool,
    /// Show the list again every two seconds until it is interrupted.
    #[arg(long, conflicts_with_all = ["json", "jsonl"])]
    watch: bool,
}

/// The core to show or verify.
#[derive(Debug, clap::Args)]
struct IdArgs {
    /// Full id, the beginning of one, or `latest`.
    #[arg(value_name = "ID", add = clap_complete::ArgValueCandidates::new(complete::ids))]
    id: String,
}

/// Arguments of `cores fetch`.
#[derive(Debug, clap::Args)]
struct FetchArgs {
    /// Full id, the beginning of one, or `latest`.
    #[arg(value_name = "ID", add = clap_complete::ArgValueCandidates::new(complete::ids))]
    id: String,
    /// Where to write it.
    #[arg(short, long, value_name = "FILE", default_value = "vmcore")]
    output: PathBuf,
}

/// Runs one subcommand.
pub(crate) fn run(args: Args) -> Outcome {
    let json = args.from.json;
    let source = Source::open(args.from.dir, args.from.api, args.from.trust)?;
    match args.verb {
        None => list(&source, ListArgs::default(), json),
        Some(Verb::List(args)) => list(&source, args, json),
        Some(Verb::Info(args)) => show(&source, &args.id, json),
        Some(Verb::Log(args)) => log::run(&source, &args.id, json),
        Some(Verb::Groups) => groups::run(&source, json),
        Some(Verb::Debug(args)) => debug::run(&source, &args, json),
        Some(Verb::Fetch(args)) => fetch::run(&source, &args.id, &args.output, json),
        Some(Verb::Kernel(args)) => kernel::run(&source, &args, json),
        Some(Verb::Export(args)) => export::run(&source, &args, json),
        Some(Verb::Note(args)) => edit::note(&source, args),
        Some(Verb::Pin(args)) => edit::pin(&source, &args.id, true),
        Some(Verb::Unpin(args)) => edit::pin(&source, &args.id, false),
        Some(Verb::Rm(args)) => edit::remove(&source, &args.id),
        Some(Verb::Prune(args)) => prune::run(&source, &args, json),
        Some(Verb::Verify(args)) => verify::run(&source, &args.id, json),
    }
}

/// `cores list`.
fn list(source: &Source, args: ListArgs, json: bool) -> Outcome {
    let filter = Filter {
        guest: args.guest,
        state: args.state,
        signature: args.signature,
        since: args.since,
    };
    if args.watch {
        return watch(source, &filter);
    }
    let cores = source.list(&filter)?;
    if args.jsonl {
        for core in &cores {
            output::line(&serde_json::to_string(core).or_exit(Exit::Failed)?)?;
        }
    } else if json {
        output::json(&cores)?;
    } else if cores.is_empty() {
        output::say(if filter.is_empty() {
            "no cores"
        } else {
            "no core matches"
        });
    } else {
        output::line(&print::list(&cores))?;
    }
    Ok(if cores.is_empty() && !filter.is_empty() {
        Exit::NothingMatched
    } else {
        Exit::Ok
    })
}

/// The list again and again, until a signal ends it or nobody reads any more.
fn watch(source: &Source, filter: &Filter) -> Outcome {
    loop {
        let cores = source.list(filter)?;
        // On a terminal the last list is cleared away (ECMA-48, ED and CUP).
        let clear = if std::io::stdout().is_terminal() {
            "\u{1b}[H\u{1b}[2J"
        } else {
            ""
        };
        output::line(&format!("{clear}{}", print::list(&cores)))?;
        std::thread::sleep(WATCH_EVERY);
    }
}

/// `cores info`.
fn show(source: &Source, id: &str, json: bool) -> Outcome {
    let info = source.info(id)?;
    if json {
        output::json(&info)?;
    } else {
        output::line(&info::text(&info))?;
    }
    Ok(Exit::Ok)
}

/// Reads a state.
fn parse_state(text: &str) -> Result<CoreState, String> {
    let all = CoreState::ALL.map(CoreState::as_str).join(", ");
    CoreState::parse(text).ok_or_else(|| format!("the states are {all}"))
}

/// Reads a time.
fn parse_time(text: &str) -> Result<String, String> {
    match text.parse::<jiff::Timestamp>() {
        Ok(_) => Ok(text.to_owned()),
        Err(_) => Err("write it as 2026-01-31T12:00:00Z".to_owned()),
    }
}
