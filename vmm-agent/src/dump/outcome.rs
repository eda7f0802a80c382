//! How a dump ended.

use std::fmt;
use std::path::PathBuf;

use netdump::ClientStats;

use super::address::Target;
use super::sender::SendError;
use super::spool::SpoolError;

/// One receiver that did not get the core.
#[derive(Debug)]
pub struct TargetFailure {
    /// The receiver.
    pub target: Target,
    /// Why.
    pub error: SendError,
}

/// How a dump ended. `Display` gives sentences for people.
#[derive(Debug)]
pub enum DumpOutcome {
    /// A receiver has confirmed that it keeps the core.
    Received {
        /// That receiver.
        target: Target,
        /// What was sent.
        stats: ClientStats,
        /// Receivers before it in the list that failed.
        failures: Vec<TargetFailure>,
    },
    /// No receiver took it; it lies in the spool directory.
    Spooled {
        /// The file.
        path: PathBuf,
        /// Why no receiver has it; empty if there is none.
        failures: Vec<TargetFailure>,
    },
    /// It is nowhere.
    Lost {
        /// Why no receiver has it; empty if there is none.
        failures: Vec<TargetFailure>,
        /// Why the spool has not.
        spool: SpoolFailure,
    },
    /// Somebody asked for its end.
    Cancelled,
}

/// Why a core is not in the spool.
#[derive(Debug)]
pub enum SpoolFailure {
    /// No spool directory was given.
    NoDirectory,
    /// It was not tried, because of this.
    NotTried(SendError),
    /// It was tried.
    Failed(SpoolError),
    /// The dump's thread panicked before it came to that.
    Panicked,
}

impl DumpOutcome {
    /// Whether the core is safe: with a receiver or in the spool.
    #[must_use]
    pub fn is_safe(&self) -> bool {
        matches!(self, Self::Received { .. } | Self::Spooled { .. })
    }

    /// Whether the deadline ended it.
    #[must_use]
    pub fn is_deadline_passed(&self) -> bool {
        matches!(
            self,
            Self::Lost {
                spool: SpoolFailure::NotTried(SendError::DeadlinePassed)
                    | SpoolFailure::Failed(SpoolError::Ended(SendError::DeadlinePassed)),
                ..
            }
        )
    }
}

impl fmt::Display for DumpOutcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Received {
                target,
                stats,
                failures,
            } => {
                write!(f, "the core is with {target}: {} bytes sent", stats.acked_bytes)?;
                write_failures(f, failures)
            }
            Self::Spooled { path, failures } => {
                write!(f, "the core is in {}; `coreferry send` ships it", path.display())?;
                write_failures(f, failures)
            }
            Self::Lost { failures, spool } => {
                match spool {
                    SpoolFailure::NoDirectory => f.write_str("the core is lost: no --spool directory to keep it in")?,
                    SpoolFailure::NotTried(error) => write!(f, "the core is lost: {error}")?,
                    SpoolFailure::Failed(error) => write!(f, "the core is lost: {error}")?,
                    SpoolFailure::Panicked => f.write_str(
                        "the core is lost: the dump's thread panicked, which is a bug of coreferry; the log says where",
                    )?,
                }
                write_failures(f, failures)
            }
            Self::Cancelled => f.write_str("the dump was cancelled"),
        }
    }
}

fn write_failures(f: &mut fmt::Formatter<'_>, failures: &[TargetFailure]) -> fmt::Result {
    failures.iter().try_for_each(|failure| write!(f, "; {}", failure.error))
}
