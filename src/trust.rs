//! Whom a command trusts over TLS, and what it shows.

use std::path::PathBuf;
use std::sync::Arc;

use api::{Endpoint, Trust};

use crate::cli_failure::{Exit, Failure};

/// The options of commands that talk to an API.
#[derive(Debug, clap::Args)]
pub(crate) struct TrustArgs {
    /// PEM file with the authorities to trust over https, instead of the system's.
    #[arg(long, global = true, value_name = "FILE", env = "COREFERRY_CA")]
    ca: Option<PathBuf>,
    /// PEM file with a client certificate to show over https.
    #[arg(long, global = true, value_name = "FILE", env = "COREFERRY_CERT", requires = "key")]
    cert: Option<PathBuf>,
    /// PEM file with the key of that certificate.
    #[arg(long, global = true, value_name = "FILE", env = "COREFERRY_KEY", requires = "cert")]
    key: Option<PathBuf>,
}

impl TrustArgs {
    /// The options with these values.
    pub(crate) fn new(ca: Option<PathBuf>, cert: Option<PathBuf>, key: Option<PathBuf>) -> Self {
        Self { ca, cert, key }
    }

    /// Reads the files, if they are needed there.
    ///
    /// # Errors
    /// A file that cannot be used (code 1).
    pub(crate) fn read(self, endpoint: &Endpoint) -> Result<Option<Arc<api::TlsClient>>, Failure> {
        if !matches!(endpoint, Endpoint::Tls(_)) {
            return Ok(None);
        }
        let trust = Trust {
            ca: self.ca,
            identity: self.cert.zip(self.key),
        };
        let read = trust
            .read()
            .map_err(|why| Failure::new(Exit::Failed, why.to_string()))?;
        Ok(Some(read))
    }
}
