//! The register table against the device, and `docs/em.md` against the table.
#![cfg(feature = "device")]
#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

mod support;

use std::fmt::Write as _;

use nic_emu::spec::registers::{self as reg, Access, RegisterSpec, TABLE, rctl, statistics};
use nic_emu::spec::{eeprom, phy};
use support::{MAC, Rig};

/// The document, with the generated part between two lines.
const DOCUMENT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/em.md");
const BEGIN: &str = "<!-- generated from nic-emu/src/spec; do not edit by hand -->\n";
const END: &str = "<!-- end of the generated part -->\n";

fn offsets(spec: &RegisterSpec) -> impl Iterator<Item = u32> {
    (0..spec.count).map(|n| spec.offset + n * spec.stride)
}

#[test]
fn after_power_on_every_register_reads_its_reset_value() {
    for spec in TABLE {
        for offset in offsets(spec) {
            let mut rig = Rig::new();
            let expected = match offset {
                // The station address, from the EEPROM.
                reg::RAL => u32::from_le_bytes(MAC[..4].try_into().unwrap()),
                reg::RAH => 0x8000_5634,
                _ => spec.reset,
            };
            assert_eq!(rig.read(offset), expected, "{} at {offset:#x}", spec.name);
        }
    }
}

#[test]
fn every_register_keeps_what_its_mask_says() {
    // Written ones mean something else to these.
    let special = [
        reg::CTRL,
        reg::EECD,
        reg::EERD,
        reg::MDIC,
        reg::PBA,
        reg::ICR,
        reg::ICS,
        reg::IMS,
        reg::IMC,
        reg::FRTIMER,
    ];
    for spec in TABLE.iter().filter(|spec| !special.contains(&spec.offset)) {
        for offset in offsets(spec) {
            let mut rig = Rig::new();
            let fixed = rig.read(offset) & !spec.mask;
            for pattern in [0x5A5A_5A5A, 0xA5A5_A5A5, 0, u32::MAX] {
                rig.write(offset, pattern);
                let expected = (pattern & spec.mask) | fixed;
                assert_eq!(rig.read(offset), expected, "{} at {offset:#x}", spec.name);
            }
            if spec.access == Access::ReadOnly {
                assert_eq!(spec.mask, 0, "{}", spec.name);
            }
        }
    }
}

#[test]
fn every_other_offset_reads_zero_and_ignores_writes() {
    let known: Vec<u32> = TABLE.iter().flat_map(offsets).collect();
    // CTRL_DUP and the 82542's places of RA, MTA and VFTA.
    let aliases = [0x0004..0x0008, 0x0040..0x00C0, 0x0200..0x0400, 0x0600..0x0800];
    let mut rig = Rig::new();
    for offset in (0..reg::BAR0_LEN).step_by(4) {
        if !known.contains(&offset) && !aliases.iter().any(|alias| alias.contains(&offset)) {
            rig.write(offset, u32::MAX);
            assert_eq!(rig.read(offset), 0, "offset {offset:#x}");
        }
    }
    rig.write(reg::RCTL, rctl::EN);
    assert_eq!(rig.read(reg::RCTL), rctl::EN, "nothing else was hit");
}

#[test]
fn statistics_have_one_name_each() {
    let mut seen = std::collections::BTreeSet::new();
    for spec in statistics::TABLE {
        assert!(
            statistics::contains(spec.offset) && seen.insert(spec.offset),
            "{}",
            spec.name
        );
    }
}

#[test]
fn the_document_is_what_the_tables_say() {
    let kept = std::fs::read_to_string(DOCUMENT).unwrap();
    let (before, rest) = kept.split_once(BEGIN).unwrap();
    let (_, after) = rest.split_once(END).unwrap();
    let made = format!("{before}{BEGIN}{}{END}{after}", generated());
    if std::env::var_os("UPDATE_DOCS").is_some() {
        std::fs::write(DOCUMENT, &made).unwrap();
    }
    let kept = std::fs::read_to_string(DOCUMENT).unwrap();
    assert!(
        kept == made,
        "docs/em.md is not what the code says; make it anew with `UPDATE_DOCS=1 cargo test -p nic-emu --test table`"
    );
}

fn generated() -> String {
    let mut out = String::from("\n### Registers\n\n");
    out += "| offset | name | reset | writable | answers | used by | what |\n|---|---|---|---|---|---|---|\n";
    for spec in TABLE {
        let many = match spec.count {
            1 => String::new(),
            count => format!("[{count}], every {}", spec.stride),
        };
        let answers = match spec.access {
            Access::Storage => "keeps",
            Access::ReadOnly => "read-only",
            Access::Statistic => "counts",
            Access::Effect => "acts",
        };
        let RegisterSpec {
            name,
            offset,
            reset,
            mask,
            used_by,
            about,
            ..
        } = spec;
        let about = plain(about);
        writeln!(
            out,
            "| {offset:04X} | {name}{many} | {reset:08X} | {mask:08X} | {answers} | {used_by} | {about} |"
        )
        .unwrap();
    }
    out += "\n### Statistics\n\nEvery one saturates and is cleared by a read. Those that count:\n\n";
    out += "| offset | name | what |\n|---|---|---|\n";
    for spec in statistics::TABLE.iter().filter(|spec| spec.counts) {
        writeln!(out, "| {:04X} | {} | {} |", spec.offset, spec.name, plain(spec.about)).unwrap();
    }
    let zero = statistics::TABLE.iter().filter(|spec| !spec.counts);
    let zero: Vec<String> = zero.map(|spec| format!("{} {:04X}", spec.name, spec.offset)).collect();
    writeln!(
        out,
        "\nThese stay 0, for no wire here has what they count: {}.",
        zero.join(", ")
    )
    .unwrap();
    out += "\n### PHY registers after power-on\n\n| register | value | writes |\n|---|---|---|\n";
    for (register, value) in (0_u8..).zip(phy::RESET).filter(|(_, value)| *value != 0) {
        let writes = if phy::read_only(register) { "ignored" } else { "kept" };
        writeln!(out, "| {register:02X} | {value:04X} | {writes} |").unwrap();
    }
    out += "\n### EEPROM image for 52:54:00:12:34:56\n\n```text\n";
    for (n, row) in eeprom::image(MAC).chunks(8).enumerate() {
        let words: Vec<String> = row.iter().map(|word| format!("{word:04X}")).collect();
        writeln!(out, "{:02X}: {}", n * 8, words.join(" ")).unwrap();
    }
    out += "```\n\n";
    out
}

/// A doc comment without its links, on one line of a table.
fn plain(about: &str) -> String {
    about.trim().replace("[`", "`").replace("`]", "`").replace('|', "\\|")
}
