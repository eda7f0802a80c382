//! `cores export`: a core in the form that a tool wants.

use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::thread;

use anyhow::Context as _;
use api::{CoreInfo, CoreState, SCHEMA_VERSION};
use serde_json::json;
use server::VmcoreBytes;
use server::codecs::Codecs;
use server::export::{
    ExportError, ExportFormat, ExportOptions, Exported, FileSink, FlatSink, Pages, Selection, Sink, StreamSink, export,
};
use vmcore::dumpfile::DumpFile;
use vmcore::linux::filter::FilterLevel;

use super::fetch;
use super::source::{Source, refused};
use super::target::Target;
use crate::cli_failure::{Exit, Failure, OrExit as _, Outcome};
use crate::output;

/// What stands below the options.
pub(super) const AFTER_HELP: &str = "\
FORMAT is one of
  elf                                   an ELF core: crash, drgn, gdb, makedumpfile, Volatility
  raw                                   memory by physical address; refused if a page is missing
  kdump-zstd, -zlib, -lzo, -snappy, -uncompressed
                                        makedumpfile's compressed form: crash, drgn
  kdump-flat-zstd, -zlib, -lzo, -snappy, -uncompressed
                                        the same without seeking, for pipes: crash, `makedumpfile -R`

Pages that were left out stay out: no format shows them as zero. `-o -` writes elf, raw and the flat formats to
standard output. Writes FILE.part first and renames it.

Example: coreferry cores export latest --format kdump-zstd -o vmcore.kdump";

/// More threads than that wait for one another.
const THREADS_MAX: usize = 64;

/// Arguments of `cores export`.
#[derive(Debug, clap::Args)]
pub(super) struct ExportArgs {
    /// Full id, the beginning of one, or `latest`.
    #[arg(value_name = "ID", add = clap_complete::ArgValueCandidates::new(super::complete::ids))]
    id: String,
    /// The form of the file.
    #[arg(long, value_name = "FORMAT", value_parser = parse_format)]
    format: ExportFormat,
    /// Where to write it; `-` is standard output.
    #[arg(short, long, value_name = "FILE", default_value = "vmcore")]
    output: PathBuf,
    /// Leave out pages that a debugger hardly needs, as `makedumpfile -d` does: the sum of 1 zero pages (they
    /// never take room and stay readable), 2 page cache,
    /// 4 page cache with private data, 8 pages of user processes, 16 free pages. For Linux guests.
    #[arg(long, value_name = "LEVEL", default_value = "0")]
    filter: FilterLevel,
    /// Threads that read and compress; by default as many as there are processors.
    #[arg(long, value_name = "N", value_parser = parse_threads)]
    threads: Option<usize>,
}

fn parse_format(text: &str) -> Result<ExportFormat, String> {
    let names = || ExportFormat::NAMES.map(|(name, _)| name).join(", ");
    ExportFormat::parse(text).ok_or_else(|| format!("the formats are {}", names()))
}

fn parse_threads(text: &str) -> Result<usize, String> {
    let threads = text.parse().ok().filter(|threads| (1..=THREADS_MAX).contains(threads));
    threads.ok_or_else(|| format!("a number from 1 to {THREADS_MAX}"))
}

/// Exports a core.
pub(super) fn run(source: &Source, args: &ExportArgs, as_json: bool) -> Outcome {
    let to_stdout = args.output == Path::new("-");
    let is_plain_kdump = matches!(args.format, ExportFormat::Kdump { flat: false, .. });
    if to_stdout && is_plain_kdump {
        let flat = args.format.name().replace("kdump-", "kdump-flat-");
        let sentence = format!(
            "{} cannot be written to a stream; --format {flat} can",
            args.format.name()
        );
        return Err(Failure::new(Exit::Usage, sentence));
    }
    if to_stdout && as_json {
        return Err(Failure::new(
            Exit::Usage,
            "with `-o -` standard output is the core; --json needs a file",
        ));
    }
    let info = source.info(&args.id)?;
    fetch::is_there(&info.summary)?;
    let target = match to_stdout {
        true => None,
        false => Some(Target::create(&args.output)?),
    };
    let bytes = open(source, &info, &args.output)?;
    let core = DumpFile::open(bytes, Codecs)
        .with_context(|| format!("core {} cannot be exported", info.summary.id))
        .or_exit(Exit::Failed)?;
    let (selection, level) = select(&core, args.filter).or_exit(Exit::Failed)?;
    let Some(target) = target else {
        let exported = write(&core, (selection, level), args, &info, &mut *stream(args.format))?;
        output::note(&told(&info, args, &exported));
        return Ok(Exit::Ok);
    };
    let exported = match args.format {
        ExportFormat::Kdump { flat: true, .. } => {
            let file = io::BufWriter::with_capacity(1 << 20, &target.file);
            write(&core, (selection, level), args, &info, &mut FlatSink::new(file))?
        }
        _ => write(&core, (selection, level), args, &info, &mut FileSink(&target.file))?,
    };
    let len = target.file.metadata().context("cannot look at the file")?.len();
    target.keep(len)?;
    if as_json {
        output::json(&json!({
            "schema_version": SCHEMA_VERSION, "id": info.summary.id, "state": info.summary.state,
            "format": args.format.name(), "file": args.output.display().to_string(), "file_len_bytes": len,
            "pages": exported.pages, "zero_pages": exported.zero_pages, "excluded_pages": exported.excluded_pages,
            "lost_pages": exported.lost_pages, "filter": level.number(), "warnings": exported.warnings,
        }))?;
    } else {
        output::line(&told(
            &info,
            args,
            &Exported {
                file_len_bytes: len,
                ..exported
            },
        ))?;
    }
    Ok(Exit::Ok)
}

/// The pages that are wanted, and the level that was really used.
fn select(core: &dyn Pages, level: FilterLevel) -> Result<(Selection, FilterLevel), ExportError> {
    let mut selection = Selection::of(core)?;
    Ok(match selection.filter(core, level) {
        Ok(filtered) => {
            if filtered.unknown > 0 {
                let pages = filtered.unknown;
                output::say(&format!(
                    "warning: what the guest used {pages} pages for is not in the core; they are kept"
                ));
            }
            (selection, level)
        }
        Err(why) => {
            output::say(&format!("warning: not filtered: {why}"));
            (selection, FilterLevel::default())
        }
    })
}

/// Writes the core to a sink, with a progress bar.
fn write(
    core: &dyn Pages,
    (selection, level): (Selection, FilterLevel),
    args: &ExportArgs,
    info: &CoreInfo,
    sink: &mut dyn Sink,
) -> Result<Exported, Failure> {
    let options = ExportOptions {
        format: args.format,
        threads: args
            .threads
            .unwrap_or_else(|| thread::available_parallelism().map_or(1, usize::from).min(THREADS_MAX)),
        dump_level: level.number().into(),
        timestamp_s: seconds(&info.started_at),
    };
    let bar = output::progress(selection.wanted().count() * vmcore::PAGE_LEN);
    let exported = export(core, &selection, &options, sink, &mut |bytes| bar.inc(bytes)).or_exit(Exit::Failed)?;
    bar.finish_and_clear();
    for warning in &exported.warnings {
        output::say(&format!("warning: {warning}"));
    }
    if exported.lost_pages > 0 {
        let (pages, state, id) = (exported.lost_pages, info.summary.state, &info.summary.id);
        let what = match state {
            CoreState::Complete => format!("the stored file has changed (`coreferry cores verify {id}`)"),
            _ => format!("the core is {state}"),
        };
        output::say(&format!(
            "warning: {what}; {pages} pages of it are lost and not in the file"
        ));
    }
    Ok(exported)
}

/// Standard output as the format wants it.
fn stream(format: ExportFormat) -> Box<dyn Sink> {
    let out = io::BufWriter::with_capacity(1 << 20, io::stdout());
    match format {
        ExportFormat::Kdump { .. } => Box::new(FlatSink::new(out)),
        ExportFormat::Elf | ExportFormat::Raw => Box::new(StreamSink::new(out)),
    }
}

/// Opens the core. From a receiver it is downloaded first, next to the output, and its digests are checked.
fn open(source: &Source, info: &CoreInfo, output: &Path) -> Result<VmcoreBytes, Failure> {
    let core = &info.summary;
    match source {
        Source::Dir(cores) => cores.vmcore_bytes(&core.id).map_err(|why| refused(&why)),
        Source::Api(client) => {
            // Without a name, so that nothing of it is left, however this ends.
            let folder = match output.parent() {
                _ if output == Path::new("-") => std::env::temp_dir(),
                Some(folder) if folder != Path::new("") => folder.to_owned(),
                _ => PathBuf::from("."),
            };
            let file = tempfile::tempfile_in(&folder)
                .with_context(|| format!("cannot make a file for the downloaded core in {}", folder.display()))?;
            fetch::download(client, &core.id, &mut |offset, bytes| file.write_all_at(bytes, offset))?;
            file.set_len(core.file_len_bytes)
                .context("cannot write the downloaded core")?;
            Ok(VmcoreBytes::of(file, core.file_len_bytes, &core.holes))
        }
    }
}

/// Seconds since 1970 of an RFC 3339 time.
fn seconds(time: &str) -> u64 {
    let seconds = time.parse::<jiff::Timestamp>().map_or(0, jiff::Timestamp::as_second);
    u64::try_from(seconds).unwrap_or(0)
}

/// What was done, in a line.
fn told(info: &CoreInfo, args: &ExportArgs, exported: &Exported) -> String {
    let mut text = format!(
        "{} exported as {} to {}: {}, {} pages",
        info.summary.id,
        args.format.name(),
        args.output.display(),
        output::bytes(exported.file_len_bytes),
        exported.pages
    );
    if exported.excluded_pages > 0 {
        text += &format!(", {} excluded", exported.excluded_pages);
    }
    if exported.lost_pages > 0 {
        text += &format!(", {} lost", exported.lost_pages);
    }
    if info.summary.state != CoreState::Complete {
        text += &format!(" ({} core)", info.summary.state);
    }
    text
}
