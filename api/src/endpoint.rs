//! Where a server is.

use std::path::PathBuf;

/// Where a server is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Endpoint {
    /// `HOST:PORT`.
    Tcp(String),
    /// `HOST:PORT`, over TLS.
    Tls(String),
    /// A unix socket.
    Unix(PathBuf),
}

/// The port of `https://HOST`.
const HTTPS_PORT: u16 = 443;

impl Endpoint {
    /// Reads `http://HOST:PORT`, `https://HOST[:PORT]`, `HOST:PORT`, `unix:PATH` or a path that begins with `/`.
    ///
    /// # Errors
    /// A sentence that says what is wrong with `text`.
    pub fn parse(text: &str) -> Result<Self, String> {
        if let Some(path) = text.strip_prefix("unix:") {
            let path = path.strip_prefix("//").unwrap_or(path);
            return match path {
                "" => Err(format!("`{text}` names no socket; write unix:PATH")),
                path => Ok(Self::Unix(PathBuf::from(path))),
            };
        }
        if text.starts_with('/') {
            return Ok(Self::Unix(PathBuf::from(text)));
        }
        if let Some(rest) = text.strip_prefix("https://") {
            let address = rest.trim_end_matches('/');
            let has_port = address.rsplit_once(':').is_some_and(|(_, port)| !port.ends_with(']'));
            return if has_port {
                host_port(text, address).map(Self::Tls)
            } else {
                host_port(text, &format!("{address}:{HTTPS_PORT}")).map(Self::Tls)
            };
        }
        let address = text.strip_prefix("http://").unwrap_or(text).trim_end_matches('/');
        host_port(text, address).map(Self::Tcp)
    }
}

/// Checks `HOST:PORT`.
fn host_port(text: &str, address: &str) -> Result<String, String> {
    let Some((host, port)) = address.rsplit_once(':') else {
        return Err(format!(
            "`{text}` has no port; write http://HOST:PORT, https://HOST or unix:PATH"
        ));
    };
    let odd =
        |byte: u8| matches!(byte, b'/' | b'@' | b'?' | b'#') || byte.is_ascii_whitespace() || byte.is_ascii_control();
    if host.is_empty() || host.bytes().any(odd) || port.parse::<u16>().is_err() {
        return Err(format!(
            "`{text}` is not an address; write http://HOST:PORT, https://HOST or unix:PATH"
        ));
    }
    Ok(address.to_owned())
}

impl std::fmt::Display for Endpoint {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Tcp(address) => write!(f, "http://{address}"),
            Self::Tls(address) => write!(f, "https://{address}"),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn endpoints_are_read_in_all_their_forms() {
        let tcp = Endpoint::Tcp("127.0.0.1:20080".to_owned());
        assert_eq!(Endpoint::parse("http://127.0.0.1:20080"), Ok(tcp.clone()));
        assert_eq!(Endpoint::parse("http://127.0.0.1:20080/"), Ok(tcp.clone()));
        assert_eq!(Endpoint::parse("127.0.0.1:20080"), Ok(tcp));
        for (text, address) in [
            ("https://cores.example:20443/", "cores.example:20443"),
            ("https://cores.example", "cores.example:443"),
            ("https://[::1]", "[::1]:443"),
            ("https://[::1]:8443", "[::1]:8443"),
        ] {
            assert_eq!(Endpoint::parse(text), Ok(Endpoint::Tls(address.to_owned())), "{text}");
        }
        let unix = Endpoint::Unix(PathBuf::from("/run/x.sock"));
        assert_eq!(Endpoint::parse("unix:/run/x.sock"), Ok(unix.clone()));
        assert_eq!(Endpoint::parse("unix:///run/x.sock"), Ok(unix.clone()));
        assert_eq!(Endpoint::parse("/run/x.sock"), Ok(unix));
    }

    #[test]
    fn an_address_without_a_port_is_refused_with_the_way_out() {
        for text in [
            "127.0.0.1",
            "http://host",
            "unix:",
            ":80",
            "https://",
            "http://a@b:1",
            "https://h/x",
        ] {
            assert!(Endpoint::parse(text).is_err(), "{text}");
        }
    }
}
