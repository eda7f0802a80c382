//! Linux bzImage by the 64-bit boot protocol (Linux Documentation/arch/x86/boot.rst and zero-page.rst).
use std::io::Cursor;

use linux_loader::loader::{BzImage, KernelLoader as _};

use super::layout::{BOOT_PARAMS_GPA, COMMAND_LINE_GPA, HIGH_START, MapRange, memory_map};
use super::{KernelError, bytes_at, tables};
use crate::kvm::{LongModeEntry, Start};
use crate::memory::{Bytes as _, GuestAddress, GuestMemory};

// Offsets in the setup header, which lies at the same place in the image and in the boot parameters.
const SETUP_HEADER: usize = 0x1f1;
const JUMP_LEN: usize = 0x201;
const MAGIC: usize = 0x202;
const VERSION: usize = 0x206;
const TYPE_OF_LOADER: usize = 0x210;
const RAMDISK_IMAGE: usize = 0x218;
const RAMDISK_SIZE: usize = 0x21c;
const CMD_LINE_PTR: usize = 0x228;
const INITRD_ADDR_MAX: usize = 0x22c;
const XLOADFLAGS: usize = 0x236;
const CMDLINE_SIZE: usize = 0x238;
const PREF_ADDRESS: usize = 0x258;
const INIT_SIZE: usize = 0x260;
// Offsets in the boot parameters only.
const ACPI_RSDP_ADDR: usize = 0x070;
const E820_ENTRIES: usize = 0x1e8;
const E820_TABLE: usize = 0x2d0;
const E820_MAX: usize = 128;
const BOOT_PARAMS_LEN: usize = 4096;

/// "HdrS".
const MAGIC_VALUE: u32 = 0x5372_6448;
/// First version that has `xloadflags`, and so can be entered in 64-bit mode.
const VERSION_MIN: u16 = 0x020c;
/// XLF_KERNEL_64: there is a 64-bit entry.
const KERNEL_64: u16 = 1;
/// The 64-bit entry lies that far behind the start of the protected-mode kernel.
const ENTRY_64: u64 = 0x200;
/// A boot loader without a number of its own.
const LOADER_UNDEFINED: u8 = 0xff;
/// Selectors that the protocol asks for: __BOOT_CS and __BOOT_DS.
const SELECTORS: (u16, u16) = (0x10, 0x18);

/// Whether this is a bzImage.
pub(super) fn is_bz_image(image: &[u8]) -> bool {
    bytes_at(image, MAGIC).map(u32::from_le_bytes) == Some(MAGIC_VALUE)
}

/// What the loader needs to know of an image.
#[derive(Debug)]
struct Setup<'a> {
    header: &'a [u8],
    command_line_max: usize,
    initrd_end_max: u64,
    /// End of what the kernel uses before it looks at the memory map.
    run_end: u64,
}

/// Loads the image and what goes with it; the vCPUs but the first wait for INIT and SIPI.
///
/// # Errors
/// [`KernelError`].
pub(super) fn load(
    memory: &GuestMemory,
    image: &[u8],
    initrd: Option<&[u8]>,
    command_line: &str,
    rsdp_gpa: u64,
) -> Result<Start, KernelError> {
    let setup = setup(image).map_err(|why| KernelError::Format { why })?;
    let mem_mib = memory.len_bytes() >> 20;
    let load_gpa = GuestAddress(HIGH_START);
    BzImage::load(memory.ram(), Some(load_gpa), &mut Cursor::new(image), None)
        .map_err(|source| KernelError::Load { mem_mib, source })?;
    super::place_command_line(memory, command_line, setup.command_line_max)?;
    let initrd = super::place_initrd(memory, initrd, setup.run_end, setup.initrd_end_max)?;
    let params = boot_params(&setup, initrd, rsdp_gpa, &memory_map(memory));
    let place_error = |what| move |source| KernelError::Place { what, source };
    memory
        .ram()
        .write_slice(&params, GuestAddress(BOOT_PARAMS_GPA))
        .map_err(place_error("boot parameters"))?;
    // All that the kernel needs until it has tables of its own lies below 4 GiB.
    let entry = tables::write(memory.ram(), 0, SELECTORS).map_err(place_error("page tables"))?;
    Ok(Start::LongMode(LongModeEntry {
        rip: HIGH_START + ENTRY_64,
        rsi: BOOT_PARAMS_GPA,
        ..entry
    }))
}

fn setup(image: &[u8]) -> Result<Setup<'_>, String> {
    let u16_at = |at| bytes_at(image, at).map(u16::from_le_bytes);
    let u32_at = |at| bytes_at(image, at).map(u32::from_le_bytes);
    let cut_off = || "its setup header is cut off".to_owned();
    let version = u16_at(VERSION).ok_or_else(cut_off)?;
    if version < VERSION_MIN {
        return Err(format!(
            "its boot protocol is {}.{:02}, older than 2.12",
            version >> 8,
            version & 0xff
        ));
    }
    if u16_at(XLOADFLAGS).ok_or_else(cut_off)? & KERNEL_64 == 0 {
        return Err("it is a 32-bit kernel".to_owned());
    }
    // The header ends where the jump in front of it lands.
    let jump = image.get(JUMP_LEN).copied().ok_or_else(cut_off)?;
    let header = image.get(SETUP_HEADER..MAGIC + usize::from(jump)).ok_or_else(cut_off)?;
    let run_start = bytes_at(image, PREF_ADDRESS)
        .map(u64::from_le_bytes)
        .ok_or_else(cut_off)?;
    let init_size = u32_at(INIT_SIZE).ok_or_else(cut_off)?;
    Ok(Setup {
        header,
        command_line_max: usize::try_from(u32_at(CMDLINE_SIZE).ok_or_else(cut_off)?).unwrap_or(usize::MAX),
        initrd_end_max: u64::from(u32_at(INITRD_ADDR_MAX).ok_or_else(cut_off)?) + 1,
        run_end: run_start.max(HIGH_START).saturating_add(u64::from(init_size)),
    })
}

fn boot_params(setup: &Setup<'_>, initrd: (u64, u64), rsdp_gpa: u64, map: &[MapRange]) -> Vec<u8> {
    let mut params = vec![0; BOOT_PARAMS_LEN];
    let mut put = |at: usize, bytes: &[u8]| {
        if let Some(place) = params.get_mut(at..at + bytes.len()) {
            place.copy_from_slice(bytes);
        }
    };
    let low = |value: u64| u32::try_from(value & 0xffff_ffff).unwrap_or(0).to_le_bytes();
    put(SETUP_HEADER, setup.header);
    put(TYPE_OF_LOADER, &[LOADER_UNDEFINED]);
    put(CMD_LINE_PTR, &low(COMMAND_LINE_GPA));
    put(RAMDISK_IMAGE, &low(initrd.0));
    put(RAMDISK_SIZE, &low(initrd.1));
    put(ACPI_RSDP_ADDR, &rsdp_gpa.to_le_bytes());
    let entries = map.iter().take(E820_MAX);
    put(E820_ENTRIES, &[u8::try_from(entries.len()).unwrap_or(0)]);
    for (index, range) in entries.enumerate() {
        let mut entry = [range.gpa.to_le_bytes(), range.len_bytes.to_le_bytes()].concat();
        entry.extend(range.kind.number().to_le_bytes());
        put(E820_TABLE + index * 20, &entry);
    }
    params
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A kernel of one setup sector and one sector of code.
    fn image() -> Vec<u8> {
        let mut image = vec![0; 1536];
        image[SETUP_HEADER] = 1;
        image[JUMP_LEN] = 0x66;
        image[MAGIC..MAGIC + 4].copy_from_slice(b"HdrS");
        image[VERSION..VERSION + 2].copy_from_slice(&0x020f_u16.to_le_bytes());
        image[0x211] = 1; // loaded high
        image[INITRD_ADDR_MAX..INITRD_ADDR_MAX + 4].copy_from_slice(&0x7fff_ffff_u32.to_le_bytes());
        image[XLOADFLAGS] = 1;
        image[CMDLINE_SIZE..CMDLINE_SIZE + 2].copy_from_slice(&2047_u16.to_le_bytes());
        image[PREF_ADDRESS..PREF_ADDRESS + 4].copy_from_slice(&0x100_0000_u32.to_le_bytes());
        image[INIT_SIZE..INIT_SIZE + 4].copy_from_slice(&0x100_0000_u32.to_le_bytes());
        image[1024] = 0xf4;
        image
    }

    fn word(memory: &GuestMemory, gpa: u64) -> u32 {
        let mut bytes = [0; 4];
        memory.read_at(gpa, &mut bytes).unwrap();
        u32::from_le_bytes(bytes)
    }

    #[test]
    fn kernel_command_line_initrd_and_map_are_where_the_boot_parameters_say() {
        let memory = GuestMemory::create(64).unwrap();
        let start = load(&memory, &image(), Some(b"0707"), "quiet", 0xe_0000).unwrap();
        let Start::LongMode(entry) = start else {
            panic!("{start:?}")
        };
        assert_eq!((entry.rip, entry.rsi), (0x10_0200, BOOT_PARAMS_GPA));
        assert_eq!((entry.code_selector, entry.data_selector), (0x10, 0x18));
        assert_eq!(word(&memory, HIGH_START), 0xf4);
        let params = |at: usize| word(&memory, BOOT_PARAMS_GPA + at as u64);
        assert_eq!(params(MAGIC), MAGIC_VALUE);
        assert_eq!(params(TYPE_OF_LOADER) & 0xff, 0xff);
        assert_eq!((params(ACPI_RSDP_ADDR), params(E820_ENTRIES)), (0xe_0000, 3));
        assert_eq!(
            (
                params(E820_TABLE + 40),
                params(E820_TABLE + 48),
                params(E820_TABLE + 56)
            ),
            (0x10_0000, 63 << 20, 1)
        );
        assert_eq!(word(&memory, u64::from(params(CMD_LINE_PTR))).to_le_bytes(), *b"quie");
        assert_eq!((params(RAMDISK_IMAGE), params(RAMDISK_SIZE)), ((64 << 20) - 4096, 4));
        assert_eq!(word(&memory, u64::from(params(RAMDISK_IMAGE))).to_le_bytes(), *b"0707");
    }

    #[test]
    fn what_does_not_fit_is_refused_with_the_sizes() {
        let refused = |mem_mib, initrd: Option<&[u8]>, line: &str| {
            let memory = GuestMemory::create(mem_mib).unwrap();
            load(&memory, &image(), initrd, line, 0).unwrap_err().to_string()
        };
        assert!(refused(64, None, &"x".repeat(2048)).contains("2048 bytes, at most 2047"));
        let text = refused(33, Some(&[0; 2 << 20]), "");
        assert!(text.contains("2097152 bytes") && text.contains("33 MiB"), "{text}");
    }

    #[test]
    fn kernels_without_a_64_bit_entry_are_refused() {
        let mut old = image();
        old[VERSION] = 0x0b;
        assert!(setup(&old).unwrap_err().contains("2.11"));
        let mut narrow = image();
        narrow[XLOADFLAGS] = 0;
        assert!(setup(&narrow).unwrap_err().contains("32-bit"));
        assert!(setup(&image()[..0x240]).unwrap_err().contains("cut off"));
    }
}
