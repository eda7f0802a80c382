//! Whom a client trusts, and what it shows.

use std::error::Error;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::pki_types::ServerName;
use rustls::{AlertDescription, CertificateError, ClientConfig, RootCertStore};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::files::{self, TlsError};

/// Whom to trust, and what to show.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Trust {
    /// The authorities to trust; without it, those of the system.
    pub ca: Option<PathBuf>,
    /// A certificate to show, and its key.
    pub identity: Option<(PathBuf, PathBuf)>,
}

impl Trust {
    /// Reads the files.
    ///
    /// # Errors
    /// [`TlsError`] with the file.
    pub fn read(&self) -> Result<Arc<ClientConfig>, TlsError> {
        let roots = match &self.ca {
            Some(path) => files::roots(path)?,
            None => system_roots()?,
        };
        let shown = |why: rustls::Error| {
            let path = self
                .identity
                .as_ref()
                .map_or_else(|| Path::new("--ca"), |(path, _)| path);
            files::unusable(path, &why)
        };
        let builder = ClientConfig::builder_with_provider(super::provider())
            .with_safe_default_protocol_versions()
            .map_err(shown)?
            .with_root_certificates(roots);
        let config = match &self.identity {
            None => builder.with_no_client_auth(),
            Some((certificate, key)) => {
                let (chain, key) = files::identity(certificate, key)?;
                builder.with_client_auth_cert(chain, key).map_err(shown)?
            }
        };
        Ok(Arc::new(config))
    }
}

/// The authorities that this system trusts.
fn system_roots() -> Result<RootCertStore, TlsError> {
    let mut roots = RootCertStore::empty();
    let (added, _) = roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    if added == 0 {
        return Err(TlsError::NoRoots);
    }
    Ok(roots)
}

/// The handshake with a server that was reached as `HOST:PORT`; an error is a sentence.
pub(crate) async fn shake_hands(
    address: &str,
    stream: TcpStream,
    config: Arc<ClientConfig>,
) -> Result<TlsStream<TcpStream>, String> {
    let host = address.rsplit_once(':').map_or(address, |(host, _)| host);
    let name = ServerName::try_from(host.trim_matches(['[', ']']).to_owned())
        .map_err(|_| format!("`{host}` is no name that a certificate could have"))?;
    let shaken = TlsConnector::from(config).connect(name, stream).await;
    shaken.map_err(|why| sentence(&why).unwrap_or_else(|| why.to_string()))
}

/// Says what TLS has against the other side, or the other side against us; none if the error is of another kind.
pub(crate) fn sentence(error: &(dyn Error + 'static)) -> Option<String> {
    let mut error = Some(error);
    while let Some(one) = error {
        if let Some(why) = one.downcast_ref::<rustls::Error>() {
            return Some(of_tls(why));
        }
        // An I/O error hides its cause from `source`, which gives the cause's own source.
        error = match one.downcast_ref::<std::io::Error>().and_then(std::io::Error::get_ref) {
            Some(inner) => Some(inner as &(dyn Error + 'static)),
            None => one.source(),
        };
    }
    None
}

fn of_tls(why: &rustls::Error) -> String {
    match why {
        rustls::Error::InvalidCertificate(CertificateError::UnknownIssuer | CertificateError::BadSignature) => {
            "its certificate is of no authority that is trusted here; --ca names a PEM file with the right one"
                .to_owned()
        }
        rustls::Error::InvalidCertificate(CertificateError::Expired | CertificateError::ExpiredContext { .. }) => {
            "its certificate has expired; the receiver needs a new one (it takes new files without a restart)"
                .to_owned()
        }
        rustls::Error::InvalidCertificate(
            CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. },
        ) => format!("its certificate is for another name: {why}"),
        rustls::Error::AlertReceived(AlertDescription::CertificateRequired) => {
            "it wants a client certificate; --cert and --key name the files".to_owned()
        }
        rustls::Error::AlertReceived(AlertDescription::UnknownCA) => {
            "it does not know the authority of our client certificate (--cert)".to_owned()
        }
        rustls::Error::AlertReceived(AlertDescription::CertificateExpired) => {
            "our client certificate (--cert) has expired".to_owned()
        }
        rustls::Error::InvalidMessage(_) => "it speaks no TLS; write http:// if it is on this host".to_owned(),
        why => why.to_string(),
    }
}
