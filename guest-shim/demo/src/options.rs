//! The command line: words `name=value`, separated by spaces.
use core::net::{Ipv4Addr, SocketAddrV4};

use guest_shim::boot::BootInfo;
use guest_shim::pattern::DEMO_FILL_GPA;
use guest_shim::self_dump::RECEIVER_PORT;

/// What the guest was told to do.
#[derive(Clone, Copy)]
pub struct Options {
    /// What to do after the start.
    pub mode: &'static str,
    /// Memory to fill, in MiB.
    pub touch_mib: u64,
    /// First guest-physical address to fill, in MiB.
    pub touch_from_mib: u64,
    /// Timer ticks (10 ms) before it is done.
    pub delay_ticks: u64,
    /// Reach the shim and pvpanic through PCI instead of ports.
    pub pci: bool,
    /// Where the guest sends its own dump when it panics.
    pub netdump: Option<Netdump>,
}

/// What dumpon(8) is told: `netdump=IP[:PORT]`, `netdump_client=IP/PREFIX`, `netdump_gateway=IP`, `netdump_mtu=N`.
#[derive(Clone, Copy)]
pub struct Netdump {
    /// The receiver.
    pub receiver: SocketAddrV4,
    /// This guest, and how long the prefix of its network is.
    pub client: (Ipv4Addr, u8),
    /// Where packets for other networks go.
    pub gateway: Option<Ipv4Addr>,
    /// Largest IP packet.
    pub mtu: u16,
}

impl Options {
    /// Reads the command line of `info`.
    pub fn new(info: &BootInfo) -> Options {
        let mut options = Options {
            mode: "panic",
            touch_mib: 32,
            touch_from_mib: DEMO_FILL_GPA >> 20,
            delay_ticks: 20,
            pci: false,
            netdump: None,
        };
        let mut receiver = None;
        let (mut client, mut gateway, mut mtu) = ((Ipv4Addr::new(10, 0, 2, 15), 24), None, 1500);
        for (name, value) in command_line(info)
            .split_ascii_whitespace()
            .filter_map(|word| word.split_once('='))
        {
            match name {
                "mode" => options.mode = value,
                "touch_mib" => options.touch_mib = value.parse().unwrap_or(options.touch_mib),
                "touch_from_mib" => options.touch_from_mib = value.parse().unwrap_or(options.touch_from_mib),
                "delay_ticks" => options.delay_ticks = value.parse().unwrap_or(options.delay_ticks),
                "devices" => options.pci = value == "pci",
                "netdump" => receiver = address_and_port(value),
                "netdump_client" => client = address_and_prefix(value).unwrap_or(client),
                "netdump_gateway" => gateway = value.parse().ok(),
                "netdump_mtu" => mtu = value.parse().unwrap_or(mtu),
                _ => {}
            }
        }
        options.netdump = receiver.map(|receiver| Netdump {
            receiver,
            client,
            gateway,
            mtu,
        });
        options
    }
}

fn address_and_port(text: &str) -> Option<SocketAddrV4> {
    let alone = |ip: Ipv4Addr| SocketAddrV4::new(ip, RECEIVER_PORT);
    text.parse().or_else(|_| text.parse().map(alone)).ok()
}

fn address_and_prefix(text: &str) -> Option<(Ipv4Addr, u8)> {
    let (ip, prefix) = text.split_once('/')?;
    Some((ip.parse().ok()?, prefix.parse().ok()?))
}

fn command_line(info: &BootInfo) -> &'static str {
    let len = usize::try_from(info.command_line_len).unwrap_or(0);
    let start = core::ptr::with_exposed_provenance(usize::try_from(info.command_line_gpa).unwrap_or(0));
    // SAFETY: the boot protocol puts that many bytes there, below this program's image, and nothing writes them.
    let bytes = unsafe { core::slice::from_raw_parts(start, len) };
    core::str::from_utf8(bytes).unwrap_or("")
}
