//! A core in the form that a tool wants: ELF, raw memory, or makedumpfile's compressed form.
//!
//! ```text
//! core (any form) ─► selection (what is RAM, what is left out) ─► windows of pages ─► compress (threads) ─► sink
//! ```
//!
//! - [`export()`]: from a core to a sink
//! - `selection`: which pages are exported, and what became of the others
//! - `filter`: what a level of makedumpfile leaves out
//! - `known`: pages whose content stands in the file already
//! - `windows`: pages read and compressed, by several threads, in order
//! - `sink`: a file, a stream, or a flattened stream

mod dense;
mod filter;
mod kdump;
mod known;
mod selection;
mod sink;
#[cfg(test)]
mod tests;
mod uts;
mod windows;

use std::io;

use vmcore::dumpfile::DumpFile;
use vmcore::elf::{ElfPlanError, TextMapping};
use vmcore::image::{Absent, FileBytes, PhysicalMemory};
use vmcore::kdump::{KdumpPlanError, PageCodec};
use vmcore::linux::space::START_KERNEL_MAP;
use vmcore::memory::MemoryRange;

use crate::codecs::Codecs;
use crate::limits::{EXPORT_GPA_END_MAX, EXPORT_MEMORY_MIN, EXPORT_MEMORY_PER_FILE};

pub use selection::Selection;
pub use sink::{FileSink, FlatSink, Sink, StreamSink};

/// A core whose pages can be exported.
pub trait Pages: PhysicalMemory + Sync {
    /// The memory that the guest had, in whole pages, ascending and disjoint.
    fn ranges(&self) -> Vec<MemoryRange>;
    /// Whether any page was left out on purpose.
    fn excludes_any(&self) -> bool;
    /// Whether the page was left out on purpose.
    fn is_excluded(&self, gpa: u64) -> bool;
    /// How much memory it is believed to have, whatever it claims.
    fn memory_max_bytes(&self) -> u64;
    /// The notes.
    fn notes(&self) -> &[u8];
    /// Mappings of the kernel's text that the core itself has.
    fn texts(&self) -> Vec<TextMapping>;
}

impl<F: FileBytes + Sync> Pages for DumpFile<F, Codecs> {
    fn ranges(&self) -> Vec<MemoryRange> {
        Self::ranges(self)
    }

    fn excludes_any(&self) -> bool {
        Self::excludes_any(self)
    }

    fn is_excluded(&self, gpa: u64) -> bool {
        Self::is_excluded(self, gpa)
    }

    fn memory_max_bytes(&self) -> u64 {
        match self {
            Self::Elf(image) => {
                let claimed = image.memory.file_len_bytes().saturating_mul(EXPORT_MEMORY_PER_FILE);
                claimed.max(EXPORT_MEMORY_MIN)
            }
            // Each page has its bit in the file, or its bytes.
            Self::Kdump(_) | Self::Minidump(_) => u64::MAX,
        }
    }

    fn notes(&self) -> &[u8] {
        Self::notes(self)
    }

    fn texts(&self) -> Vec<TextMapping> {
        let Self::Elf(image) = self else { return Vec::new() };
        let loads = image.head.loads.iter();
        let text = loads.filter(|load| load.va >= START_KERNEL_MAP && load.va != load.gpa);
        // Of a filtered core it is in pieces.
        let mut mappings: Vec<TextMapping> = Vec::new();
        for load in text {
            let end = load.gpa.saturating_add(load.file_len_bytes.min(load.memory_len_bytes));
            let is_same = |mapping: &&mut TextMapping| {
                mapping.va.wrapping_sub(mapping.gpa) == load.va.wrapping_sub(load.gpa) && mapping.gpa <= load.gpa
            };
            let has_room = mappings.len() < TEXTS_MAX;
            match mappings.iter_mut().find(is_same) {
                Some(mapping) => mapping.len_bytes = mapping.len_bytes.max(end - mapping.gpa),
                None if has_room => mappings.push(TextMapping {
                    va: load.va,
                    gpa: load.gpa,
                    len_bytes: end - load.gpa,
                }),
                None => {}
            }
        }
        mappings
    }
}

/// A core's memory as the kernel's address space wants it.
struct Memory<'c>(&'c dyn Pages);

impl PhysicalMemory for Memory<'_> {
    fn read(&self, gpa: u64, bytes: &mut [u8]) -> Result<(), Absent> {
        self.0.read(gpa, bytes)
    }
}

/// Mappings of text that are taken over: there is one, or two in /proc/vmcore.
const TEXTS_MAX: usize = 4;

/// The form of the file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ExportFormat {
    /// An ELF core.
    Elf,
    /// Memory as it is: an offset of the file is a physical address.
    Raw,
    /// makedumpfile's compressed form.
    Kdump {
        /// How pages are compressed.
        codec: PageCodec,
        /// Flattened, for outputs that cannot seek.
        flat: bool,
    },
}

impl ExportFormat {
    /// Every form and its name.
    pub const NAMES: [(&'static str, Self); 12] = {
        const fn kdump(codec: PageCodec, flat: bool) -> ExportFormat {
            ExportFormat::Kdump { codec, flat }
        }
        [
            ("elf", Self::Elf),
            ("raw", Self::Raw),
            ("kdump-zstd", kdump(PageCodec::Zstd, false)),
            ("kdump-zlib", kdump(PageCodec::Zlib, false)),
            ("kdump-lzo", kdump(PageCodec::Lzo, false)),
            ("kdump-snappy", kdump(PageCodec::Snappy, false)),
            ("kdump-uncompressed", kdump(PageCodec::Raw, false)),
            ("kdump-flat-zstd", kdump(PageCodec::Zstd, true)),
            ("kdump-flat-zlib", kdump(PageCodec::Zlib, true)),
            ("kdump-flat-lzo", kdump(PageCodec::Lzo, true)),
            ("kdump-flat-snappy", kdump(PageCodec::Snappy, true)),
            ("kdump-flat-uncompressed", kdump(PageCodec::Raw, true)),
        ]
    };

    /// The form of that name.
    #[must_use]
    pub fn parse(name: &str) -> Option<Self> {
        Self::NAMES
            .into_iter()
            .find(|(known, _)| *known == name)
            .map(|(_, format)| format)
    }

    /// Its name.
    #[must_use]
    pub fn name(self) -> &'static str {
        let found = Self::NAMES.into_iter().find(|(_, format)| *format == self);
        found.map_or("kdump", |(name, _)| name)
    }
}

/// Why a core cannot be exported.
#[derive(Debug, thiserror::Error)]
pub enum ExportError {
    /// The output cannot be written.
    #[error("cannot write {what}")]
    Write {
        /// What was to be written.
        what: &'static str,
        /// What the system said.
        source: io::Error,
    },
    /// The memory does not make a kdump file.
    #[error(transparent)]
    Kdump(#[from] KdumpPlanError),
    /// The memory does not make an ELF core.
    #[error(transparent)]
    Elf(#[from] ElfPlanError),
    /// It claims memory where none can be exported.
    #[error(
        "the core claims memory up to {end:#x}, which is exported up to {EXPORT_GPA_END_MAX:#x}: its header is damaged or a lie"
    )]
    TooHigh {
        /// The end of it.
        end: u64,
    },
    /// It claims far more memory than it is long.
    #[error(
        "the core claims {claimed} bytes of memory, and for its length at most {believed} are believed: its header is damaged or a lie"
    )]
    TooMuch {
        /// What it claims.
        claimed: u64,
        /// What is believed.
        believed: u64,
    },
    /// The form cannot tell what is missing.
    #[error(
        "{excluded} pages were left out and {lost} are lost, and raw memory cannot tell them from zero; elf and the kdump formats can"
    )]
    CannotTell {
        /// Pages left out.
        excluded: u64,
        /// Pages lost.
        lost: u64,
    },
    /// A page that could be read a moment ago cannot be read now.
    #[error("page {gpa:#x} of the core can no longer be read; has the file changed?")]
    Changed {
        /// Its physical address.
        gpa: u64,
    },
}

impl ExportError {
    fn write(what: &'static str) -> impl Fn(io::Error) -> Self {
        move |source| Self::Write { what, source }
    }
}

/// How to export.
#[derive(Debug, Clone, Copy)]
pub struct ExportOptions {
    /// The form.
    pub format: ExportFormat,
    /// Threads that read and compress; with one, no other thread is started.
    pub threads: usize,
    /// The level of filtering by which `selection` was made, for the header.
    pub dump_level: u32,
    /// When the dump was made, in seconds since 1970.
    pub timestamp_s: u64,
}

/// What came of it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Exported {
    /// Length of the file.
    pub file_len_bytes: u64,
    /// Pages in the file, zero ones among them.
    pub pages: u64,
    /// Pages of zeros.
    pub zero_pages: u64,
    /// Pages left out: by the core's writer, or by a filter.
    pub excluded_pages: u64,
    /// Pages lost.
    pub lost_pages: u64,
    /// What the user should know.
    pub warnings: Vec<String>,
}

/// Exports the selected pages of a core. `done` is told of bytes of memory that were dealt with.
///
/// # Errors
/// [`ExportError`]; what the sink has taken by then is not a core.
pub fn export(
    core: &dyn Pages,
    selection: &Selection,
    options: &ExportOptions,
    sink: &mut dyn Sink,
    done: &mut dyn FnMut(u64),
) -> Result<Exported, ExportError> {
    let mut exported = match options.format {
        ExportFormat::Kdump { codec, .. } => kdump::export(core, selection, codec, options, sink, done)?,
        ExportFormat::Elf => dense::elf(core, selection, options, sink, done)?,
        ExportFormat::Raw => dense::raw(core, selection, options, sink, done)?,
    };
    exported.excluded_pages = selection.excluded_pages();
    Ok(exported)
}
