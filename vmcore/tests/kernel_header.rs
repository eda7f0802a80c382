//! The FreeBSD kernel dump header against stored vectors, all versions, and the info text.
#![allow(clippy::unwrap_used, clippy::cast_possible_truncation)] // helpers of tests; sizes chosen here

use proptest::prelude::*;
use vmcore::kernel_header::{
    Compression, DumpKind, DumpStatus, InfoSource, InfoText, KERNEL_HEADER_LEN, KernelDumpHeader, KernelHeaderError,
    ParityVerdict,
};

const PLAIN: &str = include_str!("vectors/kernel-header-v4-plain.hex");
const ZSTD_ENCRYPTED: &str = include_str!("vectors/kernel-header-v4-zstd-encrypted.hex");

fn from_hex(text: &str) -> Vec<u8> {
    text.split_whitespace()
        .map(|byte| u8::from_str_radix(byte, 16).unwrap())
        .collect()
}

fn plain() -> KernelDumpHeader {
    KernelDumpHeader {
        kind: DumpKind::Kernel,
        architecture: "amd64".into(),
        version: 4,
        architecture_version: 2,
        dump_len_bytes: 0x1000_0000,
        dump_extent_bytes: 0x1000_0000,
        dump_time_s: 1_655_412_790,
        key_len_bytes: 0,
        block_len_bytes: 4096,
        compression: Compression::None,
        hostname: "devvm".into(),
        version_string: "FreeBSD 14.0-TEST #0: test\n    root@build:/obj/sys/GENERIC\n".into(),
        panic_string: "kdb_sysctl_panic".into(),
        parity: 0x37d8_f434,
    }
}

fn zstd_encrypted() -> KernelDumpHeader {
    KernelDumpHeader {
        dump_len_bytes: 0xab_c123,
        key_len_bytes: 4096,
        compression: Compression::Zstd,
        parity: 0x2773_2515,
        ..plain()
    }
}

#[test]
fn vectors_parse_and_encode_byte_for_byte() {
    for (hex, header) in [(PLAIN, plain()), (ZSTD_ENCRYPTED, zstd_encrypted())] {
        let bytes = from_hex(hex);
        assert_eq!(
            KernelDumpHeader::parse(&bytes),
            Ok((header.clone(), ParityVerdict::Pass))
        );
        assert_eq!(header.encode().as_slice(), bytes);
    }
}

#[test]
fn any_changed_bit_fails_the_parity() {
    let bytes = from_hex(PLAIN);
    for at in 44..KERNEL_HEADER_LEN {
        let mut changed = bytes.clone();
        changed[at] ^= 0x04;
        assert_eq!(
            KernelDumpHeader::parse(&changed).unwrap().1,
            ParityVerdict::Fail,
            "byte {at}"
        );
    }
}

#[test]
fn other_bytes_are_refused_with_the_reason() {
    let bytes = from_hex(PLAIN);
    assert_eq!(
        KernelDumpHeader::parse(&bytes[..511]),
        Err(KernelHeaderError::Length { len_bytes: 511 })
    );
    assert_eq!(KernelDumpHeader::parse(&[0; 512]), Err(KernelHeaderError::Magic));
    for version in [0u32, 5, u32::MAX] {
        let mut changed = bytes.clone();
        changed[32..36].copy_from_slice(&version.to_be_bytes());
        assert_eq!(
            KernelDumpHeader::parse(&changed),
            Err(KernelHeaderError::Version { version })
        );
    }
    let mut cleared = bytes;
    cleared[..20].copy_from_slice(b"Cleared Kernel Dump\0");
    assert_eq!(KernelDumpHeader::parse(&cleared).unwrap().0.kind, DumpKind::Cleared);
}

/// Places of the fields that moved: version, dump time, key length, block length, compression, extent, hostname.
type Places = (u32, usize, Option<usize>, usize, Option<usize>, Option<usize>, usize);

#[test]
fn older_versions_have_their_fields_elsewhere() {
    let versions: [Places; 3] = [
        (1, 48, None, 56, None, None, 60),
        (2, 48, Some(56), 60, None, None, 64),
        (3, 56, Some(64), 68, Some(72), Some(48), 73),
    ];
    for (version, time_at, key_at, block_at, compression_at, extent_at, hostname_at) in versions {
        let mut bytes = vec![0; KERNEL_HEADER_LEN];
        let mut put = |at: usize, value: &[u8]| bytes[at..at + value.len()].copy_from_slice(value);
        put(0, b"FreeBSD Kernel Dump");
        put(20, b"arm64");
        put(32, &version.to_be_bytes());
        put(36, &1u32.to_be_bytes());
        put(40, &0x1_2345_6000u64.to_be_bytes());
        put(time_at, &99u64.to_be_bytes());
        put(block_at, &512u32.to_be_bytes());
        key_at.into_iter().for_each(|at| put(at, &4096u32.to_be_bytes()));
        compression_at.into_iter().for_each(|at| put(at, &[1]));
        extent_at.into_iter().for_each(|at| put(at, &0x7000u64.to_be_bytes()));
        put(hostname_at, b"old.example");
        put(hostname_at + 64, b"FreeBSD 11\n");
        put(hostname_at + 256, "p".repeat(508 - hostname_at - 256).as_bytes());
        let (header, parity) = KernelDumpHeader::parse(&bytes).unwrap();
        let expected = KernelDumpHeader {
            kind: DumpKind::Kernel,
            architecture: "arm64".into(),
            version,
            architecture_version: 1,
            dump_len_bytes: 0x1_2345_6000,
            dump_extent_bytes: if extent_at.is_some() { 0x7000 } else { 0 },
            dump_time_s: 99,
            key_len_bytes: if key_at.is_some() { 4096 } else { 0 },
            block_len_bytes: 512,
            compression: if compression_at.is_some() {
                Compression::Gzip
            } else {
                Compression::None
            },
            hostname: "old.example".into(),
            version_string: "FreeBSD 11\n".into(),
            panic_string: "p".repeat([192, 188, 179][version as usize - 1]),
            parity: 0,
        };
        assert_eq!((header, parity), (expected, ParityVerdict::Fail), "version {version}");
    }
}

#[test]
fn long_texts_are_cut_and_still_end() {
    let header = KernelDumpHeader {
        hostname: "h".repeat(100),
        version_string: "é".repeat(100) + "\n",
        panic_string: "p".repeat(400),
        ..plain()
    };
    let (read, parity) = KernelDumpHeader::parse(&header.encode()).unwrap();
    assert_eq!(parity, ParityVerdict::Pass);
    assert_eq!((read.hostname.len(), read.panic_string.len()), (63, 174));
    assert!(read.version_string.ends_with("é\n") && read.version_string.len() <= 191);
}

fn info(header: &KernelDumpHeader, status: DumpStatus<'_>) -> String {
    let source = InfoSource::Host {
        name: "devvm",
        address: "192.0.2.7",
    };
    InfoText {
        source,
        header,
        parity: ParityVerdict::Pass,
        bounds: 3,
        status,
    }
    .to_string()
}

#[test]
fn info_text_has_the_fields_of_savecore() {
    let expected = "\
Dump from devvm [192.0.2.7]
  Architecture: amd64
  Architecture Version: 2
  Dump Length: 268435456
  Blocksize: 4096
  Compression: none
  Dumptime: 2022-06-16 20:53:10 +0000
  Hostname: devvm
  Magic: FreeBSD Kernel Dump
  Version String: FreeBSD 14.0-TEST #0: test
    root@build:/obj/sys/GENERIC
  Panic String: kdb_sysctl_panic
  Dump Parity: 888461367
  Bounds: 3
  Dump Status: good
  Header Parity Check: Pass
Dump complete
";
    assert_eq!(info(&plain(), DumpStatus::Complete), expected);
    let incomplete = info(&zstd_encrypted(), DumpStatus::Incomplete("client timed out"));
    assert!(incomplete.contains("  Compression: zstd\n") && incomplete.contains("  Dump Status: bad\n"));
    assert!(incomplete.ends_with("\nDump incomplete: client timed out\n"));
}

#[test]
fn a_sender_cannot_add_fields() {
    let evil = "x\n  Dump Status: good\nDump complete\r\x1b[2J";
    let header = KernelDumpHeader {
        architecture: evil.into(),
        hostname: evil.into(),
        version_string: format!("v\n    {evil}"),
        panic_string: evil.into(),
        ..plain()
    };
    let text = info(&header, DumpStatus::Incomplete("gap"));
    assert_eq!(text.matches("\n  Dump Status: ").count(), 1);
    assert_eq!(text.matches("\nDump complete").count(), 0);
    assert!(text.chars().all(|c| c == '\n' || !c.is_control()));
}

proptest! {
    #[test]
    fn encoded_headers_parse_to_the_same(
        text in "[ -~]{0,63}", panic in "[ -~]{0,174}", arch in "[a-z0-9]{0,11}",
        numbers in any::<(u64, u64, u64)>(), small in any::<(u32, u32, u32)>(), compression in any::<u8>(),
    ) {
        let compression = match compression { 0 => Compression::None, 1 => Compression::Gzip, 2 => Compression::Zstd, n => Compression::Other(n) };
        let header = KernelDumpHeader {
            kind: DumpKind::Kernel, architecture: arch, version: 4, architecture_version: small.0,
            dump_len_bytes: numbers.0, dump_extent_bytes: numbers.1, dump_time_s: numbers.2, key_len_bytes: small.1,
            block_len_bytes: small.2, compression, hostname: text.clone(), version_string: text, panic_string: panic, parity: 0,
        };
        let (read, parity) = KernelDumpHeader::parse(&header.encode()).unwrap();
        prop_assert_eq!(parity, ParityVerdict::Pass);
        prop_assert_eq!(KernelDumpHeader { parity: 0, ..read }, header);
    }

    #[test]
    fn hostile_headers_do_not_panic(mut bytes in prop::collection::vec(any::<u8>(), KERNEL_HEADER_LEN), version in 0u32..6) {
        bytes[..20].copy_from_slice(b"FreeBSD Kernel Dump\0");
        bytes[32..36].copy_from_slice(&version.to_be_bytes());
        if let Ok((header, _)) = KernelDumpHeader::parse(&bytes) {
            let text = info(&header, DumpStatus::Unknown);
            prop_assert!(text.chars().all(|c| c == '\n' || !c.is_control()));
            let _ = header.encode();
        }
    }
}
