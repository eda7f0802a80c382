//! How fast a core travels, beside what the machine can do at all: `cargo xtask bench`.
//!
//! Every group measures its cases in turn, round after round, and a ratio is the median of the ratios within a round: a
//! machine that is busy with other things slows all cases of a round alike. The first case of each group is a plain copy
//! of the same bytes in memory. `COREFERRY_BENCH_SHORT` makes everything small: it then only shows that it runs.
//!
//! - [`panic`]: from the guest's panic to the first packet
//! - [`dump`]: a frozen guest through the dump port to the receiver, and to the spool
//! - [`ingest`]: a client on a socket straight to the receiver
//! - [`scan`]: finding the few touched pages of a large guest
//! - [`floor`], [`udp`]: what memory, files and loopback can do at all
//! - [`guest`], [`receiver`], [`table`]: what these need

mod dump;
mod floor;
mod guest;
mod ingest;
#[path = "../shared/median.rs"]
mod median;
mod panic;
mod receiver;
mod scan;
mod table;
mod udp;

use std::process::ExitCode;

/// How much is measured.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Size {
    /// Memory that the guests have touched, in MiB.
    touched_mib: u64,
    /// Bytes sent in the groups without a guest, in MiB.
    sent_mib: u64,
    /// Rounds of each group that do not count: they fault pages in and fill caches.
    warm_up_rounds: usize,
    /// Rounds of each group that count.
    rounds: usize,
    /// Guests that panic.
    panics: usize,
}

const FULL: Size = Size {
    touched_mib: 256,
    sent_mib: 256,
    warm_up_rounds: 1,
    rounds: 7,
    panics: 21,
};

const SHORT: Size = Size {
    touched_mib: 16,
    sent_mib: 8,
    warm_up_rounds: 0,
    rounds: 3,
    panics: 3,
};

/// Measures, and prints a table.
type Group = fn(Size) -> anyhow::Result<()>;

fn main() -> ExitCode {
    let short = std::env::var_os("COREFERRY_BENCH_SHORT").is_some();
    let size = if short { SHORT } else { FULL };
    // Words that say which groups to run; cargo adds `--bench`.
    let wanted: Vec<String> = std::env::args().skip(1).filter(|word| !word.starts_with('-')).collect();
    let groups: [(&str, Group); 5] = [
        ("panic", panic::run),
        ("scan", scan::run),
        ("udp", udp::run),
        ("dump", dump::run),
        ("ingest", ingest::run),
    ];
    let mut code = ExitCode::SUCCESS;
    for (name, run) in groups {
        if !wanted.is_empty() && !wanted.iter().any(|word| word == name) {
            continue;
        }
        if let Err(why) = run(size) {
            println!("{name} FAILED: {why:#}");
            code = ExitCode::FAILURE;
        }
    }
    code
}
