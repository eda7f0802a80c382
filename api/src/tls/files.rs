//! Certificates and keys in PEM files (RFC 7468).

use std::path::Path;

use rustls::RootCertStore;
use rustls::pki_types::pem::{self, PemObject as _};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

/// Why TLS cannot be had with these files.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file cannot be read, or is no PEM.
    #[error("cannot read {path}: {why}; a PEM file with {wanted} is wanted")]
    File {
        /// Its path.
        path: String,
        /// What should be in it.
        wanted: &'static str,
        /// What is wrong.
        why: String,
    },
    /// A certificate or key is not taken.
    #[error("cannot use {path}: {why}")]
    Unusable {
        /// Path of the file.
        path: String,
        /// What rustls says.
        why: String,
    },
    /// The system has no certificates of authorities.
    #[error("this system has no certificates of authorities; name a PEM file with --ca")]
    NoRoots,
}

/// What stands in the files of a key: the chain, the own certificate first, and its key.
pub(super) type Identity = (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>);

/// The certificates of a file, at least one.
pub(super) fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let wanted = "certificates";
    let read = CertificateDer::pem_file_iter(path).and_then(Iterator::collect::<Result<Vec<_>, _>>);
    match read {
        Ok(all) if all.is_empty() => Err(file(path, wanted, &"it has none")),
        Ok(all) => Ok(all),
        Err(why) => Err(not_read(path, wanted, why)),
    }
}

/// A chain and its key.
pub(super) fn identity(certificate: &Path, key: &Path) -> Result<Identity, TlsError> {
    let chain = certificates(certificate)?;
    let key = PrivateKeyDer::from_pem_file(key).map_err(|why| not_read(key, "a private key", why))?;
    Ok((chain, key))
}

/// The authorities of a file.
pub(super) fn roots(path: &Path) -> Result<RootCertStore, TlsError> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates(path)? {
        roots.add(certificate).map_err(|why| unusable(path, &why))?;
    }
    Ok(roots)
}

/// rustls does not take what a file holds.
pub(super) fn unusable(path: &Path, why: &dyn std::fmt::Display) -> TlsError {
    TlsError::Unusable {
        path: path.display().to_string(),
        why: why.to_string(),
    }
}

fn file(path: &Path, wanted: &'static str, why: &dyn std::fmt::Display) -> TlsError {
    TlsError::File {
        path: path.display().to_string(),
        wanted,
        why: why.to_string(),
    }
}

fn not_read(path: &Path, wanted: &'static str, why: pem::Error) -> TlsError {
    match why {
        pem::Error::Io(why) => file(path, wanted, &why),
        pem::Error::NoItemsFound => file(path, wanted, &"it has none"),
        why => file(path, wanted, &why),
    }
}
