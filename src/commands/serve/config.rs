//! What `serve` is told: by its options, by a file, by its defaults, in this order.

use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::path::{Path, PathBuf};
use std::str::FromStr;

use anyhow::Context as _;
use api::ListenOn;
use netdump::AckPolicy;
use netdump::wire::HERALD_PORT;
use server::{Cidr, Hooks};
use toml::{Table, Value};

use super::Args;
use super::hooks;
use super::limits::{self, SettledLimits};
use crate::cli_failure::{Exit, Failure};

/// Where cores are kept if nobody says otherwise.
const DIR_DEFAULT: &str = "/var/crash";
/// Where the API listens if nobody says otherwise.
const API_DEFAULT: SocketAddrV4 = SocketAddrV4::new(Ipv4Addr::LOCALHOST, 20080);

/// What a file may say.
const KEYS: &str = "the keys are dir, listen, allow, api and ack-policy, and the tables are limits and hooks";

/// Everything that `serve` needs to know.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Settings {
    pub(super) dir: PathBuf,
    pub(super) listen: Vec<SocketAddrV4>,
    pub(super) allow: Vec<Cidr>,
    pub(super) api: ListenOn,
    pub(super) ack_policy: AckPolicy,
    pub(super) limits: SettledLimits,
    pub(super) hooks: Hooks,
}

impl Settings {
    /// Puts options, file and defaults together. An option stands for all that the file says about the same thing.
    ///
    /// # Errors
    /// A file that cannot be read (code 1), or that says what cannot be understood (code 2).
    pub(super) fn gather(args: Args) -> Result<Self, Failure> {
        let file = args.config.as_deref().map(File::read).transpose()?.unwrap_or_default();
        let herald = SocketAddrV4::new(Ipv4Addr::LOCALHOST, HERALD_PORT);
        Ok(Self {
            dir: args.dir.or(file.dir).unwrap_or_else(|| PathBuf::from(DIR_DEFAULT)),
            listen: args.listen.or(file.listen).unwrap_or_else(|| vec![herald]),
            allow: args.allow.or(file.allow).unwrap_or_default(),
            api: args
                .api
                .or(file.api)
                .unwrap_or_else(|| ListenOn::Tcp(API_DEFAULT.into())),
            ack_policy: args.ack_policy.or(file.ack_policy).unwrap_or_default(),
            limits: file.limits.unwrap_or_default(),
            hooks: file.hooks.unwrap_or_default(),
        })
    }
}

/// What a file says.
#[derive(Debug, Default, PartialEq, Eq)]
struct File {
    dir: Option<PathBuf>,
    listen: Option<Vec<SocketAddrV4>>,
    allow: Option<Vec<Cidr>>,
    api: Option<ListenOn>,
    ack_policy: Option<AckPolicy>,
    limits: Option<SettledLimits>,
    hooks: Option<Hooks>,
}

impl File {
    /// Reads a file.
    fn read(path: &Path) -> Result<Self, Failure> {
        let shown = path.display();
        let text = std::fs::read_to_string(path)
            .with_context(|| format!("cannot read {shown}; --config names a TOML file that you may read"))?;
        Self::parse(&text).map_err(|why| Failure::new(Exit::Usage, format!("{shown}: {why}")))
    }

    /// Reads the text of a file; an error is a sentence with the key and the way out.
    fn parse(text: &str) -> Result<Self, String> {
        let table: Table = text.parse().map_err(|why| no_toml(text, &why))?;
        let mut file = Self::default();
        for (key, value) in table {
            let told = match key.as_str() {
                "dir" => string(&value).and_then(some_path).map(|dir| file.dir = Some(dir)),
                "listen" => some_strings(&value, &listen_address).map(|listen| file.listen = Some(listen)),
                "allow" => strings(&value, &Cidr::from_str).map(|allow| file.allow = Some(allow)),
                "api" => string(&value).and_then(parse_api).map(|api| file.api = Some(api)),
                "ack-policy" => string(&value)
                    .and_then(parse_ack_policy)
                    .map(|policy| file.ack_policy = Some(policy)),
                "limits" => table_of(&value)
                    .and_then(limits::parse)
                    .map(|limits| file.limits = Some(limits)),
                "hooks" => table_of(&value)
                    .and_then(hooks::parse)
                    .map(|hooks| file.hooks = Some(hooks)),
                _ => Err(format!("there is no such key; {KEYS}")),
            };
            told.map_err(|why| format!("`{key}`: {why}"))?;
        }
        Ok(file)
    }
}

/// A sentence for a text that is no TOML, with the line.
fn no_toml(text: &str, why: &toml::de::Error) -> String {
    let before = why.span().and_then(|span| text.get(..span.start));
    let line = before.map_or(1, |before| before.matches('\n').count() + 1);
    let what = why.message().lines().next().unwrap_or("it cannot be read");
    format!("line {line}: {what}; lines are `key = \"value\"` or `key = [\"value\", …]`")
}

fn table_of(value: &Value) -> Result<&Table, String> {
    value
        .as_table()
        .ok_or_else(|| "it is a table: a line with its name in brackets, and its keys below".to_owned())
}

pub(super) fn string(value: &Value) -> Result<&str, String> {
    value
        .as_str()
        .ok_or_else(|| format!("a string in quotes is wanted, not a value of type {}", value.type_str()))
}

/// One string or a list of strings, each read by `parse`.
fn strings<T, E: std::fmt::Display>(value: &Value, parse: &dyn Fn(&str) -> Result<T, E>) -> Result<Vec<T>, String> {
    let one = |value: &Value| parse(string(value)?).map_err(|why| why.to_string());
    match value {
        Value::Array(values) => values.iter().map(one).collect(),
        value => Ok(vec![one(value)?]),
    }
}

/// The same, with at least one.
fn some_strings<T>(value: &Value, parse: &dyn Fn(&str) -> Result<T, String>) -> Result<Vec<T>, String> {
    let all = strings(value, parse)?;
    if all.is_empty() {
        return Err("the list is empty; name at least one, or leave the key out".to_owned());
    }
    Ok(all)
}

fn some_path(text: &str) -> Result<PathBuf, String> {
    if text.is_empty() {
        return Err("it is empty; name a directory, or leave the key out".to_owned());
    }
    Ok(PathBuf::from(text))
}

fn listen_address(text: &str) -> Result<SocketAddrV4, String> {
    text.parse()
        .map_err(|_| format!("`{text}` is no IPv4 address with a port; write it as 192.0.2.10:20023"))
}

/// Reads `ADDR:PORT` or `unix:PATH`. Without authentication, nothing but loopback is taken.
pub(super) fn parse_api(text: &str) -> Result<ListenOn, String> {
    if let Some(path) = text.strip_prefix("unix:") {
        return match path {
            "" => Err("unix: needs a path behind it".to_owned()),
            path => Ok(ListenOn::Unix(PathBuf::from(path))),
        };
    }
    let address: SocketAddr = text
        .parse()
        .map_err(|_| "write it as 127.0.0.1:20080 or unix:/run/coreferry.sock".to_owned())?;
    if address.ip().is_loopback() {
        Ok(ListenOn::Tcp(address))
    } else {
        Err(
            "the API speaks no TLS, and a token would be read on the way: only loopback addresses and unix sockets are taken; put a \
             proxy with TLS in front of one, or come by ssh -L"
                .to_owned(),
        )
    }
}

/// Reads `paired` or `immediate`.
pub(super) fn parse_ack_policy(text: &str) -> Result<AckPolicy, String> {
    match text {
        "paired" => Ok(AckPolicy::Paired),
        "immediate" => Ok(AckPolicy::Immediate),
        _ => Err(format!("`{text}` is no policy; it is paired or immediate")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Options as they are typed behind `serve`.
    fn gather(options: &[&str]) -> Result<Settings, Failure> {
        #[derive(clap::Parser)]
        struct Serve {
            #[command(flatten)]
            args: Args,
        }
        let typed = [&["serve"], options].concat();
        Settings::gather(<Serve as clap::Parser>::parse_from(typed).args)
    }

    fn addresses<const N: usize>(texts: [&str; N]) -> Vec<SocketAddrV4> {
        texts.map(|text| text.parse().unwrap()).to_vec()
    }

    #[test]
    fn the_example_says_what_holds_without_it() {
        let example = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/serve.toml");
        let told = gather(&["--config", example]).unwrap();
        assert_eq!(told, gather(&[]).unwrap());
        let file = File::read(Path::new(example)).unwrap();
        assert!(file.dir.is_some() && file.listen.is_some() && file.allow.is_some());
        assert!(file.api.is_some() && file.ack_policy.is_some() && file.limits.is_some());
        assert!(file.hooks.is_some());
    }

    #[test]
    fn an_option_wins_over_the_file_and_the_file_over_the_default() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let text = "dir = '/a'\nlisten = ['192.0.2.1:1', '192.0.2.2:2']\nallow = '192.0.2.0/24'\napi = 'unix:/s'\nack-policy = 'immediate'\n";
        std::fs::write(file.path(), text).unwrap();
        let config = ["--config", file.path().to_str().unwrap()];
        let told = gather(&config).unwrap();
        assert_eq!(told.dir, Path::new("/a"));
        assert_eq!(told.listen, addresses(["192.0.2.1:1", "192.0.2.2:2"]));
        assert_eq!(told.allow, ["192.0.2.0/24".parse().unwrap()]);
        assert_eq!(told.api, ListenOn::Unix("/s".into()));
        assert_eq!(told.ack_policy, AckPolicy::Immediate);
        let more = [
            "--dir",
            "/b",
            "--listen",
            "127.0.0.1:3",
            "--allow",
            "10.0.0.0/8",
            "--api",
            "127.0.0.1:4",
            "--ack-policy",
            "paired",
        ];
        let told = gather(&[&config[..], &more].concat()).unwrap();
        assert_eq!(told, gather(&more).unwrap());
        assert_eq!(told.listen, addresses(["127.0.0.1:3"]));
    }

    #[test]
    fn mistakes_name_the_key_and_the_way_out() {
        for (text, expected) in [
            ("colour = 1", ["`colour`", KEYS]),
            ("dir = 1", ["`dir`", "string"]),
            ("dir = ''", ["`dir`", "leave the key out"]),
            ("listen = []", ["`listen`", "at least one"]),
            ("listen = ['here']", ["`here`", "192.0.2.10:20023"]),
            ("listen = [['127.0.0.1:1']]", ["`listen`", "string"]),
            ("allow = '10.0.0.0/33'", ["`allow`", "10.0.0.0/33"]),
            ("api = '0.0.0.0:80'", ["`api`", "loopback"]),
            ("api = 20080", ["`api`", "string"]),
            ("limits = 5", ["`limits`", "brackets"]),
            ("[limits]\ndump-max = 'x'", ["`limits`", "`dump-max`"]),
            ("ack-policy = 'never'", ["`ack-policy`", "paired or immediate"]),
            ("\n\ndir = '/a", ["line 3", "key = "]),
            ("dir = '/a'\ndir = '/b'", ["line 2", "key = "]),
        ] {
            let why = File::parse(text).unwrap_err();
            assert!(expected.iter().all(|part| why.contains(part)), "`{text}`: {why}");
            assert!(!why.contains('\n'), "`{text}`: {why}");
        }
        assert_eq!(File::parse("# nothing\n"), Ok(File::default()));
    }
}
