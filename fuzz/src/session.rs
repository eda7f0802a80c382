//! Sequences of datagrams, tickets, time-outs and restarts into a session, beside a model of what was stored.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use netdump::server::SessionState;
use netdump::{
    Accepted, AckPolicy, Extents, FinishTicket, Header, Instant, Kind, Resumed, Seqno, Session, SessionLimits, Ticket,
    wire::WINDOW_MARK,
};

/// Longest file of the model.
const FILE_LEN_MAX: u64 = 128 * 1024;

/// What is known without the session's help.
#[derive(Default)]
struct Model {
    stored: BTreeSet<u64>,
    /// Messages that may be acknowledged: heralds, stored ones, FINISHED when everything is durable.
    acknowledgeable: BTreeSet<u32>,
    pending: Vec<(Ticket, u32, u64, u64)>,
    finishing: Vec<(FinishTicket, u32)>,
}

/// Reads operations from bytes.
struct Input<'b>(&'b [u8]);

impl Input<'_> {
    fn byte(&mut self) -> Option<u8> {
        let (first, rest) = self.0.split_first()?;
        self.0 = rest;
        Some(*first)
    }

    fn number(&mut self) -> Option<u64> {
        Some(u64::from(self.byte()?) << 8 | u64::from(self.byte()?))
    }
}

/// The target.
pub(crate) fn operations(bytes: &[u8]) {
    let mut input = Input(bytes);
    let _ = run(&mut input);
}

fn header(kind: Kind, seqno: u32, offset: u64, len: usize, aux2: u32) -> Header {
    Header {
        kind,
        seqno: Seqno(seqno),
        offset,
        len: u32::try_from(len).expect("small"),
        aux2,
    }
}

fn run(input: &mut Input<'_>) -> Option<()> {
    let flags = input.byte()?;
    let limits = SessionLimits {
        file_len_max: FILE_LEN_MAX,
        extents_max: if flags & 1 == 0 { 8 } else { 1000 },
        ack_policy: if flags & 2 == 0 {
            AckPolicy::Paired
        } else {
            AckPolicy::Immediate
        },
        ..SessionLimits::default()
    };
    let first = u32::from(flags >> 4);
    let aux2 = if flags & 4 == 0 { 0 } else { WINDOW_MARK };
    let mut now = Instant::ZERO;
    let mut session = Session::new(limits, &header(Kind::Herald, first, 0, 0, aux2), &[], now);
    let mut model = Model::default();
    model.acknowledgeable.insert(first);
    let mut seqno = first;
    let mut next_offset = 0;
    let filler = [0x5a_u8; 2100];
    loop {
        match input.byte()? % 12 {
            // The next packet as a stock client sends it, or one that is somewhere else.
            operation @ (0 | 1) => {
                let len = usize::try_from(input.number()?).ok()? % filler.len();
                if operation == 1 {
                    seqno = seqno.wrapping_add(u32::from(input.byte()?)).wrapping_sub(100);
                    next_offset = input.number()? * 16;
                } else {
                    seqno = seqno.wrapping_add(1);
                }
                let message = header(Kind::Vmcore, seqno, next_offset, len, 0);
                send(
                    &mut session,
                    &mut model,
                    now,
                    &[&message.encode()[..], &filler[..len]].concat(),
                );
                next_offset += len as u64;
            }
            2 => {
                let kind = if input.byte()? & 1 == 0 {
                    Kind::KernelHeader
                } else {
                    Kind::Key
                };
                let (offset, len) = (u64::from(input.byte()?) * 8, usize::from(input.byte()?));
                seqno = seqno.wrapping_add(1);
                let message = header(kind, seqno, offset, len, 0);
                send(
                    &mut session,
                    &mut model,
                    now,
                    &[&message.encode()[..], &filler[..len]].concat(),
                );
            }
            3 => {
                seqno = seqno.wrapping_add(1);
                send(
                    &mut session,
                    &mut model,
                    now,
                    &header(Kind::Finished, seqno, 0, 0, 0).encode(),
                );
            }
            4 => {
                let again = u32::from(input.byte()?);
                if !session.has_data() {
                    model.acknowledgeable.insert(again);
                }
                send(
                    &mut session,
                    &mut model,
                    now,
                    &header(Kind::Herald, again, 0, 0, aux2).encode(),
                );
            }
            5 => {
                let len = usize::from(input.byte()?).min(input.0.len());
                let (raw, rest) = input.0.split_at(len);
                input.0 = rest;
                // A whole message made of any bytes would have to be told to the model; what is cut short is none.
                if Header::parse(raw).is_err() {
                    send(&mut session, &mut model, now, raw);
                }
            }
            operation @ (6 | 7) => {
                if !model.pending.is_empty() {
                    let at = if operation == 6 { 0 } else { model.pending.len() - 1 };
                    let (ticket, seqno, start, end) = model.pending.remove(at);
                    store(&mut session, &mut model, (ticket, seqno, start, end));
                }
            }
            8 => {
                now = now + Duration::from_millis(u64::from(input.byte()?) * 50);
                session.handle_timeout(now);
            }
            9 => {
                if let Some((ticket, seqno)) = model.finishing.pop() {
                    for waiting in std::mem::take(&mut model.pending) {
                        store(&mut session, &mut model, waiting);
                    }
                    session.durable(now, ticket);
                    model.acknowledgeable.insert(seqno);
                }
            }
            10 => session = restart(&session, &mut model, limits, now),
            _ => {
                if input.byte()? == 0xff {
                    session.refuse();
                }
            }
        }
        check(&mut session, &model);
    }
}

fn send(session: &mut Session, model: &mut Model, now: Instant, datagram: &[u8]) {
    let state = session.state();
    let seqno = Header::parse(datagram).map_or(0, |(header, _)| header.seqno.0);
    match session.handle_datagram(now, datagram) {
        Ok(Accepted::Data {
            offset, bytes, ticket, ..
        }) => {
            model.pending.push((ticket, seqno, offset, offset + bytes.len() as u64));
        }
        Ok(Accepted::KernelHeader { ticket, .. } | Accepted::Key { ticket, .. }) => {
            model.pending.push((ticket, seqno, 0, 0));
        }
        Ok(Accepted::Finished { ticket }) => model.finishing.push((ticket, seqno)),
        // Answered by what was stored or made durable before.
        Ok(Accepted::Repeated) => {
            if state != SessionState::Ended {
                model.acknowledgeable.insert(seqno);
            }
        }
        Ok(Accepted::Herald) | Err(_) => {}
    }
}

fn store(session: &mut Session, model: &mut Model, (ticket, seqno, start, end): (Ticket, u32, u64, u64)) {
    let counts = !matches!(session.state(), SessionState::Lingering | SessionState::Ended);
    if session.received(ticket).is_ok() {
        model.acknowledgeable.insert(seqno);
        if counts {
            model.stored.extend(start..end);
        }
    }
}

/// Another process goes on with what is stored; what was not stored is gone, with its tickets.
fn restart(session: &Session, model: &mut Model, limits: SessionLimits, now: Instant) -> Session {
    model.pending.clear();
    model.finishing.clear();
    let copy = |extents: &Extents| {
        let mut copy = Extents::new(extents.extents_max());
        extents
            .iter()
            .for_each(|range| copy.insert(range).map(drop).expect("as many as before"));
        copy
    };
    let from = Resumed {
        point: session.resume_point(),
        data: copy(session.received_extents()),
        kernel_header: copy(session.kernel_header_extents()),
        key: copy(session.key_extents()),
        displaced: session.displaced_page(),
        begins: Vec::new(),
        is_durable: session.state() == SessionState::Lingering,
    };
    Session::resumed(limits, from, now)
}

fn check(session: &mut Session, model: &Model) {
    let mut ack = [0; 4];
    while session.poll_ack(&mut ack).is_some() {
        let seqno = u32::from_be_bytes(ack);
        assert!(
            model.acknowledgeable.contains(&seqno),
            "{seqno} is acknowledged and not stored"
        );
    }
    let mut ranges = BTreeMap::new();
    for range in session.received_extents() {
        ranges.insert(range.start, range.end);
    }
    let covered: u64 = ranges.iter().map(|(start, end)| end - start).sum();
    assert_eq!(covered, session.received_extents().covered_bytes());
    assert_eq!(
        covered,
        model.stored.len() as u64,
        "the session knows of exactly what was stored"
    );
    for (start, end) in ranges {
        assert!(model.stored.contains(&start) && model.stored.contains(&(end - 1)) && !model.stored.contains(&end));
    }
}
