//! The info text beside a stored dump, with the fields of savecore(8)'s `info.N` (sbin/savecore/savecore.c) and, for
//! dumps from the network, those that netdumpd adds. crashinfo(8) and people's scripts read it.

use super::{Compression, DumpKind, KernelDumpHeader, MAGIC_CLEARED, MAGIC_KERNEL, MAGIC_TEXT, ParityVerdict};
use std::fmt::{self, Display, Formatter, Write};

/// Displays as the info text of one stored dump. Every text of the sender is escaped, so that it cannot pose as a field.
#[derive(Debug, Clone, Copy)]
pub struct InfoText<'a> {
    /// Where the dump came from.
    pub source: InfoSource<'a>,
    /// Its header.
    pub header: &'a KernelDumpHeader,
    /// Whether the header's parity was right.
    pub parity: ParityVerdict,
    /// The number under which it was stored, "Bounds".
    pub bounds: u32,
    /// Whether the dump is whole.
    pub status: DumpStatus<'a>,
}

/// Where the dump came from: the text's first line.
#[derive(Debug, Clone, Copy)]
pub enum InfoSource<'a> {
    /// `Dump header from device: NAME`, savecore's line.
    Device(&'a str),
    /// `Dump from NAME [ADDRESS]`, netdumpd's line.
    Host {
        /// Name of the sender.
        name: &'a str,
        /// Its IP address.
        address: &'a str,
    },
}

/// "Dump Status" and the last line.
#[derive(Debug, Clone, Copy)]
pub enum DumpStatus<'a> {
    /// Everything came: "good".
    Complete,
    /// Bytes are missing: "bad", with the reason.
    Incomplete(&'a str),
    /// Not known yet: "unknown".
    Unknown,
}

impl Display for InfoText<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let header = self.header;
        match self.source {
            InfoSource::Device(name) => writeln!(f, "Dump header from device: {}", escape(name))?,
            InfoSource::Host { name, address } => writeln!(f, "Dump from {} [{}]", escape(name), escape(address))?,
        }
        writeln!(f, "  Architecture: {}", escape(&header.architecture))?;
        writeln!(f, "  Architecture Version: {}", header.architecture_version)?;
        writeln!(f, "  Dump Length: {}", header.dump_len_bytes)?;
        writeln!(f, "  Blocksize: {}", header.block_len_bytes)?;
        writeln!(f, "  Compression: {}", header.compression)?;
        writeln!(f, "  Dumptime: {}", UtcTime(header.dump_time_s))?;
        writeln!(f, "  Hostname: {}", escape(&header.hostname))?;
        writeln!(f, "  Magic: {}", magic(header.kind))?;
        write_version_string(f, &header.version_string)?;
        writeln!(f, "  Panic String: {}", escape(&header.panic_string))?;
        // savecore prints the word as its machine reads it: little-endian on the amd64 that most tools know.
        writeln!(f, "  Dump Parity: {}", header.parity.swap_bytes())?;
        writeln!(f, "  Bounds: {}", self.bounds)?;
        writeln!(f, "  Dump Status: {}", self.status.word())?;
        writeln!(
            f,
            "  Header Parity Check: {}",
            if self.parity == ParityVerdict::Pass {
                "Pass"
            } else {
                "Fail"
            }
        )?;
        match self.status {
            DumpStatus::Complete => writeln!(f, "Dump complete"),
            DumpStatus::Incomplete(why) => writeln!(f, "Dump incomplete: {}", escape(why)),
            DumpStatus::Unknown => Ok(()),
        }
    }
}

impl DumpStatus<'_> {
    const fn word(&self) -> &'static str {
        match self {
            DumpStatus::Complete => "good",
            DumpStatus::Incomplete(_) => "bad",
            DumpStatus::Unknown => "unknown",
        }
    }
}

impl Display for Compression {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::None => "none",
            Self::Gzip => "gzip",
            Self::Zstd => "zstd",
            Self::Other(_) => "???",
        })
    }
}

fn magic(kind: DumpKind) -> impl Display {
    let bytes = match kind {
        DumpKind::Kernel => MAGIC_KERNEL,
        DumpKind::Text => MAGIC_TEXT,
        DumpKind::Cleared => MAGIC_CLEARED,
    };
    bytes.escape_ascii()
}

/// The one field of several lines: crashinfo(8) compares its lines with the kernel's own, so a line break stays if four
/// spaces follow, as the kernel writes it. No field begins so; any other break is escaped.
fn write_version_string(f: &mut Formatter<'_>, text: &str) -> fmt::Result {
    f.write_str("  Version String: ")?;
    let text = text.strip_suffix('\n').unwrap_or(text);
    for (index, line) in text.split("\n    ").enumerate() {
        if index > 0 {
            f.write_str("\n    ")?;
        }
        write!(f, "{}", escape(line))?;
    }
    f.write_char('\n')
}

/// Text of an untrusted sender with control characters as `\n`, `\u{1b}` and so on, and a backslash doubled, so that it
/// is one line and reaches no terminal as a command.
pub fn escape(text: &str) -> impl Display + '_ {
    Escaped(text)
}

struct Escaped<'a>(&'a str);

impl Display for Escaped<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        self.0.chars().try_for_each(|c| {
            if c == '\\' || c.is_control() || is_layout_mark(c) {
                write!(f, "{}", c.escape_default())
            } else {
                f.write_char(c)
            }
        })
    }
}

/// Characters that reorder or hide what stands around them (Unicode bidirectional controls, line and paragraph
/// separators, zero-width marks): not control characters, as dangerous in a log.
const fn is_layout_mark(c: char) -> bool {
    matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{feff}')
}

/// Seconds since 1970 as savecore's `%F %T %z`, in UTC.
struct UtcTime(u64);

impl Display for UtcTime {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        const DAY_S: u64 = 86_400;
        let (days, second) = (self.0 / DAY_S, self.0 % DAY_S);
        let (year, month, day) = civil_date(days);
        let (hour, minute, second) = (second / 3600, second / 60 % 60, second % 60);
        write!(
            f,
            "{year:04}-{month:02}-{day:02} {hour:02}:{minute:02}:{second:02} +0000"
        )
    }
}

/// Year, month and day of a day number since 1970 in the Gregorian calendar.
///
/// Counts from the 1st of March of year 0, so that a leap day is the last day of its year: 146,097 days make 400 years.
fn civil_date(days_since_1970: u64) -> (u64, u64, u64) {
    let days = days_since_1970.saturating_add(719_468);
    let (era, day_of_era) = (days / 146_097, days % 146_097);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 {
        month_from_march + 3
    } else {
        month_from_march - 9
    };
    let year = era * 400 + year_of_era + u64::from(month <= 2);
    (year, month, day)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_are_those_of_date_1() {
        let cases = [
            (0, "1970-01-01 00:00:00 +0000"),
            (951_782_400, "2000-02-29 00:00:00 +0000"),
            (1_655_412_790, "2022-06-16 20:53:10 +0000"),
            (4_107_542_399, "2100-02-28 23:59:59 +0000"),
            (4_107_542_400, "2100-03-01 00:00:00 +0000"),
        ];
        for (seconds, text) in cases {
            assert_eq!(UtcTime(seconds).to_string(), text);
        }
        assert!(UtcTime(u64::MAX).to_string().ends_with("+0000"));
    }

    #[test]
    fn escaped_text_has_no_control_characters() {
        let text = escape("a\nb\x1b[2J\\\u{202e}é\u{85}").to_string();
        assert_eq!(text, "a\\nb\\u{1b}[2J\\\\\\u{202e}é\\u{85}");
    }
}
