//! The forms without compression: ELF and raw memory.

use vmcore::coreferry::notes_without_kernel;
use vmcore::elf::ElfPlan;
use vmcore::kdump::PageBitmap;
use vmcore::limits::{PAGE_LEN, READ_PROGRAM_HEADERS_MAX};

use super::windows::{self, Content};
use super::{ExportError, ExportOptions, Exported, Pages, Selection, Sink};

/// An ELF core: a segment for each run of pages that are there.
pub(super) fn elf(
    core: &dyn Pages,
    selection: &Selection,
    options: &ExportOptions,
    sink: &mut dyn Sink,
    done: &mut dyn FnMut(u64),
) -> Result<Exported, ExportError> {
    let (present, lost) = scan(core, selection, options.threads)?;
    // One more than fit says that they do not.
    let pieces: Vec<_> = present.memory_runs().take(READ_PROGRAM_HEADERS_MAX).collect();
    let plan = ElfPlan::new(&pieces, &notes_without_kernel(core.notes()), &core.texts())?;
    let mut exported = Exported {
        file_len_bytes: plan.file_len(),
        lost_pages: lost,
        ..Exported::default()
    };
    sink.write_at(0, plan.start())
        .map_err(ExportError::write("the header"))?;
    let mut segments = plan.segments().iter().peekable();
    let mut place = |gpa: u64| {
        while segments
            .next_if(|segment| gpa >= segment.gpa + segment.len_bytes)
            .is_some()
        {}
        let segment = segments.peek().filter(|segment| gpa >= segment.gpa)?;
        Some(segment.file_offset + (gpa - segment.gpa))
    };
    copy(core, &present, options, sink, &mut place, &mut exported, done)?;
    Ok(exported)
}

/// Memory as it is: refused if anything is missing, since it could not be told from zero.
pub(super) fn raw(
    core: &dyn Pages,
    selection: &Selection,
    options: &ExportOptions,
    sink: &mut dyn Sink,
    done: &mut dyn FnMut(u64),
) -> Result<Exported, ExportError> {
    let (present, lost) = scan(core, selection, options.threads)?;
    let excluded = selection.ram().count() - present.count() - lost;
    if excluded + lost > 0 {
        return Err(ExportError::CannotTell { excluded, lost });
    }
    let mut exported = Exported {
        file_len_bytes: present.frames() * PAGE_LEN,
        ..Exported::default()
    };
    copy(core, &present, options, sink, &mut Some, &mut exported, done)?;
    Ok(exported)
}

/// The pages that are there, and how many of the wanted ones are lost. Reads everything once: the table in front of the pages
/// says which they are.
fn scan(core: &dyn Pages, selection: &Selection, threads: usize) -> Result<(PageBitmap, u64), ExportError> {
    let wanted = selection.wanted();
    let maker = || {
        let mut buffer = Vec::new();
        move |window| {
            let mut missing = Vec::new();
            windows::read_window(core, wanted, window, &mut buffer, &mut |frame, page| {
                if matches!(page, Content::Lost) {
                    missing.push(frame);
                }
            });
            missing
        }
    };
    let mut present = wanted.clone();
    let mut lost = 0;
    windows::in_order(wanted, threads, &maker, &mut |missing| {
        for frame in missing {
            present.remove(frame, 1);
            lost += 1;
        }
        Ok::<(), ExportError>(())
    })?;
    Ok((present, lost))
}

/// A run of pages that are not zero, or the address of a page that can no longer be read.
type Run = Result<(u64, Vec<u8>), u64>;

/// Writes the pages that are not zero to their places, in order.
fn copy(
    core: &dyn Pages,
    present: &PageBitmap,
    options: &ExportOptions,
    sink: &mut dyn Sink,
    place: &mut dyn FnMut(u64) -> Option<u64>,
    exported: &mut Exported,
    done: &mut dyn FnMut(u64),
) -> Result<(), ExportError> {
    let maker = || {
        let mut buffer = Vec::new();
        move |window| {
            let mut runs: Vec<Run> = Vec::new();
            let (mut pages, mut zero) = (0, 0);
            windows::read_window(core, present, window, &mut buffer, &mut |frame, page| {
                pages += 1;
                match page {
                    Content::Lost => runs.push(Err(frame * PAGE_LEN)),
                    Content::Zero => zero += 1,
                    Content::Bytes(page) => extend(&mut runs, frame * PAGE_LEN, page),
                }
            });
            (pages, zero, runs)
        }
    };
    windows::in_order(present, options.threads, &maker, &mut |(pages, zero, runs)| {
        done(pages * PAGE_LEN);
        exported.pages += pages;
        exported.zero_pages += zero;
        for run in runs {
            let (gpa, bytes) = run.map_err(|gpa| ExportError::Changed { gpa })?;
            // Segments are as long as can be, so that a run lies in one of them.
            let offset = place(gpa).ok_or(ExportError::Changed { gpa })?;
            sink.write_at(offset, &bytes).map_err(ExportError::write("pages"))?;
        }
        Ok::<(), ExportError>(())
    })?;
    sink.finish(exported.file_len_bytes)
        .map_err(ExportError::write("the end of the file"))
}

/// Appends a page to the last run, or begins a new one.
fn extend(runs: &mut Vec<Run>, gpa: u64, page: &[u8]) {
    if let Some(Ok((start, bytes))) = runs.last_mut()
        && *start + bytes.len() as u64 == gpa
    {
        bytes.extend_from_slice(page);
        return;
    }
    runs.push(Ok((gpa, page.to_vec())));
}
