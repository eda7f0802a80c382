//! Another writer's ELF core laid out as ours: which bytes of it make which bytes of the new file.
//!
//! Ranges may overlap (/proc/vmcore maps kernel text twice), be unsorted or end within a page. The plan covers every page
//! that any of them touches, once.

use crate::elf::{Layout, LayoutError};
use crate::limits::PAGE_LEN;
use crate::memory::MemoryRange;
use crate::reader::{CoreHead, LoadSegment};
use std::ops::Range;

/// A plan to copy one core's memory into our layout.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rewrite {
    layout: Layout,
    pieces: Vec<Piece>,
}

/// Bytes of the new file and where they stand in the old one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Piece {
    /// Where the bytes go.
    pub file_offset: u64,
    /// Where they come from.
    pub source_offset: u64,
    /// How many.
    pub len_bytes: u64,
}

impl Rewrite {
    /// Plans the copy of a core with so many vCPUs.
    ///
    /// # Errors
    /// [`LayoutError`] if its memory does not make a layout.
    pub fn new(head: &CoreHead, vcpus: usize) -> Result<Self, LayoutError> {
        let mut loads: Vec<_> = head
            .loads
            .iter()
            .filter(|load| load.memory_len_bytes > 0)
            .copied()
            .collect();
        loads.sort_by_key(|load| (load.gpa, load.file_offset));
        let ranges = page_ranges(&loads)?;
        let layout = Layout::new(&ranges, vcpus)?;
        let pieces = pieces(&layout, &loads);
        Ok(Self { layout, pieces })
    }

    /// Layout of the new file.
    #[must_use]
    pub const fn layout(&self) -> &Layout {
        &self.layout
    }

    /// What to copy, in file order, without overlaps; memory between the pieces is zero.
    #[must_use]
    pub fn pieces(&self) -> &[Piece] {
        &self.pieces
    }

    /// Fills `buffer` with the new file's bytes from `file_offset` on, memory only; `read` reads the old file.
    ///
    /// # Errors
    /// The first error of `read`.
    pub fn read_memory<E>(
        &self,
        file_offset: u64,
        buffer: &mut [u8],
        mut read: impl FnMut(u64, &mut [u8]) -> Result<(), E>,
    ) -> Result<(), E> {
        buffer.fill(0);
        let end = file_offset.saturating_add(buffer.len() as u64);
        let first = self
            .pieces
            .partition_point(|piece| piece.file_offset + piece.len_bytes <= file_offset);
        for piece in self
            .pieces
            .iter()
            .skip(first)
            .take_while(|piece| piece.file_offset < end)
        {
            let from = piece.file_offset.max(file_offset);
            let to = (piece.file_offset + piece.len_bytes).min(end);
            if let Some(part) = part_of(buffer, from - file_offset..to - file_offset) {
                read(piece.source_offset + (from - piece.file_offset), part)?;
            }
        }
        Ok(())
    }
}

fn part_of(buffer: &mut [u8], range: Range<u64>) -> Option<&mut [u8]> {
    buffer.get_mut(usize::try_from(range.start).ok()?..usize::try_from(range.end).ok()?)
}

/// Sorted segments as disjoint ranges of whole pages; what touches becomes one range.
fn page_ranges(loads: &[LoadSegment]) -> Result<Vec<MemoryRange>, LayoutError> {
    let mut ranges: Vec<MemoryRange> = Vec::new();
    for load in loads {
        let bad = LayoutError::BadRange {
            gpa: load.gpa,
            len_bytes: load.memory_len_bytes,
        };
        let start = load.gpa - load.gpa % PAGE_LEN;
        let end = load
            .gpa
            .checked_add(load.memory_len_bytes)
            .and_then(|end| end.checked_next_multiple_of(PAGE_LEN));
        let end = end.ok_or(bad)?;
        match ranges.last_mut() {
            Some(last) if last.gpa + last.len_bytes >= start => {
                last.len_bytes = last.len_bytes.max(end - last.gpa);
            }
            _ => ranges.push(MemoryRange {
                gpa: start,
                len_bytes: end - start,
            }),
        }
    }
    Ok(ranges)
}

/// The file part of each segment as far as no earlier one covers it.
fn pieces(layout: &Layout, loads: &[LoadSegment]) -> Vec<Piece> {
    let mut pieces = Vec::with_capacity(loads.len());
    let mut covered_gpa = 0;
    for load in loads {
        let len_bytes = load.file_len_bytes.min(load.memory_len_bytes);
        // A segment whose place in the file passes the end of all files holds nothing.
        let Some(source_end) = load.file_offset.checked_add(len_bytes) else {
            continue;
        };
        // No overflow: the ranges that the layout took contain the segment.
        let (start, end) = (load.gpa.max(covered_gpa), load.gpa + len_bytes);
        if let (Some(file_offset), true) = (layout.file_offset_of(start), start < end) {
            pieces.push(Piece {
                file_offset,
                source_offset: source_end - (end - start),
                len_bytes: end - start,
            });
            covered_gpa = end;
        }
    }
    pieces
}
