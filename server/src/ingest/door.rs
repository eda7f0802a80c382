//! The port that everybody knows: heralds come in and are answered, sessions begin with their first data.
//!
//! A herald is answered from a port of its own, so that whoever sends data there has heard the answer. Behind a network
//! address translator that answer may get lost: then the listening port itself answers, and takes the data.

use std::io;
use std::net::{Ipv4Addr, SocketAddrV4, UdpSocket};
use std::os::fd::OwnedFd;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use netdump::{Header, Kind, Session, wire};
use rustix::buffer::spare_capacity;
use rustix::event::{Timespec, epoll};
use uuid::Uuid;

use super::half_open::{HalfOpen, HalfOpens, NoPlace};
use super::session::Beginning;
use super::{Counters, Shared};
use crate::admission::{Again, Refused};
use crate::limits::{DATAGRAM_BYTES_MAX, HALF_OPEN_FORGOTTEN, HERALDS_AT_ONCE, REPEATED_AFTER, STOP_LOOK};
use crate::os;
use crate::store::answered::AnsweredHerald;

/// What stands for the listening socket among the events; half-open ones count from 0.
const LISTENING: u64 = u64::MAX;

/// One listening address.
#[derive(Debug)]
pub(crate) struct Door {
    shared: Arc<Shared>,
    socket: UdpSocket,
    address: SocketAddrV4,
    epoll: OwnedFd,
    half_opens: Mutex<HalfOpens>,
}

/// A datagram and its way.
#[derive(Debug, Clone, Copy)]
pub(super) struct Arrival<'d> {
    pub(super) peer: SocketAddrV4,
    /// The address of the host that it was sent to.
    pub(super) dialled: Ipv4Addr,
    pub(super) datagram: &'d [u8],
    /// Whether a session may have the listening port: no other one with this peer does.
    pub(super) port_is_free: bool,
}

impl Door {
    /// Binds a listening address; nothing is taken before [`Door::serve`].
    pub(crate) fn open(shared: &Arc<Shared>, listen: SocketAddrV4) -> io::Result<Arc<Self>> {
        let socket = os::listening_socket(listen)?;
        let port = socket.local_addr()?.port();
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        epoll::add(
            &epoll,
            &socket,
            epoll::EventData::new_u64(LISTENING),
            epoll::EventFlags::IN,
        )?;
        Ok(Arc::new(Self {
            shared: Arc::clone(shared),
            socket,
            address: SocketAddrV4::new(*listen.ip(), port),
            epoll,
            half_opens: Mutex::default(),
        }))
    }

    /// The address with its real port.
    pub(crate) fn address(&self) -> SocketAddrV4 {
        self.address
    }

    /// Whether a sender that dialled this address came in here.
    pub(crate) fn is_at(&self, dialled: SocketAddrV4) -> bool {
        let any = self.address.ip().is_unspecified();
        self.address.port() == dialled.port() && (any || self.address.ip() == dialled.ip())
    }

    /// Starts the thread that takes heralds until the receiver stops.
    pub(crate) fn serve(self: Arc<Self>) -> io::Result<JoinHandle<()>> {
        let run = move || {
            let mut buffer = vec![0; DATAGRAM_BYTES_MAX];
            let mut dropped = 0;
            while !self.shared.stopping() {
                if let Err(why) = self.turn(&mut buffer, &mut dropped) {
                    tracing::error!("cannot receive on the herald port: {why}");
                    thread::sleep(STOP_LOOK);
                }
            }
            // Nobody is left to answer: their sockets go, and with them this door's last owner but sessions.
            self.forget(self.lock().take_older(Duration::ZERO));
        };
        thread::Builder::new().name("herald".to_owned()).spawn(run)
    }

    /// Waits for something, and deals with it.
    fn turn(self: &Arc<Self>, buffer: &mut [u8], dropped: &mut u32) -> io::Result<()> {
        let mut events = Vec::with_capacity(64);
        let patience = Timespec {
            tv_sec: 0,
            tv_nsec: i64::from(STOP_LOOK.subsec_nanos()),
        };
        match epoll::wait(&self.epoll, spare_capacity(&mut events), Some(&patience)) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(why) => return Err(why.into()),
        }
        for event in events {
            let (data, flags) = (event.data, event.flags);
            match data.u64() {
                LISTENING => self.take_waiting(buffer, dropped)?,
                // Nobody there has the port: a forged herald was answered. That is no data.
                id if !flags.contains(epoll::EventFlags::IN) => self.lock().forget_error(id),
                id => {
                    let ready = self.lock().take(id);
                    if let Some(HalfOpen { socket: Some(_), .. }) = ready {
                        ready.into_iter().for_each(|half_open| self.begin(half_open, None, &[]));
                    }
                }
            }
        }
        let old = self.lock().take_older(HALF_OPEN_FORGOTTEN);
        self.forget(old);
        Ok(())
    }

    /// Takes what waits at the listening socket, and a bounded number of datagrams at a time.
    fn take_waiting(self: &Arc<Self>, buffer: &mut [u8], dropped: &mut u32) -> io::Result<()> {
        for _ in 0..HERALDS_AT_ONCE {
            let Some(arrived) = os::receive_with_destination(&self.socket, buffer)? else {
                return Ok(());
            };
            self.shared.count_drops(dropped, arrived.dropped);
            self.take(&Arrival {
                peer: arrived.peer,
                dialled: arrived.dialled,
                datagram: buffer.get(..arrived.len).unwrap_or_default(),
                port_is_free: true,
            });
        }
        Ok(())
    }

    /// Deals with one datagram that came to the listening port: a herald, or data of a session that has no other port.
    pub(super) fn take(self: &Arc<Self>, arrival: &Arrival<'_>) {
        match Header::parse(arrival.datagram) {
            Ok((header, payload)) if header.kind == Kind::Herald => self.take_herald(arrival, &header, payload),
            Ok(_) => self.take_data(arrival),
            Err(_) => Counters::add(&self.shared.counters.dropped_packets, 1),
        }
    }

    fn take_herald(self: &Arc<Self>, arrival: &Arrival<'_>, header: &Header, payload: &[u8]) {
        let counters = &self.shared.counters;
        Counters::add(&counters.heralds, 1);
        let Arrival { peer, dialled, .. } = *arrival;
        let admission = &self.shared.admission;
        if !admission.is_allowed(peer) {
            return;
        }
        let mut half_opens = self.lock();
        if let Some(known) = half_opens.of(&(peer, dialled)) {
            // A long path comes in several heralds at a small MTU.
            let repeated = header.offset == 0 && header.seqno == known.seqno && payload == known.payload;
            if repeated || header.offset > 0 {
                let _ = known.session.handle_datagram(self.shared.now(), arrival.datagram);
                let unheard = repeated && known.since.elapsed() >= REPEATED_AFTER;
                known.by_door |= unheard && arrival.port_is_free;
                self.answer(known);
                return;
            }
        }
        let now = self.shared.now();
        let Some(again) = admission.may_open(now, peer, header.seqno) else {
            return;
        };
        let half_open_max = admission.limits.half_open_max;
        let found = if self.shared.is_full() {
            Err((Refused::Sessions, self.shared.rules.sessions_max))
        } else {
            let place = half_opens.find_place(again, half_open_max);
            place.map_err(|NoPlace| (Refused::HalfOpen, half_open_max))
        };
        let gone = match found {
            Ok(gone) => gone,
            Err((why, places)) => return admission.no_place(now, peer, header.seqno, why, places),
        };
        let half_open = self.half_open(arrival, header, payload, again, half_opens.next_id());
        let earlier = half_open.and_then(|mut half_open| {
            self.answer(&mut half_open);
            counters.half_open_now.fetch_add(1, Ordering::Relaxed);
            half_opens.add(half_open)
        });
        drop(half_opens);
        self.forget(gone.into_iter().chain(earlier));
    }

    /// Makes ready to hear from a sender. Whose port is not the one that stock senders have is behind a translator, which may
    /// let nothing pass but answers from the very port that was dialled.
    fn half_open(
        &self,
        arrival: &Arrival<'_>,
        header: &Header,
        payload: &[u8],
        again: Again,
        id: u64,
    ) -> Option<HalfOpen> {
        let Arrival { peer, dialled, .. } = *arrival;
        let is_translated = peer.port() != wire::CLIENT_PORT;
        let socket = if is_translated && arrival.port_is_free {
            None
        } else {
            // A process out of files still has the listening port.
            self.own_socket(SocketAddrV4::new(dialled, 0), peer, id).ok()
        };
        if socket.is_none() && !arrival.port_is_free {
            return None;
        }
        let place = self.shared.next_place.fetch_add(1, Ordering::Relaxed);
        let own_port = socket
            .as_ref()
            .and_then(|socket| socket.local_addr().ok())
            .map(|own| own.port());
        let door_port = self.address.port();
        let answered = AnsweredHerald {
            peer,
            dialled: SocketAddrV4::new(dialled, door_port),
            port: own_port.unwrap_or(door_port),
            datagram: arrival.datagram.to_vec(),
        };
        self.shared.answered.note(place, &answered);
        Some(HalfOpen {
            key: (peer, dialled),
            seqno: header.seqno,
            payload: payload.to_vec(),
            session: Session::new(self.shared.session_limits(), header, payload, self.shared.now()),
            by_door: socket.is_none(),
            socket,
            since: Instant::now(),
            again,
            place,
        })
    }

    /// A socket on a port of its own, which is watched for its first data.
    fn own_socket(&self, local: SocketAddrV4, peer: SocketAddrV4, id: u64) -> io::Result<UdpSocket> {
        let socket = os::session_socket(local, peer, false)?;
        epoll::add(
            &self.epoll,
            &socket,
            epoll::EventData::new_u64(id),
            epoll::EventFlags::IN,
        )?;
        Ok(socket)
    }

    /// Sends the acknowledgements of a herald: from the own port first, which is what a sender that hears both then takes.
    fn answer(&self, half_open: &mut HalfOpen) {
        let mut ack = [0; wire::ACK_LEN];
        let (peer, dialled) = half_open.key;
        while half_open.session.poll_ack(&mut ack).is_some() {
            if let Some(socket) = &half_open.socket {
                let _ = socket.send(&ack);
            }
            if half_open.by_door {
                os::send_from(&self.socket, dialled, peer, &ack);
            }
        }
    }

    /// Data on the listening port: the first of a session that was answered from here, or some that came before the session
    /// had its socket. All else is dropped.
    fn take_data(self: &Arc<Self>, arrival: &Arrival<'_>) {
        let Arrival { peer, dialled, .. } = *arrival;
        let half_open = {
            let mut half_opens = self.lock();
            let by_door = half_opens.of(&(peer, dialled)).is_some_and(|known| known.by_door);
            by_door.then(|| half_opens.take_of(&(peer, dialled))).flatten()
        };
        if let Some(half_open) = half_open {
            let local = SocketAddrV4::new(dialled, self.address.port());
            match os::session_socket(local, peer, true) {
                Ok(socket) => self.begin(half_open, Some(socket), arrival.datagram),
                Err(why) => tracing::warn!(%peer, "cannot open a session: {why}"),
            }
        } else if let Some(handle) = self
            .shared
            .session_at(peer, SocketAddrV4::new(dialled, self.address.port()))
        {
            handle.forward(arrival.datagram);
        } else {
            Counters::add(&self.shared.counters.dropped_packets, 1);
        }
    }

    /// Begins the session of a herald: on its own socket, or on one at the listening port and with its first datagram.
    fn begin(self: &Arc<Self>, half_open: HalfOpen, at_door: Option<UdpSocket>, first: &[u8]) {
        self.shared.counters.half_open_now.fetch_sub(1, Ordering::Relaxed);
        let (peer, dialled) = half_open.key;
        let shares_port = at_door.is_some();
        if let Some(own) = &half_open.socket {
            let _ = epoll::delete(&self.epoll, own);
        }
        let Some(socket) = at_door.or(half_open.socket) else {
            return;
        };
        let begun = Beginning {
            id: Uuid::now_v7().to_string(),
            peer,
            dialled: SocketAddrV4::new(dialled, self.address.port()),
            session: half_open.session,
            socket,
            door: shares_port.then(|| Arc::clone(self)),
            answered_at: Some(half_open.place),
            left_over: None,
        }
        .begin(&self.shared);
        match begun {
            Ok(handle) if shares_port => handle.forward(first),
            Ok(_) => {}
            Err(why) => tracing::warn!(%peer, "cannot open a session: {why}"),
        }
    }

    /// Takes up a herald that an earlier receiver answered.
    pub(crate) fn remember(&self, herald: &AnsweredHerald) {
        let Ok((header, payload)) = Header::parse(&herald.datagram) else {
            return;
        };
        let key = (herald.peer, *herald.dialled.ip());
        let has_session = self
            .shared
            .session_at(herald.peer, SocketAddrV4::new(key.1, herald.port));
        if has_session.is_some() {
            return;
        }
        let mut half_opens = self.lock();
        let local = SocketAddrV4::new(key.1, herald.port);
        let socket = if herald.port == self.address.port() {
            None
        } else {
            match self.own_socket(local, herald.peer, half_opens.next_id()) {
                Ok(socket) => Some(socket),
                Err(why) => return tracing::warn!(%local, "the port of an answered herald is gone: {why}"),
            }
        };
        let place = self.shared.next_place.fetch_add(1, Ordering::Relaxed);
        self.shared.answered.note(place, herald);
        let mut session = Session::new(self.shared.session_limits(), &header, payload, self.shared.now());
        // It was answered.
        let _ = session.poll_ack(&mut [0; wire::ACK_LEN]);
        let half_open = HalfOpen {
            key,
            seqno: header.seqno,
            payload: payload.to_vec(),
            session,
            by_door: socket.is_none(),
            socket,
            since: Instant::now(),
            again: Again(true),
            place,
        };
        let gone = half_opens.add(half_open);
        drop(half_opens);
        self.shared.counters.half_open_now.fetch_add(1, Ordering::Relaxed);
        self.forget(gone);
    }

    /// Lets go of heralds that brought nothing.
    fn forget(&self, gone: impl IntoIterator<Item = HalfOpen>) {
        for half_open in gone {
            self.shared.answered.clear(half_open.place);
            self.shared.counters.half_open_now.fetch_sub(1, Ordering::Relaxed);
        }
    }

    fn lock(&self) -> MutexGuard<'_, HalfOpens> {
        self.half_opens.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
