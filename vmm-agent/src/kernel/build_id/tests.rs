use std::io::Write as _;

use guest_shim::DEMO_GUEST_ELF;
use proptest::prelude::*;

use super::*;

const ID: [u8; 20] = *b"\x01\x23\x45\x67\x89\xab\xcd\xef0123456789ab";

fn id_text() -> String {
    ID.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn note(name: &[u8], kind: u32, descriptor: &[u8]) -> Vec<u8> {
    let mut note = Vec::new();
    for word in [name.len() as u32, descriptor.len() as u32, kind] {
        note.extend(word.to_le_bytes());
    }
    for part in [name, descriptor] {
        note.extend(part);
        note.resize(note.len().next_multiple_of(4), 0);
    }
    note
}

/// A vmlinux whose notes lie `notes_at` bytes into it, behind text that does not pack to nothing, with more behind them.
fn vmlinux(notes_at: usize) -> Vec<u8> {
    let notes = [note(b"Xen\0", 18, &[0; 8]), note(b"GNU\0", GNU_BUILD_ID, &ID)].concat();
    let mut file = vec![0; EHDR_LEN];
    file[..6].copy_from_slice(IDENTITY);
    file[E_PHOFF] = EHDR_LEN as u8;
    file[E_PHENTSIZE] = PHDR_LEN as u8;
    file[E_PHNUM] = 2;
    let mut load = vec![0; PHDR_LEN];
    load[0] = 1;
    let mut entry = vec![0; PHDR_LEN];
    entry[0] = PT_NOTE as u8;
    entry[P_OFFSET..P_OFFSET + 8].copy_from_slice(&(notes_at as u64).to_le_bytes());
    entry[P_FILESZ..P_FILESZ + 8].copy_from_slice(&(notes.len() as u64).to_le_bytes());
    file.extend([load, entry].concat());
    file.extend((file.len()..notes_at).map(|at| ((at * at) >> 7) as u8));
    file.extend(notes);
    file.extend([0x55; 70_000]);
    file
}

/// A bzImage of one setup sector with this payload.
fn bz_image(payload: &[u8]) -> Vec<u8> {
    const START: usize = 700;
    let mut image = vec![0; 1024 + START];
    image[0x1f1] = 1;
    image[0x202..0x206].copy_from_slice(b"HdrS");
    image[0x206..0x208].copy_from_slice(&0x020f_u16.to_le_bytes());
    image[0x248..0x24c].copy_from_slice(&(START as u32).to_le_bytes());
    image[0x24c..0x250].copy_from_slice(&(payload.len() as u32).to_le_bytes());
    image.extend(payload);
    image
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut out = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    out.write_all(bytes).unwrap();
    out.finish().unwrap()
}

fn lz4(bytes: &[u8]) -> Vec<u8> {
    let mut out = 0x184c_2102_u32.to_le_bytes().to_vec();
    for block in bytes.chunks(8 << 20) {
        let packed = lz4_flex::block::compress(block);
        out.extend((packed.len() as u32).to_le_bytes());
        out.extend(packed);
    }
    // As scripts/Makefile.lib does: the length behind it.
    out.extend((bytes.len() as u32).to_le_bytes());
    out
}

fn zstd(bytes: &[u8]) -> Vec<u8> {
    let mut packed = zstd::bulk::compress(bytes, 1).unwrap();
    packed.extend((bytes.len() as u32).to_le_bytes());
    packed
}

/// As Linux's Makefile does (scripts/xz_wrap.sh): a filter for x86 code, then LZMA2.
fn xz(bytes: &[u8]) -> Vec<u8> {
    let mut options = lzma_rust2::XzOptions::with_preset(0);
    options.prepend_pre_filter(lzma_rust2::filter::FilterType::BcjX86, 0);
    let mut out = lzma_rust2::XzWriter::new(Vec::new(), options).unwrap();
    out.write_all(bytes).unwrap();
    let mut packed = out.finish().unwrap();
    packed.extend((bytes.len() as u32).to_le_bytes());
    packed
}

#[test]
fn the_id_of_a_vmlinux_and_of_every_packing_is_found() {
    // More than a block of LZ4.
    let long = vmlinux(9 << 20);
    let file = vmlinux(300_000);
    assert_eq!(of(&file.as_slice()).unwrap(), id_text());
    for (name, payload) in [
        ("plain", file.clone()),
        ("gzip", gzip(&file)),
        ("lz4", lz4(&long)),
        ("xz", xz(&file)),
        ("zstd", zstd(&file)),
    ] {
        assert_eq!(of(&bz_image(&payload).as_slice()).unwrap(), id_text(), "{name}");
    }
}

#[test]
fn the_id_of_the_demo_guest_is_the_one_it_reports() {
    let id = of(&DEMO_GUEST_ELF).unwrap();
    assert_eq!(id.len(), 40, "{id}");
}

#[test]
fn what_follows_the_notes_need_not_be_there() {
    let file = vmlinux(1 << 20);
    for (name, packed) in [("gzip", gzip(&file)), ("xz", xz(&file)), ("zstd", zstd(&file))] {
        let image = bz_image(&packed);
        // The notes of a real kernel are followed by a third of it; here by little that packs to nothing.
        let Err(early) = of(&&image[..image.len() / 2]) else {
            panic!("{name}: half a kernel has no notes");
        };
        assert!(matches!(early, BuildIdError::Read(_)), "{name}: {early}");
    }
    let end = file.len() - 70_000;
    assert_eq!(of(&&file[..end]).unwrap(), id_text());
    assert!(of(&&file[..end - 1]).is_err());
}

#[test]
fn an_unknown_packing_and_what_is_no_kernel_are_named() {
    let why = of(&bz_image(b"BZh91AY&SY").as_slice()).unwrap_err().to_string();
    assert!(why.contains("[42, 5a, 68, 39, 31, 41]") && why.contains("lz4"), "{why}");
    for nothing in [&b""[..], b"#!/bin/sh\n", &[0; 4096]] {
        assert!(matches!(of(&nothing), Err(BuildIdError::NoElf | BuildIdError::Read(_))));
    }
    let mut without = vmlinux(4096);
    without[EHDR_LEN + PHDR_LEN] = 1;
    assert!(matches!(of(&without.as_slice()), Err(BuildIdError::None)));
}

#[test]
fn lengths_that_would_cost_memory_or_time_are_refused() {
    let refused = |at: usize, value: u64| {
        let mut file = vmlinux(4096);
        file[at..at + 8].copy_from_slice(&value.to_le_bytes());
        of(&file.as_slice()).unwrap_err().to_string()
    };
    let entry = EHDR_LEN + PHDR_LEN;
    assert!(refused(entry + P_FILESZ, 1 << 40).contains("p_filesz = 1099511627776"));
    assert!(refused(entry + P_OFFSET, u64::MAX).contains("p_offset"));
    assert!(refused(E_PHOFF, 1 << 60).contains("e_phoff"));
    assert!(refused(E_PHOFF, 3).contains("e_phoff = 3"));
    let mut many = vmlinux(4096);
    many[E_PHNUM..E_PHNUM + 2].copy_from_slice(&[0xff; 2]);
    assert!(of(&many.as_slice()).unwrap_err().to_string().contains("e_phnum"));
}

proptest! {
    // A decompressor without optimisation is slow.
    #![proptest_config(ProptestConfig::with_cases(100))]

    #[test]
    fn hostile_files_are_an_id_or_an_error(
        packing in 0..5_u8,
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..8),
    ) {
        let file = vmlinux(12_000);
        let mut image = match packing {
            0 => file,
            1 => bz_image(&gzip(&file)),
            2 => bz_image(&lz4(&file)),
            3 => bz_image(&xz(&file)),
            _ => bz_image(&zstd(&file)),
        };
        // Most changes hit the headers, where they matter.
        for (at, byte) in changes {
            let range = if byte % 2 == 0 { image.len() } else { image.len().min(0x400) };
            let at = at.index(range);
            image[at] = byte;
        }
        if let Ok(id) = of(&image.as_slice()) {
            prop_assert!(id.len() <= 2 * ID_LEN_MAX && id.bytes().all(|byte| byte.is_ascii_hexdigit()));
        }
    }
}
