//! Notes of ELF64 executables (ELF-64 Object File Format, version 1.5, "Note section").

use super::bytes_at;

// Offsets in the file header and in a program header.
const E_PHOFF: usize = 32;
const E_PHENTSIZE: usize = 54;
const E_PHNUM: usize = 56;
const P_OFFSET: usize = 8;
const P_FILESZ: usize = 32;
const PT_NOTE: u32 = 4;
/// Lengths of owner and descriptor, type.
const HEAD_LEN: usize = 12;

/// Whether a `PT_NOTE` segment holds a note of this owner (with its NUL) and type.
pub(super) fn has(image: &[u8], owner: &[u8], kind: u32) -> bool {
    segments(image).any(|notes| has_note(notes, owner, kind))
}

/// The bytes of all note segments.
fn segments(image: &[u8]) -> impl Iterator<Item = &[u8]> {
    let short = |at| bytes_at(image, at).map_or(0, u16::from_le_bytes);
    let table = bytes_at(image, E_PHOFF)
        .map(u64::from_le_bytes)
        .and_then(|at| usize::try_from(at).ok());
    let (entry_len, entries) = (usize::from(short(E_PHENTSIZE)), usize::from(short(E_PHNUM)));
    (0..entries).filter_map(move |index| {
        let header = image.get(table?.checked_add(index * entry_len)?..)?;
        if bytes_at(header, 0).map(u32::from_le_bytes) != Some(PT_NOTE) {
            return None;
        }
        let long = |at| usize::try_from(bytes_at(header, at).map(u64::from_le_bytes)?).ok();
        image.get(long(P_OFFSET)?..)?.get(..long(P_FILESZ)?)
    })
}

fn has_note(mut notes: &[u8], owner: &[u8], kind: u32) -> bool {
    let word = |bytes: &[u8], at| bytes_at(bytes, at).map(u32::from_le_bytes);
    let padded = |len: u32| usize::try_from(len).ok()?.checked_next_multiple_of(4);
    // Each turn takes at least a head, so a hostile file costs no more turns than it has bytes.
    while let (Some(owner_len), Some(descriptor_len), Some(found)) = (word(notes, 0), word(notes, 4), word(notes, 8)) {
        let name = notes
            .get(HEAD_LEN..)
            .and_then(|rest| rest.get(..usize::try_from(owner_len).ok()?));
        if found == kind && name == Some(owner) {
            return true;
        }
        let len = padded(owner_len)
            .zip(padded(descriptor_len))
            .and_then(|(owner, descriptor)| HEAD_LEN.checked_add(owner)?.checked_add(descriptor));
        let Some(rest) = len.and_then(|len| notes.get(len..)) else {
            return false;
        };
        notes = rest;
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    fn note(owner: &[u8], kind: u32, descriptor: &[u8]) -> Vec<u8> {
        let mut note = Vec::new();
        for word in [owner.len(), descriptor.len(), kind as usize] {
            note.extend(u32::try_from(word).unwrap().to_le_bytes());
        }
        for part in [owner, descriptor] {
            note.extend(part);
            note.resize(note.len().next_multiple_of(4), 0);
        }
        note
    }

    #[test]
    fn a_note_is_found_behind_others_and_by_its_owner() {
        let notes = [note(b"GNU\0", 3, &[7; 20]), note(b"Xen\0", 18, &[0; 8])].concat();
        assert!(has_note(&notes, b"Xen\0", 18) && has_note(&notes, b"GNU\0", 3));
        assert!(!has_note(&notes, b"Xen\0", 3) && !has_note(&notes, b"Xen", 18));
    }

    #[test]
    fn notes_that_are_cut_off_or_lie_about_their_lengths_end_the_search() {
        let whole = note(b"coreferry\0", 1, &[1; 4]);
        for len in 0..12 + 10 {
            assert!(!has_note(&whole[..len], b"coreferry\0", 1), "{len}");
        }
        let mut liar = note(b"GNU\0", 3, &[]);
        liar[4..8].copy_from_slice(&u32::MAX.to_le_bytes());
        liar.extend(&whole);
        assert!(!has_note(&liar, b"coreferry\0", 1));
        liar[..4].copy_from_slice(&u32::MAX.to_le_bytes());
        assert!(!has_note(&liar, b"coreferry\0", 1));
    }

    #[test]
    fn what_is_no_file_has_no_notes() {
        assert!(!has(b"", b"Xen\0", 18));
        assert!(!has(&[0xff; 4096], b"Xen\0", 18));
    }
}
