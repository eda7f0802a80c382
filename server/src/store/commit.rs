//! From a session to a core, in an order that a loss of power at any point leaves consistent.
//!
//! ```text
//! set the length, fdatasync the data ─► manifest and info.txt written and fsynced ─► manifest renamed into place
//!   ─► directory fsynced ─► directory moved from spool/ to cores/ ─► both parents fsynced ─► FINISHED may be acknowledged
//! ```
//!
//! A session directory with a manifest is a core that only has to be moved; one without is a session that was left over.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use api::{CoreFile, CoreState, SCHEMA_VERSION};
use jiff::Timestamp;
use netdump::Extents;
use vmcore::kernel_header::{DumpStatus, InfoSource, InfoText, KERNEL_HEADER_LEN, KernelDumpHeader};

use super::chunks::{self, Digest};
use super::examine::{self, Ending, Examined};
use super::facts::{self, Facts, KernelHeader};
use super::journal::SessionHead;
use super::layout;
use super::manifest::{Coverage, Digests, Manifest};
use crate::limits::CHUNK_BYTES;

/// Why no core could be made; the session's directory stays for the next start.
#[derive(Debug, thiserror::Error)]
#[error("cannot {what} {path}: {source}")]
pub(crate) struct CommitError {
    what: &'static str,
    path: String,
    source: io::Error,
}

/// What is left of a session when no more bytes come.
#[derive(Debug)]
pub(crate) struct Session {
    pub(crate) root: PathBuf,
    pub(crate) dir: PathBuf,
    pub(crate) head: SessionHead,
    pub(crate) file: Arc<File>,
    pub(crate) received: Extents,
    pub(crate) digests: BTreeMap<u64, Digest>,
    pub(crate) kernel_header: Vec<u8>,
    pub(crate) key: Vec<u8>,
    pub(crate) duplicate_packets: u64,
    /// Whether the first page had to be put into its place.
    pub(crate) repaired: bool,
}

/// A core that is on disk.
#[derive(Debug)]
pub(crate) struct Kept {
    pub(crate) dir: PathBuf,
    pub(crate) manifest: Manifest,
    /// Whether everything that came is on disk, so that FINISHED may be acknowledged.
    pub(crate) durable: bool,
}

/// Makes a core of a session.
pub(crate) fn commit(mut session: Session, mut ending: Ending) -> Result<Kept, CommitError> {
    let header = parse_header(&session.kernel_header);
    cut_to_length(&mut session, header.as_ref());
    let examined = examine_or_else(&session, header.as_ref(), &mut ending);
    // A file that cannot have this length keeps the one it has: its tail is lost either way.
    let _ = session.file.set_len(examined.file_len_bytes);
    let began = Instant::now();
    let synced = session.file.sync_all();
    super::FSYNC.add_since(began);
    let examined = match (synced, &ending) {
        (Err(why), Ending::Finished) => {
            ending = Ending::Storage(format!("cannot sync the file: {why}"));
            examine_or_else(&session, header.as_ref(), &mut ending)
        }
        _ => examined,
    };
    let facts = Facts::read(&session.file, &session.received).unwrap_or_default();
    let manifest = describe(&session, header.as_ref(), &facts, examined);
    let info = info_text(&manifest, header.as_ref());
    write_records(&session, manifest, &info).map(|(dir, manifest)| Kept {
        dir,
        manifest,
        durable: ending == Ending::Finished,
    })
}

/// Moves a session directory that has its manifest already to its place among the cores.
pub(crate) fn move_into_place(root: &Path, dir: &Path, manifest: &Manifest) -> Result<PathBuf, CommitError> {
    let time: Timestamp = manifest.received_at.parse().unwrap_or_else(|_| Timestamp::now());
    let place = layout::core_dir(root, time, &manifest.id);
    let month = layout::month_dir(root, time);
    layout::make_dirs_below(root, &month).map_err(failed("make", &month))?;
    // The sender may not have heard yet: a receiver that takes over within the next seconds answers it, by this.
    let journal = dir.join(layout::JOURNAL);
    if fs::rename(&journal, layout::linger_file(root, &manifest.id)).is_err() {
        layout::remove_file(&journal).map_err(failed("remove the journal of", dir))?;
    }
    layout::remove_file(&dir.join(layout::RESERVE)).map_err(failed("remove the reserve of", dir))?;
    layout::sync_dir(dir).map_err(failed("sync", dir))?;
    fs::rename(dir, &place).map_err(failed("move to its place", dir))?;
    layout::sync_dir(&month).map_err(failed("sync", &month))?;
    let spool = root.join(layout::SPOOL);
    layout::sync_dir(&spool).map_err(failed("sync", &spool))?;
    Ok(place)
}

/// The kernel dump header, if it came whole and can be read.
pub(crate) fn parse_header(bytes: &[u8]) -> Option<KernelHeader> {
    KernelDumpHeader::parse(bytes.get(..KERNEL_HEADER_LEN)?).ok()
}

/// Cuts what fills the last block, or repeats the header, to the length that the header gives.
fn cut_to_length(session: &mut Session, header: Option<&KernelHeader>) {
    let Some(len) = examine::cut_len(header, &session.received) else {
        return;
    };
    session.received = examine::cut(&session.received, len);
    session
        .digests
        .retain(|index, _| index.saturating_mul(CHUNK_BYTES) < len);
    let last = len / CHUNK_BYTES;
    let ranges = chunks::received_in(&session.received, last);
    if !ranges.is_empty()
        && let Ok(digest) = chunks::digest_of(&session.file, &ranges)
    {
        session.digests.insert(last, digest);
    }
}

/// Examines the file; one that cannot be read is a failure of the storage.
fn examine_or_else(session: &Session, header: Option<&KernelHeader>, ending: &mut Ending) -> Examined {
    let (file, received) = (&session.file, &session.received);
    examine::examine(file, received, header, &session.digests, ending).unwrap_or_else(|why| {
        let sentence = format!("cannot read back the file: {why}");
        let examined = Examined {
            file_len_bytes: received.end(),
            lost: Vec::new(),
            zero_bytes: 0,
            excluded_bytes: 0,
            state: CoreState::Incomplete,
            reason: Some(sentence.clone()),
        };
        *ending = Ending::Storage(sentence);
        examined
    })
}

/// The manifest, still without its files.
fn describe(session: &Session, header: Option<&KernelHeader>, facts: &Facts, examined: Examined) -> Manifest {
    let head = &session.head;
    let file_len_bytes = session
        .file
        .metadata()
        .map_or(examined.file_len_bytes, |meta| meta.len());
    let ranges = session.received.iter();
    Manifest {
        schema_version: SCHEMA_VERSION,
        id: head.id.clone(),
        state: examined.state,
        reason: examined.reason,
        guest: facts.guest(header, head.herald_label.as_deref(), &head.client_addr),
        kernel: facts.kernel(header),
        panic: facts.panic(header),
        format: if session.key.is_empty() {
            facts.format
        } else {
            "encrypted"
        }
        .to_owned(),
        started_at: head.started_at.clone(),
        received_at: now_text(),
        client_addr: head.client_addr.clone(),
        server_addr: head.server_addr.clone(),
        herald_label: head.herald_label.clone(),
        dump_id: facts.note.as_ref().and_then(|note| note.dump_id.clone()),
        file_len_bytes,
        stored_bytes: session.received.covered_bytes(),
        coverage: Coverage {
            received: ranges.map(|range| (range.start, range.end - range.start)).collect(),
            zero_bytes: examined.zero_bytes,
            excluded_bytes: examined.excluded_bytes,
            lost: examined.lost,
        },
        digests: Digests::new(file_len_bytes, &session.received, &session.digests),
        kernel_header: header.map(facts::header_facts),
        note: facts.note.clone(),
        duplicate_packets: session.duplicate_packets,
        repaired: session.repaired,
        files: Vec::new(),
    }
}

/// Writes manifest and info.txt, and moves the directory to its place.
fn write_records(session: &Session, mut manifest: Manifest, info: &str) -> Result<(PathBuf, Manifest), CommitError> {
    let dir = &session.dir;
    let second_name = link_compressed(session, &manifest);
    manifest.files = list_files(session, &manifest, info, second_name);
    for (name, bytes) in [
        (layout::KERNEL_HEADER, &session.kernel_header),
        (layout::KEY, &session.key),
    ] {
        let path = dir.join(name);
        if !bytes.is_empty() && path.exists() {
            let synced = File::open(&path).and_then(|file| file.sync_all());
            synced.map_err(failed("sync", &path))?;
        }
    }
    if session.kernel_header.is_empty() {
        let path = dir.join(layout::KERNEL_HEADER);
        layout::remove_file(&path).map_err(failed("remove the empty", &path))?;
    }
    // Into the reserve first, and cut: what it frees is there for the short files, even on a full disk.
    let reserve = dir.join(layout::RESERVE);
    let text = serde_json::to_vec(&manifest).map_err(|why| failed("write", &reserve)(why.into()))?;
    write_over(&reserve, &text).map_err(failed("write the manifest to", &reserve))?;
    let path = dir.join(layout::INFO);
    layout::write_file(&path, info.as_bytes()).map_err(failed("write", &path))?;
    let part = dir.join(layout::VMCORE_PART);
    if part.exists() {
        fs::rename(&part, dir.join(layout::VMCORE)).map_err(failed("rename", &part))?;
    }
    layout::sync_dir(dir).map_err(failed("sync", dir))?;
    fs::rename(&reserve, dir.join(layout::MANIFEST)).map_err(failed("rename", &reserve))?;
    layout::sync_dir(dir).map_err(failed("sync", dir))?;
    let place = move_into_place(&session.root, dir, &manifest)?;
    Ok((place, manifest))
}

/// Gives a compressed dump the name by which its readers know it, beside the one by which we do. A file system without
/// hard links does without.
fn link_compressed(session: &Session, manifest: &Manifest) -> Option<&'static str> {
    let header = manifest.kernel_header.as_ref()?;
    let name = match header.compression {
        1 => layout::VMCORE_GZIP,
        2 => layout::VMCORE_ZSTD,
        _ => return None,
    };
    if !session.key.is_empty() {
        // What is compressed here comes to light when it is decrypted.
        return None;
    }
    let (part, path) = (session.dir.join(layout::VMCORE_PART), session.dir.join(name));
    match fs::hard_link(part, path) {
        Err(why) if why.kind() != io::ErrorKind::AlreadyExists => None,
        _ => Some(name),
    }
}

/// The files of the core, the manifest itself left out.
fn list_files(session: &Session, manifest: &Manifest, info: &str, second_name: Option<&str>) -> Vec<CoreFile> {
    let small = |name: &str, bytes: &[u8]| CoreFile {
        name: name.to_owned(),
        length_bytes: u64::try_from(bytes.len()).unwrap_or(u64::MAX),
        digest: format!("blake3:{}", blake3::hash(bytes).to_hex()),
    };
    let mut files = vec![
        CoreFile {
            name: layout::VMCORE.to_owned(),
            length_bytes: manifest.file_len_bytes,
            digest: format!("blake3-chunks:{}", manifest.digests.root),
        },
        small(layout::INFO, info.as_bytes()),
    ];
    if let (Some(name), Some(vmcore)) = (second_name, files.first()) {
        let name = name.to_owned();
        files.push(CoreFile { name, ..vmcore.clone() });
    }
    for (name, bytes) in [
        (layout::KERNEL_HEADER, &session.kernel_header),
        (layout::KEY, &session.key),
    ] {
        if !bytes.is_empty() {
            files.push(small(name, bytes));
        }
    }
    files
}

/// Writes a file over the space that it has, cuts it, and makes it durable.
fn write_over(path: &Path, content: &[u8]) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).create(true).truncate(false).open(path)?;
    file.write_all(content)?;
    file.set_len(u64::try_from(content.len()).unwrap_or(u64::MAX))?;
    file.sync_all()
}

/// savecore's description of the dump.
fn info_text(manifest: &Manifest, header: Option<&KernelHeader>) -> String {
    let reason = manifest.reason.as_deref().unwrap_or_default();
    let status = match manifest.state {
        CoreState::Complete => DumpStatus::Complete,
        _ => DumpStatus::Incomplete(reason),
    };
    let address = manifest.client_addr.rsplit_once(':').map_or("", |(address, _)| address);
    let Some((header, parity)) = header else {
        return format!(
            "Dump from {} [{address}]\n  Dump Length: {}\n  Hostname: {}\n  Panic String: {}\n  Dump Status: bad\n\
             Dump incomplete: {reason}\n",
            manifest.guest,
            manifest.file_len_bytes,
            manifest.guest,
            manifest.panic.as_deref().unwrap_or_default(),
        );
    };
    InfoText {
        source: InfoSource::Host {
            name: &manifest.guest,
            address,
        },
        header,
        parity: *parity,
        bounds: 0,
        status,
    }
    .to_string()
}

/// The time now, as the records write it.
pub(crate) fn now_text() -> String {
    format!("{:.3}", Timestamp::now())
}

/// Adds what was tried to an error of the system.
fn failed(what: &'static str, path: &Path) -> impl FnOnce(io::Error) -> CommitError + use<> {
    let path = path.display().to_string();
    move |source| CommitError { what, path, source }
}
