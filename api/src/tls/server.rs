//! What a listener shows and demands. Its files are looked at again and again, so that a renewed certificate needs no restart.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use rustls::ServerConfig;
use rustls::server::WebPkiClientVerifier;

use super::files::{self, TlsError};

/// How often the files are looked at, when somebody comes.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// The files of a listener.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlsFiles {
    /// The certificate, with the chain behind it.
    pub certificate: PathBuf,
    /// Its key.
    pub key: PathBuf,
    /// The authorities of clients; with it, a client without a certificate of theirs is turned away.
    pub client_ca: Option<PathBuf>,
}

impl TlsFiles {
    fn paths(&self) -> impl Iterator<Item = &Path> {
        let first = [self.certificate.as_path(), self.key.as_path()];
        first.into_iter().chain(self.client_ca.as_deref())
    }

    /// Reads the files.
    fn read(&self) -> Result<ServerConfig, TlsError> {
        let (chain, key) = files::identity(&self.certificate, &self.key)?;
        let builder = ServerConfig::builder_with_provider(super::provider())
            .with_safe_default_protocol_versions()
            .map_err(|why| files::unusable(&self.certificate, &why))?;
        let builder = match &self.client_ca {
            None => builder.with_no_client_auth(),
            Some(path) => {
                let roots = Arc::new(files::roots(path)?);
                let verifier = WebPkiClientVerifier::builder_with_provider(roots, super::provider()).build();
                builder.with_client_cert_verifier(verifier.map_err(|why| files::unusable(path, &why))?)
            }
        };
        let made = builder.with_single_cert(chain, key);
        let mut config = made.map_err(|why| files::unusable(&self.certificate, &why))?;
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(config)
    }

    /// What tells one content of the files from another.
    fn stamps(&self) -> Vec<Option<Stamp>> {
        let stamp = |path: &Path| {
            let meta = fs::metadata(path).ok()?;
            Some((meta.ino(), meta.len(), meta.mtime(), meta.mtime_nsec()))
        };
        self.paths().map(stamp).collect()
    }
}

/// Inode, length, and time of the last change.
type Stamp = (u64, u64, i64, i64);

/// The settings of a listener as its files say now.
#[derive(Debug)]
pub(crate) struct ServerTls {
    files: TlsFiles,
    read: Mutex<Read>,
}

#[derive(Debug)]
struct Read {
    config: Arc<ServerConfig>,
    stamps: Vec<Option<Stamp>>,
    looked_at: Instant,
}

impl ServerTls {
    /// Reads the files for the first time.
    pub(crate) fn read(files: TlsFiles) -> Result<Self, TlsError> {
        let stamps = files.stamps();
        let read = Read {
            config: Arc::new(files.read()?),
            stamps,
            looked_at: Instant::now(),
        };
        Ok(Self {
            files,
            read: Mutex::new(read),
        })
    }

    /// The settings for the next connection. Files that cannot be read leave it at what was read before.
    pub(crate) fn now(&self) -> Arc<ServerConfig> {
        let mut read = self.read.lock().unwrap_or_else(PoisonError::into_inner);
        if read.looked_at.elapsed() >= LOOK_EVERY {
            read.looked_at = Instant::now();
            let stamps = self.files.stamps();
            if stamps != read.stamps {
                // Also after a failure: a file that is being written changes again.
                read.stamps = stamps;
                let certificate = self.files.certificate.display();
                match self.files.read() {
                    Ok(config) => {
                        read.config = Arc::new(config);
                        tracing::info!(%certificate, "the API shows a new certificate");
                    }
                    Err(why) => tracing::error!("the API's certificate stays the one it was: {why}"),
                }
            }
        }
        Arc::clone(&read.config)
    }
}
