//! Who the dump port is on its network, and whom it talks to.

use std::fmt;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::str::FromStr;

use netdump::wire::HERALD_PORT;

/// The dump port's own address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ClientAddress {
    /// Its IPv4 address.
    pub ip: Ipv4Addr,
    /// Length of its network's prefix in bits.
    pub prefix_len: u8,
}

/// Everything that the dump port needs to know about its network.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ClientNetwork {
    /// Its own address.
    pub address: ClientAddress,
    /// Where packets for other networks go.
    pub gateway: Option<Ipv4Addr>,
    /// Its Ethernet address.
    pub mac: [u8; 6],
    /// Largest IP packet in bytes; chosen by the wire if not given.
    pub mtu: Option<u16>,
}

impl ClientNetwork {
    /// What the `user` wire needs: any network does, as everything on it is the wire; this one is QEMU's user network.
    #[must_use]
    pub fn for_user_wire(vm: &str) -> Self {
        let address = ClientAddress {
            ip: Ipv4Addr::new(10, 0, 2, 15),
            prefix_len: 24,
        };
        Self {
            address,
            gateway: Some(Ipv4Addr::new(10, 0, 2, 2)),
            mac: mac_for_vm(vm),
            mtu: None,
        }
    }
}

/// An Ethernet address for the dump port of this VM: always the same, locally administered, unicast (IEEE 802-2014,
/// 8.2.2), and apart from others with 40 bits of the name's hash.
#[must_use]
pub fn mac_for_vm(vm: &str) -> [u8; 6] {
    // FNV-1a with 64 bits: spreads short names well, and nothing depends on it being secret.
    let hash = vm.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
    });
    let [a, b, c, d, e, f, g, h] = hash.to_le_bytes();
    [0x02, a ^ f, b ^ g, c ^ h, d, e]
}

/// What is wrong with `IP/PREFIX`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is no client address: it is IP/PREFIX with a prefix from 1 to 32, e.g. 192.0.2.10/24")]
pub struct ClientAddressError(String);

impl FromStr for ClientAddress {
    type Err = ClientAddressError;

    fn from_str(text: &str) -> Result<Self, ClientAddressError> {
        let parsed = text.split_once('/').and_then(|(ip, prefix)| {
            let prefix_len = prefix.parse().ok().filter(|prefix| (1..=32).contains(prefix))?;
            Some(Self {
                ip: ip.parse().ok()?,
                prefix_len,
            })
        });
        parsed.ok_or_else(|| ClientAddressError(text.to_owned()))
    }
}

impl fmt::Display for ClientAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.ip, self.prefix_len)
    }
}

/// A receiver: where its HERALD port is, and how people named it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    /// Its address and HERALD port.
    pub address: SocketAddrV4,
    /// The name as given, e.g. `collector.example:20023`.
    pub name: String,
}

impl From<SocketAddrV4> for Target {
    fn from(address: SocketAddrV4) -> Self {
        Self {
            address,
            name: address.to_string(),
        }
    }
}

impl From<Ipv4Addr> for Target {
    fn from(ip: Ipv4Addr) -> Self {
        SocketAddrV4::new(ip, HERALD_PORT).into()
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let address = self.address.to_string();
        match self.name == address {
            true => f.write_str(&address),
            false => write!(f, "{} ({address})", self.name),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn client_addresses_have_a_prefix() {
        let address: ClientAddress = "10.9.0.2/24".parse().unwrap();
        assert_eq!((address.ip, address.prefix_len), (Ipv4Addr::new(10, 9, 0, 2), 24));
        assert_eq!(address.to_string(), "10.9.0.2/24");
        for text in [
            "10.9.0.2",
            "10.9.0.2/0",
            "10.9.0.2/33",
            "10.9.0/24",
            "/24",
            "fe80::1/64",
            "",
        ] {
            assert_eq!(text.parse::<ClientAddress>(), Err(ClientAddressError(text.to_owned())));
        }
    }

    #[test]
    fn every_vm_has_a_lasting_unicast_address_of_its_own() {
        let mut seen = std::collections::HashSet::new();
        for vm in (0..1000).map(|n| format!("vm-{n}")) {
            let mac = mac_for_vm(&vm);
            assert_eq!(mac[0] & 3, 2, "{vm}: locally administered, unicast");
            assert_eq!(mac, mac_for_vm(&vm));
            assert!(seen.insert(mac), "{vm} shares its address");
        }
    }

    #[test]
    fn a_target_shows_its_name_and_its_address_once() {
        let address = SocketAddrV4::new(Ipv4Addr::new(192, 0, 2, 7), 20023);
        assert_eq!(Target::from(address).to_string(), "192.0.2.7:20023");
        let named = Target {
            address,
            name: "collector".to_owned(),
        };
        assert_eq!(named.to_string(), "collector (192.0.2.7:20023)");
    }
}
