//! FreeBSD guests: the message buffer out of memory.
//!
//! The buffer lies in one piece of physical memory, and directly behind its text stands what describes it (`msgbufinit` in
//! sys/kern/subr_prf.c; sys/sys/msgbuf.h). A full dump and a minidump both have those pages, so that no symbol is needed.

use crate::bytes::{u32_le, u64_le};
use crate::image::PhysicalMemory;
use crate::limits::{KERNEL_LOG_BYTES_MAX, SCAN_LEN_MAX};
use crate::memory::MemoryRange;
use crate::scan::{self, Progress};

/// `MSG_MAGIC`, as it stands in memory.
const MAGIC: [u8; 4] = 0x0006_3062_u32.to_le_bytes();
/// Its place in `struct msgbuf`, behind the pointer to the text.
const MAGIC_AT: u64 = 8;
/// The part of the structure that is looked at.
const HEAD_LEN: usize = 40;
/// The kernel keeps no shorter buffer (`MSGBUF_SIZE` is 96 KiB, one page is taken as the least).
const TEXT_LEN_MIN: u32 = 2048;
/// Kernel addresses are in the upper half.
const UPPER_HALF: u64 = 0xffff_8000_0000_0000;
/// A processor that was stopped between its two steps leaves the sum wrong by at most one character.
const SUM_OFF_MAX: u32 = 255;

/// The text of the message buffer, oldest line first, without the priorities at the beginnings of lines.
///
/// The magic number alone occurs by chance, so that the structure must make sense and its checksum be that of the text.
pub fn message_buffer<M: PhysicalMemory + ?Sized>(memory: &M, ranges: &[MemoryRange]) -> Option<String> {
    let mut found = None;
    scan::pieces(memory, ranges, SCAN_LEN_MAX, &mut |gpa, piece| {
        for at in memchr::memmem::find_iter(piece, &MAGIC) {
            let magic_gpa = gpa + at as u64;
            if magic_gpa.is_multiple_of(8)
                && let Some(text) = magic_gpa.checked_sub(MAGIC_AT).and_then(|gpa| text_before(memory, gpa))
            {
                found = Some(text);
                return Progress::Enough;
            }
        }
        Progress::GoOn
    });
    found
}

/// The text that the structure at `gpa` describes.
fn text_before<M: PhysicalMemory + ?Sized>(memory: &M, gpa: u64) -> Option<String> {
    let mut head = [0; HEAD_LEN];
    memory.read(gpa, &mut head).ok()?;
    let text_va = u64_le(&head, 0)?;
    let (len, written) = (u32_le(&head, 12)?, u32_le(&head, 16)?);
    let (sum, sequences) = (u32_le(&head, 24)?, u32_le(&head, 28)?);
    let is_sound = (TEXT_LEN_MIN..=u32::try_from(KERNEL_LOG_BYTES_MAX).ok()?).contains(&len)
        && text_va >= UPPER_HALF
        && text_va.wrapping_add(len.into()) % 4096 == gpa % 4096
        && sequences >= len
        && sequences.is_multiple_of(len)
        && written < sequences;
    if !is_sound {
        return None;
    }
    let mut text = vec![0; usize::try_from(len).ok()?];
    memory.read(gpa.checked_sub(len.into())?, &mut text).ok()?;
    let own_sum = text.iter().fold(0_u32, |sum, byte| sum.wrapping_add(u32::from(*byte)));
    let off = own_sum.wrapping_sub(sum);
    if off.min(off.wrapping_neg()) > SUM_OFF_MAX {
        return None;
    }
    text.rotate_left(usize::try_from(written % len).ok()?);
    Some(lines(&text))
}

/// The lines, without NULs and without `<6>` before them (`msgbuf_addchar`, sys/kern/subr_msgbuf.c).
fn lines(text: &[u8]) -> String {
    let text: Vec<u8> = text.iter().copied().filter(|byte| *byte != 0).collect();
    let text = String::from_utf8_lossy(&text);
    let bare = text.lines().map(|line| {
        let priority = line.strip_prefix('<').and_then(|rest| rest.split_once('>'));
        match priority {
            Some((digits, rest)) if digits.bytes().all(|byte| byte.is_ascii_digit()) => rest,
            _ => line,
        }
    });
    bare.flat_map(|line| [line, "\n"]).collect()
}
