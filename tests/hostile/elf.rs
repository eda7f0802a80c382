//! The head of an ELF core by hand: any segments, and any notes.

use vmcore::PAGE_LEN;

/// A piece of memory: where, how much of it the file has, and how much there is.
pub(crate) type Segment = (u64, u64, u64);

/// The file's first bytes, in whole pages; behind them the segments follow one another.
pub(crate) fn head(segments: &[Segment], notes: &[u8]) -> Vec<u8> {
    let mut file = b"\x7fELF\x02\x01\x01".to_vec();
    file.resize(16, 0);
    file.extend([4, 0, 62, 0, 1, 0, 0, 0]);
    file.extend([0; 8]);
    file.extend(64_u64.to_le_bytes());
    file.extend([0; 12]);
    let count = segments.len() + 1;
    for value in [64, 56, u16::try_from(count).expect("they fit"), 0, 0, 0] {
        file.extend(value.to_le_bytes());
    }
    let notes_at = 64 + 56 * count as u64;
    let notes_len = notes.len() as u64;
    // PT_NOTE, then PT_LOADs (elf(5)).
    for value in [4, notes_at, 0, 0, notes_len, notes_len, 4] {
        file.extend(value.to_le_bytes());
    }
    let mut at = (notes_at + notes_len).next_multiple_of(PAGE_LEN);
    for (gpa, file_len, memory_len) in segments {
        for value in [1 | 7 << 32, at, 0, *gpa, *file_len, *memory_len, PAGE_LEN] {
            file.extend(value.to_le_bytes());
        }
        at += file_len;
    }
    file.extend(notes);
    file.resize(file.len().next_multiple_of(4096), 0);
    file
}

/// A note.
pub(crate) fn note(name: &[u8], kind: u32, descriptor: &[u8]) -> Vec<u8> {
    let len = |bytes: &[u8]| u32::try_from(bytes.len()).expect("it is short").to_le_bytes();
    let name = [name, &[0]].concat();
    let mut note = [len(&name), len(descriptor), kind.to_le_bytes()].concat();
    for part in [&name, descriptor] {
        note.extend(part);
        note.resize(note.len().next_multiple_of(4), 0);
    }
    note
}
