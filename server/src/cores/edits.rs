//! What people do with stored cores: notes, pins, labels, removal. Each change takes the store's lock, so that a command on
//! the directory and a running receiver do not trip over each other.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Read as _};
use std::path::Path;

use api::limits::{LABEL_BYTES_MAX, LABELS_MAX, NOTE_BYTES_MAX};
use api::{CoreEdit, CoreInfo, CoreLabels, Deed, ServiceError};
use jiff::Timestamp;
use rustix::fs::{FlockOperation, flock};

use super::{Entry, LocalCores};
use crate::audit::Audit;
use crate::limits::LABELS_FILE_BYTES_MAX;
use crate::store::layout;

impl LocalCores {
    /// Changes what people wrote about a core whose entity tag is still `if_match` (`*` for any).
    ///
    /// # Errors
    /// As [`api::CoreService::edit`].
    pub fn edit(&self, id: &str, edit: &CoreEdit, if_match: &str, by: &str) -> Result<CoreInfo, ServiceError> {
        let _lock = self.lock()?;
        let entry = self.resolve(id)?;
        let found = self.info(&entry.summary.id)?;
        if if_match != "*" && if_match != found.etag() {
            return Err(ServiceError::Changed(format!(
                "core {} is not any more what {if_match} names; read it again",
                entry.summary.id
            )));
        }
        let mut written = read(&entry.dir);
        apply(&mut written, edit)?;
        written.changed_at = Some(Timestamp::now().to_string());
        written.changed_by = Some(by.to_owned());
        keep(&entry.dir, &written).map_err(|why| broken("write the labels of", &entry, &why))?;
        self.change(&entry.dir, |entry| entry.summary.pinned = written.pinned);
        self.info(&entry.summary.id)
    }

    /// Removes a core with all its files, and writes down by whom.
    ///
    /// # Errors
    /// As [`api::CoreService::remove`].
    pub fn remove_by(&self, id: &str, by: &str) -> Result<CoreInfo, ServiceError> {
        let info = self.remove(id)?;
        Audit::new(&self.root).note(&Deed {
            by,
            what: "remove",
            core: &info.summary.id,
            file: None,
            range: None,
        });
        Ok(info)
    }

    /// Removes a core with all its files.
    ///
    /// # Errors
    /// As [`api::CoreService::remove`].
    fn remove(&self, id: &str) -> Result<CoreInfo, ServiceError> {
        let _lock = self.lock()?;
        let entry = match self.resolve(id) {
            Err(ServiceError::NotFound { .. }) if self.info(id).is_ok() => {
                return Err(ServiceError::WrongState(format!("core {id} is still being received")));
            }
            found => found?,
        };
        if read(&entry.dir).pinned {
            return Err(ServiceError::WrongState(format!(
                "core {} is pinned; unpin it first",
                entry.summary.id
            )));
        }
        let info = self.info(&entry.summary.id)?;
        // The record goes first: what is left after a loss of power is no core.
        let removed = layout::remove_file(&entry.dir.join(layout::MANIFEST))
            .and_then(|()| layout::sync_dir(&entry.dir))
            .and_then(|()| fs::remove_dir_all(&entry.dir));
        removed.map_err(|why| broken("remove", &entry, &why))?;
        self.forget(&entry.dir);
        Ok(info)
    }

    /// The lock that changes take.
    fn lock(&self) -> Result<File, ServiceError> {
        let path = self.root.join(layout::LOCK);
        let locked = File::options()
            .write(true)
            .create(true)
            .truncate(false)
            .open(&path)
            .and_then(|file| Ok(flock(&file, FlockOperation::LockExclusive).map(|()| file)?));
        locked.map_err(|why| ServiceError::Internal(format!("cannot lock {}: {why}", path.display())))
    }
}

fn broken(what: &str, entry: &Entry, why: &io::Error) -> ServiceError {
    ServiceError::Internal(format!("cannot {what} core {}: {why}", entry.summary.id))
}

/// What people wrote about the core in `dir`.
pub(super) fn read(dir: &Path) -> CoreLabels {
    let read = || {
        let mut text = Vec::new();
        File::open(dir.join(layout::LABELS))?
            .take(LABELS_FILE_BYTES_MAX)
            .read_to_end(&mut text)?;
        Ok::<_, io::Error>(text)
    };
    let text = read().unwrap_or_default();
    serde_json::from_slice(&text).unwrap_or_default()
}

/// Writes it at once and as a whole.
fn keep(dir: &Path, written: &CoreLabels) -> io::Result<()> {
    let part = dir.join(format!("{}.part", layout::LABELS));
    layout::write_file(&part, &serde_json::to_vec_pretty(written)?)?;
    fs::rename(&part, dir.join(layout::LABELS))?;
    layout::sync_dir(dir)
}

/// Applies a change.
fn apply(written: &mut CoreLabels, edit: &CoreEdit) -> Result<(), ServiceError> {
    let too_long = |what: &str, max: usize| ServiceError::BadRequest(format!("{what} has more than {max} bytes"));
    if let Some(pinned) = edit.pinned {
        written.pinned = pinned;
    }
    if let Some(note) = &edit.note {
        if note.len() > NOTE_BYTES_MAX {
            return Err(too_long("the note", NOTE_BYTES_MAX));
        }
        written.note = Some(note.clone()).filter(|note| !note.is_empty());
    }
    merge(&mut written.labels, &edit.labels).map_err(|what| too_long(what, LABEL_BYTES_MAX))?;
    if written.labels.len() > LABELS_MAX {
        return Err(ServiceError::BadRequest(format!(
            "a core has at most {LABELS_MAX} labels"
        )));
    }
    Ok(())
}

/// Sets and removes labels; an error names what is too long.
fn merge(labels: &mut BTreeMap<String, String>, changes: &BTreeMap<String, String>) -> Result<(), &'static str> {
    for (name, value) in changes {
        if name.is_empty() || name.len() > LABEL_BYTES_MAX {
            return Err("the name of a label is empty or");
        }
        if value.len() > LABEL_BYTES_MAX {
            return Err("the value of a label");
        }
        if value.is_empty() {
            labels.remove(name);
        } else {
            labels.insert(name.clone(), value.clone());
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_leaves_what_it_does_not_name() {
        let mut written = CoreLabels::default();
        let edit = |json: &str| serde_json::from_str::<CoreEdit>(json).unwrap();
        apply(
            &mut written,
            &edit(r#"{"pinned":true,"note":"seen","labels":{"bug":"17","team":"mm"}}"#),
        )
        .unwrap();
        apply(&mut written, &edit(r#"{"labels":{"bug":""}}"#)).unwrap();
        assert!(written.pinned);
        assert_eq!(written.note.as_deref(), Some("seen"));
        assert_eq!(written.labels, BTreeMap::from([("team".to_owned(), "mm".to_owned())]));
        apply(&mut written, &edit(r#"{"pinned":false,"note":""}"#)).unwrap();
        assert_eq!((written.pinned, written.note), (false, None));
    }

    #[test]
    fn texts_and_labels_are_bounded() {
        let long = "x".repeat(NOTE_BYTES_MAX + 1);
        let note = CoreEdit {
            note: Some(long.clone()),
            ..CoreEdit::default()
        };
        let label = CoreEdit {
            labels: BTreeMap::from([("a".to_owned(), long)]),
            ..CoreEdit::default()
        };
        let many = CoreEdit {
            labels: (0..=LABELS_MAX).map(|n| (n.to_string(), "x".to_owned())).collect(),
            ..CoreEdit::default()
        };
        for edit in [note, label, many] {
            let refused = apply(&mut CoreLabels::default(), &edit);
            assert!(matches!(refused, Err(ServiceError::BadRequest(_))), "{refused:?}");
        }
    }
}
