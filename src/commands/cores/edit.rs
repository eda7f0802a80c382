//! `cores note`, `pin`, `unpin`, `rm`: what people do with stored cores.

use api::CoreEdit;

use super::source::{Source, core_path, failed, refused};
use crate::cli_failure::{Exit, Failure, OrExit as _, Outcome};
use crate::output;

/// Arguments of `cores note`.
#[derive(Debug, clap::Args)]
pub(super) struct NoteArgs {
    /// Full id, the beginning of one, or `latest`.
    #[arg(value_name = "ID", add = clap_complete::ArgValueCandidates::new(super::complete::ids))]
    id: String,
    /// The note.
    #[arg(value_name = "TEXT")]
    text: String,
}

/// Writes a note.
pub(super) fn note(source: &Source, args: NoteArgs) -> Outcome {
    let edit = CoreEdit {
        note: Some(args.text),
        ..CoreEdit::default()
    };
    change(source, &args.id, &edit)
}

/// Pins or unpins.
pub(super) fn pin(source: &Source, id: &str, pinned: bool) -> Outcome {
    let edit = CoreEdit {
        pinned: Some(pinned),
        ..CoreEdit::default()
    };
    change(source, id, &edit)
}

/// Removes a core.
pub(super) fn remove(source: &Source, id: &str) -> Outcome {
    // A prefix that means one core now may mean another one at the next request.
    let id = source.info(id)?.summary.id;
    remove_core(source, &id, "rm")?;
    output::line(&format!("{id} removed"))?;
    Ok(Exit::Ok)
}

/// Removes the core of this id; `by_what` is written down where this process does it.
pub(super) fn remove_core(source: &Source, id: &str, by_what: &str) -> Result<(), Failure> {
    match source {
        Source::Dir(cores) => {
            let by = format!("{} ({by_what})", own_user());
            cores.remove_by(id, &by).map_err(|why| refused(&why))?;
        }
        Source::Api(client) => {
            client.delete(&core_path(id)).map_err(|why| failed(client, &why))?;
        }
    }
    Ok(())
}

fn change(source: &Source, id: &str, edit: &CoreEdit) -> Outcome {
    let id = source.info(id)?.summary.id;
    match source {
        Source::Dir(cores) => {
            cores.edit(&id, edit, "*", &own_user()).map_err(|why| refused(&why))?;
        }
        Source::Api(client) => {
            let body = serde_json::to_vec(edit).or_exit(Exit::Failed)?;
            let sent = client.patch(&core_path(&id), &[("if-match", "*")], body);
            sent.map_err(|why| failed(client, &why))?;
        }
    }
    Ok(Exit::Ok)
}

/// Who runs this, as it is written down.
fn own_user() -> String {
    format!("uid {}", nix::unistd::getuid())
}
