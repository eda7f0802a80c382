//! The file to send: its bytes, the holes that it declares, and a kernel dump header for it.

use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::Context as _;
use jiff::Timestamp;
use netdump::Extents;
use vmcore::CoreferryNote;
use vmcore::kernel_header::{ARCHITECTURE_VERSION_AMD64, KernelDumpHeader};
use vmcore::reader::{CoreHead, CoreNotes};
use vmcore::trailer::{FOOTER_LEN, Footer, PageState, Trailer};

use crate::cli_failure::{Exit, Failure, OrExit as _};

/// Largest trailer that is read: enough for a file of 2 TiB.
const TRAILER_BYTES_MAX: u64 = 256 * 1024 * 1024;
/// Ranges that a trailer may declare; more are sent as the zeros that they are.
const DECLARED_MAX: usize = 1 << 22;

/// The file to send.
#[derive(Debug)]
pub(super) struct Core {
    file: File,
    path: String,
    pub(super) len_bytes: u64,
    written_at: Option<SystemTime>,
    note: Option<CoreferryNote>,
    /// Ranges that the file's own trailer declares as holes: they need not be sent.
    pub(super) declared: Extents,
}

impl Core {
    /// Opens a file and looks for our trailer and note.
    pub(super) fn open(path: &Path) -> Result<Self, Failure> {
        let shown = path.display().to_string();
        let file = File::open(path).with_context(|| format!("cannot open {shown}"))?;
        let meta = file.metadata().with_context(|| format!("cannot look at {shown}"))?;
        if !meta.is_file() {
            return Err(Failure::new(
                Exit::Failed,
                format!("{shown} is not a regular file; name a vmcore"),
            ));
        }
        if meta.len() == 0 {
            return Err(Failure::new(
                Exit::Failed,
                format!("{shown} is empty; there is nothing to send"),
            ));
        }
        let mut core = Self {
            file,
            path: shown,
            len_bytes: meta.len(),
            written_at: meta.modified().ok(),
            note: None,
            declared: Extents::new(DECLARED_MAX),
        };
        core.note = core.read_note();
        core.read_trailer();
        Ok(core)
    }

    /// Reads exactly these bytes.
    pub(super) fn read(&self, offset: u64, buffer: &mut [u8]) -> Result<(), Failure> {
        let what = || format!("cannot read {} bytes of {} at offset {offset}", buffer.len(), self.path);
        let what = what();
        self.file
            .read_exact_at(buffer, offset)
            .context(what)
            .or_exit(Exit::Failed)
    }

    /// The COREFERRY note, if the file has one.
    fn read_note(&self) -> Option<CoreferryNote> {
        let len = self.len_bytes.min(vmcore::HEADER_ROOM_LEN);
        let mut head = vec![0; usize::try_from(len).ok()?];
        self.file.read_exact_at(&mut head, 0).ok()?;
        let core = CoreHead::parse(&head).ok()?;
        CoreNotes::parse(core.notes_in(&head).ok()?).ok()?.coreferry().ok()?
    }

    /// Learns the holes from our trailer. A file without a sound one is sent whole.
    fn read_trailer(&mut self) {
        let read = || {
            let at = self.len_bytes.checked_sub(FOOTER_LEN as u64)?;
            let mut end = [0; FOOTER_LEN];
            self.file.read_exact_at(&mut end, at).ok()?;
            let footer = Footer::parse(&end)
                .ok()
                .filter(|footer| footer.file_len == self.len_bytes)?;
            let len = usize::try_from(footer.body_len.min(TRAILER_BYTES_MAX)).ok()?;
            let mut body = vec![0; len];
            self.file.read_exact_at(&mut body, footer.trailer_offset).ok()?;
            let trailer = Trailer::parse(&footer, &body).ok()?;
            let mut declared = Extents::new(DECLARED_MAX);
            for (range, state) in trailer.declared() {
                if matches!(state, PageState::Zero | PageState::Excluded) {
                    // One that does not fit is sent as the zeros that it is.
                    let _ = declared.insert(range);
                }
            }
            Some(declared)
        };
        if let Some(declared) = read() {
            self.declared = declared;
        }
    }

    /// The kernel dump header (sys/sys/kerneldump.h) for this file.
    pub(super) fn kernel_header(&self, hostname: Option<String>, panic: Option<String>) -> Vec<u8> {
        let note = self.note.as_ref();
        let own_name = || {
            let name = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
            name.trim().to_owned()
        };
        let vm = note.map(|note| note.vm.clone()).filter(|vm| !vm.is_empty());
        let header = KernelDumpHeader {
            architecture: "amd64".to_owned(),
            version: 4,
            architecture_version: ARCHITECTURE_VERSION_AMD64,
            dump_len_bytes: self.len_bytes,
            dump_extent_bytes: self.len_bytes,
            dump_time_s: self.dump_time_s(),
            block_len_bytes: 4096,
            hostname: hostname.or(vm).unwrap_or_else(own_name),
            version_string: note.and_then(|note| note.release.clone()).unwrap_or_default(),
            panic_string: panic.or_else(|| note?.panic.clone()).unwrap_or_default(),
            ..KernelDumpHeader::default()
        };
        header.encode().to_vec()
    }

    /// When the guest crashed, in seconds since 1970, as well as a file can tell: what its note says, else when it was written last.
    /// 0 if nobody knows; what follows from a wrong time is worse than nothing.
    fn dump_time_s(&self) -> u64 {
        let triggered = || {
            let text = self.note.as_ref()?.triggered_at.as_ref()?;
            u64::try_from(text.parse::<Timestamp>().ok()?.as_second()).ok()
        };
        let written = || {
            let since = self.written_at?.duration_since(UNIX_EPOCH).ok()?;
            Some(since.as_secs())
        };
        triggered().or_else(written).unwrap_or(0)
    }
}
