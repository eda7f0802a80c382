//! The ring of Linux 5.10 and later where nothing says where it is: the image's data is searched for something that has its form,
//! and what has it is read; of several the one with the most records is the log. Before `log_buf_len=` takes effect a kernel uses
//! a small ring, which stays in memory.

use super::KernelLog;
use super::ring::{self, Fields, Heads};
use crate::bytes::{u32_le, u64_le};
use crate::image::PhysicalMemory;
use crate::linux::place::KernelPlace;
use crate::linux::space::KernelSpace;

/// How much of the image is looked at at once.
const PIECE_LEN: u64 = 256 << 10;
/// Longest form of the ring's head, which may cross the end of a piece.
const HEAD_LEN: u64 = 64;
/// Where the text's part begins: since 5.18 a last finalized record stands before it.
const TEXT_RINGS: [u64; 2] = [48, 40];
/// Things of a ring's form that are read. A kernel has two; a hostile one has as many as it likes.
const READ_MAX: u32 = 64;
/// Kernel addresses are in the upper half.
const UPPER_HALF: u64 = 0xffff_8000_0000_0000;
/// Powers of two of descriptors and of text bytes, at least and at most (CONFIG_LOG_BUF_SHIFT is 12 to 25; a descriptor for
/// each 32 bytes of text).
const BITS: std::ops::RangeInclusive<u32> = 5..=25;

/// The log with the most records.
pub(super) fn search<M: PhysicalMemory>(space: &KernelSpace<M>, place: &KernelPlace) -> Option<KernelLog> {
    let mut best: Option<KernelLog> = None;
    let mut read = 0;
    for at in (0..place.image_len_bytes).step_by(usize::try_from(PIECE_LEN).ok()?) {
        let va = place.image_va.checked_add(at)?;
        let len = usize::try_from(PIECE_LEN + HEAD_LEN).ok()?;
        let Ok(piece) = space.copy(va, len) else { continue };
        for offset in (0..usize::try_from(PIECE_LEN).ok()?).step_by(8) {
            let Some(head) = piece.get(offset, usize::try_from(HEAD_LEN).ok()?) else {
                continue;
            };
            for text_ring in TEXT_RINGS {
                if read < READ_MAX && has_form(head, text_ring).is_some() {
                    read += 1;
                    let heads = Heads::usual(text_ring);
                    let Ok(log) = ring::read_at(space, va + offset as u64, heads, Fields::USUAL) else {
                        continue;
                    };
                    // A wrong form gives nothing but nonsense.
                    let is_sound = log.records.len() as u64 > log.unreadable_records;
                    let is_longer = best.as_ref().is_none_or(|best| log.records.len() > best.records.len());
                    if is_sound && is_longer {
                        best = Some(log);
                    }
                }
            }
        }
    }
    best
}

/// Whether the bytes may be the head of a ring whose text's part begins there.
fn has_form(head: &[u8], text_ring: u64) -> Option<()> {
    let word = |at: usize| u64_le(head, at);
    let is_array = |va: &u64| *va >= UPPER_HALF && va.is_multiple_of(8);
    let count_bits = u32_le(head, 0).filter(|bits| BITS.contains(bits))?;
    word(8).filter(is_array)?;
    word(16).filter(is_array)?;
    let (head_id, tail_id) = (word(24)?, word(32)?);
    let used = head_id.wrapping_sub(tail_id) & (u64::MAX >> 2);
    if head_id >> 62 != 0 || tail_id >> 62 != 0 || used >= 1 << count_bits {
        return None;
    }
    let text_ring = usize::try_from(text_ring).ok()?;
    u32_le(head, text_ring).filter(|bits| BITS.contains(bits) && *bits > count_bits)?;
    word(text_ring + 8).filter(|va| *va >= UPPER_HALF)?;
    Some(())
}
