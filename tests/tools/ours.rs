//! QEMU's dump in our layout, through the `vmcore` crate alone.

use anyhow::{Context as _, Result, bail, ensure};
use std::fs::File;
use std::os::unix::fs::{FileExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use vmcore::elf::{HeaderInput, Layout, TextMapping};
use vmcore::limits::{CHUNK_LEN, HEADER_ROOM_LEN, PAGE_LEN, PAGE_LEN_USIZE};
use vmcore::notes::vmcoreinfo::{self, NoteAtPage};
use vmcore::reader::{CoreHead, CoreNotes, ReadError};
use vmcore::rewrite::Rewrite;
use vmcore::trailer::{Footer, Pages, Trailer, TrailerBuilder};
use vmcore::{CoreferryNote, CpuState, VcpuStop, is_zero};

/// Where Linux maps its image before KASLR (arch/x86/include/asm/page_64_types.h, `__START_KERNEL_map`).
const START_KERNEL_MAP: u64 = 0xffff_ffff_8000_0000;
/// How much of the kernel's image gdb shall see: more than text and read-only data of a Debian kernel.
const TEXT_LEN_MAX: u64 = 48 << 20;

/// Which notes the rewritten core gets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Notes {
    All,
    /// All, but no extra text segment: nothing of a kernel address but what the notes say.
    NoText,
    /// As of a guest whose VMCOREINFO was not found; then there is no text segment either.
    NoVmcoreinfo,
}

/// A core in our layout.
#[derive(Debug, Clone)]
pub(crate) struct OurCore {
    pub(crate) path: PathBuf,
    pub(crate) cpus: Vec<CpuState>,
    pub(crate) vmcoreinfo: String,
    pub(crate) note: CoreferryNote,
    header_len: usize,
    trailer_len: u64,
    file_len: u64,
    pages_stored: u64,
    pages: u64,
    scan: Duration,
}

impl OurCore {
    /// Opens a core that the agent itself wrote.
    #[allow(
        dead_code,
        reason = "tests of whole guests use it; the layout's own tests rewrite QEMU's dumps"
    )]
    pub(crate) fn open(path: &Path) -> Result<Self> {
        let source = Source::open(path)?;
        let notes = source.notes()?;
        let cpus = notes.cpu_states();
        let vmcoreinfo = notes.vmcoreinfo.context("no VMCOREINFO note")?;
        let metadata = source.file.metadata()?;
        Ok(Self {
            path: path.to_owned(),
            vmcoreinfo: String::from_utf8(vmcoreinfo.to_vec())?,
            note: notes.coreferry()?.context("no COREFERRY note")?,
            header_len: source.start.len(),
            trailer_len: 0,
            file_len: metadata.len(),
            pages_stored: metadata.blocks() * 512 / PAGE_LEN,
            pages: (metadata.len() - HEADER_ROOM_LEN) / PAGE_LEN,
            scan: Duration::ZERO,
            cpus,
        })
    }

    /// What is known of the core, of a file with the same content.
    #[allow(dead_code, reason = "the tests of whole guests export nothing")]
    pub(crate) fn at(&self, path: &Path) -> Self {
        Self {
            path: path.to_owned(),
            ..self.clone()
        }
    }

    /// Value of a VMCOREINFO key.
    pub(crate) fn vmcoreinfo(&self, key: &str) -> Result<&str> {
        vmcoreinfo::value(self.vmcoreinfo.as_bytes(), key).with_context(|| format!("VMCOREINFO has no {key}"))
    }

    pub(crate) fn figures(&self) -> String {
        format!(
            "header {} bytes, file {} bytes, trailer {} bytes, {} of {} pages stored, zero test and digests at {:.2} GB/s",
            self.header_len,
            self.file_len,
            self.trailer_len,
            self.pages_stored,
            self.pages,
            (self.pages * PAGE_LEN) as f64 / 1e9 / self.scan.as_secs_f64(),
        )
    }
}

/// A core of another writer, opened.
struct Source {
    file: File,
    head: CoreHead,
    start: Vec<u8>,
}

impl Source {
    fn open(path: &Path) -> Result<Self> {
        let file = File::open(path)?;
        let mut start = vec![0; 64];
        loop {
            file.read_exact_at(&mut start, 0)?;
            let needed = match CoreHead::parse(&start) {
                Ok(head) => match head.notes_in(&start) {
                    Ok(_) => return Ok(Self { file, head, start }),
                    Err(error) => error,
                },
                Err(error) => error,
            };
            let ReadError::NeedMore { needed, .. } = needed else {
                bail!(needed)
            };
            start.resize(usize::try_from(needed)?, 0);
        }
    }

    fn notes(&self) -> Result<CoreNotes<'_>> {
        Ok(CoreNotes::parse(self.head.notes_in(&self.start)?)?)
    }
}

/// Whether a dump of QEMU's has VMCOREINFO among its notes.
#[allow(dead_code, reason = "of the matrix, in which some guests do not tell")]
pub(crate) fn is_told(dump: &Path) -> Result<bool> {
    Ok(Source::open(dump)?.notes()?.vmcoreinfo.is_some())
}

/// Writes `target`: header, pages that are not zero, trailer.
pub(crate) fn rewrite(source: &Path, target: &Path, which: Notes) -> Result<OurCore> {
    let source = Source::open(source)?;
    let notes = source.notes()?;
    let cpus = notes.cpu_states();
    let rewrite = Rewrite::new(&source.head, cpus.len())?;
    let layout = rewrite.layout();

    let file = File::create(target)?;
    let mut trailer = TrailerBuilder::new(layout);
    let mut pass = Pass {
        found: None,
        stored: 0,
        scan: Duration::ZERO,
    };
    pass.run(&source.file, &rewrite, &file, &mut trailer)?;
    let scanned = pass.found.context("no VMCOREINFO in guest memory")?;
    // Without fw_cfg's driver in the guest QEMU has none.
    let told = notes.vmcoreinfo;
    ensure!(
        told.is_none_or(|told| told == scanned),
        "VMCOREINFO by scan differs from the one by fw_cfg"
    );

    let (text, vmcoreinfo) = match which {
        Notes::All => (Some(text_mapping(layout, &scanned)?), Some(scanned.as_slice())),
        Notes::NoText => (None, Some(scanned.as_slice())),
        Notes::NoVmcoreinfo => (None, None),
    };
    let note = coreferry_note(&scanned);
    let header = layout.header(&HeaderInput {
        cpus: &cpus,
        vmcoreinfo,
        coreferry: &note,
        text,
    })?;
    file.write_all_at(&header, 0)?;
    trailer.header(&header)?;
    let trailer = trailer.finish()?;
    file.write_all_at(&trailer, layout.memory_end())?;
    ensure!(
        file.metadata()?.len() == layout.file_len(),
        "the trailer fixes the length"
    );
    Ok(OurCore {
        path: target.to_owned(),
        cpus,
        vmcoreinfo: String::from_utf8(scanned)?,
        note,
        header_len: header.len(),
        trailer_len: trailer.len() as u64,
        file_len: layout.file_len(),
        pages_stored: pass.stored,
        pages: (layout.memory_end() - HEADER_ROOM_LEN) / PAGE_LEN,
        scan: pass.scan,
    })
}

/// The single pass over memory.
struct Pass {
    found: Option<Vec<u8>>,
    stored: u64,
    scan: Duration,
}

impl Pass {
    fn run(&mut self, source: &File, rewrite: &Rewrite, target: &File, trailer: &mut TrailerBuilder) -> Result<()> {
        let end = rewrite.layout().memory_end();
        let mut buffer = vec![0; usize::try_from(CHUNK_LEN)?];
        let mut at = HEADER_ROOM_LEN;
        while at < end {
            buffer.truncate(usize::try_from(CHUNK_LEN.min(end - at))?);
            rewrite.read_memory(at, &mut buffer, |offset, part| source.read_exact_at(part, offset))?;
            let start = Instant::now();
            for run in buffer.chunk_by_zero() {
                trailer.pages(
                    at + run.offset,
                    if run.zero {
                        Pages::Zero(run.len())
                    } else {
                        Pages::Stored(run.bytes)
                    },
                )?;
            }
            self.scan += start.elapsed();
            for run in buffer.chunk_by_zero().into_iter().filter(|run| !run.zero) {
                self.stored += run.len() / PAGE_LEN;
                target.write_all_at(run.bytes, at + run.offset)?;
                self.look_for_vmcoreinfo(run.bytes);
            }
            at += buffer.len() as u64;
        }
        Ok(())
    }

    fn look_for_vmcoreinfo(&mut self, bytes: &[u8]) {
        for page in (0..bytes.len()).step_by(PAGE_LEN_USIZE) {
            if let NoteAtPage::Text(text) = vmcoreinfo::at_page(&bytes[page..]) {
                self.found = Some(text.to_vec());
            }
        }
    }
}

/// A run of pages that are all zero, or all not.
struct Run<'a> {
    offset: u64,
    bytes: &'a [u8],
    zero: bool,
}

impl Run<'_> {
    fn len(&self) -> u64 {
        self.bytes.len() as u64
    }
}

trait ChunkByZero {
    fn chunk_by_zero(&self) -> Vec<Run<'_>>;
}

impl ChunkByZero for [u8] {
    fn chunk_by_zero(&self) -> Vec<Run<'_>> {
        let mut runs: Vec<Run<'_>> = Vec::new();
        let mut start = 0;
        for at in (0..self.len()).step_by(PAGE_LEN_USIZE) {
            let zero = is_zero(&self[at..at + PAGE_LEN_USIZE]);
            match runs.last_mut() {
                Some(run) if run.zero == zero => run.bytes = &self[start..at + PAGE_LEN_USIZE],
                _ => {
                    start = at;
                    runs.push(Run {
                        offset: at as u64,
                        bytes: &self[at..at + PAGE_LEN_USIZE],
                        zero,
                    });
                }
            }
        }
        runs
    }
}

fn text_mapping(layout: &Layout, vmcoreinfo: &[u8]) -> Result<TextMapping> {
    let va = vmcoreinfo::symbol(vmcoreinfo, "_stext").context("VMCOREINFO has no _stext")?;
    let phys_base = vmcoreinfo::phys_base(vmcoreinfo).context("VMCOREINFO has no phys_base")?;
    let gpa = va
        .checked_sub(START_KERNEL_MAP)
        .and_then(|offset| offset.checked_add_signed(phys_base));
    let gpa = gpa.context("_stext is not in the kernel's map")?;
    let within = layout
        .segments()
        .iter()
        .find(|segment| (segment.gpa..segment.gpa + segment.len_bytes).contains(&gpa));
    let segment = within.context("_stext is not in RAM")?;
    Ok(TextMapping {
        va,
        gpa,
        len_bytes: TEXT_LEN_MAX.min(segment.gpa + segment.len_bytes - gpa),
    })
}

fn coreferry_note(vmcoreinfo: &[u8]) -> CoreferryNote {
    CoreferryNote {
        dump_id: "0193b0c5-7a1e-7000-8000-000000000001".into(),
        vm: "tools".into(),
        trigger: "pvpanic".into(),
        panic: Some("sysrq triggered crash".into()),
        os: Some("linux".into()),
        release: vmcoreinfo::value(vmcoreinfo, "OSRELEASE").map(str::to_owned),
        build_id: vmcoreinfo::value(vmcoreinfo, "BUILD-ID").map(str::to_owned),
        vcpus: vec![
            VcpuStop {
                index: 0,
                state: "reported".into(),
            },
            VcpuStop {
                index: 1,
                state: "running".into(),
            },
        ],
        ..CoreferryNote::default()
    }
}

/// The file as it stands on disk: same memory as QEMU's dump, every chunk as the trailer says, sparse.
pub(crate) fn verify(source: &Path, core: &OurCore) -> Result<()> {
    let (theirs, ours) = (Source::open(source)?, Source::open(&core.path)?);
    ensure!(
        ours.notes()?.coreferry()?.as_ref() == Some(&core.note),
        "COREFERRY note differs"
    );
    ensure!(ours.notes()?.cpu_states() == core.cpus, "registers differ");

    let mut end = vec![0; PAGE_LEN_USIZE];
    ours.file.read_exact_at(&mut end, core.file_len - PAGE_LEN)?;
    let footer = Footer::parse(&end)?;
    ensure!(footer.file_len == core.file_len);
    let mut body = vec![0; usize::try_from(footer.body_len)?];
    ours.file.read_exact_at(&mut body, footer.trailer_offset)?;
    let trailer = Trailer::parse(&footer, &body)?;
    let mut chunk_bytes = vec![0; usize::try_from(CHUNK_LEN)?];
    for chunk in trailer.chunks() {
        let bytes = &mut chunk_bytes[..usize::try_from(chunk.len_bytes)?];
        ours.file.read_exact_at(bytes, chunk.file_offset)?;
        chunk
            .record
            .verify(bytes)
            .with_context(|| format!("chunk {}", chunk.index))?;
    }

    let [mut left, mut right] = [vec![0; 1 << 20], vec![0; 1 << 20]];
    for load in &theirs.head.loads {
        // Ranges that touch are one in our file: the firmware's flash ends where high memory begins.
        let holder = ours
            .head
            .loads
            .iter()
            .find(|ours| (ours.gpa..ours.gpa + ours.file_len_bytes).contains(&load.gpa));
        let holder = holder.context("a range is missing")?;
        let at = holder.file_offset + (load.gpa - holder.gpa);
        for offset in (0..load.file_len_bytes).step_by(left.len()) {
            let len = usize::try_from(load.file_len_bytes - offset)?.min(left.len());
            theirs.file.read_exact_at(&mut left[..len], load.file_offset + offset)?;
            ours.file.read_exact_at(&mut right[..len], at + offset)?;
            ensure!(
                left[..len] == right[..len],
                "memory differs at {:#x}",
                load.gpa + offset
            );
        }
    }
    let metadata = ours.file.metadata()?;
    ensure!(
        metadata.blocks() * 512 < metadata.len() * 3 / 4,
        "the file is not sparse"
    );
    Ok(())
}
