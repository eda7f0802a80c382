//! Where KASLR put the kernel, told from a processor's page tables when there is no VMCOREINFO at all.
//!
//! Linux maps its image in one piece into the 1 GiB from `__START_KERNEL_map` on and unmaps the rest of it (`cleanup_highmap`,
//! arch/x86/mm/init_64.c), so that the first mapped page there is the start of its text. A processor is believed only if its
//! interrupt table leads into that image, and if the image says that it is Linux.

use crate::cpu::CpuState;
use crate::image::PhysicalMemory;
use crate::limits::KERNEL_IMAGE_LEN_MAX;
use crate::linux::paging::PageTables;
use crate::linux::space::{KERNEL_IMAGE_LEN, START_KERNEL_MAP};

/// The image is mapped in pages of this length, and aligned to it (`CONFIG_PHYSICAL_ALIGN`).
const STEP_LEN: u64 = 2 << 20;
/// Where an image starts that KASLR has not moved: `CONFIG_PHYSICAL_START` of distributions (arch/x86/Kconfig).
const PHYSICAL_START: u64 = 16 << 20;
/// What every kernel calls itself (`linux_banner`, init/version.c).
const BANNER: &[u8] = b"Linux version ";
/// Longest banner that is read; those of distributions have some 200 bytes.
const BANNER_LEN_MAX: usize = 512;

/// A kernel's place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KernelPlace {
    /// The page tables by which it was found.
    pub tables: PageTables,
    /// First address of its image.
    pub image_va: u64,
    /// How much of it is mapped, in bytes.
    pub image_len_bytes: u64,
    /// Physical address of [`START_KERNEL_MAP`]; wraps for kernels that are loaded below their link address.
    pub phys_base: u64,
    /// What it calls itself.
    pub banner: String,
}

impl KernelPlace {
    /// The place of the kernel that these processors run.
    pub fn find<M: PhysicalMemory + ?Sized>(memory: &M, cpus: &[CpuState]) -> Option<Self> {
        cpus.iter().find_map(|cpu| {
            let tables = PageTables::of_cpu(cpu);
            let mut both = [tables, tables.of_kernel()].into_iter();
            both.find_map(|tables| Self::by(memory, tables, cpu))
        })
    }

    /// How far KASLR moved the image's addresses, if it was linked for the usual place.
    #[must_use]
    pub fn kernel_offset(&self) -> Option<u64> {
        self.image_va.checked_sub(START_KERNEL_MAP + PHYSICAL_START)
    }

    /// The place by these tables, if they are those of a Linux kernel.
    fn by<M: PhysicalMemory + ?Sized>(memory: &M, tables: PageTables, cpu: &CpuState) -> Option<Self> {
        let mapped = |step: u64| {
            let va = START_KERNEL_MAP + step * STEP_LEN;
            Some((va, tables.translate(memory, va)?.0))
        };
        let steps = KERNEL_IMAGE_LEN / STEP_LEN;
        let (first, (image_va, gpa)) = (0..steps).find_map(|step| Some((step, mapped(step)?)))?;
        let phys_base = gpa.wrapping_sub(image_va - START_KERNEL_MAP);
        // As far as it goes on in one piece, in memory too.
        let in_one_piece = |step: &u64| {
            let next = mapped(*step);
            next.is_some_and(|(va, gpa)| gpa == (va - START_KERNEL_MAP).wrapping_add(phys_base))
        };
        let len = (first..steps).take_while(in_one_piece).count() as u64 * STEP_LEN;
        let image_len_bytes = len.min(KERNEL_IMAGE_LEN_MAX);
        let handler = first_handler(memory, tables, cpu)?;
        if !(image_va..image_va + len).contains(&handler) {
            return None;
        }
        let banner = banner(memory, gpa, image_len_bytes)?;
        Some(Self {
            tables,
            image_va,
            image_len_bytes,
            phys_base,
            banner,
        })
    }
}

/// The address that the interrupt table has for vector 0 (AMD64 APM vol. 2, 4.8.4: 16 bytes, offset in three parts).
fn first_handler<M: PhysicalMemory + ?Sized>(memory: &M, tables: PageTables, cpu: &CpuState) -> Option<u64> {
    let (gpa, _) = tables.translate(memory, cpu.idt.base)?;
    let mut gate = [0; 16];
    memory.read(gpa, &mut gate).ok()?;
    let [a, b, _, _, _, _, c, d, e, f, g, h, ..] = gate;
    Some(u64::from_le_bytes([a, b, c, d, e, f, g, h]))
}

/// The banner in the image, if it has one.
fn banner<M: PhysicalMemory + ?Sized>(memory: &M, image_gpa: u64, len_bytes: u64) -> Option<String> {
    const PIECE_LEN: usize = 1 << 20;
    let mut buffer = vec![0; PIECE_LEN + BANNER_LEN_MAX];
    for at in (0..len_bytes).step_by(PIECE_LEN) {
        let gpa = image_gpa.checked_add(at)?;
        if memory.read(gpa, &mut buffer).is_err() {
            // Parts of the image are given back after boot, and may be absent; the end has nothing behind it.
            let Some(piece) = buffer.get_mut(..PIECE_LEN) else {
                continue;
            };
            if memory.read(gpa, piece).is_err() {
                continue;
            }
        }
        for start in memchr::memmem::find_iter(&buffer, BANNER) {
            let rest = buffer.get(start..).unwrap_or_default();
            let text = rest.get(..BANNER_LEN_MAX.min(rest.len())).unwrap_or_default();
            let end = text.iter().position(|byte| matches!(byte, 0 | b'\n'));
            // The format string of the same words is no banner.
            let line = end.and_then(|end| str::from_utf8(text.get(..end)?).ok());
            if let Some(line) = line.filter(|line| line.contains(" (") && !line.contains("%s")) {
                return Some(line.to_owned());
            }
        }
    }
    None
}
