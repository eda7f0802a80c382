//! `cores kernel`: the kernel's file that came with a core.

use std::io::{self, Write as _};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use api::{ByteRange, CoreInfo, KeptKernelFacts, SCHEMA_VERSION};
use serde_json::json;
use vmcore::image::FileBytes;

use super::bytes;
use super::fetch::{self, Target};
use super::source::Source;
use crate::cli_failure::{Exit, Failure, Outcome};
use crate::output;

/// Bytes copied at a time.
const COPY_BYTES: u64 = 1024 * 1024;
/// How the agent's note begins to say why there is none.
const LEFT_OUT: &str = "the kernel file is not in the core";

/// Arguments of `cores kernel`.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Full id, the beginning of one, or `latest`.
    #[arg(value_name = "ID", add = clap_complete::ArgValueCandidates::new(super::complete::ids))]
    id: String,
    /// Where to write it; `-` is standard output.
    #[arg(short, long, value_name = "FILE", default_value = "kernel")]
    output: PathBuf,
}

/// Writes the kernel's file out.
pub(super) fn run(source: &Source, args: &Args, as_json: bool) -> Outcome {
    let to_stdout = args.output == Path::new("-");
    if to_stdout && as_json {
        let sentence = "with `-o -` standard output is the kernel; --json needs a file";
        return Err(Failure::new(Exit::Usage, sentence));
    }
    let info = source.info(&args.id)?;
    fetch::is_there(&info.summary)?;
    let kernel = kept(&info)?;
    let core = bytes::open(source, &info)?;
    if to_stdout {
        // Who reads a stream cannot take back what was wrong: it is proven before the first byte.
        copy(&*core, &info, kernel, &mut |_, _| Ok(()))?;
        let mut out = io::stdout().lock();
        copy(&*core, &info, kernel, &mut |_, bytes| out.write_all(bytes))?;
        return Ok(Exit::Ok);
    }
    let target = Target::create(&args.output)?;
    copy(&*core, &info, kernel, &mut |at, bytes| {
        target.file.write_all_at(bytes, at)
    })?;
    target.keep(kernel.length_bytes)?;
    let (id, shown) = (&info.summary.id, args.output.display());
    if as_json {
        let note = info.note.as_ref();
        output::json(&json!({
            "schema_version": SCHEMA_VERSION, "id": id, "file": shown.to_string(), "name": kernel.name,
            "length_bytes": kernel.length_bytes, "digest": kernel.digest,
            "build_id": note.and_then(|note| note.booted_build_id.as_ref()),
        }))?;
    } else {
        let (name, len) = (&kernel.name, output::bytes(kernel.length_bytes));
        output::line(&format!("{name} of {id} written to {shown}: {len}"))?;
    }
    Ok(Exit::Ok)
}

/// What the core says of the kernel in it.
fn kept(info: &CoreInfo) -> Result<&KeptKernelFacts, Failure> {
    let note = info.note.as_ref();
    note.and_then(|note| note.kept_kernel.as_ref()).ok_or_else(|| {
        let troubles = note.map(|note| note.troubles.as_slice()).unwrap_or_default();
        let why = troubles.iter().find(|trouble| trouble.starts_with(LEFT_OUT));
        let why = why.map_or("`coreferry run --keep-kernel` puts it there", String::as_str);
        let sentence = format!("core {} has no kernel file in it: {why}", info.summary.id);
        Failure::new(Exit::NothingMatched, sentence)
    })
}

/// How many bytes of the kernel are in no part of the core that arrived.
pub(super) fn lost_bytes(info: &CoreInfo, kernel: &KeptKernelFacts) -> u64 {
    let end = kernel.file_offset.saturating_add(kernel.length_bytes);
    let lost_in = |hole: &ByteRange| {
        let hole_end = hole.offset.saturating_add(hole.length).min(end);
        hole_end.saturating_sub(hole.offset.max(kernel.file_offset))
    };
    info.summary.holes.iter().map(lost_in).sum()
}

/// Gives the kernel's bytes, each with its offset in the kernel, to `sink`; an error if they are not the file that was booted.
pub(super) fn copy(
    core: &dyn FileBytes,
    info: &CoreInfo,
    kernel: &KeptKernelFacts,
    sink: &mut dyn FnMut(u64, &[u8]) -> io::Result<()>,
) -> Result<(), Failure> {
    let id = &info.summary.id;
    let not_whole = |sentence| Failure::new(Exit::NotWhole, sentence);
    let end = kernel.file_offset.checked_add(kernel.length_bytes);
    let lost = lost_bytes(info, kernel);
    if lost > 0 || end.is_none_or(|end| end > core.len_bytes()) {
        let sentence = format!(
            "{lost} of the kernel's {} bytes did not arrive with core {id}",
            kernel.length_bytes
        );
        return Err(not_whole(sentence));
    }
    let mut digest = blake3::Hasher::new();
    let mut buffer = vec![0; usize::try_from(COPY_BYTES.min(kernel.length_bytes)).unwrap_or_default()];
    let mut done = 0;
    while done < kernel.length_bytes {
        let len = usize::try_from((kernel.length_bytes - done).min(COPY_BYTES)).unwrap_or_default();
        let part = buffer.get_mut(..len).unwrap_or_default();
        let at = kernel.file_offset + done;
        core.read_at(at, part)
            .map_err(|_| not_whole(format!("cannot read {len} bytes of core {id} at offset {at}")))?;
        digest.update(part);
        sink(done, part).context("cannot write the kernel; is the disk full?")?;
        done += len as u64;
    }
    let found = format!("blake3:{}", digest.finalize().to_hex());
    if found == kernel.digest {
        return Ok(());
    }
    Err(not_whole(format!(
        "the kernel in core {id} is not the one that was booted: {found} instead of {}; the file was overwritten while the core \
         was made, or the core is damaged (`coreferry cores verify {id}`)",
        kernel.digest
    )))
}
