//! The kernel's file behind the memory: planned, and read piece by piece.

use std::borrow::Cow;

use vmcore::elf::Layout;
use vmcore::trailer::Pages;
use vmcore::{CoreferryNote, KeptKernelNote};

use super::{CoreFileError, PAGE, Pieces, READ_LEN, Stage};
use crate::kernel::KeptKernel;
use crate::limits::KERNEL_PIECE_LEN;

/// Gives the kernel a place in the layout and in the note. One that has none does not cost the core.
pub(super) fn plan<'n>(
    layout: Layout,
    kernel: Option<&KeptKernel>,
    note: &'n CoreferryNote,
) -> (Layout, Cow<'n, CoreferryNote>) {
    let Some(kernel) = kernel else {
        return (layout, Cow::Borrowed(note));
    };
    let mut note = note.clone();
    let layout = match layout.clone().with_kernel(kernel.len_bytes()) {
        Ok(with) => {
            note.kept_kernel = Some(KeptKernelNote {
                name: kernel.name().to_owned(),
                file_offset: with.memory_end(),
                len_bytes: kernel.len_bytes(),
                digest: kernel.digest(),
            });
            with
        }
        Err(why) => {
            note.troubles.push(format!("the kernel file is not in the core: {why}"));
            layout
        }
    };
    (layout, Cow::Owned(note))
}

impl Pieces<'_> {
    /// Reads the next piece of the kernel, or goes on to the trailer. A piece that is no longer what was booted is left out:
    /// whoever takes the file out again is told so, and never gets half of two files.
    pub(super) fn read_kernel(&mut self) -> Result<(), CoreFileError> {
        let layout = &self.core.layout;
        self.filled = 0;
        self.next = 0;
        let (Stage::Kernel(index), Some(trailer)) = (&mut self.stage, self.trailer.as_mut()) else {
            return Ok(());
        };
        let kernel = self.core.source.kernel().filter(|_| layout.kernel_len() > 0);
        let Some(kernel) = kernel.filter(|kernel| *index < kernel.piece_count()) else {
            return self.start_trailer();
        };
        self.buffer_offset = layout.memory_end() + *index * KERNEL_PIECE_LEN as u64;
        let piece = kernel.piece(*index, &mut self.buffer).map(<[u8]>::len);
        *index += 1;
        match piece {
            Ok(len) => {
                self.filled = len.next_multiple_of(PAGE);
                if let Some(rest) = self.buffer.get_mut(len..self.filled) {
                    rest.fill(0);
                }
            }
            Err(why) => {
                let left = layout.covered_end() - self.buffer_offset;
                let len_bytes = left.min(KERNEL_PIECE_LEN as u64);
                tracing::warn!("the kernel file {}: {why}; the core goes on without it", kernel.name());
                trailer.pages(self.buffer_offset, Pages::Excluded(len_bytes))?;
            }
        }
        Ok(())
    }
}

const _: () = assert!(KERNEL_PIECE_LEN.is_multiple_of(PAGE) && KERNEL_PIECE_LEN <= READ_LEN);

#[cfg(test)]
#[expect(clippy::cast_possible_truncation, reason = "files of a test are small")]
mod tests {
    use std::fs;
    use std::path::{Path, PathBuf};

    use vmcore::reader::{CoreHead, CoreNotes};
    use vmcore::trailer::{FOOTER_LEN, Footer, PageState, Trailer};

    use super::*;
    use crate::dump::core_file::{CoreFile, PAGE_LEN};
    use crate::dump::test_source::{TestSource, whole_file};
    use crate::kernel::{KernelFile, LoadedKernel};

    /// Two pieces and a bit, with pages of zeros in them.
    const LEN: usize = 2 * KERNEL_PIECE_LEN + 5000;

    fn kernel(dir: &Path) -> (PathBuf, Vec<u8>) {
        let mut bytes: Vec<u8> = (0..LEN).map(|at| (at * 31 % 251) as u8).collect();
        bytes[3 * PAGE..5 * PAGE].fill(0);
        let path = dir.join("vmlinuz-6.1");
        fs::write(&path, &bytes).unwrap();
        (path, bytes)
    }

    fn keep(path: &Path) -> Option<KeptKernel> {
        let file = KernelFile::open(path).unwrap();
        let bytes = file.read(u64::MAX).unwrap();
        KeptKernel::new(LoadedKernel { file, bytes }).ok()
    }

    fn note_of(file: &[u8]) -> (CoreHead, CoreferryNote) {
        let head = CoreHead::parse(file).unwrap();
        let notes = CoreNotes::parse(head.notes_in(file).unwrap()).unwrap();
        (head, notes.coreferry().unwrap().unwrap())
    }

    fn trailer_of(file: &[u8]) -> Trailer<'_> {
        let footer = Footer::parse(&file[file.len() - FOOTER_LEN..]).unwrap();
        Trailer::parse(&footer, &file[footer.trailer_offset as usize..]).unwrap()
    }

    #[test]
    fn the_kernel_stands_behind_the_memory_and_the_trailer_proves_it() {
        let dir = tempfile::tempdir().unwrap();
        let (path, bytes) = kernel(dir.path());
        let mut source = TestSource::with_holes();
        let bare = whole_file(&CoreFile::plan(&source, &CoreferryNote::default()).unwrap());
        source.kernel = keep(&path);
        let core = CoreFile::plan(&source, &CoreferryNote::default()).unwrap();
        let file = whole_file(&core);
        assert_eq!(file.len() as u64, core.len_bytes());
        let memory_end = core.layout().memory_end() as usize;
        assert!(
            file[1 << 20..memory_end] == bare[1 << 20..memory_end],
            "memory is as without a kernel"
        );
        assert!(file[memory_end..memory_end + LEN] == bytes);
        let (head, note) = note_of(&file);
        let kept = note.kept_kernel.unwrap();
        assert_eq!((kept.name.as_str(), kept.len_bytes), ("vmlinuz-6.1", LEN as u64));
        assert_eq!(kept.file_offset, memory_end as u64);
        assert_eq!(kept.digest, format!("blake3:{}", blake3::hash(&bytes).to_hex()));
        for load in &head.loads {
            assert!(load.file_offset + load.file_len_bytes <= memory_end as u64, "{load:x?}");
        }
        let trailer = trailer_of(&file);
        assert_eq!(trailer.covered_len(), core.layout().covered_end());
        let zero = memory_end as u64 + 3 * PAGE_LEN;
        assert_eq!(trailer.state_at(zero), Some(PageState::Zero));
        assert_eq!(trailer.state_at(zero - PAGE_LEN), Some(PageState::Stored));
        let last = core.layout().covered_end() - PAGE_LEN;
        assert_eq!(trailer.state_at(last), Some(PageState::Stored));
        assert!(
            file[memory_end + LEN..core.layout().covered_end() as usize]
                .iter()
                .all(|byte| *byte == 0)
        );
    }

    #[test]
    fn a_kernel_that_is_overwritten_under_a_dump_is_left_out_where_it_differs() {
        let dir = tempfile::tempdir().unwrap();
        let (path, mut bytes) = kernel(dir.path());
        let mut source = TestSource::with_holes();
        source.kernel = keep(&path);
        let core = CoreFile::plan(&source, &CoreferryNote::default()).unwrap();
        bytes[KERNEL_PIECE_LEN + 7] ^= 1;
        bytes.truncate(LEN - 100);
        fs::write(&path, &bytes).unwrap();
        let file = whole_file(&core);
        let trailer = trailer_of(&file);
        let at = |piece: u64| core.layout().memory_end() + piece * KERNEL_PIECE_LEN as u64;
        assert_eq!(trailer.state_at(at(0)), Some(PageState::Stored));
        let mut excluded = trailer.declared().filter(|(_, state)| *state == PageState::Excluded);
        let (range, _) = excluded.next().unwrap();
        assert_eq!(
            range,
            at(1)..core.layout().covered_end(),
            "what differs, and what is cut off"
        );
        assert_eq!(excluded.next(), None);
        assert!(
            file[at(1) as usize..core.layout().covered_end() as usize]
                .iter()
                .all(|byte| *byte == 0)
        );
    }
}
