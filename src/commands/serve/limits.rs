//! The table `limits` of the settings file.

use std::str::FromStr as _;

use server::{Limits, Share};
use toml::{Table, Value};

use super::config::string;

/// What the table may say.
const KEYS: &str = "the keys of limits are dump-max, guest-max, total-max, free-min, sessions-max, half-open-max, \
                    source-heralds-per-s, source-heralds-burst, heralds-per-s and heralds-burst";

/// The limits of the file, and how many sessions there may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct SettledLimits {
    pub(super) limits: Limits,
    pub(super) sessions_max: usize,
}

impl Default for SettledLimits {
    fn default() -> Self {
        Self {
            limits: Limits::default(),
            sessions_max: server::limits::SESSIONS_MAX,
        }
    }
}

/// Reads the table; an error is a sentence with the key and the way out.
pub(super) fn parse(table: &Table) -> Result<SettledLimits, String> {
    let mut settled = SettledLimits::default();
    let limits = &mut settled.limits;
    for (key, value) in table {
        let told = match key.as_str() {
            "dump-max" => share(value).map(|max| limits.dump_max = max),
            "guest-max" => share(value).map(|max| limits.guest_max = max),
            "total-max" => share(value).map(|max| limits.total_max = max),
            "free-min" => share(value).map(|min| limits.free_min = min),
            "sessions-max" => count(value, 1).map(|max| settled.sessions_max = index(max)),
            "half-open-max" => count(value, 1).map(|max| limits.half_open_max = index(max)),
            "source-heralds-per-s" => count(value, 0).map(|rate| limits.source_heralds.per_s = rate),
            "source-heralds-burst" => count(value, 1).map(|burst| limits.source_heralds.burst = burst),
            "heralds-per-s" => count(value, 0).map(|rate| limits.heralds.per_s = rate),
            "heralds-burst" => count(value, 1).map(|burst| limits.heralds.burst = burst),
            _ => Err(format!("there is no such key; {KEYS}")),
        };
        told.map_err(|why| format!("`{key}`: {why}"))?;
    }
    Ok(settled)
}

fn share(value: &Value) -> Result<Share, String> {
    match value {
        Value::Integer(bytes) => u64::try_from(*bytes)
            .map(Share::Bytes)
            .map_err(|_| format!("{bytes} is below zero; write bytes, or 10%")),
        value => Share::from_str(string(value)?).map_err(|why| why.to_string()),
    }
}

fn count(value: &Value, min: u32) -> Result<u32, String> {
    let Value::Integer(number) = value else {
        let kind = value.type_str();
        return Err(format!(
            "a whole number without quotes is wanted, not a value of type {kind}"
        ));
    };
    let count = u32::try_from(*number)
        .ok()
        .filter(|count| (min..=COUNT_MAX).contains(count));
    count.ok_or_else(|| format!("{number} is not between {min} and {COUNT_MAX}"))
}

/// More sessions or heralds than this no machine takes; it keeps sums far from overflow.
const COUNT_MAX: u32 = 1_000_000;

fn index(count: u32) -> usize {
    usize::try_from(count).unwrap_or(usize::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(text: &str) -> Result<SettledLimits, String> {
        parse(&text.parse().unwrap())
    }

    #[test]
    fn every_key_is_heard() {
        let text = "dump-max = '1GiB'\nguest-max = 5000\ntotal-max = '70%'\nfree-min = '1%'\nsessions-max = 3\n\
                    half-open-max = 4\nsource-heralds-per-s = 0\nsource-heralds-burst = 6\nheralds-per-s = 7\n\
                    heralds-burst = 8\n";
        let told = parsed(text).unwrap();
        assert_eq!(told.limits.dump_max, Share::Bytes(1 << 30));
        assert_eq!(told.limits.guest_max, Share::Bytes(5000));
        assert_eq!(told.limits.total_max, Share::Percent(70));
        assert_eq!(told.limits.free_min, Share::Percent(1));
        assert_eq!((told.sessions_max, told.limits.half_open_max), (3, 4));
        assert_eq!(
            (told.limits.source_heralds.per_s, told.limits.source_heralds.burst),
            (0, 6)
        );
        assert_eq!((told.limits.heralds.per_s, told.limits.heralds.burst), (7, 8));
        assert_eq!(parsed("").unwrap(), SettledLimits::default());
    }

    #[test]
    fn mistakes_name_the_key_and_the_way_out() {
        for (text, expected) in [
            ("max = 1", ["`max`", KEYS]),
            ("dump-max = '10GB'", ["`dump-max`", "4TiB, 10% or"]),
            ("free-min = -1", ["`free-min`", "below zero"]),
            ("sessions-max = 0", ["`sessions-max`", "between 1"]),
            ("sessions-max = '5'", ["`sessions-max`", "without quotes"]),
            ("heralds-burst = 10000000", ["`heralds-burst`", "1000000"]),
        ] {
            let why = parsed(text).unwrap_err();
            assert!(expected.iter().all(|part| why.contains(part)), "`{text}`: {why}");
        }
    }
}
