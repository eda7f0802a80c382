//! The records of a journal: 32 bytes, big endian, with a check.

use netdump::{ResumePoint, Seqno};

/// `kind` of a record that names received bytes.
pub(super) const KIND_RECEIVED: u32 = 0x5256_4431;
/// `kind` of a record that takes received bytes back.
pub(super) const KIND_FORGOTTEN: u32 = 0x4647_5431;
/// `kind` of a record that says everything before it is on the disk.
pub(super) const KIND_SYNC: u32 = 0x5359_4e31;
/// `kind` of a record that names received bytes of the kernel dump header.
pub(super) const KIND_KERNEL_HEADER: u32 = 0x4b44_4831;
/// `kind` of a record that names received bytes of the key.
pub(super) const KIND_KEY: u32 = 0x4b45_5931;
/// `kind` of the record that says where the sender is in its bursts.
const KIND_POINT: u32 = 0x5054_3131;
/// In that record: the file offset of the burst is not known.
const NO_ORIGIN: u64 = u64::MAX;
/// In that record: acknowledgements are held.
const FLAG_PAIRING: u64 = 1;
/// In that record: the number of the burst's first packet is certain.
const FLAG_CERTAIN: u64 = 2;
/// Length of a record; a page is a multiple of it.
pub(super) const RECORD_LEN: usize = 32;
/// The same in a file.
pub(super) const RECORD_BYTES: u64 = RECORD_LEN as u64;

/// A record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Record {
    pub(super) kind: u32,
    pub(super) words: [u64; 3],
}

/// One record as bytes.
pub(super) fn record(kind: u32, words: [u64; 3]) -> [u8; RECORD_LEN] {
    let [first, second, third] = words;
    let mut bytes = [0; RECORD_LEN];
    bytes[..4].copy_from_slice(&kind.to_be_bytes());
    bytes[4..8].copy_from_slice(&check(kind, words).to_be_bytes());
    bytes[8..16].copy_from_slice(&first.to_be_bytes());
    bytes[16..24].copy_from_slice(&second.to_be_bytes());
    bytes[24..].copy_from_slice(&third.to_be_bytes());
    bytes
}

/// A record from bytes, if its check holds.
pub(super) fn parse_record(bytes: &[u8]) -> Option<Record> {
    let word = |at: usize| Some(u64::from_be_bytes(bytes.get(at..at + 8)?.try_into().ok()?));
    let kind = u32::from_be_bytes(bytes.get(..4)?.try_into().ok()?);
    let sum = u32::from_be_bytes(bytes.get(4..8)?.try_into().ok()?);
    let words = [word(8)?, word(16)?, word(24)?];
    (sum == check(kind, words)).then_some(Record { kind, words })
}

/// The record of the sender's place.
pub(super) fn point_record(point: ResumePoint) -> [u8; RECORD_LEN] {
    let ResumePoint {
        start,
        largest_len,
        origin,
        start_is_certain,
        is_pairing,
    } = point;
    let flags = u64::from(is_pairing) * FLAG_PAIRING + u64::from(start_is_certain) * FLAG_CERTAIN;
    let numbers = u64::from(start.0) << 32 | u64::from(largest_len);
    record(KIND_POINT, [numbers, origin.unwrap_or(NO_ORIGIN), flags])
}

/// The sender's place from its record.
pub(super) fn point_from(record: Record) -> Option<ResumePoint> {
    let [numbers, origin, flags] = record.words;
    let start = u32::try_from(numbers >> 32).ok()?;
    let largest_len = u32::try_from(numbers & u64::from(u32::MAX)).ok()?;
    (record.kind == KIND_POINT).then_some(ResumePoint {
        start: Seqno(start),
        largest_len,
        origin: Some(origin).filter(|origin| *origin != NO_ORIGIN),
        start_is_certain: flags & FLAG_CERTAIN != 0,
        is_pairing: flags & FLAG_PAIRING != 0,
    })
}

/// A check against records that are none (FNV-1a, 32 bits); it guards against accidents, not against people.
fn check(kind: u32, words: [u64; 3]) -> u32 {
    let words = words.into_iter().flat_map(u64::to_be_bytes);
    let bytes = kind.to_be_bytes().into_iter().chain(words);
    bytes.fold(0x811c_9dc5, |sum, byte| {
        (sum ^ u32::from(byte)).wrapping_mul(0x0100_0193)
    })
}
