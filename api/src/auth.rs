//! Who may do what: tokens and their scopes.

use std::fmt;

/// What a token allows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Scope {
    /// Lists, facts, logs, health, metrics, events.
    ReadMeta,
    /// The memory of guests: downloads of cores, and the digests of their parts.
    ReadCore,
    /// Starting and cancelling dumps.
    Trigger,
    /// Everything else: notes, pins, removal, pausing and stopping machines.
    Admin,
}

impl Scope {
    /// All scopes.
    pub const ALL: [Self; 4] = [Self::ReadMeta, Self::ReadCore, Self::Trigger, Self::Admin];

    /// The name used on the command line and on disk.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::ReadMeta => "read-meta",
            Self::ReadCore => "read-core",
            Self::Trigger => "trigger",
            Self::Admin => "admin",
        }
    }

    /// The scope of this name.
    #[must_use]
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|scope| scope.as_str() == name)
    }
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// A token that is known.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KnownToken {
    /// Its name.
    pub name: String,
    /// What it allows.
    pub scopes: Vec<Scope>,
}

/// The tokens of a receiver.
pub trait TokenStore: Send + Sync + 'static {
    /// Whether there are any. Also true where that cannot be told: then nobody comes in.
    fn any(&self) -> bool;

    /// The token with this secret.
    fn known(&self, secret: &str) -> Option<KnownToken>;
}
