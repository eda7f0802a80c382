//! A batch of datagrams: what the protocol makes of each, what is stored, what is acknowledged.

use std::net::SocketAddrV4;
use std::time::Instant;

use netdump::server::SessionState;
use netdump::{Accepted, FinishTicket, Kind, Rejected, Ticket};

use super::super::Counters;
use super::super::door::Arrival;
use super::{Next, SessionThread};
use crate::admission::Refused;
use crate::limits::ALIVE_FOR;
use crate::os::trains::Datagram;
use crate::store::examine::Ending;

/// Data of a batch that is contiguous in the file.
#[derive(Debug)]
pub(super) struct Run<'d> {
    pub(super) offset: u64,
    pub(super) end: u64,
    pub(super) slices: Vec<&'d [u8]>,
    pub(super) tickets: Vec<Ticket>,
}

impl SessionThread {
    /// Stores what came and gives the tickets back. An error is how the session ends.
    pub(super) fn take_batch(&mut self, buffer: &[u8], datagrams: &[Datagram]) -> Result<Next, Ending> {
        Counters::add(&self.shared.counters.packets, datagrams.len() as u64);
        let mut next = Next::GoOn;
        let before = self.session.stats().duplicate_messages;
        let mut runs: Vec<Run<'_>> = Vec::new();
        let mut finished = None;
        let mut at = 0;
        for Datagram { len, from } in datagrams {
            let datagram = buffer.get(at..at + len).unwrap_or_default();
            at += len;
            if *from != self.handle.peer {
                // It came before the socket was connected.
                self.pass_on(*from, datagram, true);
                continue;
            }
            let accepted = self.session.handle_datagram(self.now(), datagram);
            if !matches!(accepted, Ok(Accepted::Herald) | Err(_)) {
                (self.heard_at, self.is_ours, self.awaited) = (Instant::now(), None, false);
            }
            match accepted {
                // The bytes that came first count. Writing others over them would cost a slow disk its time, and let anybody
                // change what is stored.
                Ok(Accepted::Data {
                    ticket,
                    duplicate: true,
                    ..
                }) => self.give_back(ticket),
                Ok(Accepted::Data {
                    offset, bytes, ticket, ..
                }) => add_to_runs(&mut runs, offset, bytes, ticket),
                Ok(Accepted::KernelHeader { offset, bytes, ticket }) => {
                    self.spool()?
                        .kernel_header(offset, bytes)
                        .map_err(|why| self.storage(why))?;
                    self.give_back(ticket);
                }
                Ok(Accepted::Key { offset, bytes, ticket }) => {
                    self.spool()?.key(offset, bytes).map_err(|why| self.storage(why))?;
                    self.give_back(ticket);
                }
                Ok(Accepted::Finished { ticket }) => finished = Some(ticket),
                Ok(Accepted::Herald | Accepted::Repeated) => {}
                Err(Rejected::HeraldAfterData) => {
                    let over = self.is_over_for_newcomers();
                    self.pass_on(*from, datagram, over);
                    if over && self.door.is_some() {
                        next = Next::GiveWay;
                    }
                }
                Err(why) => self.note_refusal(&why),
            }
        }
        if !runs.is_empty() || self.spool.is_some() {
            let point = self.session.resume_point();
            self.spool()?.point(point).map_err(|why| self.storage(why))?;
        }
        if let Some(page) = self.session.displaced_page()
            && let Some(spool) = &mut self.spool
        {
            spool
                .first_page_is_at(page.offset, page.len_bytes)
                .map_err(|why| self.storage(why))?;
        }
        if !runs.is_empty() {
            let since = *self.held_since.get_or_insert_with(Instant::now);
            self.unanswered_since.get_or_insert(since);
        }
        for run in runs {
            self.write_run(&run)?;
            Counters::add(&self.shared.counters.received_bytes, run.end - run.offset);
            run.tickets.into_iter().for_each(|ticket| self.give_back(ticket));
        }
        self.look_at_expected_len()?;
        let duplicates = self.session.stats().duplicate_messages - before;
        Counters::add(&self.shared.counters.duplicate_packets, duplicates);
        if let Some(ticket) = finished {
            self.finish(ticket)?;
        }
        Ok(next)
    }

    /// Hands a datagram that is not this session's to the listening port, whose port this session has.
    pub(super) fn pass_on(&self, peer: SocketAddrV4, datagram: &[u8], port_is_free: bool) {
        if let Some(door) = &self.door {
            door.take(&Arrival {
                peer,
                dialled: *self.handle.dialled.ip(),
                datagram,
                port_is_free,
            });
        }
    }

    /// Whether a herald of the same sender shows that this session is over: it lingers, or its sender has been silent for
    /// longer than one that lives ever is. Before that a herald ends nothing.
    pub(super) fn is_over_for_newcomers(&self) -> bool {
        self.session.state() == SessionState::Lingering || self.heard_at.elapsed() >= ALIVE_FOR
    }

    /// FINISHED came: makes the core, and acknowledges when everything is on disk.
    pub(super) fn finish(&mut self, ticket: FinishTicket) -> Result<(), Ending> {
        // What came with FINISHED is acknowledged now: the commit may take a while.
        let _ = self.send_acks();
        let durable = match self.spool.take() {
            // Nothing but heralds came: there is nothing to keep.
            None => true,
            Some(spool) => self.commit(spool, Ending::Finished),
        };
        if durable {
            self.session.durable(self.now(), ticket);
            Ok(())
        } else {
            Err(Ending::Storage("the core could not be made durable".to_owned()))
        }
    }

    /// Gives a ticket back to the protocol, which acknowledges.
    pub(super) fn give_back(&mut self, ticket: Ticket) {
        if let Err(why) = self.session.received(ticket) {
            self.last_refusal = Some(why.to_string());
        }
    }

    /// Remembers why something was not taken.
    pub(super) fn note_refusal(&mut self, why: &Rejected) {
        Counters::add(&self.shared.counters.dropped_packets, 1);
        if matches!(why, Rejected::OutOfBounds { .. } | Rejected::TooFragmented { .. }) {
            if let Rejected::OutOfBounds { kind: Kind::Vmcore, .. } = why {
                let (peer, reason) = (self.handle.peer, Refused::DumpBytes);
                self.shared.admission.refuse(peer, reason, &why.to_string());
            } else if self.last_refusal.is_none() {
                tracing::warn!(session = %self.handle.id, "message refused: {why}");
            }
            self.last_refusal = Some(why.to_string());
        }
    }
}

/// Adds data to the run that it continues, or begins a new one.
fn add_to_runs<'d>(runs: &mut Vec<Run<'d>>, offset: u64, bytes: &'d [u8], ticket: Ticket) {
    let end = offset.saturating_add(bytes.len() as u64);
    match runs.last_mut() {
        Some(run) if run.end == offset => {
            run.slices.push(bytes);
            run.tickets.push(ticket);
            run.end = end;
        }
        _ => runs.push(Run {
            offset,
            end,
            slices: vec![bytes],
            tickets: vec![ticket],
        }),
    }
}
