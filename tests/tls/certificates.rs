//! Authorities and certificates made for one test.
#![allow(dead_code, reason = "each test file uses its own part of this module")]

use std::path::Path;

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair,
    KeyUsagePurpose, date_time_ymd,
};

/// When a certificate holds.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Life {
    /// For long.
    Now,
    /// Until some years ago.
    Over,
}

/// Who signs certificates.
pub(crate) struct Authority(CertifiedIssuer<'static, KeyPair>);

/// A certificate and its key, as PEM.
pub(crate) struct Issued {
    certificate: String,
    key: String,
}

impl Authority {
    pub(crate) fn new(name: &str) -> Self {
        let key = KeyPair::generate().expect("a key");
        let mut params = CertificateParams::new([]).expect("no names");
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        Self(CertifiedIssuer::self_signed(params, key).expect("a certificate of its own"))
    }

    /// A certificate for a name or an address, for servers and clients alike.
    pub(crate) fn issue(&self, name: &str, life: Life) -> Issued {
        let key = KeyPair::generate().expect("a key");
        let mut params = CertificateParams::new([name.to_owned()]).expect("a name");
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        if matches!(life, Life::Over) {
            params.not_before = date_time_ymd(2019, 1, 1);
            params.not_after = date_time_ymd(2020, 1, 1);
        }
        let certificate = params.signed_by(&key, &self.0).expect("a certificate");
        Issued {
            certificate: certificate.pem(),
            key: key.serialize_pem(),
        }
    }

    /// Writes the authority's certificate; gives the path.
    pub(crate) fn keep(&self, dir: &Path, name: &str) -> String {
        let path = dir.join(name);
        std::fs::write(&path, self.0.pem()).expect("written");
        path.display().to_string()
    }
}

impl Issued {
    /// Writes `NAME.crt` and `NAME.key`.
    pub(crate) fn keep(&self, dir: &Path, name: &str) {
        for (kind, text) in [("crt", &self.certificate), ("key", &self.key)] {
            std::fs::write(dir.join(format!("{name}.{kind}")), text).expect("written");
        }
    }
}
