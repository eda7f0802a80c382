//! What crashed, told from the text that the kernel logged: cause, place, task, call trace, and a **signature** by which
//! cores of the same fault group.
//!
//! ```text
//! log text ─► lines without prefixes ─► the section that tells the cause ─► frames ─► signature
//!             (line)                    (linux, freebsd)                    (frame)   "null-pointer in ext4_map_blocks"
//! ```
//!
//! A signature is the kind of fault, then the first function of the trace that is neither fault handling nor a checking
//! helper; offsets, numbers, addresses, process names and compiler suffixes are left out, so that it is the same on every
//! machine and, mostly, in every build. The text is the guest's: work is linear in its length, what is kept is bounded.

mod frame;
mod freebsd;
mod line;
mod linux;

use crate::limits::{CRASH_LINE_LEN_MAX, CRASH_TRACE_FRAMES_MAX};

/// What the log tells of the crash.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Crash {
    /// By which cores group, such as `null-pointer in ext4_map_blocks`.
    pub signature: String,
    /// What kind of fault it was, such as `null-pointer`, `hung-task` or `panic`.
    pub kind: &'static str,
    /// The line that tells the cause, as logged without its time.
    pub cause: String,
    /// What the kernel said when it gave up, behind "Kernel panic - not syncing: " or "panic: ".
    pub panic: Option<String>,
    /// The function that failed, as logged without offset.
    pub function: Option<String>,
    /// Name of the task that ran.
    pub task: Option<String>,
    /// Its process id.
    pub pid: Option<u32>,
    /// The CPU that reported.
    pub cpu: Option<u32>,
    /// Functions of the call trace as logged, innermost first; guesses of the kernel ("? name") left out.
    pub trace: Vec<String>,
}

/// What a system's own rules found; the rest follows from it.
#[derive(Debug)]
struct Found<'a> {
    kind: &'static str,
    cause: &'a str,
    panic: Option<&'a str>,
    /// What stands behind the kind where no function does: a normalised message.
    message: Option<String>,
    /// Whether the place is part of the signature; it says nothing of, say, an out-of-memory panic.
    has_place: bool,
    /// Innermost first: the instruction pointer's function, then the trace.
    frames: Vec<&'a str>,
    task: Option<&'a str>,
    pid: Option<u32>,
    cpu: Option<u32>,
}

impl Crash {
    /// The crash that a kernel log ends with; nothing if it tells of none.
    #[must_use]
    pub fn from_log(text: &str) -> Option<Self> {
        let lines: Vec<&str> = text.lines().map(line::bare).collect();
        let found = linux::find_panic(&lines)
            .or_else(|| freebsd::find(&lines))
            .or_else(|| linux::find_fault(&lines))?;
        Some(Self::new(&found))
    }

    fn new(found: &Found<'_>) -> Self {
        let function = found.frames.iter().find(|name| !frame::is_machinery(name));
        let function = function
            .or_else(|| found.frames.first())
            .map(|name| frame::without_suffixes(name).to_owned());
        let place = function.as_deref().filter(|_| found.has_place);
        let signature = match (&found.message, place) {
            (Some(message), Some(place)) => format!("{}: {message} in {place}", found.kind),
            (Some(message), None) => format!("{}: {message}", found.kind),
            (None, Some(place)) => format!("{} in {place}", found.kind),
            (None, None) => found.kind.to_owned(),
        };
        let trace = found.frames.iter().take(CRASH_TRACE_FRAMES_MAX);
        Self {
            signature,
            kind: found.kind,
            cause: line::cut(found.cause).to_owned(),
            panic: found.panic.map(|panic| line::cut(panic).to_owned()),
            function,
            task: found.task.map(str::to_owned),
            pid: found.pid,
            cpu: found.cpu,
            trace: trace.map(|name| (*name).to_owned()).collect(),
        }
    }
}

const _: () = assert!(CRASH_LINE_LEN_MAX >= 256);
