//! The tables `webhooks` of the settings file.

use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use api::Trust;
use api::webhook::WebhookUrl;
use server::limits::WEBHOOKS_MAX;
use server::{Webhook, WebhookSecret};
use toml::{Table, Value};

use super::config::string;

/// What a table may say.
const KEYS: &str = "the keys of webhooks are url, secret-file, events and ca";

/// Reads the tables; an error is a sentence with the key and the way out.
pub(super) fn parse(value: &Value) -> Result<Vec<Webhook>, String> {
    let wanted = || "each address is a table: a line [[webhooks]], and its keys below".to_owned();
    let tables = value.as_array().ok_or_else(wanted)?;
    if tables.len() > WEBHOOKS_MAX {
        return Err(format!(
            "{} addresses are too many; at most {WEBHOOKS_MAX} are told",
            tables.len()
        ));
    }
    let all = tables.iter().map(|table| webhook(table.as_table().ok_or_else(wanted)?));
    let all = all.collect::<Result<Vec<_>, String>>()?;
    for (at, one) in all.iter().enumerate() {
        if all.iter().take(at).any(|other| other.url == one.url) {
            return Err(format!("an address at {} stands there twice", one.url.origin()));
        }
    }
    Ok(all)
}

fn webhook(table: &Table) -> Result<Webhook, String> {
    let (mut url, mut secret, mut kinds, mut ca) = (None, None, Vec::new(), None);
    for (key, value) in table {
        let told = match key.as_str() {
            "url" => string(value).and_then(WebhookUrl::parse).map(|told| url = Some(told)),
            "secret-file" => string(value).and_then(read_secret).map(|told| secret = Some(told)),
            "events" => events(value).map(|told| kinds = told),
            "ca" => string(value).and_then(authorities).map(|told| ca = Some(told)),
            _ => Err(format!("there is no such key; {KEYS}")),
        };
        told.map_err(|why| format!("`{key}`: {why}"))?;
    }
    Ok(Webhook {
        url: url.ok_or("`url` is missing: where events go")?,
        secret: secret.ok_or("`secret-file` is missing: a file with what deliveries are signed with")?,
        kinds,
        ca,
    })
}

/// A file that others may not read, with the secret in it.
fn read_secret(path: &str) -> Result<WebhookSecret, String> {
    let read = || Ok::<_, std::io::Error>((std::fs::metadata(path)?.mode(), std::fs::read_to_string(path)?));
    let (mode, text) = read().map_err(|why| format!("cannot read {path}: {why}"))?;
    if mode & 0o007 != 0 {
        return Err(format!(
            "everybody on this host may use {path}; `chmod 640 {path}` keeps the secret one"
        ));
    }
    WebhookSecret::parse(&text).map_err(|why| format!("{path}: {why}"))
}

/// Kinds of events.
fn events(value: &Value) -> Result<Vec<String>, String> {
    let list = value.as_array().filter(|list| !list.is_empty());
    let list = list.ok_or("a list of events is wanted; leave the key out for all of them")?;
    let one = |value: &Value| {
        let name = string(value)?;
        let known = Webhook::all_kinds().any(|kind| kind == name);
        let all = || Webhook::all_kinds().collect::<Vec<_>>().join(", ");
        known
            .then(|| name.to_owned())
            .ok_or_else(|| format!("`{name}` is no event; they are {}", all()))
    };
    list.iter().map(one).collect()
}

/// Authorities that are there: a mistake is better heard at the start than at the first crash.
fn authorities(path: &str) -> Result<PathBuf, String> {
    let path = Path::new(path).to_owned();
    let trust = Trust {
        ca: Some(path.clone()),
        identity: None,
    };
    trust.read().map(|_| path).map_err(|why| why.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt as _;

    fn parsed(text: &str) -> Result<Vec<Webhook>, String> {
        let table: Table = text.parse().unwrap();
        parse(&table["webhooks"])
    }

    #[test]
    fn every_key_is_heard_and_mistakes_name_the_way_out() {
        let secret = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(secret.path(), "sixteen bytes or more").unwrap();
        let file = format!("secret-file = '{}'", secret.path().display());
        let text = format!("[[webhooks]]\nurl = 'https://h.example/x'\n{file}\nevents = ['core.complete']\n");
        let told = parsed(&text).unwrap().remove(0);
        assert_eq!(
            (told.url.text().as_str(), told.kinds.as_slice()),
            ("https://h.example:443/x", ["core.complete".to_owned()].as_slice())
        );
        let url = "url = 'https://h'";
        for (keys, expected) in [
            ("url = 'https://h'".to_owned(), "`secret-file` is missing"),
            (file.clone(), "`url` is missing"),
            (format!("{url}\n{file}\nevents = []"), "leave the key out"),
            (format!("{url}\n{file}\nevents = ['dump.progress']"), "core.complete"),
            (format!("{url}\n{file}\nca = '/nonexistent'"), "/nonexistent"),
            (format!("{url}\n{file}\ncolour = 1"), KEYS),
            ("url = 'http://192.0.2.1:80/'".to_owned(), "https://"),
            (format!("{url}\n{file}\n[[webhooks]]\n{url}\n{file}"), "twice"),
        ] {
            let why = parsed(&format!("[[webhooks]]\n{keys}\n")).unwrap_err();
            assert!(why.contains(expected), "`{keys}`: {why}");
        }
        std::fs::set_permissions(secret.path(), std::fs::Permissions::from_mode(0o644)).unwrap();
        assert!(parsed(&text).unwrap_err().contains("chmod 640"));
        assert!(parse(&Value::Integer(1)).unwrap_err().contains("[[webhooks]]"));
    }
}
