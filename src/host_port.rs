//! `HOST[:PORT]` of a receiver, as people type it.

use std::net::{SocketAddr, SocketAddrV4, ToSocketAddrs as _};
use std::str::FromStr;

use netdump::wire::HERALD_PORT;

/// A receiver by name or IPv4 address, not looked up yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct HostPort {
    host: String,
    port: u16,
}

impl FromStr for HostPort {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (host, port) = match text.split_once(':') {
            None => (text, Some(HERALD_PORT)),
            Some((host, port)) => (host, port.parse().ok().filter(|&port| port != 0)),
        };
        match port {
            Some(port) if !host.is_empty() => Ok(Self {
                host: host.to_owned(),
                port,
            }),
            _ => Err("a receiver is HOST or HOST:PORT, with an IPv4 address or a name as HOST".to_owned()),
        }
    }
}

impl std::fmt::Display for HostPort {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}:{}", self.host, self.port)
    }
}

impl HostPort {
    /// Looks the name up. netdump knows IPv4 only (netdump(4), BUGS).
    ///
    /// # Errors
    /// A sentence with the name and the way out.
    pub(crate) fn resolve(&self) -> anyhow::Result<SocketAddrV4> {
        let found = (self.host.as_str(), self.port).to_socket_addrs().map_err(|why| {
            anyhow::anyhow!(
                "cannot look up the receiver `{}`: {why}; give its IPv4 address",
                self.host
            )
        })?;
        let ipv4 = |address| match address {
            SocketAddr::V4(address) => Some(address),
            SocketAddr::V6(_) => None,
        };
        found.into_iter().find_map(ipv4).ok_or_else(|| {
            anyhow::anyhow!(
                "the receiver `{}` has no IPv4 address, and netdump knows no other",
                self.host
            )
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_port_is_20023_unless_given() {
        for (text, shown) in [("192.0.2.7", "192.0.2.7:20023"), ("collector:7", "collector:7")] {
            assert_eq!(text.parse::<HostPort>().unwrap().to_string(), shown);
        }
        let local: HostPort = "127.0.0.1:9".parse().unwrap();
        assert_eq!(local.resolve().unwrap(), "127.0.0.1:9".parse().unwrap());
    }

    #[test]
    fn texts_that_name_no_receiver_are_refused() {
        for text in ["", ":20023", "host:", "host:0", "host:65536", "host:x", "::1"] {
            assert!(text.parse::<HostPort>().is_err(), "`{text}` was taken");
        }
    }
}
