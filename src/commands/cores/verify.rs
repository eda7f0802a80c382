//! `cores verify`: a core's bytes against their digests.

use api::{ByteRange, Client, CoreState, SCHEMA_VERSION};
use serde::Serialize;
use server::Verified;

use super::fetch;
use super::source::{Source, refused};
use crate::cli_failure::{Exit, Failure, Outcome};
use crate::output;

/// The result, wherever it was found.
#[derive(Debug, Serialize)]
struct Verdict {
    schema_version: u32,
    id: String,
    state: CoreState,
    ok: bool,
    verified_bytes: u64,
    problems: Vec<String>,
    holes: Vec<ByteRange>,
}

/// Verifies a core and says what is wrong.
pub(super) fn run(source: &Source, id: &str, json: bool) -> Outcome {
    let verdict = match source {
        Source::Dir(cores) => cores.verify(id).map_err(|why| refused(&why))?.into(),
        Source::Api(client) => remote(source, client, id)?,
    };
    if json {
        output::json(&verdict)?;
    } else {
        let bytes = output::bytes(verdict.verified_bytes);
        let state = verdict.state;
        let found = if verdict.ok {
            "every byte is what arrived"
        } else {
            "it is not whole"
        };
        output::line(&format!("{}: {state}, {bytes} verified, {found}", verdict.id))?;
        for problem in &verdict.problems {
            output::say(problem);
        }
    }
    Ok(if verdict.ok { Exit::Ok } else { Exit::NotWhole })
}

/// Downloads the core without keeping it, and holds it against the digests that the receiver gives.
fn remote(source: &Source, client: &Client, id: &str) -> Result<Verdict, Failure> {
    let info = source.info(id)?;
    let mut verdict = Verdict {
        schema_version: SCHEMA_VERSION,
        id: info.summary.id.clone(),
        state: info.summary.state,
        ok: false,
        verified_bytes: 0,
        problems: info.reason.into_iter().collect(),
        holes: info.summary.holes,
    };
    match fetch::download(client, &info.summary.id, &mut |_, _| Ok(())) {
        Ok(bytes) => verdict.verified_bytes = bytes,
        Err(failure) if failure.exit() == Exit::NotWhole => {
            verdict.state = CoreState::Corrupt;
            verdict.problems.push(failure.sentence());
        }
        Err(failure) => return Err(failure),
    }
    verdict.ok = verdict.state == CoreState::Complete && verdict.problems.is_empty();
    Ok(verdict)
}

impl From<Verified> for Verdict {
    fn from(verified: Verified) -> Self {
        Self {
            schema_version: verified.schema_version,
            id: verified.id,
            state: verified.state,
            ok: verified.ok,
            verified_bytes: verified.verified_bytes,
            problems: verified.problems,
            holes: verified.holes,
        }
    }
}
