//! The ring buffer of Linux 5.10 and later: descriptors, an `info` beside each, and a ring of text blocks.

use super::{Described, KernelLog, LogError, LogRecord, absent};
use crate::bytes::{u16_le, u64_le};
use crate::image::PhysicalMemory;
use crate::limits::KERNEL_LOG_BYTES_MAX;
use crate::linux::space::{Copied, KernelSpace};

/// Descriptor identifiers are 62 bits wide; the two bits above are the state (`DESC_ID_MASK`).
const ID_MASK: u64 = u64::MAX >> 2;
/// Written, may still be extended (`desc_committed`).
const COMMITTED: u64 = 1;
/// Written and closed (`desc_finalized`).
const FINALIZED: u64 = 2;
/// A text block begins with the identifier of its descriptor (`struct prb_data_block`).
const BLOCK_HEAD_LEN: u64 = 8;

/// Where the fields of the structures are.
#[derive(Debug, Clone, Copy)]
pub(super) struct Fields {
    desc_len: usize,
    state: usize,
    text_begin: usize,
    text_next: usize,
    info_len: usize,
    time: usize,
    text_len: usize,
}

/// The ring, copied out of the guest.
#[derive(Debug)]
struct Ring {
    fields: Fields,
    descs: Copied,
    infos: Copied,
    text: Copied,
    /// Descriptors, a power of two.
    count: u64,
}

/// Where the fields of the ring's own structure are (`struct printk_ringbuffer`).
#[derive(Debug, Clone, Copy)]
pub(super) struct Heads {
    count_bits: u64,
    descs: u64,
    infos: u64,
    head_id: u64,
    tail_id: u64,
    size_bits: u64,
    data: u64,
}

/// Reads the log at `SYMBOL(prb)`.
pub(super) fn read<M: PhysicalMemory>(space: &KernelSpace<M>, vmcoreinfo: &[u8]) -> Result<KernelLog, LogError> {
    let described = Described(vmcoreinfo);
    let prb = space
        .read_u64(described.symbol("prb")?)
        .map_err(absent("pointer to the ring"))?;
    read_at(space, prb, Heads::described(described)?, Fields::described(described)?)
}

/// Reads the ring at this address.
pub(super) fn read_at<M: PhysicalMemory>(
    space: &KernelSpace<M>,
    prb: u64,
    heads: Heads,
    fields: Fields,
) -> Result<KernelLog, LogError> {
    let word = |offset: u64| space.read_u64(prb.wrapping_add(offset)).map_err(absent("ring head"));
    let bits = |offset: u64| space.read_u32(prb.wrapping_add(offset)).map_err(absent("ring head"));
    let count = power_of_two("number of descriptors", bits(heads.count_bits)?)?;
    let text_len = power_of_two("text ring", bits(heads.size_bits)?)?;
    let copy = |part, va, unit: usize, count: u64| copy(space, part, va, unit, count);
    let ring = Ring {
        descs: copy("descriptors", word(heads.descs)?, fields.desc_len, count)?,
        infos: copy("records", word(heads.infos)?, fields.info_len, count)?,
        text: copy("text ring", word(heads.data)?, 1, text_len)?,
        fields,
        count,
    };
    Ok(ring.log(word(heads.tail_id)? & ID_MASK, word(heads.head_id)? & ID_MASK))
}

impl Heads {
    fn described(described: Described<'_>) -> Result<Self, LogError> {
        let at = |outer: &str, inner: &str| -> Result<u64, LogError> {
            Ok((described.offset(outer)? + described.offset(inner)?) as u64)
        };
        let desc_ring = |field: &str| at("printk_ringbuffer.desc_ring", &format!("prb_desc_ring.{field}"));
        let data_ring = |field: &str| at("printk_ringbuffer.text_data_ring", &format!("prb_data_ring.{field}"));
        let counter = described.offset("atomic_long_t.counter")? as u64;
        Ok(Self {
            count_bits: desc_ring("count_bits")?,
            descs: desc_ring("descs")?,
            infos: desc_ring("infos")?,
            head_id: desc_ring("head_id")? + counter,
            tail_id: desc_ring("tail_id")? + counter,
            size_bits: data_ring("size_bits")?,
            data: data_ring("data")?,
        })
    }

    /// As every kernel of x86-64 has had them so far, but for where the text's part begins.
    pub(super) const fn usual(text_ring: u64) -> Self {
        Self {
            count_bits: 0,
            descs: 8,
            infos: 16,
            head_id: 24,
            tail_id: 32,
            size_bits: text_ring,
            data: text_ring + 8,
        }
    }
}

impl Fields {
    /// As every kernel of x86-64 has had them so far (`struct prb_desc`, `struct printk_info`).
    pub(super) const USUAL: Self = Self {
        desc_len: 24,
        state: 0,
        text_begin: 8,
        text_next: 16,
        info_len: 88,
        time: 8,
        text_len: 16,
    };

    fn described(described: Described<'_>) -> Result<Self, LogError> {
        let text_blk = described.offset("prb_desc.text_blk_lpos")?;
        Ok(Self {
            desc_len: described.size("prb_desc")?,
            state: described.offset("prb_desc.state_var")? + described.offset("atomic_long_t.counter")?,
            text_begin: text_blk + described.offset("prb_data_blk_lpos.begin")?,
            text_next: text_blk + described.offset("prb_data_blk_lpos.next")?,
            info_len: described.size("printk_info")?,
            time: described.offset("printk_info.ts_nsec")?,
            text_len: described.offset("printk_info.text_len")?,
        })
    }
}

impl Ring {
    /// The records from the oldest descriptor to the newest.
    fn log(&self, tail_id: u64, head_id: u64) -> KernelLog {
        let mut log = KernelLog::default();
        let mut room = self.text.len_bytes();
        let used = (head_id.wrapping_sub(tail_id) & ID_MASK).min(self.count - 1);
        for step in 0..=used {
            let id = tail_id.wrapping_add(step) & ID_MASK;
            match self.descriptor(id) {
                None => log.push(None, &mut room),
                // Another state: reserved for a writer that died with the guest, or given back. There is no record in it.
                Some(descriptor) => {
                    if let Some(COMMITTED | FINALIZED) = self.state(descriptor, id) {
                        log.push(self.record(id), &mut room);
                    }
                }
            }
        }
        log
    }

    /// The state of a descriptor, if the place belongs to `id`.
    fn state(&self, descriptor: &[u8], id: u64) -> Option<u64> {
        let state = u64_le(descriptor, self.fields.state)?;
        (state & ID_MASK == id).then_some(state >> 62)
    }

    fn record(&self, id: u64) -> Option<LogRecord> {
        let info = part(&self.infos, id % self.count, self.fields.info_len)?;
        let text_len = u16_le(info, self.fields.text_len)?;
        Some(LogRecord {
            time_ns: u64_le(info, self.fields.time)?,
            text: self.text(id, text_len.into())?.to_vec(),
        })
    }

    /// The text block of descriptor `id`, cut to `text_len` bytes.
    fn text(&self, id: u64, text_len: u64) -> Option<&[u8]> {
        let descriptor = self.descriptor(id)?;
        let begin = u64_le(descriptor, self.fields.text_begin)?;
        let next = u64_le(descriptor, self.fields.text_next)?;
        if begin & 1 == 1 {
            // Odd positions are no positions (`NO_LPOS`, `FAILED_LPOS`): a record without text.
            return (text_len == 0).then_some(&[]);
        }
        let ring_len = self.text.len_bytes() as u64;
        let (mut first, mut end) = (begin % ring_len, next % ring_len);
        if end == 0 {
            end = ring_len;
        } else if first > end {
            // A block is never split: one that would pass the end of the ring starts at its beginning.
            first = 0;
        }
        let room = end.checked_sub(first)?.checked_sub(BLOCK_HEAD_LEN)?;
        let at = usize::try_from(first + BLOCK_HEAD_LEN).ok()?;
        self.text.get(at, usize::try_from(text_len.min(room)).ok()?)
    }

    fn descriptor(&self, id: u64) -> Option<&[u8]> {
        part(&self.descs, id % self.count, self.fields.desc_len)
    }
}

/// Element `index` of an array of structures of `len` bytes.
fn part(bytes: &Copied, index: u64, len: usize) -> Option<&[u8]> {
    bytes.get(usize::try_from(index).ok()?.checked_mul(len)?, len)
}

/// Two to the power of a `*_bits` field.
fn power_of_two(part: &'static str, bits: u32) -> Result<u64, LogError> {
    let value = 1_u64
        .checked_shl(bits)
        .filter(|value| *value <= KERNEL_LOG_BYTES_MAX as u64);
    value.ok_or_else(|| LogError::BadValue {
        part,
        value: bits.into(),
    })
}

/// Copies an array out of the guest; of a partial core as much as is there.
fn copy<M: PhysicalMemory>(
    space: &KernelSpace<M>,
    part: &'static str,
    va: u64,
    unit: usize,
    count: u64,
) -> Result<Copied, LogError> {
    let len = usize::try_from(count).ok().and_then(|count| count.checked_mul(unit));
    let len = len
        .filter(|len| *len <= KERNEL_LOG_BYTES_MAX)
        .ok_or(LogError::BadValue { part, value: count })?;
    space.copy(va, len).map_err(absent(part))
}
