//! An amount of disk: bytes, or a part of the file system.

use std::fmt;
use std::str::FromStr;

/// Bytes, or a part of the file system that holds the cores.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Share {
    /// So many bytes.
    Bytes(u64),
    /// So many hundredths of the file system's size, 0 to 100.
    Percent(u8),
    /// The same, but never more than so many bytes.
    PercentUpTo(u8, u64),
}

/// Text that is no amount of disk.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is no amount of disk; write it as 500MiB, 4TiB, 10% or 10% up to 1GiB")]
pub struct ShareError {
    text: String,
}

/// The units that are understood, largest first.
const UNITS: [(&str, u64); 5] = [
    ("TiB", 1 << 40),
    ("GiB", 1 << 30),
    ("MiB", 1 << 20),
    ("KiB", 1 << 10),
    ("", 1),
];

impl Share {
    /// The bytes that this is of a file system of `size_bytes`.
    #[must_use]
    pub fn of(self, size_bytes: u64) -> u64 {
        match self {
            Self::Bytes(bytes) => bytes,
            Self::Percent(percent) => (size_bytes / 100).saturating_mul(u64::from(percent)),
            Self::PercentUpTo(percent, max_bytes) => Self::Percent(percent).of(size_bytes).min(max_bytes),
        }
    }
}

impl FromStr for Share {
    type Err = ShareError;

    fn from_str(text: &str) -> Result<Self, ShareError> {
        let error = || ShareError { text: text.to_owned() };
        if let Some((share, max)) = text.split_once(" up to ") {
            return match (share.parse(), max.parse()) {
                (Ok(Self::Percent(percent)), Ok(Self::Bytes(bytes))) => Ok(Self::PercentUpTo(percent, bytes)),
                _ => Err(error()),
            };
        }
        if let Some(percent) = text.strip_suffix('%') {
            let percent: u8 = percent.trim().parse().map_err(|_| error())?;
            return (percent <= 100).then_some(Self::Percent(percent)).ok_or_else(error);
        }
        for (unit, unit_bytes) in UNITS {
            if let Some(number) = text.strip_suffix(unit) {
                let number: u64 = number.trim().parse().map_err(|_| error())?;
                return number.checked_mul(unit_bytes).map(Self::Bytes).ok_or_else(error);
            }
        }
        Err(error())
    }
}

impl fmt::Display for Share {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Percent(percent) => write!(f, "{percent}%"),
            Self::PercentUpTo(percent, bytes) => write!(f, "{percent}% up to {}", Self::Bytes(*bytes)),
            Self::Bytes(bytes) => {
                let exact = |(_, unit_bytes): &&(&str, u64)| *bytes > 0 && bytes.is_multiple_of(*unit_bytes);
                let (unit, unit_bytes) = UNITS.iter().find(exact).copied().unwrap_or(("", 1));
                write!(f, "{}{unit}", bytes / unit_bytes)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn amounts_are_read_and_shown() {
        for (text, share) in [
            ("0", Share::Bytes(0)),
            ("1000", Share::Bytes(1000)),
            ("500MiB", Share::Bytes(500 << 20)),
            ("4TiB", Share::Bytes(4 << 40)),
            ("10%", Share::Percent(10)),
            ("100%", Share::Percent(100)),
            ("2% up to 1GiB", Share::PercentUpTo(2, 1 << 30)),
        ] {
            assert_eq!(text.parse(), Ok(share));
            assert_eq!(share.to_string(), text);
        }
        assert_eq!("2 GiB".parse(), Ok(Share::Bytes(2 << 30)));
    }

    #[test]
    fn what_is_no_amount_is_refused() {
        for text in [
            "",
            "%",
            "101%",
            "-1",
            "1.5GiB",
            "10GB",
            "20000000TiB",
            "GiB",
            "2% up to 3%",
            "1GiB up to 2GiB",
            "2% up to 1GiB up to 1GiB",
        ] {
            assert!(text.parse::<Share>().is_err(), "`{text}` was taken");
        }
    }

    #[test]
    fn a_part_is_taken_of_the_file_system() {
        assert_eq!(Share::Percent(50).of(1 << 20), (1 << 20) / 100 * 50);
        assert_eq!(Share::Bytes(7).of(1), 7);
        assert_eq!(Share::Percent(100).of(u64::MAX), u64::MAX / 100 * 100);
        let up_to = Share::PercentUpTo(2, 1 << 30);
        assert_eq!((up_to.of(100 << 20), up_to.of(1 << 40)), (2 << 20, 1 << 30));
    }
}
