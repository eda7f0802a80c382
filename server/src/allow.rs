//! Which networks may dump.

use std::net::{IpAddr, Ipv4Addr};
use std::str::FromStr;

/// An IPv4 network, `ADDRESS/PREFIX` (RFC 4632).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cidr {
    network: u32,
    mask: u32,
}

/// Text that is no network.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is not an IPv4 network: {why}; write it as 192.0.2.0/24")]
pub struct CidrError {
    text: String,
    why: &'static str,
}

impl Cidr {
    /// Whether the network holds this address.
    #[must_use]
    pub fn contains(self, address: Ipv4Addr) -> bool {
        u32::from(address) & self.mask == self.network
    }
}

impl FromStr for Cidr {
    type Err = CidrError;

    fn from_str(text: &str) -> Result<Self, CidrError> {
        let fail = |why| CidrError {
            text: text.to_owned(),
            why,
        };
        let (address, prefix) = text.split_once('/').unwrap_or((text, "32"));
        let address: Ipv4Addr = address.parse().map_err(|_| fail("the address cannot be read"))?;
        let prefix: u32 = prefix.parse().map_err(|_| fail("the prefix cannot be read"))?;
        if prefix > 32 {
            return Err(fail("the prefix is longer than 32 bits"));
        }
        let mask = u32::MAX.checked_shl(32 - prefix).unwrap_or(0);
        let address = u32::from(address);
        if address & !mask != 0 {
            return Err(fail("the address has bits beyond the prefix"));
        }
        Ok(Self { network: address, mask })
    }
}

impl std::fmt::Display for Cidr {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", Ipv4Addr::from(self.network), self.mask.count_ones())
    }
}

/// Whether a peer may dump: loopback always, others by the list.
#[must_use]
pub(crate) fn is_allowed(allow: &[Cidr], peer: IpAddr) -> bool {
    match peer {
        IpAddr::V4(peer) => peer.is_loopback() || allow.iter().any(|network| network.contains(peer)),
        IpAddr::V6(_) => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn allowed(list: &[&str], peer: &str) -> bool {
        let list: Vec<Cidr> = list.iter().map(|text| text.parse().unwrap()).collect();
        is_allowed(&list, peer.parse().unwrap())
    }

    #[test]
    fn loopback_is_always_allowed_and_others_by_the_list() {
        assert!(allowed(&[], "127.0.0.1"));
        assert!(allowed(&[], "127.9.9.9"));
        assert!(!allowed(&[], "192.0.2.1"));
        assert!(allowed(&["192.0.2.0/24"], "192.0.2.255"));
        assert!(!allowed(&["192.0.2.0/24"], "192.0.3.0"));
        assert!(allowed(&["0.0.0.0/0"], "203.0.113.9"));
        assert!(allowed(&["203.0.113.9"], "203.0.113.9"));
        assert!(!allowed(&["203.0.113.9/32"], "203.0.113.8"));
    }

    #[test]
    fn what_is_no_network_is_refused() {
        for text in [
            "",
            "192.0.2.0/33",
            "192.0.2.1/24",
            "192.0.2/24",
            "::1/128",
            "192.0.2.0/x",
        ] {
            assert!(text.parse::<Cidr>().is_err(), "{text}");
        }
    }
}
