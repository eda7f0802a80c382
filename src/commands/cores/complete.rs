//! Ids for the completions of a shell.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::PathBuf;

use clap_complete::engine::CompletionCandidate;

use super::source::Source;
use crate::output;
use crate::trust::TrustArgs;

/// The newest ids, each with what tells it from the others, from where the rest of the line says. Who presses a key gets
/// what there is, and no complaint where there is nothing.
pub(super) fn ids() -> Vec<CompletionCandidate> {
    let given = given(std::env::args_os());
    let value = |name: &str| given.get(name).cloned();
    let file = |name, variable| {
        value(name)
            .map(PathBuf::from)
            .or_else(|| Some(std::env::var_os(variable)?.into()))
    };
    let trust = TrustArgs::new(
        file("--ca", "COREFERRY_CA"),
        file("--cert", "COREFERRY_CERT"),
        file("--key", "COREFERRY_KEY"),
    );
    let Ok(source) = Source::find(value("--dir").map(PathBuf::from), value("--api"), trust, &|_| ()) else {
        return Vec::new();
    };
    let Ok(cores) = source.newest() else {
        return Vec::new();
    };
    let now = jiff::Timestamp::now();
    let latest = (!cores.is_empty()).then(|| CompletionCandidate::new("latest").help(Some("the newest".into())));
    let ids = cores.iter().map(|core| {
        let words = format!(
            "{}, {}, {}",
            core.guest,
            output::ago(&core.received_at, now),
            core.state
        );
        let words: String = words.chars().filter(|character| !character.is_control()).collect();
        CompletionCandidate::new(&core.id).help(Some(words.into()))
    });
    latest.into_iter().chain(ids).collect()
}

/// What a line says about where the cores are.
fn given(words: impl Iterator<Item = OsString>) -> BTreeMap<&'static str, String> {
    const NAMES: [&str; 5] = ["--dir", "--api", "--ca", "--cert", "--key"];
    let mut given = BTreeMap::new();
    let mut words = words.map(|word| word.to_string_lossy().into_owned());
    while let Some(word) = words.next() {
        let (name, value) = match word.split_once('=') {
            Some((name, value)) => (name, Some(value.to_owned())),
            None => (word.as_str(), None),
        };
        if let Some(name) = NAMES.into_iter().find(|known| *known == name)
            && let Some(value) = value.or_else(|| words.next())
        {
            given.insert(name, value);
        }
    }
    given
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_says_where_the_cores_are() {
        let of = |line: &str, name: &str| given(line.split(' ').map(OsString::from)).get(name).cloned();
        assert_eq!(of("cores info 01", "--dir"), None);
        assert_eq!(of("cores --dir /a=b info", "--dir").as_deref(), Some("/a=b"));
        assert_eq!(of("cores info --api=unix:/x 01", "--api").as_deref(), Some("unix:/x"));
        assert_eq!(of("cores info --dir", "--dir"), None);
    }
}
