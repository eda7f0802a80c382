//! Who calls: the address or the user on the other end of the connection.

use std::convert::Infallible;
use std::fmt;
use std::net::SocketAddr;

use axum::extract::connect_info::Connected;
use axum::extract::{ConnectInfo, FromRequestParts};
use axum::http::request::Parts;
use axum::serve::IncomingStream;
use tokio::net::{TcpListener, UnixListener};

use crate::tls::listener::TlsListener;

/// The other end of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Peer {
    /// An address.
    Address(SocketAddr),
    /// An address, over TLS.
    Tls {
        /// The address.
        address: SocketAddr,
        /// SHA-256 of the client's certificate; only one whose authority is known gets this far.
        certificate: Option<[u8; 32]>,
    },
    /// A user of this host, as the kernel tells (unix(7), `SO_PEERCRED`).
    User {
        /// User id.
        uid: u32,
        /// Process id, where it is told.
        pid: Option<i32>,
    },
    /// It is not told.
    Unknown,
}

impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Address(address) => write!(f, "{}", address.ip()),
            Self::Tls {
                address,
                certificate: None,
            } => write!(f, "{}", address.ip()),
            Self::Tls {
                address,
                certificate: Some(digest),
            } => {
                f.write_str("certificate ")?;
                digest.iter().try_for_each(|byte| write!(f, "{byte:02x}"))?;
                write!(f, " at {}", address.ip())
            }
            Self::User { uid, pid: Some(pid) } => write!(f, "uid {uid} (process {pid})"),
            Self::User { uid, pid: None } => write!(f, "uid {uid}"),
            Self::Unknown => f.write_str("unknown"),
        }
    }
}

impl Connected<IncomingStream<'_, TcpListener>> for Peer {
    fn connect_info(stream: IncomingStream<'_, TcpListener>) -> Self {
        Self::Address(*stream.remote_addr())
    }
}

impl Connected<IncomingStream<'_, UnixListener>> for Peer {
    fn connect_info(stream: IncomingStream<'_, UnixListener>) -> Self {
        stream.io().peer_cred().map_or(Self::Unknown, |cred| Self::User {
            uid: cred.uid(),
            pid: cred.pid(),
        })
    }
}

impl Peer {
    /// Its address, if it has one.
    #[must_use]
    pub(super) fn address(&self) -> Option<SocketAddr> {
        match self {
            Self::Address(address) | Self::Tls { address, .. } => Some(*address),
            Self::User { .. } | Self::Unknown => None,
        }
    }
}

impl Connected<IncomingStream<'_, TlsListener>> for Peer {
    fn connect_info(stream: IncomingStream<'_, TlsListener>) -> Self {
        *stream.remote_addr()
    }
}

/// Who calls, by the name that is written down: of the token if one was shown, else of the peer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Caller(pub(super) String);

impl<S: Sync> FromRequestParts<S> for Caller {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<Self, Infallible> {
        if let Some(known) = parts.extensions.get::<Self>() {
            return Ok(known.clone());
        }
        let peer = parts.extensions.get::<ConnectInfo<Peer>>();
        Ok(Self(peer.map_or(Peer::Unknown, |info| info.0).to_string()))
    }
}
