//! TLS, as the one who answers and as the one who asks (rustls, with the cryptography of ring).
//!
//! - [`files`]: certificates and keys in PEM files
//! - [`server`]: what a listener shows and demands, read anew when its files change
//! - `listener`: connections whose handshake is done
//! - [`client`]: whom a client trusts, and what it shows

pub mod client;
pub mod files;
#[cfg(feature = "server")]
pub(crate) mod listener;
#[cfg(feature = "server")]
pub mod server;

use std::sync::Arc;

use rustls::crypto::CryptoProvider;

pub use client::Trust;
pub use files::TlsError;
pub use rustls::ClientConfig as TlsClient;
#[cfg(feature = "server")]
pub use server::TlsFiles;

/// The cryptography used everywhere; nothing relies on a default of the process.
fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}
