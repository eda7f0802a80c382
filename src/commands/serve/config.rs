//! What `serve` is told: by its options, by a file, by its defaults, in this order.

use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::path::{Path, PathBuf};
use std::str::FromStr;

use anyhow::Context as _;
use api::{ListenOn, TlsFiles};
use netdump::AckPolicy;
use netdump::wire::HERALD_PORT;
use server::{Cidr, Hooks, Webhook};
use toml::{Table, Value};

use super::Args;
use super::hooks;
use super::limits::{self, SettledLimits};
use super::webhooks;
use crate::cli_failure::{Exit, Failure};

/// Where cores are kept if nobody says otherwise.
const DIR_DEFAULT: &str = "/var/crash";
/// Where the API listens if nobody says otherwise.
const API_DEFAULT: SocketAddrV4 = SocketAddrV4::new(Ipv4Addr::LOCALHOST, 20080);

/// What a file may say.
const KEYS: &str = "the keys are dir, listen, allow, api, api-cert, api-key, api-client-ca and ack-policy, and the tables are limits, hooks and webhooks";

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
    pub(super) webhooks: Vec<Webhook>,
}

impl Settings {
    /// Puts options, file and defaults together. An option stands for all that the file says about the same thing.
    ///
    /// # Errors
    /// A file that cannot be read (code 1), or that says what cannot be understood (code 2).
    pub(super) fn gather(args: Args) -> Result<Self, Failure> {
        let file = args.config.as_deref().map(File::read).transpose()?.unwrap_or_default();
        let herald = SocketAddrV4::new(Ipv4Addr::LOCALHOST, HERALD_PORT);
        let api = args
            .api
            .or(file.api)
            .unwrap_or_else(|| ListenOn::Tcp(API_DEFAULT.into()));
        let files = [
            args.api_cert.or(file.api_cert),
            args.api_key.or(file.api_key),
            args.api_client_ca.or(file.api_client_ca),
        ];
        Ok(Self {
            dir: args.dir.or(file.dir).unwrap_or_else(|| PathBuf::from(DIR_DEFAULT)),
            listen: args.listen.or(file.listen).unwrap_or_else(|| vec![herald]),
            allow: args.allow.or(file.allow).unwrap_or_default(),
            api: with_tls(api, files).map_err(|why| Failure::new(Exit::Usage, why))?,
            ack_policy: args.ack_policy.or(file.ack_policy).unwrap_or_default(),
            limits: file.limits.unwrap_or_default(),
            hooks: file.hooks.unwrap_or_default(),
            webhooks: file.webhooks.unwrap_or_default(),
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
    api_cert: Option<PathBuf>,
    api_key: Option<PathBuf>,
    api_client_ca: Option<PathBuf>,
    ack_policy: Option<AckPolicy>,
    limits: Option<SettledLimits>,
    hooks: Option<Hooks>,
    webhooks: Option<Vec<Webhook>>,
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
                "api-cert" => string(&value)
                    .and_then(some_file)
                    .map(|path| file.api_cert = Some(path)),
                "api-key" => string(&value).and_then(some_file).map(|path| file.api_key = Some(path)),
                "api-client-ca" => string(&value)
                    .and_then(some_file)
                    .map(|path| file.api_client_ca = Some(path)),
                "ack-policy" => string(&value)
                    .and_then(parse_ack_policy)
                    .map(|policy| file.ack_policy = Some(policy)),
                "limits" => table_of(&value)
                    .and_then(limits::parse)
                    .map(|limits| file.limits = Some(limits)),
                "hooks" => table_of(&value)
                    .and_then(hooks::parse)
                    .map(|hooks| file.hooks = Some(hooks)),
                "webhooks" => webhooks::parse(&value).map(|webhooks| file.webhooks = Some(webhooks)),
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

fn some_file(text: &str) -> Result<PathBuf, String> {
    if text.is_empty() {
        return Err("it is empty; name a PEM file, or leave the key out".to_owned());
    }
    Ok(PathBuf::from(text))
}

fn listen_address(text: &str) -> Result<SocketAddrV4, String> {
    text.parse()
        .map_err(|_| format!("`{text}` is no IPv4 address with a port; write it as 192.0.2.10:20023"))
}

/// Reads `ADDR:PORT` or `unix:PATH`.
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
    Ok(ListenOn::Tcp(address))
}

/// Puts the API's address and the files of its certificate together. Nothing but loopback and unix sockets goes without TLS.
fn with_tls(api: ListenOn, [certificate, key, client_ca]: [Option<PathBuf>; 3]) -> Result<ListenOn, String> {
    match (api, certificate, key) {
        (ListenOn::Tcp(address), Some(certificate), Some(key)) => {
            let files = TlsFiles {
                certificate,
                key,
                client_ca,
            };
            Ok(ListenOn::Tls(address, files))
        }
        (_, Some(_), Some(_)) => {
            Err("api-cert and api-key are for an API on a TCP address (--api ADDR:PORT)".to_owned())
        }
        (_, Some(_), None) | (_, None, Some(_)) => {
            Err("api-cert and api-key go together: a certificate, and its key".to_owned())
        }
        (_, None, None) if client_ca.is_some() => {
            Err("api-client-ca needs TLS: name a certificate with api-cert, and its key with api-key".to_owned())
        }
        (ListenOn::Tcp(address), None, None) if !address.ip().is_loopback() => Err(format!(
            "api: {address} is not a loopback address, and without TLS a token would be read on the way; name a certificate \
             with --api-cert and --api-key, or come by ssh -L"
        )),
        (api, None, None) => Ok(api),
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
    fn nothing_but_this_host_goes_without_tls() {
        let refused = |options: &[&str]| gather(options).unwrap_err().sentence();
        assert!(refused(&["--api", "0.0.0.0:80"]).contains("not a loopback address"));
        assert!(refused(&["--api", "[::]:80"]).contains("--api-cert"));
        assert!(refused(&["--api", "192.0.2.1:80", "--api-cert", "c"]).contains("go together"));
        assert!(refused(&["--api-key", "k"]).contains("go together"));
        assert!(refused(&["--api-client-ca", "a"]).contains("needs TLS"));
        assert!(refused(&["--api", "unix:/s", "--api-cert", "c", "--api-key", "k"]).contains("TCP"));
        let told = gather(&["--api", "192.0.2.1:80", "--api-cert", "c", "--api-key", "k"]).unwrap();
        assert_eq!(told.api.to_string(), "https://192.0.2.1:80");
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
            ("api = 'here'", ["`api`", "127.0.0.1:20080"]),
            ("api-cert = ''", ["`api-cert`", "PEM"]),
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
