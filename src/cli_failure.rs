//! How a command ends: the exit codes of the contract, and the error type that carries one.

use std::process::ExitCode;

use api::ClientError;

/// The exit codes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
#[allow(
    dead_code,
    reason = "the codes are one contract; not every command is there yet that uses each"
)]
pub(crate) enum Exit {
    /// It worked.
    Ok = 0,
    /// It failed.
    Failed = 1,
    /// The arguments make no sense.
    Usage = 2,
    /// Nothing matched.
    NothingMatched = 3,
    /// A core is incomplete, or verifying it failed.
    NotWhole = 4,
    /// The other side does not allow it.
    Denied = 5,
    /// The other side cannot be reached.
    Unreachable = 6,
    /// The deadline passed.
    Deadline = 7,
    /// `run`: the guest crashed and its core is safe.
    CoreSafe = 10,
    /// `run`: the guest crashed and its core is lost.
    CoreLost = 11,
    /// Somebody stopped it (SIGINT or SIGTERM).
    Stopped = 130,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        // The discriminants are the codes.
        Self::from(exit as u8)
    }
}

impl From<&ClientError> for Exit {
    /// The code for what an API answered, or for its silence.
    fn from(why: &ClientError) -> Self {
        match (why, why.status()) {
            (ClientError::Unreachable { .. } | ClientError::Tls { .. }, _) => Self::Unreachable,
            (_, Some(400)) => Self::Usage,
            (_, Some(401 | 403)) => Self::Denied,
            (_, Some(404)) => Self::NothingMatched,
            _ => Self::Failed,
        }
    }
}

/// Why a command failed, and with which code.
#[derive(Debug)]
pub(crate) struct Failure {
    exit: Exit,
    cause: anyhow::Error,
}

/// What a command gives back.
pub(crate) type Outcome = Result<Exit, Failure>;

impl Failure {
    /// A failure with a sentence of its own.
    pub(crate) fn new(exit: Exit, sentence: impl Into<String>) -> Self {
        Self {
            exit,
            cause: anyhow::Error::msg(sentence.into()),
        }
    }

    /// The exit code.
    pub(crate) fn exit(&self) -> Exit {
        self.exit
    }

    /// The chain of causes in one line, what was tried first.
    pub(crate) fn sentence(&self) -> String {
        format!("{:#}", self.cause)
    }
}

impl From<anyhow::Error> for Failure {
    fn from(cause: anyhow::Error) -> Self {
        Self {
            exit: Exit::Failed,
            cause,
        }
    }
}

/// Gives an error its exit code.
pub(crate) trait OrExit<T> {
    /// The value, or a failure with this code.
    fn or_exit(self, exit: Exit) -> Result<T, Failure>;
}

impl<T, E: Into<anyhow::Error>> OrExit<T> for Result<T, E> {
    fn or_exit(self, exit: Exit) -> Result<T, Failure> {
        self.map_err(|cause| Failure {
            exit,
            cause: cause.into(),
        })
    }
}
