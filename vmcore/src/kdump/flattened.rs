//! The flattened form, for outputs that cannot seek: a header, then records of {offset, length, bytes} in any order, then an end
//! record (makedumpfile, makedumpfile.h: `struct makedumpfile_header`, `struct makedumpfile_data_header`; all big-endian).

use crate::bytes::{Writer, slice, u64_be};

/// First bytes of the file.
pub(crate) const SIGNATURE: [u8; 16] = *b"makedumpfile\0\0\0\0";
/// Length of the header.
pub(crate) const HEADER_LEN: u64 = 4096;
/// Length of a record without its bytes.
pub(crate) const RECORD_HEADER_LEN: u64 = 16;

/// The file's first bytes.
#[must_use]
pub fn header() -> Vec<u8> {
    let mut out = Writer::with_capacity(4096);
    out.bytes(&SIGNATURE);
    out.u64_be(1); // type: flattened
    out.u64_be(1); // version
    out.fill_to(4096, 0);
    out.into_vec()
}

/// What stands in front of a record's bytes.
#[must_use]
pub fn record_header(file_offset: u64, len_bytes: u64) -> [u8; 16] {
    (u128::from(file_offset) << 64 | u128::from(len_bytes)).to_be_bytes()
}

/// The record behind the last one.
#[must_use]
pub const fn end() -> [u8; 16] {
    [0xff; 16]
}

/// Whether a file begins as flattened ones do.
#[must_use]
pub fn is_flattened(start: &[u8]) -> bool {
    start.starts_with(&SIGNATURE)
}

/// Offset and length of the record whose header this is; nothing for the end record.
#[must_use]
pub(crate) fn parse_record(header: &[u8]) -> Option<(u64, u64)> {
    let (offset, len) = (u64_be(header, 0)?, u64_be(header, 8)?);
    let is_end = slice(header, 0, 16)? == end();
    (!is_end).then_some((offset, len))
}
