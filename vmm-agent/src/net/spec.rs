//! How a wire is named on the command line: `user`, `tap=IF` or `stream=SOCKET`.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use super::{StreamWire, TapWire, UserConfig, UserWire, Wire, WireError};

/// Interface names have at most 15 bytes (`IFNAMSIZ` - 1, linux/if.h).
const INTERFACE_NAME_LEN_MAX: usize = 15;
/// Paths of unix sockets have at most 107 bytes (unix(7), `sun_path` less its NUL).
const SOCKET_PATH_LEN_MAX: usize = 107;

/// Which wire is wanted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum WireSpec {
    /// Relay to sockets of the host; needs no privileges.
    User,
    /// An existing TAP interface of this name.
    Tap(String),
    /// A unix stream socket at this path.
    Stream(PathBuf),
}

/// What is wrong with the text of a wire.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum WireSpecError {
    /// None of the known kinds.
    #[error("`{0}` is no wire: it is `user`, `tap=IF` or `stream=SOCKET`")]
    Unknown(String),
    /// The name after `tap=` cannot name an interface.
    #[error("`{0}` is no interface name: 1 to 15 bytes, without `/`, `:`, spaces or control characters")]
    Interface(String),
    /// The path after `stream=` cannot be a socket's.
    #[error("`{0}` is no socket path: 1 to 107 bytes")]
    Socket(String),
}

impl WireSpec {
    /// Opens the wire for the dump port: a full queue is waited for a moment, and `user` reaches all of this host.
    ///
    /// # Errors
    /// [`WireError::Open`] with a sentence that says what to do.
    pub fn open(&self) -> Result<Box<dyn Wire>, WireError> {
        Ok(match self {
            Self::User => Box::new(UserWire::open(UserConfig::default())?),
            Self::Tap(interface) => Box::new(TapWire::open(interface)?),
            Self::Stream(socket) => Box::new(StreamWire::connect(socket)?),
        })
    }

    /// Opens the wire for a guest's own network device: no send waits, because a vCPU may be the sender and a peer that
    /// stalls must not keep the guest from being frozen; and `user` is bounded by [`UserConfig::guest`].
    ///
    /// # Errors
    /// [`WireError::Open`] with a sentence that says what to do.
    pub fn open_for_guest(&self) -> Result<Box<dyn Wire>, WireError> {
        Ok(match self {
            Self::User => Box::new(UserWire::open(UserConfig::guest())?),
            Self::Tap(interface) => Box::new(TapWire::open(interface)?.without_waiting()),
            Self::Stream(socket) => Box::new(StreamWire::connect(socket)?.without_waiting()),
        })
    }
}

impl FromStr for WireSpec {
    type Err = WireSpecError;

    fn from_str(text: &str) -> Result<Self, WireSpecError> {
        match text.split_once('=') {
            None if text == "user" => Ok(Self::User),
            Some(("tap", name)) if is_interface_name(name) => Ok(Self::Tap(name.to_owned())),
            Some(("tap", name)) => Err(WireSpecError::Interface(name.to_owned())),
            Some(("stream", path)) if (1..=SOCKET_PATH_LEN_MAX).contains(&path.len()) => Ok(Self::Stream(path.into())),
            Some(("stream", path)) => Err(WireSpecError::Socket(path.to_owned())),
            _ => Err(WireSpecError::Unknown(text.to_owned())),
        }
    }
}

impl fmt::Display for WireSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::User => f.write_str("user"),
            Self::Tap(interface) => write!(f, "tap={interface}"),
            Self::Stream(socket) => write!(f, "stream={}", socket.display()),
        }
    }
}

/// As the kernel's `dev_valid_name` (net/core/dev.c).
fn is_interface_name(name: &str) -> bool {
    (1..=INTERFACE_NAME_LEN_MAX).contains(&name.len())
        && name != "."
        && name != ".."
        && name.bytes().all(|b| b > b' ' && b != b'/' && b != b':' && b != 0x7f)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_survives_a_round_trip() {
        for text in ["user", "tap=tap0", "stream=/run/passt.sock", "stream=a=b"] {
            assert_eq!(text.parse::<WireSpec>().unwrap().to_string(), text);
        }
    }

    #[test]
    fn wrong_texts_are_refused_by_name() {
        assert_eq!("usr".parse::<WireSpec>(), Err(WireSpecError::Unknown("usr".into())));
        assert_eq!(
            "user=x".parse::<WireSpec>(),
            Err(WireSpecError::Unknown("user=x".into()))
        );
        for name in ["", ".", "..", "a/b", "a:b", "a b", "sixteen-bytes-xx"] {
            assert_eq!(
                format!("tap={name}").parse::<WireSpec>(),
                Err(WireSpecError::Interface(name.into()))
            );
        }
        assert_eq!("stream=".parse::<WireSpec>(), Err(WireSpecError::Socket(String::new())));
        let long = "x".repeat(108);
        assert_eq!(
            format!("stream={long}").parse::<WireSpec>(),
            Err(WireSpecError::Socket(long))
        );
    }
}
