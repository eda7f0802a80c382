//! `cores kernel`: the kernel's file that came with a core.

use std::io::{self, Write as _};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use api::{ByteRange, CoreInfo, KeptKernelFacts, SCHEMA_VERSION};
use serde_json::json;
use vmcore::image::FileBytes;

use super::bytes;
use super::fetch;
use super::source::Source;
use super::target::Target;
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
    let id = &info.summary.id;
    let (lost, of) = (lost_bytes(&info, kernel), kernel.length_bytes);
    if lost > 0 {
        let sentence = format!("{lost} of the kernel's {of} bytes did not arrive with core {id}");
        return Err(Failure::new(Exit::NotWhole, sentence));
    }
    let core = bytes::open(source, &info)?;
    if to_stdout {
        // Who reads a stream cannot take back what was wrong: it is proven before the first byte.
        copy(&*core, id, kernel, &mut |_, _| Ok(()))?;
        let mut out = io::stdout().lock();
        copy(&*core, id, kernel, &mut |_, bytes| out.write_all(bytes))?;
        return Ok(Exit::Ok);
    }
    let target = Target::create(&args.output)?;
    copy(&*core, id, kernel, &mut |at, bytes| target.file.write_all_at(bytes, at))?;
    target.keep(kernel.length_bytes)?;
    let shown = args.output.display();
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
    lost_in(&info.summary.holes, kernel)
}

fn lost_in(holes: &[ByteRange], kernel: &KeptKernelFacts) -> u64 {
    let end = kernel.file_offset.saturating_add(kernel.length_bytes);
    let lost = |hole: &ByteRange| {
        let hole_end = hole.offset.saturating_add(hole.length).min(end);
        hole_end.saturating_sub(hole.offset.max(kernel.file_offset))
    };
    holes.iter().map(lost).sum()
}

/// Gives the kernel's bytes, each with its offset in the kernel, to `sink`; an error if they are not the file that was booted.
pub(super) fn copy(
    core: &dyn FileBytes,
    id: &str,
    kernel: &KeptKernelFacts,
    sink: &mut dyn FnMut(u64, &[u8]) -> io::Result<()>,
) -> Result<(), Failure> {
    let not_whole = |sentence| Failure::new(Exit::NotWhole, sentence);
    let end = kernel.file_offset.checked_add(kernel.length_bytes);
    if end.is_none_or(|end| end > core.len_bytes()) {
        let sentence = format!("the note of core {id} says that its kernel ends behind the core's own end");
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
        sink(done, part).context("cannot write the kernel")?;
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

#[cfg(test)]
mod tests {
    use vmcore::image::Absent;

    use super::*;

    struct Core(Vec<u8>);

    impl FileBytes for Core {
        fn len_bytes(&self) -> u64 {
            self.0.len() as u64
        }

        fn read_at(&self, file_offset: u64, bytes: &mut [u8]) -> Result<(), Absent> {
            let absent = Absent {
                at: file_offset,
                len_bytes: bytes.len(),
            };
            let start = usize::try_from(file_offset).map_err(|_| absent)?;
            let found = self.0.get(start..).and_then(|rest| rest.get(..bytes.len()));
            bytes.copy_from_slice(found.ok_or(absent)?);
            Ok(())
        }
    }

    fn kernel(file_offset: u64, length_bytes: u64, digest: &[u8]) -> KeptKernelFacts {
        KeptKernelFacts {
            name: "vmlinuz".to_owned(),
            file_offset,
            length_bytes,
            digest: format!("blake3:{}", blake3::hash(digest).to_hex()),
        }
    }

    #[test]
    fn what_a_note_claims_is_held_against_the_core() {
        let core = Core((0..2_500_000_u32).map(|at| (at % 253) as u8).collect());
        let copied = |kernel: &KeptKernelFacts| {
            let mut bytes = Vec::new();
            let done = copy(&core, "ID", kernel, &mut |at, part| {
                assert_eq!(at, bytes.len() as u64);
                bytes.extend_from_slice(part);
                Ok(())
            });
            done.map(|()| bytes).map_err(|why| (why.exit(), why.sentence()))
        };
        let part = &core.0[100_000..2_400_001];
        let len = part.len() as u64;
        assert!(copied(&kernel(100_000, len, part)).unwrap() == part);
        for liar in [
            kernel(100_001, len, part),
            kernel(100_000, len - 1, part),
            kernel(2_400_000, len, part),
            kernel(0, u64::MAX, part),
            kernel(u64::MAX, u64::MAX, part),
        ] {
            let (exit, why) = copied(&liar).unwrap_err();
            assert_eq!(exit, Exit::NotWhole, "{why}");
        }
    }

    #[test]
    fn only_what_is_lost_of_the_kernel_counts() {
        let kernel = kernel(1000, 500, b"");
        let lost = |offset, length| lost_in(&[ByteRange { offset, length }], &kernel);
        assert_eq!((lost(0, 1000), lost(1500, 9)), (0, 0));
        assert_eq!((lost(0, 1001), lost(1499, 9), lost(1200, 10)), (1, 1, 10));
        assert_eq!(lost(0, u64::MAX), 500);
    }
}
