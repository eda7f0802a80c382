//! The kdump formats.

use vmcore::coreferry::notes_without_kernel;
use vmcore::kdump::{Descriptors, KdumpEnd, KdumpPlan, PageCodec, StoredPage, store_page};
use vmcore::limits::{PAGE_LEN, PAGE_LEN_USIZE};

use super::known::KnownPages;
use super::windows::{self, Content, WINDOW_PAGES};
use super::{ExportError, ExportOptions, Exported, Pages, Selection, Sink, uts};
use crate::codecs;

/// Descriptors are written when so many bytes of them have gathered.
const DESCRIPTORS_LEN: usize = 1 << 20;

/// A window, compressed.
struct Made {
    pages: Vec<MadePage>,
    bytes: Vec<u8>,
}

/// A page of it.
struct MadePage {
    gpa: u64,
    /// CRC-32 of its content, if it is stored as bytes.
    checksum: u32,
    stored: StoredPage,
}

pub(super) fn export(
    core: &dyn Pages,
    selection: &Selection,
    codec: PageCodec,
    options: &ExportOptions,
    sink: &mut dyn Sink,
    done: &mut dyn FnMut(u64),
) -> Result<Exported, ExportError> {
    let wanted = selection.wanted();
    let plan = KdumpPlan::new(
        &selection.ram().ranges(),
        wanted.count(),
        notes_without_kernel(core.notes()).into_owned(),
    )?;
    let known = &KnownPages::default();
    let mut writer = Writer {
        core,
        known,
        sink,
        descriptors: Descriptors::new(&plan),
        descriptors_at: plan.descriptors_at(),
        gathered: Vec::new(),
        exported: Exported::default(),
    };
    writer.write("the page of zeros", plan.pages_at(), &[0; PAGE_LEN_USIZE])?;
    let maker = || {
        let mut compress = codecs::compressor(codec);
        let mut buffer = Vec::new();
        move |window| {
            let mut made = Made {
                pages: Vec::with_capacity(usize::try_from(WINDOW_PAGES).unwrap_or(0)),
                bytes: Vec::with_capacity(1 << 20),
            };
            windows::read_window(core, wanted, window, &mut buffer, &mut |frame, page| {
                let (checksum, stored) = match page {
                    Content::Zero => (0, StoredPage::Zero),
                    Content::Bytes(page) => {
                        let checksum = codecs::checksum(page);
                        let stored = match known.find(core, checksum, page) {
                            Some(place) => StoredPage::Again(place),
                            None => store_page(page, &mut *compress, &mut made.bytes),
                        };
                        (checksum, stored)
                    }
                    Content::Lost => (0, StoredPage::Lost),
                };
                made.pages.push(MadePage {
                    gpa: frame * PAGE_LEN,
                    checksum,
                    stored,
                });
            });
            made
        }
    };
    windows::in_order(wanted, options.threads, &maker, &mut |made| {
        done(made.pages.len() as u64 * PAGE_LEN);
        writer.take(made)
    })?;
    let (mut exported, file_len) = writer.finish()?;
    let (utsname, warning) = uts::utsname(core);
    exported.warnings.extend(warning);
    let start = plan.start(&KdumpEnd {
        present: wanted,
        utsname,
        codec,
        is_incomplete: exported.lost_pages > 0,
        dump_level: options.dump_level,
        timestamp_s: options.timestamp_s,
    });
    sink.write_at(0, &start).map_err(ExportError::write("the header"))?;
    sink.finish(file_len)
        .map_err(ExportError::write("the end of the file"))?;
    exported.file_len_bytes = file_len;
    Ok(exported)
}

/// Puts windows into the file.
struct Writer<'s> {
    core: &'s dyn Pages,
    known: &'s KnownPages,
    sink: &'s mut dyn Sink,
    descriptors: Descriptors,
    /// Where the next descriptors go.
    descriptors_at: u64,
    gathered: Vec<u8>,
    exported: Exported,
}

impl Writer<'_> {
    fn write(&mut self, what: &'static str, offset: u64, bytes: &[u8]) -> Result<(), ExportError> {
        self.sink.write_at(offset, bytes).map_err(ExportError::write(what))
    }

    fn take(&mut self, mut made: Made) -> Result<(), ExportError> {
        let at = self.descriptors.next_at();
        let (mut from, mut kept) = (0, 0);
        for page in &made.pages {
            match page.stored {
                StoredPage::Zero => self.exported.zero_pages += 1,
                StoredPage::Lost => self.exported.lost_pages += 1,
                StoredPage::Bytes(..) | StoredPage::Again(_) => {}
            }
            self.exported.pages += u64::from(page.stored != StoredPage::Lost);
            let mut stored = page.stored;
            if let StoredPage::Bytes(codec, len) = stored {
                // What has become known since the window was made, by one before it or by itself.
                let place = self.descriptors.next_place(codec, len);
                let again = self.known.settle(self.core, page.checksum, page.gpa, place);
                let bytes = from..from + usize::try_from(len).unwrap_or(0);
                from = bytes.end;
                if let Some(place) = again {
                    stored = StoredPage::Again(place);
                } else {
                    let len = bytes.len();
                    if bytes.start > kept {
                        made.bytes.copy_within(bytes, kept);
                    }
                    kept += len;
                }
            }
            self.descriptors.push(stored, &mut self.gathered);
        }
        made.bytes.truncate(kept);
        if !made.bytes.is_empty() {
            self.write("pages", at, &made.bytes)?;
        }
        if self.gathered.len() >= DESCRIPTORS_LEN {
            self.write_descriptors()?;
        }
        Ok(())
    }

    fn write_descriptors(&mut self) -> Result<(), ExportError> {
        let gathered = std::mem::take(&mut self.gathered);
        if !gathered.is_empty() {
            self.write("descriptors", self.descriptors_at, &gathered)?;
            self.descriptors_at += gathered.len() as u64;
        }
        Ok(())
    }

    fn finish(mut self) -> Result<(Exported, u64), ExportError> {
        self.write_descriptors()?;
        Ok((self.exported, self.descriptors.next_at()))
    }
}
