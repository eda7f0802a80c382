//! `tokens.json`: the tokens of a receiver. Only digests are kept: who reads the file cannot use them.

use std::fs::{self, File};
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};

use api::{KnownToken, Scope, TokenStore};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::limits::TOKENS_FILE_BYTES_MAX;
use crate::store::layout;

/// Bytes of a secret: nobody guesses 256 bits, so that a fast digest is enough.
const SECRET_BYTES: usize = 32;
/// What every secret begins with, so that scanners find one that was published.
const SECRET_PREFIX: &str = "cft_";
/// What the digests are made for (BLAKE3, key derivation mode).
const DIGEST_CONTEXT: &str = "coreferry 2026-11 digest of an api token";
/// Longest name of a token.
const NAME_BYTES_MAX: usize = 64;

/// The tokens of a store.
#[derive(Debug, Clone)]
pub struct Tokens {
    path: PathBuf,
}

/// One token as it is kept.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeptToken {
    /// Its name.
    pub name: String,
    /// Names of its scopes.
    pub scopes: Vec<String>,
    /// When it was made. RFC 3339, UTC.
    pub made_at: String,
    /// Digest of the secret, in hexadecimal.
    digest: String,
}

/// Why tokens cannot be read or changed.
#[derive(Debug, thiserror::Error)]
pub enum TokenError {
    /// The file cannot be read or written.
    #[error("cannot use {path}: {source}")]
    File {
        /// Its path.
        path: String,
        /// What the system said.
        source: io::Error,
    },
    /// There is one of that name.
    #[error("there is a token `{0}` already; remove it first, or choose another name")]
    Taken(String),
    /// The name cannot be used.
    #[error("`{0}` is no name for a token: 1 to {NAME_BYTES_MAX} letters, digits, dots, dashes and underscores")]
    Name(String),
    /// There is none of that name.
    #[error("there is no token `{0}`")]
    Missing(String),
}

impl Tokens {
    /// The tokens of the store in `dir`.
    #[must_use]
    pub fn of(dir: &Path) -> Self {
        Self {
            path: dir.join(layout::TOKENS),
        }
    }

    /// All tokens.
    ///
    /// # Errors
    /// [`TokenError::File`].
    pub fn all(&self) -> Result<Vec<KeptToken>, TokenError> {
        let read = || {
            let mut text = Vec::new();
            match File::open(&self.path) {
                Err(why) if why.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
                file => file?.take(TOKENS_FILE_BYTES_MAX).read_to_end(&mut text)?,
            };
            Ok(serde_json::from_slice(&text)?)
        };
        read().map_err(|source| self.error(source))
    }

    /// Makes a token and gives its secret, which is kept nowhere.
    ///
    /// # Errors
    /// See [`TokenError`].
    pub fn add(&self, name: &str, scopes: &[Scope]) -> Result<String, TokenError> {
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-');
        if name.is_empty() || name.len() > NAME_BYTES_MAX || !name.bytes().all(plain) {
            return Err(TokenError::Name(name.to_owned()));
        }
        let mut all = self.all()?;
        if all.iter().any(|token| token.name == name) {
            return Err(TokenError::Taken(name.to_owned()));
        }
        let secret = secret().map_err(|source| self.error(source))?;
        all.push(KeptToken {
            name: name.to_owned(),
            scopes: scopes.iter().map(ToString::to_string).collect(),
            made_at: Timestamp::now().to_string(),
            digest: digest(&secret).to_hex().to_string(),
        });
        self.keep(&all)?;
        Ok(secret)
    }

    /// Removes a token; it is refused from now on.
    ///
    /// # Errors
    /// See [`TokenError`].
    pub fn remove(&self, name: &str) -> Result<(), TokenError> {
        let mut all = self.all()?;
        let before = all.len();
        all.retain(|token| token.name != name);
        if all.len() == before {
            return Err(TokenError::Missing(name.to_owned()));
        }
        self.keep(&all)
    }

    fn keep(&self, all: &[KeptToken]) -> Result<(), TokenError> {
        let part = self.path.with_added_extension("part");
        let write = || {
            layout::remove_file(&part)?;
            layout::write_file(&part, &serde_json::to_vec_pretty(all)?)?;
            fs::rename(&part, &self.path)
        };
        write().map_err(|source| self.error(source))
    }

    fn error(&self, source: io::Error) -> TokenError {
        TokenError::File {
            path: self.path.display().to_string(),
            source,
        }
    }
}

/// The file is read at each request, a few hundred bytes: what was added or removed holds at once.
impl TokenStore for Tokens {
    fn any(&self) -> bool {
        self.all().map_or_else(
            |why| {
                tracing::error!("nobody comes in over TCP: {why}");
                true
            },
            |all| !all.is_empty(),
        )
    }

    fn known(&self, secret: &str) -> Option<KnownToken> {
        let digest = digest(secret);
        // Digests compare in constant time (blake3::Hash).
        let matches = |token: &KeptToken| blake3::Hash::from_hex(&token.digest).is_ok_and(|kept| kept == digest);
        let found = self.all().ok()?.into_iter().find(matches)?;
        Some(KnownToken {
            scopes: found.scopes.iter().filter_map(|name| Scope::parse(name)).collect(),
            name: found.name,
        })
    }
}

fn digest(secret: &str) -> blake3::Hash {
    blake3::Hash::from_bytes(blake3::derive_key(DIGEST_CONTEXT, secret.as_bytes()))
}

/// A secret that nobody has seen.
fn secret() -> io::Result<String> {
    let mut bytes = [0; SECRET_BYTES];
    File::open("/dev/urandom")?.read_exact(&mut bytes)?;
    Ok(format!("{SECRET_PREFIX}{}", blake3::Hash::from_bytes(bytes).to_hex()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_known_by_its_secret_which_is_not_on_disk() {
        let dir = tempfile::tempdir().unwrap();
        let tokens = Tokens::of(dir.path());
        assert!(!tokens.any());
        let secret = tokens.add("ops", &[Scope::ReadMeta, Scope::Admin]).unwrap();
        assert!(tokens.any());
        let known = tokens.known(&secret).unwrap();
        assert_eq!(
            (known.name.as_str(), known.scopes.as_slice()),
            ("ops", [Scope::ReadMeta, Scope::Admin].as_slice())
        );
        let kept = fs::read_to_string(dir.path().join(layout::TOKENS)).unwrap();
        assert!(!kept.contains(secret.trim_start_matches(SECRET_PREFIX)), "{kept}");
        assert_eq!(tokens.known(&format!("{secret}0")), None);
        assert!(matches!(tokens.add("ops", &[]), Err(TokenError::Taken(_))));
        assert!(matches!(tokens.add("a b", &[]), Err(TokenError::Name(_))));
        tokens.remove("ops").unwrap();
        assert_eq!(tokens.known(&secret), None);
        assert!(matches!(tokens.remove("ops"), Err(TokenError::Missing(_))));
    }

    #[test]
    fn a_file_that_cannot_be_read_lets_nobody_in() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join(layout::TOKENS), "no tokens").unwrap();
        let tokens = Tokens::of(dir.path());
        assert!(tokens.any());
        assert_eq!(tokens.known("cft_x"), None);
    }
}
