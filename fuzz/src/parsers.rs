//! Bytes into parsers: nothing panics, and what is read means what it says.

use netdump::{Header, wire};
use server::codecs::Codecs;
use vmcore::dumpfile::DumpFile;
use vmcore::image::{Absent, FileBytes, PhysicalMemory as _};
use vmcore::kdump::{Decompress as _, PageCodec};
use vmcore::kernel_header::KernelDumpHeader;
use vmcore::linux::KernelSpace;
use vmcore::linux::filter::{FilterLevel, filter};
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

/// A core of any form: its first pages are read, and filtered.
pub(crate) fn core_file(bytes: &[u8]) {
    let Ok(core) = DumpFile::open(bytes, Codecs) else {
        return;
    };
    notes(core.notes());
    let ranges = core.ranges();
    let mut end = 0;
    let mut page = [0; 4096];
    for range in ranges.iter().take(64) {
        assert!(
            range.gpa >= end && range.len_bytes > 0,
            "ranges ascend and are disjoint"
        );
        end = range.end().unwrap_or(u64::MAX);
        for at in (0..range.len_bytes).step_by(4096).take(16) {
            let is_there = core.read(range.gpa + at, &mut page).is_ok();
            assert!(
                !is_there || !core.is_excluded(range.gpa + at),
                "what is left out is not read"
            );
        }
    }
    if let DumpFile::Minidump(dump) = &core {
        let _ = (
            dump.message_buffer(1 << 20),
            dump.translate(dump.header.kernel_base + 123),
        );
    }
    let Ok(found) = CoreNotes::parse(core.notes()) else {
        return;
    };
    if let Some(text) = found.vmcoreinfo
        && let Ok(space) = KernelSpace::new(&core, text)
        && let Some(level) = FilterLevel::new(31)
    {
        let _ = filter(&space, text, level, 1 << 16, &mut |_, _| {});
    }
}

/// A compressed page, of the codec that the first byte names.
pub(crate) fn page(bytes: &[u8]) {
    let Some((codec, stored)) = bytes.split_first() else {
        return;
    };
    let mut page = [0; 4096];
    let codec = PageCodec::ALL[usize::from(*codec) % PageCodec::ALL.len()];
    let _ = Codecs.decompress(codec, stored, &mut page);
    // LZO is read by the formats themselves.
    let _ = vmcore::kdump::decompress_lzo(stored, &mut page);
    // What is written is read again, whatever a guest had in a page.
    let (mut text, mut out) = ([0; 4096], Vec::new());
    for (to, from) in text.iter_mut().zip(stored.iter().cycle()) {
        *to = *from;
    }
    for codec in [PageCodec::Zlib, PageCodec::Zstd] {
        out.clear();
        if server::codecs::compressor(codec).compress(&text, &mut out) {
            assert!(Codecs.decompress(codec, &out, &mut page) && page == text);
        }
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
