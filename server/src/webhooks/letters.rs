//! Outboxes and dead letters on disk, one file for each letter.
//!
//! ```text
//! DIR/webhooks/<address>/<number>.json      what is to be delivered there; <address> is a digest of it
//! DIR/webhooks/dead/<time>-<number>.json    what could not be
//! ```

use std::fs::{self, File};
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};

use api::{DeadLetter, Event, SCHEMA_VERSION};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::limits::{DEAD_LETTERS_MAX, LETTER_BYTES_MAX};
use crate::store::layout;

/// Where dead letters are.
const DEAD: &str = "dead";

/// What is to be delivered.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Letter {
    /// Where to, without the path.
    pub(super) to: String,
    /// How often it was tried.
    pub(super) tries: usize,
    /// Why the last try failed.
    pub(super) last_error: Option<String>,
    /// What happened.
    pub(super) event: Event,
}

/// The letters for one address.
#[derive(Debug)]
pub(super) struct Outbox {
    root: PathBuf,
    dir: PathBuf,
}

impl Outbox {
    /// The outbox for this address, with the numbers of what is in it.
    pub(super) fn open(root: &Path, address: &str) -> io::Result<(Self, Vec<u64>)> {
        let name = name_of(address);
        let dir = root.join(layout::WEBHOOKS).join(name);
        layout::make_dirs_below(root, &dir)?;
        let mut numbers: Vec<u64> = fs::read_dir(&dir)?
            .filter_map(|entry| number_of(&entry.ok()?.path()))
            .collect();
        numbers.sort_unstable();
        let outbox = Self {
            root: root.to_owned(),
            dir,
        };
        Ok((outbox, numbers))
    }

    /// Writes a letter, whole or not at all.
    pub(super) fn keep(&self, number: u64, letter: &Letter) -> io::Result<()> {
        write_whole(&self.path(number), &serde_json::to_vec(letter)?)
    }

    /// Reads a letter.
    pub(super) fn read(&self, number: u64) -> io::Result<Letter> {
        Ok(serde_json::from_slice(&read_small(&self.path(number))?)?)
    }

    /// It was delivered.
    pub(super) fn remove(&self, number: u64) -> io::Result<()> {
        layout::remove_file(&self.path(number))
    }

    /// It is given up.
    pub(super) fn bury(&self, number: u64, letter: &Letter) -> io::Result<()> {
        bury(&self.root, number, letter)?;
        self.remove(number)
    }

    fn path(&self, number: u64) -> PathBuf {
        self.dir.join(format!("{number:020}.json"))
    }
}

/// Whether anything was ever to be delivered from here.
pub(super) fn any(root: &Path) -> bool {
    root.join(layout::WEBHOOKS).is_dir()
}

/// Gives up what is for addresses that nobody names any more.
pub(super) fn bury_strangers(root: &Path, addresses: &[String]) -> io::Result<()> {
    let known: Vec<String> = addresses.iter().map(|address| name_of(address)).collect();
    let Ok(boxes) = fs::read_dir(root.join(layout::WEBHOOKS)) else {
        return Ok(());
    };
    for entry in boxes {
        let dir = entry?.path();
        let name = dir.file_name().and_then(|name| name.to_str()).unwrap_or(DEAD);
        if name == DEAD || known.iter().any(|known| known == name) || !dir.is_dir() {
            continue;
        }
        let outbox = Outbox {
            root: root.to_owned(),
            dir: dir.clone(),
        };
        for entry in fs::read_dir(&dir)? {
            let Some(number) = number_of(&entry?.path()) else {
                continue;
            };
            let mut letter = outbox.read(number)?;
            letter.last_error = Some("its address is not configured any more".to_owned());
            outbox.bury(number, &letter)?;
        }
        fs::remove_dir(&dir)?;
    }
    Ok(())
}

/// The dead letters of a receiver's directory, newest first.
///
/// # Errors
/// When they cannot be read.
pub fn dead_letters(root: &Path) -> io::Result<Vec<DeadLetter>> {
    let mut all = Vec::new();
    for path in dead_paths(root)?.into_iter().rev() {
        match read_small(&path).and_then(|text| Ok(serde_json::from_slice(&text)?)) {
            Ok(letter) => all.push(letter),
            // Removed by somebody, meanwhile.
            Err(why) if why.kind() == io::ErrorKind::NotFound => {}
            Err(why) => tracing::warn!("{} is no dead letter: {why}", path.display()),
        }
    }
    Ok(all)
}

/// Keeps a letter among the dead ones, of which the oldest go when there are too many.
fn bury(root: &Path, number: u64, letter: &Letter) -> io::Result<()> {
    let now = Timestamp::now();
    let id = format!("{:013}-{number}", now.as_millisecond());
    let dead = DeadLetter {
        schema_version: SCHEMA_VERSION,
        id: id.clone(),
        to: letter.to.clone(),
        tries: letter.tries as u64,
        last_error: letter.last_error.clone(),
        died_at: now.to_string(),
        event: letter.event.clone(),
    };
    let dir = root.join(layout::WEBHOOKS).join(DEAD);
    layout::make_dirs_below(root, &dir)?;
    write_whole(&dir.join(format!("{id}.json")), &serde_json::to_vec_pretty(&dead)?)?;
    let paths = dead_paths(root)?;
    for path in paths.iter().take(paths.len().saturating_sub(DEAD_LETTERS_MAX)) {
        layout::remove_file(path)?;
    }
    Ok(())
}

/// The files of dead letters, oldest first.
fn dead_paths(root: &Path) -> io::Result<Vec<PathBuf>> {
    let entries = match fs::read_dir(root.join(layout::WEBHOOKS).join(DEAD)) {
        Err(why) if why.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries?,
    };
    let paths = entries.filter_map(|entry| Some(entry.ok()?.path()));
    let mut paths: Vec<PathBuf> = paths
        .filter(|path| path.extension().is_some_and(|kind| kind == "json"))
        .collect();
    paths.sort_unstable();
    Ok(paths)
}

/// The directory's name for an address, which may hold secrets and slashes.
fn name_of(address: &str) -> String {
    blake3::hash(address.as_bytes()).to_hex().chars().take(16).collect()
}

/// The number in the name of a letter's file.
fn number_of(path: &Path) -> Option<u64> {
    path.file_name()?.to_str()?.strip_suffix(".json")?.parse().ok()
}

/// A file is there with all of its content, or not at all. A loss of power may take it: the cores themselves stay.
fn write_whole(path: &Path, content: &[u8]) -> io::Result<()> {
    let part = path.with_added_extension("part");
    layout::write_file(&part, content)?;
    fs::rename(&part, path)
}

fn read_small(path: &Path) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    File::open(path)?.take(LETTER_BYTES_MAX).read_to_end(&mut bytes)?;
    Ok(bytes)
}
