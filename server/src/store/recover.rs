//! Sessions that a receiver left behind: made into incomplete cores when the next one starts.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read as _};
use std::path::Path;
use std::sync::Arc;

use super::chunks;
use super::commit::{self, Session};
use super::examine::Ending;
use super::journal;
use super::layout;
use super::manifest::Manifest;
use crate::limits::HEAD_BYTES_MAX;

/// Looks through the spool and makes a core of every session that has no receiver any more. What cannot be dealt with is
/// logged and stays. Gives the number of cores made.
pub(crate) fn recover(root: &Path) -> io::Result<usize> {
    let mut made = 0;
    for entry in fs::read_dir(root.join(layout::SPOOL))? {
        let entry = entry?;
        let is_session = entry.file_name().to_str().is_some_and(layout::is_id);
        if !is_session || !entry.path().is_dir() {
            continue;
        }
        match recover_one(root, &entry.path()) {
            Ok(true) => made += 1,
            Ok(false) => {}
            Err(why) => tracing::error!(session = %entry.path().display(), "left-over session stays: {why}"),
        }
    }
    Ok(made)
}

/// Deals with one directory; whether a core was made of it.
fn recover_one(root: &Path, dir: &Path) -> Result<bool, Box<dyn std::error::Error>> {
    if dir.join(layout::MANIFEST).exists() {
        let manifest = Manifest::read(dir)?;
        commit::move_into_place(root, dir, &manifest)?;
        return Ok(true);
    }
    let path = dir.join(layout::JOURNAL);
    if !path.exists() {
        // Its receiver ended before it had written anything.
        fs::remove_dir_all(dir)?;
        return Ok(false);
    }
    let recovered = match journal::take_over(&path) {
        Ok(None) => return Ok(false),
        Ok(Some(recovered)) => recovered,
        Err(why) if why.kind() == io::ErrorKind::InvalidData || why.kind() == io::ErrorKind::UnexpectedEof => {
            fs::remove_dir_all(dir)?;
            return Ok(false);
        }
        Err(why) => return Err(why.into()),
    };
    let kernel_header = small_file(&dir.join(layout::KERNEL_HEADER))?;
    let key = small_file(&dir.join(layout::KEY))?;
    let received = recovered.received;
    if received.is_empty() && kernel_header.is_empty() && key.is_empty() {
        fs::remove_dir_all(dir)?;
        return Ok(false);
    }
    let file = open_part(dir)?;
    let received = examine_len(&file, &received)?;
    let digests = chunks::digest_file(&file, &received)?;
    let session = Session {
        root: root.to_owned(),
        dir: dir.to_owned(),
        head: recovered.head,
        file: Arc::new(file),
        received,
        digests,
        kernel_header,
        key,
        duplicate_packets: 0,
        repaired: false,
    };
    let kept = commit::commit(session, Ending::LeftOver)?;
    tracing::info!(core = %kept.manifest.id, state = %kept.manifest.state, "left-over session kept");
    drop(recovered.lock);
    Ok(true)
}

/// The memory image, under either of its names.
fn open_part(dir: &Path) -> io::Result<File> {
    let open = |name| OpenOptions::new().read(true).write(true).open(dir.join(name));
    match open(layout::VMCORE_PART) {
        Err(why) if why.kind() == io::ErrorKind::NotFound => open(layout::VMCORE),
        done => done,
    }
}

/// What of `received` the file really has: after a loss of power it may be shorter.
fn examine_len(file: &File, received: &netdump::Extents) -> io::Result<netdump::Extents> {
    Ok(super::examine::cut(received, file.metadata()?.len()))
}

/// A small file; empty when it is not there.
fn small_file(path: &Path) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    match File::open(path) {
        Ok(file) => {
            file.take(HEAD_BYTES_MAX).read_to_end(&mut bytes)?;
            Ok(bytes)
        }
        Err(why) if why.kind() == io::ErrorKind::NotFound => Ok(bytes),
        Err(why) => Err(why),
    }
}
