//! The port that everybody knows: heralds come in, sessions are opened.

use std::io;
use std::net::{SocketAddrV4, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Instant;

use netdump::{Header, Kind, Session, SessionLimits, wire};
use uuid::Uuid;

use super::session::SessionThread;
use super::{Counters, Entry, Handle, Shared};
use crate::admission::Again;
use crate::limits::{DATAGRAM_BYTES_MAX, EXTENTS_MAX, STOP_LOOK};
use crate::os;

/// Starts the thread of one listening address; gives the address with its real port.
pub(crate) fn listen(shared: &Arc<Shared>, address: SocketAddrV4) -> io::Result<(SocketAddrV4, JoinHandle<()>)> {
    let socket = os::herald_socket(address)?;
    socket.set_read_timeout(Some(STOP_LOOK))?;
    let port = socket.local_addr()?.port();
    let shared = Arc::clone(shared);
    let run = move || serve(&shared, &socket, port);
    let thread = thread::Builder::new().name("herald".to_owned()).spawn(run)?;
    Ok((SocketAddrV4::new(*address.ip(), port), thread))
}

/// Takes datagrams until the receiver stops.
fn serve(shared: &Arc<Shared>, socket: &UdpSocket, port: u16) {
    let mut buffer = vec![0; DATAGRAM_BYTES_MAX];
    while !shared.stopping() {
        let arrived = match os::receive_with_destination(socket, &mut buffer) {
            Ok(Some(arrived)) => arrived,
            Ok(None) => continue,
            Err(why) => {
                tracing::error!("cannot receive on the herald port: {why}");
                thread::sleep(STOP_LOOK);
                continue;
            }
        };
        let datagram = buffer.get(..arrived.len).unwrap_or_default();
        let dialled = SocketAddrV4::new(arrived.dialled, port);
        if let Err(why) = take(shared, arrived.peer, dialled, datagram) {
            tracing::warn!(peer = %arrived.peer, "cannot open a session: {why}");
        }
    }
}

/// Deals with one datagram on the herald port; everything but a herald is dropped.
fn take(shared: &Arc<Shared>, peer: SocketAddrV4, dialled: SocketAddrV4, datagram: &[u8]) -> io::Result<()> {
    let Ok((header, payload)) = Header::parse(datagram) else {
        return Ok(());
    };
    if header.kind != Kind::Herald {
        return Ok(());
    }
    if !shared.admission.is_allowed(peer) {
        return Ok(());
    }
    if let Some(waiting) = shared.waiting_session(peer, dialled) {
        let repeated = header.offset == 0 && header.seqno == waiting.seqno && payload == waiting.herald;
        // A long path comes in several heralds at a small MTU; the rest of it is acknowledged like the first part.
        if repeated || header.offset > 0 {
            waiting.socket.send(&wire::encode_ack(header.seqno))?;
            return Ok(());
        }
    }
    let now = shared.now();
    let Some(again) = shared.admission.may_open(now, peer, header.seqno) else {
        return Ok(());
    };
    if let Err((why, places)) = shared.find_place(again) {
        shared.admission.no_place(now, peer, header.seqno, why, places);
        return Ok(());
    }
    open(shared, peer, dialled, again, &header, payload)
}

/// Opens a session: a socket of its own, bound to the very address that the peer dialled, and a thread.
fn open(
    shared: &Arc<Shared>,
    peer: SocketAddrV4,
    dialled: SocketAddrV4,
    again: Again,
    header: &Header,
    payload: &[u8],
) -> io::Result<()> {
    let socket = UdpSocket::bind(SocketAddrV4::new(*dialled.ip(), 0))?;
    socket.connect(peer)?;
    os::prepare_session_socket(&socket)?;
    let file_len_max = shared.admission.file_len_max(&shared.root);
    let limits = SessionLimits {
        file_len_max,
        silent_after: shared.rules.silent_after,
        linger: shared.rules.linger,
        ack_policy: shared.rules.ack_policy,
        extents_max: EXTENTS_MAX,
        ..SessionLimits::default()
    };
    let session = Session::new(limits, header, payload, shared.now());
    let handle = Arc::new(Handle {
        id: Uuid::now_v7().to_string(),
        peer,
        dialled,
        seqno: header.seqno,
        herald: payload.to_vec(),
        started: Instant::now(),
        socket,
        again,
        has_data: AtomicBool::new(false),
        evicted: AtomicBool::new(false),
    });
    Counters::add(&shared.counters.sessions, 1);
    let work = SessionThread::new(Arc::clone(shared), Arc::clone(&handle), session);
    let entry_handle = Arc::clone(&handle);
    // Under the lock, so that the session cannot be missed by the next herald.
    let mut sessions = shared.lock_sessions();
    shared.counters.sessions_now.fetch_add(1, Ordering::Relaxed);
    let thread = thread::Builder::new()
        .name("session".to_owned())
        .spawn(move || work.run());
    match thread {
        Ok(thread) => {
            sessions.push(Entry {
                handle: entry_handle,
                thread,
            });
            Ok(())
        }
        Err(why) => {
            shared.counters.sessions_now.fetch_sub(1, Ordering::Relaxed);
            Err(why)
        }
    }
}
