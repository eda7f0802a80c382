//! Serves a router on a TCP address, with or without TLS, or on a unix socket, on a thread of its own, until it is told to stop.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::os::unix::fs::{DirBuilderExt as _, FileTypeExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::thread::JoinHandle;

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
                (real, spawn(move || drop(runtime.block_on(serving.into_future()))))
            }
            ListenOn::Tls(address, files) => {
                let tls = ServerTls::read(files.clone())?;
                let listener = bind(*address).map_err(bind_error)?;
                let real = ListenOn::Tls(listener.local_addr().map_err(bind_error)?, files.clone());
                let listener = TlsListener::new(listener, tls).map_err(bind_error)?;
                let serving = axum::serve(listener, service).with_graceful_shutdown(until);
                drop(entered);
                (real, spawn(move || drop(runtime.block_on(serving.into_future()))))
            }
            ListenOn::Unix(path) => {
                make_room(path)?;
                let listener = UnixListener::bind(path).map_err(bind_error)?;
                std::fs::set_permissions(path, std::fs::Permissions::from_mode(SOCKET_MODE)).map_err(bind_error)?;
                let serving = axum::serve(listener, service).with_graceful_shutdown(until);
                drop(entered);
                (on, spawn(move || drop(runtime.block_on(serving.into_future()))))
            }
        };
        Ok(Self {
            on,
            stop: Some(stop),
            thread: Some(thread?),
        })
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

fn spawn(run: impl FnOnce() + Send + 'static) -> Result<JoinHandle<()>, ListenError> {
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
