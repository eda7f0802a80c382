//! Plain ELF64 executables, entered on every vCPU at once in 64-bit mode.
//!
//! The state at entry and the boot information are specified in `guest_shim::boot`. Below 1 MiB lie, for the guest to
//! take over or to forget: the descriptor table (0x500), the boot information (0x7000), the command line (0x8000) and
//! the page tables (0x9000 up to 0x50000).
use std::io::Cursor;

use guest_shim::boot::{
    BOOT_INFO_GPA, BootInfo, COMMAND_LINE_GPA, COMMAND_LINE_LEN, IMAGE_MIN_GPA, MAGIC, RANGES_MAX, RamRange, VERSION,
};
use linux_loader::loader::elf::PvhBootCapability;
use linux_loader::loader::{Elf, KernelLoader};

use super::{KernelError, tables};
use crate::kvm::{LongModeEntry, Start};
use crate::memory::{Bytes, GuestAddress, GuestMemory};

/// An executable that lies in memory.
#[derive(Clone, Copy, Debug)]
pub(super) struct Loaded {
    pub(super) entry: u64,
    /// End of its highest segment.
    pub(super) end: u64,
    /// Entry of the PVH protocol, if a note names one.
    pub(super) pvh_entry: Option<u64>,
}

/// Copies the segments of `image` into memory.
///
/// # Errors
/// [`KernelError`] if it is no such executable or does not fit.
pub(super) fn load(memory: &GuestMemory, image: &[u8]) -> Result<Loaded, KernelError> {
    check(image).map_err(|why| KernelError::Format { why })?;
    let mem_mib = memory.len_bytes() >> 20;
    let lowest = Some(GuestAddress(IMAGE_MIN_GPA));
    let loaded = Elf::load(memory.ram(), None, &mut Cursor::new(image), lowest)
        .map_err(|source| KernelError::Load { mem_mib, source })?;
    let pvh_entry = match loaded.pvh_boot_cap {
        PvhBootCapability::PvhEntryPresent(entry) => Some(entry.0),
        _ => None,
    };
    Ok(Loaded {
        entry: loaded.kernel_load.0,
        end: loaded.kernel_end,
        pvh_entry,
    })
}

/// Puts down what goes with a plain executable and says how each of `vcpus` vCPUs starts.
///
/// # Errors
/// [`KernelError`] if it does not fit.
pub(super) fn finish(
    memory: &GuestMemory,
    loaded: &Loaded,
    command_line: &str,
    vcpus: u8,
) -> Result<Vec<Start>, KernelError> {
    let ram_end = memory.ranges().last().and_then(vmcore::MemoryRange::end).unwrap_or(0);
    let place_error = |what| move |source| KernelError::Place { what, source };
    let entry = tables::write(memory.ram(), ram_end, tables::PLAIN_SELECTORS).map_err(place_error("page tables"))?;
    write_boot_info(memory, command_line, vcpus)?;
    let start = |index| {
        Start::LongMode(LongModeEntry {
            rip: loaded.entry,
            rdi: u64::from(index),
            rsi: BOOT_INFO_GPA,
            ..entry
        })
    };
    Ok((0..vcpus).map(start).collect())
}

fn write_boot_info(memory: &GuestMemory, command_line: &str, vcpus: u8) -> Result<(), KernelError> {
    let len_bytes = command_line.len();
    if len_bytes >= COMMAND_LINE_LEN || command_line.contains('\0') {
        return Err(KernelError::CommandLine {
            len_bytes,
            len_max: COMMAND_LINE_LEN - 1,
        });
    }
    let place_error = |source| KernelError::Place {
        what: "boot information",
        source,
    };
    let mut text = command_line.as_bytes().to_vec();
    text.push(0);
    memory
        .ram()
        .write_slice(&text, GuestAddress(COMMAND_LINE_GPA))
        .map_err(place_error)?;
    let mut ranges = [RamRange::default(); RANGES_MAX];
    for (slot, range) in ranges.iter_mut().zip(memory.ranges()) {
        *slot = RamRange {
            gpa: range.gpa,
            len_bytes: range.len_bytes,
        };
    }
    let info = BootInfo {
        magic: MAGIC,
        version: VERSION,
        vcpus: u32::from(vcpus),
        command_line_gpa: COMMAND_LINE_GPA,
        command_line_len: len_bytes as u64,
        ranges_len: memory.ranges().len().min(RANGES_MAX) as u64,
        ranges,
    };
    memory
        .ram()
        .write_slice(&info.encode(), GuestAddress(BOOT_INFO_GPA))
        .map_err(place_error)
}

// ELF-64 Object File Format, version 1.5: offsets in the file header and in a program header.
const E_TYPE: usize = 16;
const E_MACHINE: usize = 18;
const E_PHOFF: usize = 32;
const E_PHENTSIZE: usize = 54;
const E_PHNUM: usize = 56;
const P_PADDR: usize = 24;
const P_MEMSZ: usize = 40;
const PT_LOAD: u32 = 1;
const ET_EXEC: u16 = 2;
const EM_X86_64: u16 = 62;

/// Checks what the loader does not: the machine, the kind, and that no segment lies where the tables go.
fn check(image: &[u8]) -> Result<(), String> {
    if image.get(..6) != Some(b"\x7fELF\x02\x01") {
        return Err("it does not start as a 64-bit little-endian ELF file".to_owned());
    }
    if u16_at(image, E_MACHINE) != Some(EM_X86_64) {
        return Err("it is for another processor".to_owned());
    }
    if u16_at(image, E_TYPE) != Some(ET_EXEC) {
        return Err("it is not linked for a fixed address (ET_EXEC)".to_owned());
    }
    let table = u64_at(image, E_PHOFF).and_then(|offset| usize::try_from(offset).ok());
    let (Some(table), Some(entry_len), Some(entries)) = (table, u16_at(image, E_PHENTSIZE), u16_at(image, E_PHNUM))
    else {
        return Err("its file header is cut off".to_owned());
    };
    for index in 0..usize::from(entries) {
        let header = table
            .checked_add(index * usize::from(entry_len))
            .and_then(|start| image.get(start..));
        let header = header.ok_or("its program headers are cut off")?;
        let (kind, gpa, len) = (u32_at(header, 0), u64_at(header, P_PADDR), u64_at(header, P_MEMSZ));
        if kind == Some(PT_LOAD) && len != Some(0) && gpa.is_none_or(|gpa| gpa < IMAGE_MIN_GPA) {
            return Err(format!(
                "it has a segment at {:#x}, below {IMAGE_MIN_GPA:#x}",
                gpa.unwrap_or(0)
            ));
        }
    }
    Ok(())
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    bytes.get(at..)?.first_chunk().copied().map(u16::from_le_bytes)
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..)?.first_chunk().copied().map(u32::from_le_bytes)
}

fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    bytes.get(at..)?.first_chunk().copied().map(u64::from_le_bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn load(memory: &GuestMemory, image: &[u8], command_line: &str, vcpus: u8) -> Result<Vec<Start>, KernelError> {
        finish(memory, &super::load(memory, image)?, command_line, vcpus)
    }

    /// A file header, one program header and one byte of code at `gpa`.
    fn image(gpa: u64) -> Vec<u8> {
        let mut image = vec![0; 121];
        image[..7].copy_from_slice(b"\x7fELF\x02\x01\x01");
        image[E_TYPE..18].copy_from_slice(&ET_EXEC.to_le_bytes());
        image[E_MACHINE..20].copy_from_slice(&EM_X86_64.to_le_bytes());
        image[20] = 1;
        image[24..32].copy_from_slice(&gpa.to_le_bytes());
        image[E_PHOFF..40].copy_from_slice(&64_u64.to_le_bytes());
        image[52] = 64;
        image[E_PHENTSIZE] = 56;
        image[E_PHNUM] = 1;
        image[64] = 1;
        image[64 + 8] = 120;
        image[64 + P_PADDR..64 + P_PADDR + 8].copy_from_slice(&gpa.to_le_bytes());
        image[64 + 32] = 1;
        image[64 + P_MEMSZ] = 1;
        image[120] = 0xf4;
        image
    }

    #[test]
    fn an_image_is_loaded_with_its_boot_information() {
        let memory = GuestMemory::create(5 << 10).unwrap();
        let entries = load(&memory, &image(0x20_0000), "mode=test", 2).unwrap();
        let [_, Start::LongMode(second)] = entries[..] else {
            panic!("two vCPUs in 64-bit mode: {entries:?}");
        };
        assert_eq!((second.rip, second.rdi, second.rsi), (0x20_0000, 1, BOOT_INFO_GPA));
        let mut code = [0];
        memory.read_at(0x20_0000, &mut code).unwrap();
        assert_eq!(code, [0xf4]);
        let mut text = [0; 10];
        memory.read_at(COMMAND_LINE_GPA, &mut text).unwrap();
        assert_eq!(&text, b"mode=test\0");
        let mut info = [0; 104];
        memory.read_at(BOOT_INFO_GPA, &mut info).unwrap();
        assert_eq!(u64_at(&info, 0), Some(MAGIC));
        assert_eq!((u32_at(&info, 12), u64_at(&info, 32)), (Some(2), Some(2)));
        assert_eq!((u64_at(&info, 56), u64_at(&info, 64)), (Some(4 << 30), Some(2 << 30)));
    }

    #[test]
    fn the_page_tables_map_one_to_one_up_to_the_end_of_ram() {
        let memory = GuestMemory::create(5 << 10).unwrap();
        load(&memory, &image(0x20_0000), "", 1).unwrap();
        let word = |gpa| {
            let mut bytes = [0; 8];
            memory.read_at(gpa, &mut bytes).unwrap();
            u64::from_le_bytes(bytes)
        };
        let walk = |va: u64| {
            let gib = word((word(0x9000) & !0xfff) + (va >> 30) * 8);
            if gib & 1 == 0 {
                None
            } else {
                Some(word((gib & !0xfff) + (va >> 21 & 511) * 8))
            }
        };
        for va in [0, 0x20_0000, 0xfee0_0000, 4 << 30, (6 << 30) - (2 << 20)] {
            assert_eq!(walk(va), Some(va | 0x87), "{va:#x}");
        }
        assert_eq!(walk(6 << 30), None);
    }

    #[test]
    fn other_files_are_refused_with_the_reason() {
        let memory = GuestMemory::create(8).unwrap();
        let refused = |image: &[u8]| load(&memory, image, "", 1).unwrap_err().to_string();
        assert!(refused(b"#!/bin/sh").contains("does not start as"));
        let mut other = image(0x20_0000);
        other[E_MACHINE] = 183;
        assert!(refused(&other).contains("another processor"));
        assert!(refused(&image(0x8000)).contains("segment at 0x8000"));
        assert!(refused(&image(0x20_0000)[..50]).contains("cut off"));
        let text = refused(&image(9 << 20));
        assert!(text.contains("8 MiB of guest memory"), "{text}");
    }

    #[test]
    fn a_command_line_that_does_not_fit_is_refused() {
        let memory = GuestMemory::create(8).unwrap();
        let text = load(&memory, &image(0x20_0000), &"x".repeat(4096), 1)
            .unwrap_err()
            .to_string();
        assert!(text.contains("4096 bytes, at most 4095"), "{text}");
    }
}
