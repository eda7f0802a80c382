//! A TCP listener that gives connections whose handshake is done.
//!
//! ```text
//! accept ─► a place ─► task: peek ─ no TLS ─► a problem in plain HTTP, closed
//!                                 └ handshake, with a deadline ─► axum
//! ```
//!
//! One that is slow at its handshake holds up nobody else, and one that neither reads nor writes is let go.

use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use axum::serve::Listener;
use ring::digest::{SHA256, digest};
use rustls::ServerConnection;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::task::JoinHandle;
use tokio::time::{Instant, Sleep, sleep, timeout};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use super::server::ServerTls;
use crate::limits::{HANDSHAKE_TIME, REQUEST_BODY_BYTES_MAX, TLS_CONNECTIONS_MAX, TLS_IDLE_TIME};
use crate::routes::Peer;
use crate::types::problem::Problem;

/// First byte of every TLS connection: a record of the type handshake (RFC 8446, section 5.1).
const HANDSHAKE_RECORD: u8 = 0x16;
/// How long to wait after an accept that failed, for descriptors to become free.
const ACCEPT_AGAIN: std::time::Duration = std::time::Duration::from_millis(200);

/// The listener.
#[derive(Debug)]
pub(crate) struct TlsListener {
    ready: mpsc::Receiver<(TlsIo, Peer)>,
    address: SocketAddr,
    accepting: JoinHandle<()>,
}

impl TlsListener {
    /// Begins to accept. Needs the event loop.
    pub(crate) fn new(listener: TcpListener, tls: ServerTls) -> io::Result<Self> {
        let address = listener.local_addr()?;
        let (done, ready) = mpsc::channel(1);
        let accepting = tokio::spawn(accept(listener, Arc::new(tls), done));
        Ok(Self {
            ready,
            address,
            accepting,
        })
    }
}

impl Drop for TlsListener {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

impl Listener for TlsListener {
    type Io = TlsIo;
    type Addr = Peer;

    async fn accept(&mut self) -> (TlsIo, Peer) {
        poll_fn(|context| match self.ready.poll_recv(context) {
            Poll::Ready(Some(connection)) => Poll::Ready(connection),
            // The task ends with this listener only.
            Poll::Ready(None) | Poll::Pending => Poll::Pending,
        })
        .await
    }

    fn local_addr(&self) -> io::Result<Peer> {
        Ok(Peer::Address(self.address))
    }
}

/// Accepts connections, each with its handshake in a task of its own.
async fn accept(listener: TcpListener, tls: Arc<ServerTls>, done: mpsc::Sender<(TlsIo, Peer)>) {
    let places = Arc::new(Semaphore::new(TLS_CONNECTIONS_MAX));
    while let Ok(place) = Arc::clone(&places).acquire_owned().await {
        let (stream, address) = match listener.accept().await {
            Ok(accepted) => accepted,
            Err(why) => {
                tracing::warn!("cannot accept a connection to the API: {why}");
                sleep(ACCEPT_AGAIN).await;
                continue;
            }
        };
        let (tls, done) = (Arc::clone(&tls), done.clone());
        tokio::spawn(async move {
            match timeout(HANDSHAKE_TIME, shake_hands(stream, &tls)).await {
                Ok(Ok(stream)) => {
                    let certificate = stream.get_ref().1.fingerprint();
                    let peer = Peer::Tls { address, certificate };
                    let _ = done.send((TlsIo::new(stream, place), peer)).await;
                }
                Ok(Err(why)) => tracing::debug!(%address, "no TLS connection: {why}"),
                Err(_) => tracing::debug!(%address, "no TLS connection: the handshake took too long"),
            }
        });
    }
}

/// The handshake. Who speaks no TLS is told so.
async fn shake_hands(mut stream: TcpStream, tls: &ServerTls) -> io::Result<TlsStream<TcpStream>> {
    let mut first = [0];
    stream.peek(&mut first).await?;
    if first != [HANDSHAKE_RECORD] {
        tell_tls_is_wanted(&mut stream).await?;
        return Err(io::Error::other("the client speaks no TLS"));
    }
    stream.set_nodelay(true)?;
    TlsAcceptor::from(tls.now()).accept(stream).await
}

/// Answers a request in plain HTTP.
async fn tell_tls_is_wanted(stream: &mut TcpStream) -> io::Result<()> {
    let sentence = "this port speaks TLS only: write https:// before the address";
    let problem = Problem::new(400, "tls-wanted", "TLS is wanted", sentence);
    let body = serde_json::to_string(&problem)?;
    let answer = format!(
        "HTTP/1.1 400 Bad Request\r\nContent-Type: application/problem+json\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
        body.len()
    );
    // What came is read, also behind the answer: data that waits unread at a close takes the answer away with it.
    let mut request = vec![0; REQUEST_BODY_BYTES_MAX];
    let _ = stream.read(&mut request).await?;
    stream.write_all(answer.as_bytes()).await?;
    stream.shutdown().await?;
    let _ = stream.read(&mut request).await?;
    Ok(())
}

/// What tells one client's certificate from another.
trait Fingerprint {
    /// SHA-256 of the certificate, if one was shown and taken.
    fn fingerprint(&self) -> Option<[u8; 32]>;
}

impl Fingerprint for ServerConnection {
    fn fingerprint(&self) -> Option<[u8; 32]> {
        let certificate = self.peer_certificates()?.first()?;
        digest(&SHA256, certificate).as_ref().try_into().ok()
    }
}

/// A connection. It ends when nothing moves for long: pings of a stream of events move it.
#[derive(Debug)]
pub(crate) struct TlsIo {
    stream: TlsStream<TcpStream>,
    idle: Pin<Box<Sleep>>,
    _place: OwnedSemaphorePermit,
}

impl TlsIo {
    fn new(stream: TlsStream<TcpStream>, place: OwnedSemaphorePermit) -> Self {
        Self {
            stream,
            idle: Box::pin(sleep(TLS_IDLE_TIME)),
            _place: place,
        }
    }

    /// Puts off the end after something moved, and comes to it when nothing did for long.
    fn watched<T>(&mut self, context: &mut Context<'_>, polled: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if polled.is_ready() {
            self.idle.as_mut().reset(Instant::now() + TLS_IDLE_TIME);
            return polled;
        }
        match self.idle.as_mut().poll(context) {
            Poll::Ready(()) => Poll::Ready(Err(io::ErrorKind::TimedOut.into())),
            Poll::Pending => Poll::Pending,
        }
    }
}

impl AsyncRead for TlsIo {
    fn poll_read(self: Pin<&mut Self>, context: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let polled = Pin::new(&mut this.stream).poll_read(context, buffer);
        this.watched(context, polled)
    }
}

impl AsyncWrite for TlsIo {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let polled = Pin::new(&mut this.stream).poll_write(context, bytes);
        this.watched(context, polled)
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let polled = Pin::new(&mut this.stream).poll_flush(context);
        match polled {
            // A flush of nothing moves nothing.
            Poll::Ready(_) => polled,
            Poll::Pending => this.watched(context, polled),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_shutdown(context)
    }
}
