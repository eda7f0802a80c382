//! Serves a router on a TCP address, with or without TLS, or on a unix socket, on a thread of its own, until it is told to stop.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::os::unix::fs::{DirBuilderExt as _, FileTypeExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread::JoinHandle;
use std::time::Duration;

use axum::Router;
use tokio::net::{TcpListener, UnixListener};
use tokio::sync::oneshot;

use crate::routes::Peer;
use crate::tls::listener::TlsListener;
use crate::tls::server::ServerTls;
use crate::tls::{TlsError, TlsFiles};

/// Owner and group may talk to the API; the group is for the operators.
const SOCKET_MODE: u32 = 0o660;
/// Others need not even see which machines there are.
const FOLDER_MODE: u32 = 0o750;

/// Where an API listens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ListenOn {
    /// A TCP address; port 0 asks for a free one.
    Tcp(SocketAddr),
    /// The same over TLS, with the files of its certificate.
    Tls(SocketAddr, TlsFiles),
    /// A unix socket.
    Unix(PathBuf),
}

impl fmt::Display for ListenOn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => write!(f, "{address}"),
            Self::Tls(address, _) => write!(f, "https://{address}"),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

/// An API could not be served.
#[derive(Debug, thiserror::Error)]
pub enum ListenError {
    /// The address cannot be had.
    #[error("cannot serve the API on {on}: {source}")]
    Bind {
        /// The address.
        on: ListenOn,
        /// Why.
        source: io::Error,
    },
    /// Another process serves there.
    #[error("cannot serve the API on unix:{}: another process answers there", path.display())]
    Busy {
        /// The socket.
        path: PathBuf,
    },
    /// The certificate cannot be used.
    #[error("cannot serve the API over TLS: {0}")]
    Tls(#[from] TlsError),
    /// No thread or event loop.
    #[error("cannot start the API's thread: {0}")]
    Thread(#[source] io::Error),
}

/// An API that is served. Dropping it stops it.
#[derive(Debug)]
pub struct ApiListener {
    on: ListenOn,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
    /// Closed when the thread has ended.
    ended: mpsc::Receiver<()>,
}

impl ApiListener {
    /// Starts serving `router`.
    ///
    /// # Errors
    /// [`ListenError`] with the address in it.
    pub fn start(on: ListenOn, router: Router) -> Result<Self, ListenError> {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .thread_name("api")
            .enable_all()
            .build()
            .map_err(ListenError::Thread)?;
        let (stop, stopped) = oneshot::channel::<()>();
        let (running, ended) = mpsc::channel();
        let until = async move {
            let _ = stopped.await;
        };
        let entered = runtime.enter();
        let service = router.into_make_service_with_connect_info::<Peer>();
        let bind_error = |source| ListenError::Bind { on: on.clone(), source };
        // Errors of single connections are axum's to deal with; `serve` itself ends only when told to.
        let (on, thread) = match &on {
            ListenOn::Tcp(address) => {
                let listener = bind(*address).map_err(bind_error)?;
                let real = ListenOn::Tcp(listener.local_addr().map_err(bind_error)?);
                let serving = axum::serve(listener, service).with_graceful_shutdown(until);
                drop(entered);
                (
                    real,
                    spawn(running, move || drop(runtime.block_on(serving.into_future()))),
                )
            }
            ListenOn::Tls(address, files) => {
                let tls = ServerTls::read(files.clone())?;
                let listener = bind(*address).map_err(bind_error)?;
                let real = ListenOn::Tls(listener.local_addr().map_err(bind_error)?, files.clone());
                let listener = TlsListener::new(listener, tls).map_err(bind_error)?;
                let serving = axum::serve(listener, service).with_graceful_shutdown(until);
                drop(entered);
                (
                    real,
                    spawn(running, move || drop(runtime.block_on(serving.into_future()))),
                )
            }
            ListenOn::Unix(path) => {
                make_room(path)?;
                let listener = UnixListener::bind(path).map_err(bind_error)?;
                std::fs::set_permissions(path, std::fs::Permissions::from_mode(SOCKET_MODE)).map_err(bind_error)?;
                let serving = axum::serve(listener, service).with_graceful_shutdown(until);
                drop(entered);
                (
                    on,
                    spawn(running, move || drop(runtime.block_on(serving.into_future()))),
                )
            }
        };
        Ok(Self {
            on,
            stop: Some(stop),
            thread: Some(thread?),
            ended,
        })
    }

    /// Stops it as dropping does, and waits at most `patience` until those who asked already have their answers: the one that told
    /// a machine to end is among them.
    pub fn finish(mut self, patience: Duration) {
        drop(self.stop.take());
        // Nothing is ever sent.
        if self.ended.recv_timeout(patience) == Err(RecvTimeoutError::Timeout) {
            tracing::debug!("an API's caller waits for an answer that it will not get");
        }
    }

    /// Where it listens, with the real port.
    #[must_use]
    pub fn on(&self) -> &ListenOn {
        &self.on
    }
}

impl Drop for ApiListener {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let ListenOn::Unix(path) = &self.on {
            let _ = std::fs::remove_file(path);
        }
        // Not joined: a caller that reads slowly must not hold up the end of the process.
        drop(self.thread.take());
    }
}

/// Listens on an address. Needs the event loop.
fn bind(address: SocketAddr) -> io::Result<TcpListener> {
    let listener = std::net::TcpListener::bind(address)?;
    listener.set_nonblocking(true)?;
    TcpListener::from_std(listener)
}

/// Runs it on a thread; `running` is dropped when it has ended.
fn spawn(running: mpsc::Sender<()>, run: impl FnOnce() + Send + 'static) -> Result<JoinHandle<()>, ListenError> {
    let run = move || {
        let _running = running;
        run();
    };
    std::thread::Builder::new()
        .name("api-main".to_owned())
        .spawn(run)
        .map_err(ListenError::Thread)
}

/// Makes the socket's folder, and removes the socket of a process that is gone.
fn make_room(path: &Path) -> Result<(), ListenError> {
    let bind_error = |source| ListenError::Bind {
        on: ListenOn::Unix(path.to_owned()),
        source,
    };
    if let Some(folder) = path.parent().filter(|folder| !folder.as_os_str().is_empty()) {
        std::fs::DirBuilder::new()
            .recursive(true)
            .mode(FOLDER_MODE)
            .create(folder)
            .map_err(bind_error)?;
    }
    let is_socket = std::fs::symlink_metadata(path).is_ok_and(|found| found.file_type().is_socket());
    if !is_socket {
        return Ok(());
    }
    if std::os::unix::net::UnixStream::connect(path).is_ok() {
        return Err(ListenError::Busy { path: path.to_owned() });
    }
    std::fs::remove_file(path).map_err(bind_error)
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::routing::get;

    fn router() -> Router {
        Router::new().route("/", get(|| async { "here" }))
    }

    #[test]
    fn a_socket_left_by_a_dead_process_is_replaced_and_a_living_one_is_not() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("vms/a.sock");
        std::fs::create_dir(dir.path().join("vms")).unwrap();
        drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
        let first = ApiListener::start(ListenOn::Unix(path.clone()), router()).unwrap();
        assert_eq!(
            std::fs::metadata(&path).unwrap().permissions().mode() & 0o777,
            SOCKET_MODE
        );
        let second = ApiListener::start(ListenOn::Unix(path.clone()), router());
        assert!(matches!(second, Err(ListenError::Busy { .. })));
        drop(first);
        assert!(!path.exists());
    }

    #[test]
    fn whoever_asked_before_the_end_gets_an_answer() {
        use std::io::{Read as _, Write as _};

        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.sock");
        let (entered, enters) = mpsc::channel();
        let (go_on, may_go_on) = mpsc::channel::<()>();
        let may_go_on = std::sync::Arc::new(std::sync::Mutex::new(may_go_on));
        let slow = move || async move {
            entered.send(()).unwrap();
            let wait = move || may_go_on.lock().unwrap().recv();
            tokio::task::spawn_blocking(wait).await.unwrap().unwrap();
            "answered"
        };
        let listener = ApiListener::start(ListenOn::Unix(path.clone()), Router::new().route("/", get(slow))).unwrap();
        let mut caller = std::os::unix::net::UnixStream::connect(&path).unwrap();
        caller
            .write_all(b"GET / HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n")
            .unwrap();
        enters.recv_timeout(Duration::from_secs(60)).unwrap();
        let ending = std::thread::spawn(move || listener.finish(Duration::from_secs(60)));
        assert!(!ending.is_finished(), "nobody has answered yet");
        go_on.send(()).unwrap();
        ending.join().unwrap();
        // All that will ever come is here already.
        caller.set_nonblocking(true).unwrap();
        let mut answer = String::new();
        caller.read_to_string(&mut answer).unwrap();
        assert!(answer.ends_with("answered"), "{answer}");
    }

    #[test]
    fn nobody_is_waited_for_longer_than_that() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.sock");
        let (entered, enters) = mpsc::channel();
        let never = move || async move {
            entered.send(()).unwrap();
            std::future::pending::<&str>().await
        };
        let listener = ApiListener::start(ListenOn::Unix(path.clone()), Router::new().route("/", get(never))).unwrap();
        let mut caller = std::os::unix::net::UnixStream::connect(&path).unwrap();
        io::Write::write_all(&mut caller, b"GET / HTTP/1.1\r\nhost: a\r\n\r\n").unwrap();
        enters.recv_timeout(Duration::from_secs(60)).unwrap();
        listener.finish(Duration::from_millis(10));
        assert!(!path.exists());
    }

    #[test]
    fn a_free_port_is_told_and_a_taken_one_is_refused_by_name() {
        let first = ApiListener::start(ListenOn::Tcp("127.0.0.1:0".parse().unwrap()), router()).unwrap();
        let ListenOn::Tcp(address) = first.on() else {
            panic!("not TCP")
        };
        assert_ne!(address.port(), 0);
        let error = ApiListener::start(ListenOn::Tcp(*address), router()).unwrap_err();
        assert!(error.to_string().contains(&address.to_string()), "{error}");
    }
}
