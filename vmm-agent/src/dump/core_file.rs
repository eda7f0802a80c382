//! The vmcore as a stream of pieces, made in one pass over guest memory: header, then every page that is not zero, then the
//! kernel's file if it is kept, then the trailer. The network and the spool get the same pieces, so they get the same file.

mod kernel;

use vmcore::elf::{HeaderError, HeaderInput, Layout, LayoutError};
use vmcore::trailer::{Pages, TrailerBuildError, TrailerBuilder};
use vmcore::{CoreferryNote, MemoryRange, PAGE_LEN, is_zero};

use super::limits::{EXTENT_QUERY_LEN, READ_LEN};
use super::source::DumpSource;

/// [`PAGE_LEN`] as the type that slices use.
const PAGE: usize = vmcore::limits::PAGE_LEN_USIZE;

/// A vmcore that is planned and not yet read: its length and every offset are known.
pub struct CoreFile<'a> {
    source: &'a dyn DumpSource,
    layout: Layout,
    header: Vec<u8>,
    /// Memory that is left out.
    excluded: &'a [MemoryRange],
}

/// The core cannot be made from this source.
#[derive(Debug, thiserror::Error)]
pub enum CoreFileError {
    /// The memory ranges make no file.
    #[error("cannot plan the core: {0}")]
    Layout(#[from] LayoutError),
    /// The header does not fit them.
    #[error("cannot make the core's header: {0}")]
    Header(#[from] HeaderError),
    /// Pages came in an order that the trailer does not take: a bug here.
    #[error("cannot make the core's trailer: {0}")]
    Trailer(#[from] TrailerBuildError),
}

/// Bytes of the file at an offset; whole pages.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Piece<'b> {
    /// Where in the file.
    pub file_offset: u64,
    /// At most [`READ_LEN`] of them.
    pub bytes: &'b [u8],
}

impl<'a> CoreFile<'a> {
    /// Plans the core of `source` with this note.
    ///
    /// # Errors
    /// [`CoreFileError`] when ranges or registers make no vmcore.
    pub fn plan(source: &'a dyn DumpSource, note: &CoreferryNote) -> Result<Self, CoreFileError> {
        let cpus = source.cpu_states();
        let layout = Layout::new(source.ranges(), cpus.len())?;
        let (layout, note) = kernel::plan(layout, source.kernel(), note);
        let vmcoreinfo = source.vmcoreinfo();
        let input = HeaderInput {
            cpus,
            vmcoreinfo: vmcoreinfo.as_deref(),
            coreferry: &note,
            text: source.text(),
        };
        // A text mapping or a VMCOREINFO that lies is the guest's doing and must not cost the core; what its page structures made
        // us leave out must not, either.
        let without = |excluded| {
            let header = |input: &HeaderInput<'_>| layout.header_without(input, excluded);
            header(&input)
                .or_else(|_| header(&HeaderInput { text: None, ..input }))
                .or_else(|_| {
                    header(&HeaderInput {
                        text: None,
                        vmcoreinfo: None,
                        ..input
                    })
                })
        };
        let excluded = source.excluded();
        let (header, excluded) = match without(excluded) {
            Ok(header) => (header, excluded),
            Err(_) => (without(&[])?, [].as_slice()),
        };
        Ok(Self {
            source,
            layout,
            header,
            excluded,
        })
    }

    /// Length of the file in bytes.
    #[must_use]
    pub fn len_bytes(&self) -> u64 {
        self.layout.file_len()
    }

    /// Where everything stands.
    #[must_use]
    pub fn layout(&self) -> &Layout {
        &self.layout
    }

    /// Starts a pass over the memory.
    ///
    /// # Errors
    /// [`CoreFileError::Trailer`] if the header does not fit the trailer's idea of it.
    pub fn pieces(&self) -> Result<Pieces<'_>, CoreFileError> {
        let mut trailer = TrailerBuilder::new(&self.layout);
        trailer.header(&self.header)?;
        let mut buffer = self.header.clone();
        buffer.resize(self.header.len().next_multiple_of(PAGE), 0);
        Ok(Pieces {
            core: self,
            stage: Stage::Header,
            trailer: Some(trailer),
            buffer: buffer.into_boxed_slice(),
            buffer_offset: 0,
            next: 0,
            filled: 0,
            current: 0..0,
            file_position: 0,
            unreadable_bytes: 0,
        })
    }
}

impl std::fmt::Debug for CoreFile<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("CoreFile")
            .field("layout", &self.layout)
            .finish_non_exhaustive()
    }
}

/// One pass over the memory.
#[derive(Debug)]
pub struct Pieces<'c> {
    core: &'c CoreFile<'c>,
    stage: Stage,
    /// Present until the trailer is made.
    trailer: Option<TrailerBuilder>,
    /// Bytes at `buffer_offset` of the file; those before `next` are delivered.
    buffer: Box<[u8]>,
    buffer_offset: u64,
    next: usize,
    /// Bytes of `buffer` that hold pages, which may be zero.
    filled: usize,
    /// Where the piece delivered last stands in `buffer`.
    current: std::ops::Range<usize>,
    /// Everything before this offset is delivered or needs no delivery.
    file_position: u64,
    unreadable_bytes: u64,
}

/// What `buffer` holds.
#[derive(Debug)]
enum Stage {
    Header,
    Memory(MemoryWalk),
    /// The piece of the kernel's file that comes next.
    Kernel(u64),
    Trailer,
    Done,
}

/// Where the pass stands in memory.
#[derive(Debug)]
struct MemoryWalk {
    /// Index of the segment.
    segment: usize,
    /// Bytes of the segment that are dealt with.
    done: u64,
    /// Touched parts up to `asked`, last first.
    extents: Vec<MemoryRange>,
    /// Bytes of the segment whose extents were asked for.
    asked: u64,
}

impl Pieces<'_> {
    /// How far the pass has come in the file, in bytes: the measure of progress, zero pages included.
    #[must_use]
    pub fn file_position(&self) -> u64 {
        self.file_position
    }

    /// Bytes that the source could not read; the trailer declares them excluded.
    #[must_use]
    pub fn unreadable_bytes(&self) -> u64 {
        self.unreadable_bytes
    }

    /// The next piece, or nothing at the end of the file.
    ///
    /// # Errors
    /// [`CoreFileError::Trailer`] for a source whose extents are not of whole pages, ascending and within their range.
    pub fn next_piece(&mut self) -> Result<Option<Piece<'_>>, CoreFileError> {
        let range = loop {
            let found = match &self.stage {
                Stage::Header | Stage::Trailer => self.next_plain(),
                Stage::Memory(_) | Stage::Kernel(_) => self.next_stored_run()?,
                Stage::Done => {
                    self.current = 0..0;
                    return Ok(None);
                }
            };
            match found {
                Some(range) => break range,
                None => self.advance()?,
            }
        };
        let file_offset = self.buffer_offset + range.start as u64;
        self.file_position = file_offset + range.len() as u64;
        self.current = range;
        Ok(Some(self.current()))
    }

    /// The piece that [`Pieces::next_piece`] gave last; empty before the first and after the last one.
    #[must_use]
    pub fn current(&self) -> Piece<'_> {
        let file_offset = self.buffer_offset + self.current.start as u64;
        Piece {
            file_offset,
            bytes: self.buffer.get(self.current.clone()).unwrap_or_default(),
        }
    }

    /// The next part of a buffer that is delivered as it is.
    fn next_plain(&mut self) -> Option<std::ops::Range<usize>> {
        let start = self.next;
        self.next = self.buffer.len().min(start + READ_LEN);
        (start < self.next).then_some(start..self.next)
    }

    /// The next run of pages in the buffer that are not zero; tells the trailer of it and of the zero pages before it.
    fn next_stored_run(&mut self) -> Result<Option<std::ops::Range<usize>>, CoreFileError> {
        let Some(rest) = self.buffer.get(self.next..self.filled) else {
            return Ok(None);
        };
        let (pages, _) = rest.as_chunks::<PAGE>();
        let zero_pages = pages.iter().take_while(|page| is_zero(*page)).count();
        let stored_pages = pages.iter().skip(zero_pages).take_while(|page| !is_zero(*page)).count();
        let start = self.next + zero_pages * PAGE;
        let end = start + stored_pages * PAGE;
        let trailer = self.trailer.as_mut();
        if let (Some(trailer), Some(bytes)) = (trailer, self.buffer.get(start..end)) {
            let at = self.buffer_offset + self.next as u64;
            trailer.pages(at, Pages::Zero((zero_pages * PAGE) as u64))?;
            trailer.pages(self.buffer_offset + start as u64, Pages::Stored(bytes))?;
        }
        self.next = end;
        Ok((start < end).then_some(start..end))
    }

    /// Fills the buffer with what comes next.
    fn advance(&mut self) -> Result<(), CoreFileError> {
        match &mut self.stage {
            Stage::Header => {
                self.buffer = vec![0; READ_LEN].into_boxed_slice();
                self.next = 0;
                self.stage = Stage::Memory(MemoryWalk::at_segment(0));
            }
            Stage::Memory(walk) => {
                if walk.segment >= self.core.layout.segments().len() {
                    self.stage = Stage::Kernel(0);
                    self.read_kernel()?;
                } else {
                    self.read_more()?;
                }
            }
            Stage::Kernel(_) => self.read_kernel()?,
            Stage::Trailer | Stage::Done => self.stage = Stage::Done,
        }
        Ok(())
    }

    fn start_trailer(&mut self) -> Result<(), CoreFileError> {
        self.buffer_offset = self.core.layout.covered_end();
        self.buffer = match self.trailer.take() {
            Some(trailer) => trailer.finish()?.into_boxed_slice(),
            None => Box::default(),
        };
        self.next = 0;
        self.stage = Stage::Trailer;
        Ok(())
    }

    /// Reads the next touched bytes of the current segment, or goes on to the next one.
    fn read_more(&mut self) -> Result<(), CoreFileError> {
        let Self {
            core,
            stage: Stage::Memory(walk),
            trailer: Some(trailer),
            ..
        } = self
        else {
            return Ok(());
        };
        self.filled = 0;
        self.next = 0;
        let Some(segment) = core.layout.segments().get(walk.segment) else {
            return Ok(());
        };
        if walk.extents.is_empty() && walk.asked < segment.len_bytes {
            let len_bytes = EXTENT_QUERY_LEN.min(segment.len_bytes - walk.asked);
            let query = MemoryRange {
                gpa: segment.gpa + walk.asked,
                len_bytes,
            };
            walk.extents = touched_parts(core, query);
            walk.asked += len_bytes;
        }
        let file_offset = segment.file_offset + walk.done;
        // Up to here nothing was ever touched, or it is left out.
        let (hole_end, extent) = match walk.extents.pop() {
            Some(extent) => (extent.gpa.saturating_sub(segment.gpa), Some(extent)),
            None => (walk.asked, None),
        };
        if hole_end > walk.done {
            let hole = MemoryRange {
                gpa: segment.gpa + walk.done,
                len_bytes: hole_end - walk.done,
            };
            for (part, is_excluded) in hole.parts(core.excluded) {
                let pages = if is_excluded { Pages::Excluded } else { Pages::Zero };
                trailer.pages(file_offset + (part.gpa - hole.gpa), pages(part.len_bytes))?;
            }
            walk.done = hole_end;
        }
        self.file_position = segment.file_offset + walk.done;
        let Some(extent) = extent else {
            if walk.done >= segment.len_bytes {
                *walk = MemoryWalk::at_segment(walk.segment + 1);
            }
            return Ok(());
        };
        let len = usize::try_from(extent.len_bytes).unwrap_or(READ_LEN).min(READ_LEN);
        if extent.len_bytes > len as u64 {
            walk.extents.push(MemoryRange {
                gpa: extent.gpa + len as u64,
                len_bytes: extent.len_bytes - len as u64,
            });
        }
        self.buffer_offset = segment.file_offset + walk.done;
        walk.done += len as u64;
        let room = self.buffer.get_mut(..len).unwrap_or_default();
        match core.source.read_at(extent.gpa, room) {
            Ok(()) => self.filled = len,
            // One bad page must not cost its neighbours.
            Err(_) if len > PAGE => {
                walk.done -= len as u64;
                let pages = (0..len).step_by(PAGE).rev().map(|at| MemoryRange {
                    gpa: extent.gpa + at as u64,
                    len_bytes: PAGE_LEN,
                });
                walk.extents.extend(pages);
            }
            Err(error) => {
                tracing::warn!("{error}; the core goes on without these pages");
                self.unreadable_bytes += len as u64;
                trailer.pages(self.buffer_offset, Pages::Excluded(len as u64))?;
            }
        }
        Ok(())
    }
}

impl MemoryWalk {
    fn at_segment(segment: usize) -> Self {
        Self {
            segment,
            done: 0,
            extents: Vec::new(),
            asked: 0,
        }
    }
}

/// The touched parts of `query` that are not left out, last first. Where the touched ones cannot be told, all of it counts as
/// touched.
fn touched_parts(core: &CoreFile<'_>, query: MemoryRange) -> Vec<MemoryRange> {
    let mut extents = core.source.data_extents(query).unwrap_or_else(|error| {
        tracing::warn!("{error}; reading all of it");
        vec![query]
    });
    extents.retain(|extent| extent.len_bytes > 0 && query.contains(extent.gpa, extent.len_bytes));
    if !core.excluded.is_empty() {
        extents = extents
            .iter()
            .flat_map(|extent| extent.without(core.excluded))
            .collect();
    }
    extents.reverse();
    extents
}

const _: () = assert!(READ_LEN.is_multiple_of(PAGE) && EXTENT_QUERY_LEN.is_multiple_of(PAGE_LEN));

#[cfg(test)]
#[expect(clippy::cast_possible_truncation, reason = "memory of a test is small")]
mod tests;
