//! Heralds that were answered and have brought no data yet, in one file of fixed places.
//!
//! A sender that heard the answer sends its data to the port that answered, and nowhere else. A receiver that takes over
//! at once therefore has to have these ports again. One place, big endian: magic, check, time (nanoseconds since 1970),
//! peer, dialled address and port, port that answered, length of the herald, herald. The file exists before any herald
//! comes and does not grow with them.

use std::io;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::sync::mpsc::{self, SyncSender};
use std::thread::{self, JoinHandle};
use std::time::{Duration, SystemTime};

use netdump::limits::HERALD_LEN_MAX;
use netdump::wire::HEADER_LEN;

use super::layout;
use crate::limits::ANSWERED_PLACES;

/// Begin of a place that is taken.
const MAGIC: u32 = 0x414e_5331;
/// What stands before the herald.
const FIXED_LEN: usize = 34;
/// A place.
const PLACE_LEN: usize = 1152;
/// Longest herald kept: header and path.
const DATAGRAM_LEN_MAX: usize = HEADER_LEN + HERALD_LEN_MAX;
const _: () = assert!(
    FIXED_LEN + DATAGRAM_LEN_MAX <= PLACE_LEN,
    "every herald fits into a place"
);

/// A herald that was answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct AnsweredHerald {
    /// Who sent it.
    pub(crate) peer: SocketAddrV4,
    /// Where to.
    pub(crate) dialled: SocketAddrV4,
    /// The port that answered.
    pub(crate) port: u16,
    /// The message as it came.
    pub(crate) datagram: Vec<u8>,
}

/// The file. A thread of its own writes it, so that a busy disk holds up no answer.
#[derive(Debug)]
pub(crate) struct Answered {
    /// Where, and what; nothing makes the place free.
    notes: Option<SyncSender<(usize, Option<Vec<u8>>)>>,
    writer: Option<JoinHandle<()>>,
}

/// Notes that wait for the disk; beyond that they are dropped, and lost with this process only.
const NOTES_WAITING_MAX: usize = ANSWERED_PLACES;

impl Answered {
    /// Opens the file and gives what an earlier receiver answered within the last `recent`; then nothing is in it.
    pub(crate) fn open(root: &Path, recent: Duration) -> io::Result<(Self, Vec<AnsweredHerald>)> {
        let path = root.join(layout::RESUME).join(layout::ANSWERED);
        let file = layout::kept_file(&path)?;
        let mut found = Vec::new();
        let mut bytes = [0; PLACE_LEN];
        for place in 0..ANSWERED_PLACES {
            let len = file.read_at(&mut bytes, place_at(place))?;
            found.extend(parse(bytes.get(..len).unwrap_or_default(), SystemTime::now(), recent));
        }
        file.set_len(0)?;
        let (notes, waiting) = mpsc::sync_channel::<(usize, Option<Vec<u8>>)>(NOTES_WAITING_MAX);
        let write = move || {
            for (place, bytes) in waiting {
                let _ = file.write_all_at(bytes.as_deref().unwrap_or(&[0; 4]), place_at(place));
            }
        };
        let writer = thread::Builder::new().name("answered".to_owned()).spawn(write)?;
        let answered = Self {
            notes: Some(notes),
            writer: Some(writer),
        };
        Ok((answered, found))
    }

    /// Writes a herald down in a place. What cannot be written is lost with this process only, and is no error.
    pub(crate) fn note(&self, place: usize, herald: &AnsweredHerald) {
        if let (Some(bytes), Some(notes)) = (encode(herald, SystemTime::now()), &self.notes) {
            let _ = notes.try_send((place, Some(bytes)));
        }
    }

    /// Makes a place free.
    pub(crate) fn clear(&self, place: usize) {
        let _ = self.notes.as_ref().map(|notes| notes.try_send((place, None)));
    }
}

impl Drop for Answered {
    fn drop(&mut self) {
        drop(self.notes.take());
        let _ = self.writer.take().map(JoinHandle::join);
    }
}

fn place_at(place: usize) -> u64 {
    u64::try_from(place % ANSWERED_PLACES * PLACE_LEN).unwrap_or(0)
}

/// A place's bytes; none for a herald that is longer than any that is taken.
fn encode(herald: &AnsweredHerald, now: SystemTime) -> Option<Vec<u8>> {
    let len = u16::try_from(herald.datagram.len()).ok()?;
    if herald.datagram.len() > DATAGRAM_LEN_MAX {
        return None;
    }
    let nanos = now
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap_or_default()
        .as_nanos();
    let mut rest = Vec::with_capacity(PLACE_LEN);
    rest.extend_from_slice(&u64::try_from(nanos).unwrap_or(u64::MAX).to_be_bytes());
    for address in [herald.peer, herald.dialled] {
        rest.extend_from_slice(&address.ip().octets());
        rest.extend_from_slice(&address.port().to_be_bytes());
    }
    rest.extend_from_slice(&herald.port.to_be_bytes());
    rest.extend_from_slice(&len.to_be_bytes());
    rest.resize(FIXED_LEN - 8, 0);
    rest.extend_from_slice(&herald.datagram);
    Some([&MAGIC.to_be_bytes()[..], &check(&rest).to_be_bytes(), &rest].concat())
}

/// What stands in a place, if it is whole and no older than `recent`.
pub(crate) fn parse(bytes: &[u8], now: SystemTime, recent: Duration) -> Option<AnsweredHerald> {
    let (head, rest) = bytes.split_at_checked(8)?;
    let (fixed, datagram) = rest.split_at_checked(FIXED_LEN - 8)?;
    let number = |bytes: &[u8]| bytes.iter().fold(0_u64, |number, byte| number << 8 | u64::from(*byte));
    let at = |from: usize, to: usize| fixed.get(from..to).map_or(0, number);
    let address = |from: usize| {
        let ip = u32::try_from(at(from, from + 4)).unwrap_or(0);
        let port = u16::try_from(at(from + 4, from + 6)).unwrap_or(0);
        SocketAddrV4::new(Ipv4Addr::from_bits(ip), port)
    };
    let len = usize::try_from(at(22, 24)).ok()?;
    let datagram = datagram.get(..len)?;
    let whole = rest.get(..FIXED_LEN - 8 + len)?;
    if number(head) != u64::from(MAGIC) << 32 | u64::from(check(whole)) {
        return None;
    }
    let written_at = SystemTime::UNIX_EPOCH + Duration::from_nanos(at(0, 8));
    let age = now.duration_since(written_at).unwrap_or_default();
    (age < recent).then(|| AnsweredHerald {
        peer: address(8),
        dialled: address(14),
        port: u16::try_from(at(20, 22)).unwrap_or(0),
        datagram: datagram.to_vec(),
    })
}

/// A check against a place that was half written (FNV-1a, 32 bits).
fn check(bytes: &[u8]) -> u32 {
    bytes.iter().fold(0x811c_9dc5, |sum, byte| {
        (sum ^ u32::from(*byte)).wrapping_mul(0x0100_0193)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const RECENT: Duration = Duration::from_secs(15);

    fn herald(port: u16) -> AnsweredHerald {
        AnsweredHerald {
            peer: "192.0.2.7:20024".parse().unwrap(),
            dialled: "192.0.2.1:20023".parse().unwrap(),
            port,
            datagram: vec![7; DATAGRAM_LEN_MAX],
        }
    }

    #[test]
    fn what_was_noted_and_not_cleared_is_found_once() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join(layout::RESUME)).unwrap();
        let (answered, found) = Answered::open(dir.path(), RECENT).unwrap();
        assert_eq!(found, []);
        for place in 0..4_u16 {
            answered.note(usize::from(place) + ANSWERED_PLACES - 2, &herald(40_000 + place));
        }
        answered.clear(1);
        drop(answered);
        let (_, mut found) = Answered::open(dir.path(), RECENT).unwrap();
        found.sort_by_key(|herald| herald.port);
        assert_eq!(found, [herald(40_000), herald(40_001), herald(40_002)]);
        assert_eq!(Answered::open(dir.path(), RECENT).unwrap().1, []);
    }

    #[test]
    fn what_is_old_or_damaged_does_not_count() {
        let now = SystemTime::now();
        let bytes = encode(&herald(1), now).unwrap();
        assert_eq!(parse(&bytes, now, RECENT), Some(herald(1)));
        assert_eq!(parse(&bytes, now + RECENT, RECENT), None);
        for at in 0..bytes.len() {
            let mut damaged = bytes.clone();
            damaged[at] ^= 1;
            let is_padding = (32..FIXED_LEN).contains(&at);
            assert!(parse(&damaged, now, RECENT).is_none() || is_padding, "byte {at}");
        }
        assert!((0..bytes.len()).all(|len| parse(&bytes[..len], now, RECENT).is_none()));
    }
}
