//! The ioctls of TAP devices and interfaces (linux/if_tun.h, linux/if.h, netdevice(7)): the only unsafe code of the
//! wires. Each function is one call on a structure that it owns.
#![expect(unsafe_code, reason = "ioctl(2) has no safe wrapper for TUN/TAP")]

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

/// Flags of a TAP queue: frames with Ethernet header, no packet information, with virtio-net header.
const TAP_FLAGS: i32 = libc::IFF_TAP | libc::IFF_NO_PI | libc::IFF_VNET_HDR;

/// What netdevice(7) tells about an interface.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct InterfaceState {
    /// `IFF_UP`: an administrator switched it on.
    pub(super) is_up: bool,
    /// Its MTU in bytes.
    pub(super) mtu: u16,
}

/// Attaches `tun` (an open /dev/net/tun) to the TAP interface of this name, one of several queues if `multi_queue`.
pub(super) fn attach_tap(tun: BorrowedFd<'_>, interface: &str, multi_queue: bool) -> io::Result<()> {
    let mut request = request_for(interface)?;
    let flags = if multi_queue {
        TAP_FLAGS | libc::IFF_MULTI_QUEUE
    } else {
        TAP_FLAGS
    };
    request.ifr_ifru.ifru_flags = libc::c_short::try_from(flags).map_err(io::Error::other)?;
    // SAFETY: `tun` is open for the whole call; TUNSETIFF reads and writes one `struct ifreq`, which `request` is.
    check(unsafe { libc::ioctl(tun.as_raw_fd(), libc::TUNSETIFF, &raw mut request) })
}

/// Sets the length in bytes of the virtio-net header before each frame and reads back what is in force.
pub(super) fn set_vnet_header_len(tun: BorrowedFd<'_>, len_bytes: i32) -> io::Result<i32> {
    let mut value = len_bytes;
    // SAFETY: `tun` is open for the whole call; TUNSETVNETHDRSZ reads one int, which `value` is.
    check(unsafe { libc::ioctl(tun.as_raw_fd(), libc::TUNSETVNETHDRSZ, &raw const value) })?;
    value = 0;
    // SAFETY: as above; TUNGETVNETHDRSZ writes one int.
    check(unsafe { libc::ioctl(tun.as_raw_fd(), libc::TUNGETVNETHDRSZ, &raw mut value) })?;
    Ok(value)
}

/// Offloads of UDP segmentation, which came with Linux 6.2: the checksum that they need, IPv4 and IPv6 (linux/if_tun.h).
const TUN_F_CSUM: libc::c_ulong = 0x01;
const TUN_F_USO4: libc::c_ulong = 0x20;
const TUN_F_USO6: libc::c_ulong = 0x40;

/// Whether the kernel knows UDP segmentation. A kernel that can be told to hand us uncut UDP also takes it from us; an older
/// one refuses flags that it does not know.
pub(super) fn offers_udp_segmentation(tun: BorrowedFd<'_>) -> bool {
    let flags = TUN_F_CSUM | TUN_F_USO4 | TUN_F_USO6;
    // SAFETY: `tun` is open for the whole call; TUNSETOFFLOAD takes its flags by value.
    check(unsafe { libc::ioctl(tun.as_raw_fd(), libc::TUNSETOFFLOAD, flags) }).is_ok()
}

/// Tells the kernel that frames to us must be whole: no large segments, checksums filled in.
pub(super) fn disable_offloads(tun: BorrowedFd<'_>) -> io::Result<()> {
    // SAFETY: `tun` is open for the whole call; TUNSETOFFLOAD takes its flags by value.
    check(unsafe { libc::ioctl(tun.as_raw_fd(), libc::TUNSETOFFLOAD, 0 as libc::c_ulong) })
}

/// Asks for an interface of this network namespace, by any socket; `ENODEV` when there is none of this name.
pub(super) fn interface_state(socket: BorrowedFd<'_>, interface: &str) -> io::Result<InterfaceState> {
    let mut request = request_for(interface)?;
    // SAFETY: `socket` is open for the whole call; SIOCGIFFLAGS reads and writes one `struct ifreq`.
    check(unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCGIFFLAGS, &raw mut request) })?;
    // SAFETY: SIOCGIFFLAGS succeeded, so the union holds flags; any bit pattern is a valid short.
    let flags = unsafe { request.ifr_ifru.ifru_flags };
    let mut request = request_for(interface)?;
    // SAFETY: as above, with SIOCGIFMTU.
    check(unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCGIFMTU, &raw mut request) })?;
    // SAFETY: SIOCGIFMTU succeeded, so the union holds an MTU; any bit pattern is a valid int.
    let mtu = unsafe { request.ifr_ifru.ifru_mtu };
    Ok(InterfaceState {
        is_up: i32::from(flags) & libc::IFF_UP != 0,
        mtu: u16::try_from(mtu).unwrap_or(if mtu < 0 { 0 } else { u16::MAX }),
    })
}

/// Whether an interface of this network namespace is switched on and has its carrier, asked by any socket (ethtool(8), "Link
/// detected"). Unlike `IFF_RUNNING` it does not lag behind.
pub(super) fn has_carrier(socket: BorrowedFd<'_>, interface: &str) -> io::Result<bool> {
    let mut value = EthtoolValue {
        command: ETHTOOL_GLINK,
        data: 0,
    };
    let mut request = request_for(interface)?;
    request.ifr_ifru.ifru_data = (&raw mut value).cast();
    // SAFETY: `socket` is open for the whole call; SIOCETHTOOL reads one `struct ifreq`, whose data is the structure that this
    // command reads and writes, and outlives the call.
    check(unsafe { libc::ioctl(socket.as_raw_fd(), SIOCETHTOOL, &raw mut request) })?;
    Ok(value.data != 0)
}

/// `struct ethtool_value` (linux/ethtool.h).
#[repr(C)]
struct EthtoolValue {
    command: u32,
    data: u32,
}

/// Whether there is a link (linux/ethtool.h).
const ETHTOOL_GLINK: u32 = 0x0a;
/// linux/sockios.h.
const SIOCETHTOOL: libc::c_ulong = 0x8946;

/// A `struct ifreq` with this interface name and nothing else.
fn request_for(interface: &str) -> io::Result<libc::ifreq> {
    // SAFETY: `struct ifreq` is plain data of integers and arrays; all zeroes are a valid value.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    if interface.len() >= request.ifr_name.len() {
        return Err(io::Error::from(io::ErrorKind::InvalidInput));
    }
    for (slot, byte) in request.ifr_name.iter_mut().zip(interface.bytes()) {
        *slot = libc::c_char::from_ne_bytes([byte]);
    }
    Ok(request)
}

fn check(result: libc::c_int) -> io::Result<()> {
    if result < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(())
    }
}
