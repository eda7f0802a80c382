//! Compressed and encrypted dumps of stock senders, and what stands beside them.

use std::fs;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use serde_json::Value;

use crate::common::{Serve, path_text, run, temp_dir};
use crate::stock::{Order, StockSender, kernel_dump_header, with_field};

/// Compression codes of the kernel dump header (KERNELDUMP_COMP_*, sys/sys/kerneldump.h).
const GZIP: u8 = 1;
const ZSTD: u8 = 2;

/// A dump as it comes out of a memory: not of one value.
fn memory() -> Vec<u8> {
    (0..100_000_u32).flat_map(u32::to_le_bytes).collect()
}

/// A gzip file of stored blocks (RFC 1951, section 3.2.4; RFC 1952).
fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut file = vec![0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 255];
    let blocks = bytes.chunks(65_535);
    let last = blocks.len() - 1;
    for (index, block) in blocks.enumerate() {
        let len = u16::try_from(block.len()).expect("a short block");
        file.push(u8::from(index == last));
        file.extend_from_slice(&len.to_le_bytes());
        file.extend_from_slice(&(!len).to_le_bytes());
        file.extend_from_slice(block);
    }
    let sum = bytes.iter().fold(!0_u32, |sum, byte| {
        (0..8).fold(sum ^ u32::from(*byte), |sum, _| {
            (sum >> 1) ^ (0xedb8_8320 & (sum & 1).wrapping_neg())
        })
    });
    file.extend_from_slice(&(!sum).to_le_bytes());
    file.extend_from_slice(&u32::try_from(bytes.len()).expect("short").to_le_bytes());
    file
}

/// A Zstandard file of raw blocks (RFC 8878, section 3.1.1).
fn zstd(bytes: &[u8]) -> Vec<u8> {
    let mut file = vec![0x28, 0xb5, 0x2f, 0xfd, 0b1110_0000];
    file.extend_from_slice(&(bytes.len() as u64).to_le_bytes());
    let blocks = bytes.chunks(128 * 1024);
    let last = blocks.len() - 1;
    for (index, block) in blocks.enumerate() {
        let head = u32::from(index == last) | u32::try_from(block.len()).expect("short") << 3;
        file.extend_from_slice(&head.to_le_bytes()[..3]);
        file.extend_from_slice(block);
    }
    file
}

/// Sends `bytes` as the kernel does, in whole blocks; gives the core and its directory.
fn stored(order: Order, bytes: &[u8], compression: u8, key: Option<Vec<u8>>) -> (tempfile::TempDir, Value, PathBuf) {
    let dir = temp_dir();
    let serve = Serve::start(dir.path());
    let header = kernel_dump_header(bytes.len() as u64, "stockhost", "gone");
    let header = with_field(header, 495, &[compression]);
    let key_len = key.as_ref().map_or(0, |key| u32::try_from(key.len()).expect("short"));
    let header = with_field(header, 56, &key_len.to_be_bytes());
    let mut sent = bytes.to_vec();
    sent.resize(bytes.len().next_multiple_of(4096), 0);
    let sender = StockSender {
        key,
        ..StockSender::new(order, 1500, serve.netdump)
    };
    sender.dump(&sent, &header).expect("the dump ends well");
    let core = serve.settled_cores(1).remove(0);
    let vmcore = serve.vmcore_path(core["id"].as_str().expect("text"));
    assert_eq!(core["state"], "complete", "{core}");
    assert_eq!(
        core["file_len_bytes"],
        bytes.len() as u64,
        "cut to what the header says"
    );
    assert!(fs::read(&vmcore).expect("the core") == bytes, "the core differs");
    assert_eq!(fs::read(vmcore.with_file_name("kdh.bin")).expect("the header"), header);
    let verified = run(&["cores", "verify", "latest", "--dir", path_text(dir.path())]);
    assert!(
        verified.status.success(),
        "{}",
        String::from_utf8_lossy(&verified.stderr)
    );
    (dir, core, vmcore)
}

/// A decompressor's opinion, where there is one.
fn is_sound_for(program: &str, file: &PathBuf) {
    let tested = Command::new(program)
        .arg("-tq")
        .arg(file)
        .stderr(Stdio::null())
        .status();
    assert!(tested.is_ok_and(|status| status.success()) || Command::new(program).arg("-V").output().is_err());
}

#[test]
fn compressed_dumps_are_cut_to_their_length_and_have_a_name_that_says_so() {
    for (order, compression, bytes, name, program) in [
        (Order::FreeBsd12, GZIP, gzip(&memory()), "vmcore.gz", "gzip"),
        (Order::FreeBsd13, ZSTD, zstd(&memory()), "vmcore.zst", "zstd"),
    ] {
        let (_dir, core, vmcore) = stored(order, &bytes, compression, None);
        assert_eq!(core["format"], program);
        let named = vmcore.with_file_name(name);
        assert!(fs::read(&named).expect("the other name") == bytes, "{name} differs");
        is_sound_for(program, &named);
        let info = fs::read_to_string(vmcore.with_file_name("info.txt")).expect("text");
        assert!(info.contains(&format!("  Compression: {program}\n")), "{info}");
        let length = format!("  Dump Length: {}\n", bytes.len());
        assert!(info.contains(&length) && info.ends_with("Dump complete\n"), "{info}");
    }
}

#[test]
fn encrypted_dumps_have_their_key_beside_them() {
    // struct kerneldumpkey: cipher, IV, length of the encrypted key, the key; filled up to a block.
    let mut key = vec![2; 1];
    key.extend(0..32_u8);
    key.extend_from_slice(&256_u32.to_be_bytes());
    key.extend(std::iter::repeat_n(0x5a, 256));
    key.resize(4096, 0);
    let cipher_text: Vec<u8> = memory().iter().map(|byte| byte ^ 0x37).collect();
    let cipher_text = &cipher_text[..cipher_text.len() / 4096 * 4096];
    for (order, compression) in [(Order::FreeBsd12, 0), (Order::FreeBsd13, 0), (Order::FreeBsd13, ZSTD)] {
        let (_dir, core, vmcore) = stored(order, cipher_text, compression, Some(key.clone()));
        assert_eq!(core["format"], "encrypted");
        assert_eq!(fs::read(vmcore.with_file_name("key.bin")).expect("the key"), key);
        assert!(
            !vmcore.with_file_name("vmcore.zst").exists(),
            "it is none before it is decrypted"
        );
    }
}
