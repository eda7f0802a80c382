//! One request and its answer over HTTP/1, on a connection of its own.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use rustls::ClientConfig;
use tokio::net::{TcpStream, UnixStream};
use tokio::time::timeout;

use crate::endpoint::Endpoint;
use crate::tls::{Trust, client};

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub(crate) enum OutgoingError {
    /// No connection, or it broke off.
    #[error("{0}")]
    Unreachable(String),
    /// One side does not believe the other, or they do not both speak TLS.
    #[error("{0}")]
    Tls(String),
}

/// Sends `request`, and gives the head of its answer with the body to come. Nothing waits longer than `patience`; redirects
/// are answers like others.
pub(crate) async fn exchange(
    endpoint: &Endpoint,
    trust: Option<&Arc<ClientConfig>>,
    patience: Duration,
    request: Request<Full<Bytes>>,
) -> Result<Response<Incoming>, OutgoingError> {
    match endpoint {
        Endpoint::Tcp(address) => {
            let stream = within(patience, TcpStream::connect(address)).await?;
            over(stream, patience, request).await
        }
        Endpoint::Tls(address) => {
            let config = match trust {
                Some(config) => Arc::clone(config),
                None => Trust::default()
                    .read()
                    .map_err(|why| OutgoingError::Tls(why.to_string()))?,
            };
            let stream = within(patience, TcpStream::connect(address)).await?;
            let shaken = timeout(patience, client::shake_hands(address, stream, config)).await;
            let stream = shaken.map_err(|_| too_long(patience))?.map_err(OutgoingError::Tls)?;
            over(stream, patience, request).await
        }
        Endpoint::Unix(path) => {
            let stream = within(patience, UnixStream::connect(path)).await?;
            over(stream, patience, request).await
        }
    }
}

/// The exchange on a fresh connection.
async fn over<S>(
    stream: S,
    patience: Duration,
    request: Request<Full<Bytes>>,
) -> Result<Response<Incoming>, OutgoingError>
where
    S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin + Send + 'static,
{
    let stream = TokioIo::new(stream);
    let (mut sender, connection) = within(patience, hyper::client::conn::http1::handshake(stream)).await?;
    tokio::spawn(connection);
    within(patience, sender.send_request(request)).await
}

/// Waits for `step`, but not for ever.
pub(crate) async fn within<T, E>(
    patience: Duration,
    step: impl Future<Output = Result<T, E>>,
) -> Result<T, OutgoingError>
where
    E: std::error::Error + 'static,
{
    let done = timeout(patience, step).await.map_err(|_| too_long(patience))?;
    done.map_err(|why| match client::sentence(&why) {
        Some(sentence) => OutgoingError::Tls(sentence),
        None => OutgoingError::Unreachable(why.to_string()),
    })
}

fn too_long(patience: Duration) -> OutgoingError {
    OutgoingError::Unreachable(format!("no answer within {} s", patience.as_secs()))
}
