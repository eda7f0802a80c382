//! The proof: the segments of a stored core against the memory of the guest that it was made of.
//!
//! The core is read by the `object` crate, not by the code that wrote it. Both sides are read wherever one of the two has
//! data (`SEEK_DATA`, lseek(2)). All the rest is a hole on both sides, and that reads as zero.

use std::fs::File;
use std::ops::Range;
use std::os::unix::fs::FileExt as _;
use std::path::Path;

use anyhow::{Context as _, ensure};
use object::Endianness;
use object::elf::{FileHeader64, PT_LOAD};
use object::read::elf::{FileHeader as _, ProgramHeader as _};
use rustix::fs::{SeekFrom, seek};
use vmcore::MemoryRange;
use vmm_agent::memory::GuestMemory;

/// Bytes of a core that hold its program headers: our header room.
const HEAD_LEN: usize = 1 << 20;
/// Bytes that are compared at a time.
const STEP_LEN: u64 = 1 << 20;

/// A loaded segment of a core.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Segment {
    gpa: u64,
    file_offset: u64,
    len_bytes: u64,
}

/// What a comparison showed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Compared {
    /// The same ranges with the same bytes, but for those that were excepted.
    pub(super) identical: bool,
    /// Bytes that were excepted and are not the same.
    pub(super) changed_bytes: u64,
}

/// Compares the segments of the core at `path` with `memory`. Bytes of `excepted` are counted where they differ; anywhere
/// else one other byte ends the comparison.
pub(super) fn same_memory(
    path: &Path,
    memory: &GuestMemory,
    excepted: Option<MemoryRange>,
) -> anyhow::Result<Compared> {
    let mut compared = Compared {
        identical: false,
        changed_bytes: 0,
    };
    let core = File::open(path).with_context(|| format!("cannot open the stored core {}", path.display()))?;
    let segments = segments(&core).with_context(|| format!("{} is no ELF core", path.display()))?;
    let has = segments.iter().map(|segment| (segment.gpa, segment.len_bytes));
    let should_have = memory.ranges().iter().map(|range| (range.gpa, range.len_bytes));
    if !has.eq(should_have) {
        return Ok(compared);
    }
    for segment in segments {
        let Some(changed) = changed_bytes(&core, memory, segment, excepted)? else {
            return Ok(compared);
        };
        compared.changed_bytes += changed;
    }
    compared.identical = true;
    Ok(compared)
}

/// How many bytes of `excepted` differ; nothing if any other byte does.
fn changed_bytes(
    core: &File,
    memory: &GuestMemory,
    segment: Segment,
    excepted: Option<MemoryRange>,
) -> anyhow::Result<Option<u64>> {
    let Segment {
        gpa,
        file_offset,
        len_bytes,
    } = segment;
    let mut extents = stored_extents(core, segment).context("cannot look for the holes of the stored core")?;
    let touched = memory.data_extents(MemoryRange { gpa, len_bytes })?;
    extents.extend(
        touched
            .iter()
            .map(|extent| extent.gpa - gpa..extent.gpa - gpa + extent.len_bytes),
    );
    let mut stored = vec![0; usize::try_from(STEP_LEN)?];
    let mut original = stored.clone();
    let mut changed = 0;
    for Range { start, end } in union(extents) {
        let mut at = start;
        while at < end {
            let step = usize::try_from(STEP_LEN.min(end - at))?;
            core.read_exact_at(&mut stored[..step], file_offset + at)
                .context("cannot read the stored core")?;
            memory.read_at(gpa + at, &mut original[..step])?;
            if stored[..step] != original[..step] {
                for (place, _) in (gpa + at..)
                    .zip(stored[..step].iter().zip(&original[..step]))
                    .filter(|(_, (stored, original))| stored != original)
                {
                    if !excepted.is_some_and(|range| range.contains(place, 1)) {
                        return Ok(None);
                    }
                    changed += 1;
                }
            }
            at += step as u64;
        }
    }
    Ok(Some(changed))
}

/// The parts of a segment that are no holes in the file, counted from the segment's beginning.
fn stored_extents(core: &File, segment: Segment) -> anyhow::Result<Vec<Range<u64>>> {
    let start = segment.file_offset;
    let end = start
        .checked_add(segment.len_bytes)
        .context("a segment ends beyond all files")?;
    // What is missing at a file's end looks like a hole to lseek(2).
    ensure!(
        end <= core.metadata()?.len(),
        "the file ends before its last segment does"
    );
    let mut extents = Vec::new();
    let mut at = start;
    while at < end {
        let data = match seek(core, SeekFrom::Data(at)) {
            Ok(data) if data < end => data,
            Ok(_) | Err(rustix::io::Errno::NXIO) => break,
            Err(why) => return Err(why.into()),
        };
        at = seek(core, SeekFrom::Hole(data))?.min(end);
        extents.push(data - start..at - start);
    }
    Ok(extents)
}

/// The same bytes in ascending extents that do not touch.
fn union(mut extents: Vec<Range<u64>>) -> Vec<Range<u64>> {
    extents.sort_unstable_by_key(|extent| extent.start);
    let mut joined: Vec<Range<u64>> = Vec::new();
    for extent in extents {
        match joined.last_mut() {
            Some(last) if extent.start <= last.end => last.end = last.end.max(extent.end),
            _ => joined.push(extent),
        }
    }
    joined
}

/// Every loaded segment, by address.
fn segments(core: &File) -> anyhow::Result<Vec<Segment>> {
    let mut head = vec![0; HEAD_LEN];
    core.read_exact_at(&mut head, 0)
        .context("it is shorter than its header room")?;
    let header = FileHeader64::<Endianness>::parse(&*head)?;
    let endian = header.endian()?;
    let mut segments = Vec::new();
    for segment in header.program_headers(endian, &*head)? {
        if segment.p_type(endian) == PT_LOAD {
            let len_bytes = segment.p_filesz(endian);
            ensure!(
                len_bytes == segment.p_memsz(endian),
                "a segment is longer in memory than in the file"
            );
            segments.push(Segment {
                gpa: segment.p_paddr(endian),
                file_offset: segment.p_offset(endian),
                len_bytes,
            });
        }
    }
    segments.sort_unstable();
    Ok(segments)
}

#[cfg(test)]
mod tests {
    use vmcore::CoreferryNote;
    use vmcore::elf::{HeaderInput, Layout};

    use super::*;

    const PAGE: u64 = 4096;
    const MIB: u64 = 1 << 20;

    /// A guest of 5 GiB, so that its memory has two ranges, and its core. Both have the same bytes in the same pages, and
    /// holes elsewhere.
    struct Pair {
        memory: GuestMemory,
        layout: Layout,
        core: tempfile::NamedTempFile,
    }

    impl Pair {
        fn new() -> Self {
            let memory = GuestMemory::create(5 << 10).unwrap();
            let layout = Layout::new(memory.ranges(), 1).unwrap();
            let input = HeaderInput {
                cpus: &[vmcore::CpuState::default()],
                vmcoreinfo: None,
                coreferry: &CoreferryNote::default(),
                text: None,
            };
            let core = tempfile::NamedTempFile::new().unwrap();
            core.as_file().write_all_at(&layout.header(&input).unwrap(), 0).unwrap();
            core.as_file().set_len(layout.memory_end()).unwrap();
            let pair = Self { memory, layout, core };
            for (gpa, len) in [(0, 1), (MIB, 3 * MIB + 1), (4 << 30, PAGE), ((6 << 30) - 1, 1)] {
                let bytes = vec![0x5a; usize::try_from(len).unwrap()];
                pair.remember(gpa, &bytes);
                pair.store(gpa, &bytes);
            }
            pair
        }

        fn remember(&self, gpa: u64, bytes: &[u8]) {
            let offset = self.memory.memfd_offset(gpa, bytes.len() as u64).unwrap();
            self.memory.memfd().write_all_at(bytes, offset).unwrap();
        }

        fn store(&self, gpa: u64, bytes: &[u8]) {
            let offset = self.layout.file_offset_of(gpa).unwrap();
            self.core.as_file().write_all_at(bytes, offset).unwrap();
        }

        fn is_same(&self) -> bool {
            let compared = same_memory(self.core.path(), &self.memory, None).unwrap();
            assert_eq!(compared.changed_bytes, 0, "nothing is excepted");
            compared.identical
        }
    }

    #[test]
    fn the_same_bytes_are_the_same_whatever_is_a_hole() {
        let pair = Pair::new();
        assert!(pair.is_same());
        pair.store(100 * MIB, &[0; 5000]);
        pair.remember(200 * MIB, &[0; 5000]);
        assert!(pair.is_same(), "zeros that are stored are zeros");
    }

    #[test]
    fn one_other_byte_in_data_is_found_on_either_side() {
        for gpa in [0, MIB, 2 * MIB - 1, 2 * MIB, 4 * MIB, 4 << 30, (6 << 30) - 1] {
            let pair = Pair::new();
            pair.store(gpa, &[0x5b]);
            assert!(!pair.is_same(), "in the file, for guest address {gpa:#x}");
            let pair = Pair::new();
            pair.remember(gpa, &[0x5b]);
            assert!(!pair.is_same(), "in memory, at {gpa:#x}");
        }
    }

    #[test]
    fn one_byte_in_a_hole_of_the_other_side_is_found() {
        for gpa in [
            PAGE,
            10 * MIB + 77,
            (3 << 30) - 1,
            (4 << 30) + PAGE,
            (6 << 30) - PAGE - 1,
        ] {
            let pair = Pair::new();
            pair.remember(gpa, &[1]);
            assert!(!pair.is_same(), "a hole of the file, for guest address {gpa:#x}");
            let pair = Pair::new();
            pair.store(gpa, &[1]);
            assert!(!pair.is_same(), "a hole of memory, at {gpa:#x}");
        }
    }

    #[test]
    fn a_core_that_lost_its_end_or_has_other_ranges_is_no_match() {
        let pair = Pair::new();
        let end = pair.layout.memory_end();
        pair.core.as_file().set_len(end - 1).unwrap();
        assert!(same_memory(pair.core.path(), &pair.memory, None).is_err());
        pair.core.as_file().set_len(end).unwrap();
        assert!(!pair.is_same(), "its last byte is zero now");
        let other = GuestMemory::create(8).unwrap();
        assert!(!same_memory(pair.core.path(), &other, None).unwrap().identical);
    }

    #[test]
    fn bytes_that_are_excepted_are_counted_and_their_neighbours_are_not_spared() {
        let excepted = Some(MemoryRange {
            gpa: 2 * MIB,
            len_bytes: PAGE,
        });
        let compare = |pair: &Pair| same_memory(pair.core.path(), &pair.memory, excepted).unwrap();
        let same = |changed_bytes| Compared {
            identical: true,
            changed_bytes,
        };
        let pair = Pair::new();
        assert_eq!(compare(&pair), same(0));
        pair.store(2 * MIB, &[1]);
        pair.remember(2 * MIB + PAGE - 1, &[2]);
        assert_eq!(compare(&pair), same(2));
        for gpa in [2 * MIB - 1, 2 * MIB + PAGE] {
            let pair = Pair::new();
            pair.store(gpa, &[1]);
            assert!(!compare(&pair).identical, "{gpa:#x}");
        }
    }

    #[test]
    fn extents_are_joined_where_they_touch() {
        assert_eq!(union(vec![8..9, 0..4, 2..6, 6..7, 1..2]), [0..7, 8..9]);
        assert_eq!(union(Vec::new()), []);
    }
}
