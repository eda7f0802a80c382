//! Bytes into parsers: nothing panics, and what is read means what it says.

use netdump::{Header, wire};
use vmcore::kernel_header::KernelDumpHeader;
use vmcore::notes::vmcoreinfo;
use vmcore::reader::{CoreHead, CoreNotes};
use vmcore::trailer::{FOOTER_LEN, Footer, Trailer};

/// A datagram of the wire.
pub(crate) fn datagram(bytes: &[u8]) {
    if let Ok((header, payload)) = Header::parse(bytes) {
        assert_eq!(
            [&header.encode()[..], payload].concat(),
            bytes,
            "a message is its header and its payload"
        );
        assert_eq!(usize::try_from(header.len), Ok(payload.len()));
    }
    if let Ok(seqno) = wire::parse_ack(bytes) {
        assert_eq!(wire::encode_ack(seqno), bytes);
    }
}

/// A kernel dump header of any version.
pub(crate) fn kernel_header(bytes: &[u8]) {
    if let Ok((header, _)) = KernelDumpHeader::parse(bytes) {
        let encoded = header.encode();
        if header.version == 4 {
            let (again, _) = KernelDumpHeader::parse(&encoded).expect("what was encoded is read");
            assert_eq!(again.dump_len_bytes, header.dump_len_bytes);
            assert_eq!(again.compression, header.compression);
        }
    }
}

/// Our trailer: as it stands, and with a footer that fits the body, so that the digest keeps nothing out.
pub(crate) fn trailer(bytes: &[u8]) {
    let end = bytes.len().saturating_sub(FOOTER_LEN);
    if let Ok(footer) = Footer::parse(&bytes[end..]) {
        walk(&footer, &bytes[..end]);
    }
    let Some((numbers, body)) = bytes.split_first_chunk::<16>() else {
        return;
    };
    let [a, b] = [&numbers[..8], &numbers[8..]].map(|half| u64::from_le_bytes(half.try_into().expect("eight bytes")));
    let footer = Footer {
        file_len: a,
        trailer_offset: b,
        trailer_len: body.len() as u64,
        body_len: body.len() as u64,
        body_digest: blake3::hash(body),
    };
    walk(&footer, body);
}

fn walk(footer: &Footer, body: &[u8]) {
    let Ok(trailer) = Trailer::parse(footer, body) else {
        return;
    };
    let mut at = 0;
    for (range, _) in trailer.declared().take(100_000) {
        assert!(at <= range.start && range.start < range.end, "declared ranges ascend");
        at = range.end;
    }
    for chunk in trailer.chunks().take(1000) {
        let _ = trailer.state_at(chunk.file_offset);
        assert_eq!(trailer.chunk(chunk.index), Some(chunk));
    }
}

/// The head of a core.
pub(crate) fn vmcore_reader(bytes: &[u8]) {
    if let Ok(head) = CoreHead::parse(bytes)
        && let Ok(found) = head.notes_in(bytes)
    {
        notes(found);
    }
}

/// The notes of a core.
pub(crate) fn notes(bytes: &[u8]) {
    if let Ok(notes) = CoreNotes::parse(bytes) {
        let states = notes.cpu_states();
        assert!(states.len() <= notes.qemu.len().max(notes.prstatus.len()));
        let _ = notes.coreferry();
        if let Some(text) = notes.vmcoreinfo {
            let _ = (
                vmcoreinfo::phys_base(text),
                vmcoreinfo::kernel_offset(text),
                vmcoreinfo::symbol(text, "init_task"),
            );
        }
    }
    let _ = vmcoreinfo::at_page(bytes);
}
