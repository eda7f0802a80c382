//! The C header of the Linux module and the Rust ABI are one: the same numbers under both, and none that only one side knows.
use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;

use guest_shim::{abi, port};

const HEADER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/linux/coreferry_shim_abi.h");

/// Every number that the header must define, by its name without the prefix.
fn expected() -> BTreeMap<&'static str, u64> {
    let narrow: [(&str, u32); 19] = [
        ("PCI_VENDOR_ID", port::PCI_VENDOR_ID.into()),
        ("PCI_DEVICE_ID", port::PCI_DEVICE_ID.into()),
        ("PCI_SUBSYSTEM_ID", port::PCI_SUBSYSTEM_ID.into()),
        ("REG_SIGNATURE", port::SIGNATURE.into()),
        ("REG_VERSION", port::VERSION.into()),
        ("REG_RECORD_GPA_LOW", port::RECORD_GPA_LOW.into()),
        ("REG_RECORD_GPA_HIGH", port::RECORD_GPA_HIGH.into()),
        ("REG_RECORD_LEN", port::RECORD_LEN.into()),
        ("REG_DOORBELL", port::DOORBELL.into()),
        ("REG_STATUS", port::STATUS.into()),
        ("SIGNATURE", port::SIGNATURE_VALUE),
        ("DOORBELL_REGISTER", port::DOORBELL_REGISTER),
        ("DOORBELL_COMPLETE", port::DOORBELL_COMPLETE),
        ("DOORBELL_FORGET", port::DOORBELL_FORGET),
        ("STATUS_NONE", port::STATUS_NONE),
        ("STATUS_REGISTERED", port::STATUS_REGISTERED),
        ("STATUS_COMPLETE", port::STATUS_COMPLETE),
        ("STATUS_REFUSED", port::STATUS_REFUSED),
        ("RECORD_VERSION", abi::VERSION.into()),
    ];
    let wide = [
        ("RECORD_MAGIC", abi::MAGIC),
        ("RECORD_COMPLETE", abi::COMPLETE.into()),
        ("CPU_UNKNOWN", abi::CPU_UNKNOWN.into()),
    ];
    let lengths = [
        ("RECORD_LEN", abi::RECORD_LEN),
        ("BUILD_ID_LEN", abi::BUILD_ID_LEN),
        ("OS_NAME_LEN", abi::OS_NAME_LEN),
        ("RELEASE_LEN", abi::RELEASE_LEN),
        ("MESSAGE_LEN", abi::MESSAGE_LEN),
        ("REGISTERS", abi::REGISTERS),
        ("AT_MAGIC", abi::offsets::MAGIC),
        ("AT_VERSION", abi::offsets::VERSION),
        ("AT_LENGTH", abi::offsets::LENGTH),
        ("AT_SEQUENCE_BEGIN", abi::offsets::SEQUENCE_BEGIN),
        ("AT_CRASHED_CPU", abi::offsets::CRASHED_CPU),
        ("AT_TIME_UNIX_NS", abi::offsets::TIME_UNIX_NS),
        ("AT_KERNEL_LOG", abi::offsets::KERNEL_LOG),
        ("AT_VMCOREINFO", abi::offsets::VMCOREINFO),
        ("AT_REGISTERS", abi::offsets::REGISTERS),
        ("AT_REGISTERS_VALID", abi::offsets::REGISTERS_VALID),
        ("AT_BUILD_ID_LEN", abi::offsets::BUILD_ID_LEN),
        ("AT_BUILD_ID", abi::offsets::BUILD_ID),
        ("AT_OS_NAME", abi::offsets::OS_NAME),
        ("AT_RELEASE", abi::offsets::RELEASE),
        ("AT_MESSAGE_LEN", abi::offsets::MESSAGE_LEN),
        ("AT_MESSAGE", abi::offsets::MESSAGE),
        ("AT_SEQUENCE_END", abi::offsets::SEQUENCE_END),
        ("AT_COMPLETE", abi::offsets::COMPLETE),
    ];
    let narrow = narrow.map(|(name, value)| (name, u64::from(value)));
    let lengths = lengths.map(|(name, value)| (name, value as u64));
    narrow.into_iter().chain(wide).chain(lengths).collect()
}

fn number(text: &str) -> Option<u64> {
    match text.strip_prefix("0x") {
        Some(digits) => u64::from_str_radix(digits, 16).ok(),
        None => text.parse().ok(),
    }
}

/// The numbers that the header defines.
fn defined(header: &str) -> BTreeMap<&str, u64> {
    let defines = header.lines().filter_map(|line| line.strip_prefix("#define CFSH_"));
    defines
        .filter_map(|define| {
            let (name, value) = define.split_once(' ')?;
            Some((name, number(value)?))
        })
        .collect()
}

#[test]
fn every_number_is_the_same_on_both_sides() {
    let header = std::fs::read_to_string(HEADER).unwrap();
    assert_eq!(defined(&header), expected());
}

/// The structure lies where the numbers say: the header itself checks that with each compiler that reads it.
#[test]
fn the_structure_has_the_layout_that_the_numbers_say() {
    let check = |defines: &[&str]| {
        let mut compiler = Command::new("cc");
        compiler
            .args(["-std=gnu11", "-Wall", "-Werror", "-fsyntax-only", "-x", "c"])
            .args(defines);
        let output = compiler.arg(Path::new(HEADER)).output();
        let output = output.expect("a C compiler, which Rust needs as well to link");
        (
            output.status.success(),
            String::from_utf8_lossy(&output.stderr).into_owned(),
        )
    };
    let (compiles, said) = check(&[]);
    assert!(compiles, "{said}");
    // And the check does check: with one register less, everything behind the registers lies elsewhere.
    let (compiles, said) = check(&["-Dgs_base=gs_base_low; __le32 gs_base"]);
    assert!(!compiles && said.contains("static assertion"), "{said}");
}
