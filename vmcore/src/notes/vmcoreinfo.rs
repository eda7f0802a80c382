//! VMCOREINFO: the text in which a Linux kernel describes itself to dump tools (Linux kernel documentation,
//! admin-guide/kdump/vmcoreinfo.rst).
//!
//! A running kernel keeps it in RAM as a complete ELF note at a page boundary, so [`at_page`] finds it without the guest's
//! help. The content is the guest's: it is bounded here and must never steer the host.

use super::NOTE_HEADER_LEN;
use crate::bytes::{slice, u32_le};
use crate::limits::VMCOREINFO_LEN_MAX;

/// Name of the note, without its NUL.
pub const NAME: &[u8] = b"VMCOREINFO";
/// Type of the note.
pub const TYPE: u32 = 0;

/// First line of every VMCOREINFO text; tells the note from a copy of its name.
const FIRST_KEY: &[u8] = b"OSRELEASE=";

/// Where the text starts within the note: header, then the name with NUL, padded to four.
const TEXT_AT: usize = NOTE_HEADER_LEN + 12;

/// How many bytes of memory must be looked at, from the page boundary on, to see the longest note.
pub const NOTE_LEN_MAX: usize = TEXT_AT + VMCOREINFO_LEN_MAX;

/// The VMCOREINFO text if a note starts at the first byte of `bytes`, which are memory from a page boundary on.
///
/// Call with one page to test; if it returns [`NoteAtPage::Longer`], with so many bytes again.
#[must_use]
pub fn at_page(bytes: &[u8]) -> NoteAtPage<'_> {
    text_at_page(bytes).unwrap_or(NoteAtPage::No)
}

/// What [`at_page`] saw.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NoteAtPage<'a> {
    /// No VMCOREINFO note starts here.
    No,
    /// A note starts here; this many bytes must be given to read it.
    Longer(usize),
    /// The text of the note.
    Text(&'a [u8]),
}

fn text_at_page(bytes: &[u8]) -> Option<NoteAtPage<'_>> {
    // The name is the rarest part, so it is compared first: the scan touches every page.
    if slice(bytes, NOTE_HEADER_LEN, NAME.len())? != NAME {
        return None;
    }
    let name_len = u32_le(bytes, 0)?;
    let text_len = usize::try_from(u32_le(bytes, 4)?).ok()?;
    let is_note = name_len == 11 && u32_le(bytes, 8)? == TYPE && (1..=VMCOREINFO_LEN_MAX).contains(&text_len);
    if !is_note || !slice(bytes, TEXT_AT, FIRST_KEY.len())?.starts_with(FIRST_KEY) {
        return None;
    }
    Some(slice(bytes, TEXT_AT, text_len).map_or(NoteAtPage::Longer(TEXT_AT + text_len), NoteAtPage::Text))
}

/// The value of `KEY=value` in a VMCOREINFO text, such as `OSRELEASE`, `KERNELOFFSET` or `NUMBER(phys_base)`.
#[must_use]
pub fn value<'a>(text: &'a [u8], key: &str) -> Option<&'a str> {
    let line = text
        .split(|&b| b == b'\n')
        .find_map(|line| line.strip_prefix(key.as_bytes())?.strip_prefix(b"="))?;
    str::from_utf8(line).ok()
}

/// `NUMBER(phys_base)`, signed decimal on x86: physical address of the kernel minus its place in `__START_KERNEL_map`.
#[must_use]
pub fn phys_base(text: &[u8]) -> Option<i64> {
    value(text, "NUMBER(phys_base)")?.parse().ok()
}

/// `KERNELOFFSET`, hexadecimal: how far KASLR moved the kernel's virtual addresses.
#[must_use]
pub fn kernel_offset(text: &[u8]) -> Option<u64> {
    u64::from_str_radix(value(text, "KERNELOFFSET")?, 16).ok()
}

/// `SYMBOL(name)`, hexadecimal: a kernel virtual address, KASLR included.
#[must_use]
pub fn symbol(text: &[u8], name: &str) -> Option<u64> {
    u64::from_str_radix(value(text, &format!("SYMBOL({name})"))?, 16).ok()
}
