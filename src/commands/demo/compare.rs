//! The proof: the segments of a stored core against the memory of the guest that it was made of.
//!
//! The core is read by the `object` crate, not by the code that wrote it.

use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::path::Path;

use anyhow::{Context as _, ensure};
use object::Endianness;
use object::elf::{FileHeader64, PT_LOAD};
use object::read::elf::{FileHeader as _, ProgramHeader as _};
use vmm_agent::memory::GuestMemory;

/// Bytes of a core that hold its program headers: our header room.
const HEAD_LEN: usize = 1 << 20;
/// Bytes that are compared at a time.
const STEP_LEN: u64 = 1 << 20;

/// Whether the segments of the core at `path` are `memory`: the same ranges with the same bytes.
pub(super) fn same_memory(path: &Path, memory: &GuestMemory) -> anyhow::Result<bool> {
    let core = File::open(path).with_context(|| format!("cannot open the stored core {}", path.display()))?;
    let segments = segments(&core).with_context(|| format!("{} is no ELF core", path.display()))?;
    let ranges: Vec<(u64, u64)> = segments.iter().map(|&(gpa, _, len)| (gpa, len)).collect();
    let expected: Vec<(u64, u64)> = memory
        .ranges()
        .iter()
        .map(|range| (range.gpa, range.len_bytes))
        .collect();
    if ranges != expected {
        return Ok(false);
    }
    for (gpa, file_offset, len) in segments {
        if !same_bytes(&core, file_offset, memory, gpa, len)? {
            return Ok(false);
        }
    }
    Ok(true)
}

fn same_bytes(core: &File, file_offset: u64, memory: &GuestMemory, gpa: u64, len: u64) -> anyhow::Result<bool> {
    let mut stored = vec![0; usize::try_from(STEP_LEN)?];
    let mut original = stored.clone();
    let mut done = 0;
    while done < len {
        let step = usize::try_from(STEP_LEN.min(len - done))?;
        core.read_exact_at(&mut stored[..step], file_offset + done)
            .context("cannot read the stored core")?;
        memory.read_at(gpa + done, &mut original[..step])?;
        if stored[..step] != original[..step] {
            return Ok(false);
        }
        done += step as u64;
    }
    Ok(true)
}

/// Guest address, file offset and length of every loaded segment, by address.
fn segments(core: &File) -> anyhow::Result<Vec<(u64, u64, u64)>> {
    let mut head = vec![0; HEAD_LEN];
    core.read_exact_at(&mut head, 0)
        .context("it is shorter than its header room")?;
    let header = FileHeader64::<Endianness>::parse(&*head)?;
    let endian = header.endian()?;
    let mut segments = Vec::new();
    for segment in header.program_headers(endian, &*head)? {
        if segment.p_type(endian) == PT_LOAD {
            let len = segment.p_filesz(endian);
            ensure!(
                len == segment.p_memsz(endian),
                "a segment is longer in memory than in the file"
            );
            segments.push((segment.p_paddr(endian), segment.p_offset(endian), len));
        }
    }
    segments.sort_unstable();
    Ok(segments)
}
