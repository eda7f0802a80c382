//! `cores fetch`: a core's vmcore into a file of one's own, holes kept.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::Path;

use api::{Client, ClientError, CoreState, CoreSummary, DigestedExtent};
use serde_json::json;
use server::limits::CHUNK_BYTES;

use super::copy;
use super::source::{self, Source, failed};
use super::target::Target;
use crate::cli_failure::{Exit, Failure, Outcome};
use crate::output;

/// Extents closer than this are asked for together: the bytes between them cost less than another request.
const JOIN_BYTES: u64 = 256 * 1024;
/// Most bytes asked for in one request, so that a broken connection costs little.
const SPAN_BYTES_MAX: u64 = 64 * 1024 * 1024;

/// Takes bytes at an offset of the file.
type Sink<'a> = dyn FnMut(u64, &[u8]) -> io::Result<()> + 'a;

/// Fetches a core.
pub(super) fn run(source: &Source, id: &str, output_path: &Path, json: bool) -> Outcome {
    if output_path == Path::new("-") {
        let sentence = "a core is fetched to a file; `cores export --format elf -o -` writes to a stream";
        return Err(Failure::new(Exit::Usage, sentence));
    }
    let info = source.info(id)?;
    let core = info.summary;
    is_there(&core)?;
    let mut resumed_bytes = 0;
    let target = match source {
        Source::Dir(cores) => {
            let target = Target::create(output_path)?;
            copy::run(cores, &core.id, &target.file)?;
            target
        }
        Source::Api(client) => {
            let digest = info
                .files
                .iter()
                .find(|file| file.name == "vmcore")
                .map(|file| &file.digest);
            let tag = digest.map(|digest| format!("{} {digest}", core.id));
            let mut target = Target::create_or_resume(output_path, tag.as_deref())?;
            let got = download_into(client, &core, &target.file);
            // What came is kept for another try, unless it is not what the receiver means.
            target.keep_part = got.as_ref().is_err_and(|failure| failure.exit() == Exit::Unreachable);
            resumed_bytes = got?;
            target
        }
    };
    target.keep(core.file_len_bytes)?;
    if core.state != CoreState::Complete {
        let reason = info.reason.unwrap_or_default();
        output::say(&format!(
            "warning: the core is {}: {reason}; what is lost reads as zeros",
            core.state
        ));
    }
    let (shown, len) = (output_path.display(), core.file_len_bytes);
    if json {
        output::json(&json!({
            "schema_version": api::SCHEMA_VERSION, "id": core.id, "state": core.state, "file": shown.to_string(),
            "file_len_bytes": len, "stored_bytes": core.stored_bytes, "resumed_bytes": resumed_bytes, "holes": core.holes,
        }))?;
    } else {
        let resumed = match resumed_bytes {
            0 => String::new(),
            bytes => format!(", {} of it were there from before", output::bytes(bytes)),
        };
        output::line(&format!(
            "{} fetched to {shown}: {}{resumed}",
            core.id,
            output::bytes(len)
        ))?;
    }
    Ok(Exit::Ok)
}

/// Whether a core has a vmcore that can be copied.
pub(super) fn is_there(core: &CoreSummary) -> Result<(), Failure> {
    match core.state {
        CoreState::Receiving => {
            let sentence = format!(
                "core {} is still being received; `cores info` shows how far it is",
                core.id
            );
            Err(Failure::new(Exit::Failed, sentence))
        }
        CoreState::Missing | CoreState::Pruned | CoreState::RecordOnly => {
            let sentence = format!("core {} is {}: its vmcore is not there", core.id, core.state);
            Err(Failure::new(Exit::NothingMatched, sentence))
        }
        CoreState::Complete | CoreState::Incomplete | CoreState::Aborted | CoreState::Corrupt => Ok(()),
    }
}

/// Downloads into `file` what is not there yet, with a bar on a terminal; gives how many bytes were there.
fn download_into(client: &Client, core: &CoreSummary, file: &File) -> Result<u64, Failure> {
    let bar = output::progress(core.stored_bytes);
    let mut there_bytes = 0;
    let mut is_there = |extent: &DigestedExtent| {
        let is_there = has(file, extent);
        if is_there {
            there_bytes += extent.length;
            bar.inc(extent.length);
        }
        is_there
    };
    let mut write = |offset, bytes: &[u8]| {
        bar.inc(bytes.len() as u64);
        file.write_all_at(bytes, offset)
    };
    let done = download_missing(client, &core.id, &mut is_there, &mut write);
    bar.finish_and_clear();
    done.map(|_| there_bytes)
}

/// Whether a file has the bytes of an extent. An extent is a part of a chunk; a longer one is fetched.
fn has(file: &File, extent: &DigestedExtent) -> bool {
    let Some(length) = usize::try_from(extent.length)
        .ok()
        .filter(|_| extent.length <= CHUNK_BYTES)
    else {
        return false;
    };
    let mut bytes = vec![0; length];
    file.read_exact_at(&mut bytes, extent.offset).is_ok()
        && format!("blake3:{}", blake3::hash(&bytes).to_hex()) == extent.digest
}

/// Downloads every extent of a core, holds it against its digest, and gives the bytes to `sink`. Gives their number.
pub(super) fn download(client: &Client, id: &str, sink: &mut Sink<'_>) -> Result<u64, Failure> {
    download_missing(client, id, &mut |_| false, sink)
}

/// The same for the extents that are not there.
fn download_missing(
    client: &Client,
    id: &str,
    is_there: &mut dyn FnMut(&DigestedExtent) -> bool,
    sink: &mut Sink<'_>,
) -> Result<u64, Failure> {
    let path = source::vmcore_path(id);
    let mut proven_bytes = 0;
    let mut cursor: Option<String> = None;
    loop {
        let mut page = source::extents(client, id, cursor.as_deref())?;
        page.items.retain(|extent| !is_there(extent));
        for span in spans(&page.items) {
            proven_bytes += download_span(client, &path, span, sink)?;
        }
        match page.next_cursor {
            Some(next) => cursor = Some(next),
            None => return Ok(proven_bytes),
        }
    }
}

/// Groups extents that are asked for together.
fn spans(extents: &[DigestedExtent]) -> Vec<&[DigestedExtent]> {
    let mut spans = Vec::new();
    let mut rest = extents;
    while let [first, ..] = rest {
        let mut count = 1;
        let mut end = first.offset + first.length;
        while let Some(next) = rest.get(count) {
            let next_end = next.offset + next.length;
            if next.offset.saturating_sub(end) > JOIN_BYTES || next_end - first.offset > SPAN_BYTES_MAX {
                break;
            }
            end = next_end;
            count += 1;
        }
        let (span, others) = rest.split_at(count);
        spans.push(span);
        rest = others;
    }
    spans
}

/// Downloads one group of extents.
fn download_span(client: &Client, path: &str, span: &[DigestedExtent], sink: &mut Sink<'_>) -> Result<u64, Failure> {
    let (Some(first), Some(last)) = (span.first(), span.last()) else {
        return Ok(0);
    };
    let range = format!("bytes={}-{}", first.offset, last.offset + last.length - 1);
    let mut check = Check {
        extents: span,
        at: first.offset,
        hasher: blake3::Hasher::new(),
        proven_bytes: 0,
        wrong: None,
    };
    let done = client.download(path, &[("range", &range)], &mut |bytes| check.take(bytes, sink));
    if let Some(offset) = check.wrong {
        let sentence = format!("the bytes at offset {offset} do not have the digest that the receiver stored for them");
        return Err(Failure::new(Exit::NotWhole, sentence));
    }
    done.map_err(|why| match &why {
        ClientError::Sink(_) => Failure::new(Exit::Failed, why.to_string()),
        _ => failed(client, &why),
    })?;
    Ok(check.proven_bytes)
}

/// Splits a stream of bytes into extents and checks each.
struct Check<'e> {
    /// Extents that have not come wholly.
    extents: &'e [DigestedExtent],
    /// Offset of the next byte.
    at: u64,
    hasher: blake3::Hasher,
    proven_bytes: u64,
    /// Offset of the first extent with another digest.
    wrong: Option<u64>,
}

impl Check<'_> {
    /// Takes the next bytes of the stream.
    fn take(&mut self, mut bytes: &[u8], sink: &mut Sink<'_>) -> io::Result<()> {
        while let [extent, rest @ ..] = self.extents {
            let end = extent.offset + extent.length;
            // Bytes before the extent fill a hole: they are not part of the core.
            let skip = usize::try_from(extent.offset.saturating_sub(self.at)).unwrap_or(usize::MAX);
            let skip = skip.min(bytes.len());
            bytes = bytes.get(skip..).unwrap_or_default();
            self.at += skip as u64;
            let want = usize::try_from(end.saturating_sub(self.at)).unwrap_or(usize::MAX);
            let (part, others) = bytes.split_at(want.min(bytes.len()));
            if part.is_empty() {
                return Ok(());
            }
            sink(self.at, part)?;
            self.hasher.update(part);
            self.at += part.len() as u64;
            bytes = others;
            if self.at < end {
                return Ok(());
            }
            let found = format!("blake3:{}", self.hasher.finalize().to_hex());
            if found != extent.digest {
                self.wrong.get_or_insert(extent.offset);
                return Err(io::Error::other("the digest differs"));
            }
            self.proven_bytes += extent.length;
            self.hasher.reset();
            self.extents = rest;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn extent(offset: u64, bytes: &[u8]) -> DigestedExtent {
        DigestedExtent {
            offset,
            length: bytes.len() as u64,
            digest: format!("blake3:{}", blake3::hash(bytes).to_hex()),
        }
    }

    #[test]
    fn near_extents_are_joined_and_far_ones_are_not() {
        let extents = [extent(0, b"aa"), extent(100, b"bb"), extent(10 << 20, b"cc")];
        let lens: Vec<usize> = spans(&extents).iter().map(|span| span.len()).collect();
        assert_eq!(lens, [2, 1]);
    }

    #[test]
    fn extents_are_cut_out_of_a_stream_in_pieces_of_any_size() {
        let extents = [extent(10, b"abc"), extent(15, b"defg")];
        let stream = b"abc__defg";
        for piece in 1..=stream.len() {
            let mut check = Check {
                extents: &extents,
                at: 10,
                hasher: blake3::Hasher::new(),
                proven_bytes: 0,
                wrong: None,
            };
            let mut got = Vec::new();
            for bytes in stream.chunks(piece) {
                check
                    .take(bytes, &mut |offset, bytes| {
                        got.push((offset, bytes.to_vec()));
                        Ok(())
                    })
                    .unwrap();
            }
            assert_eq!(check.proven_bytes, 7, "pieces of {piece}");
            let all: Vec<u8> = got.into_iter().flat_map(|(_, bytes)| bytes).collect();
            assert_eq!(all, b"abcdefg");
        }
    }
}
