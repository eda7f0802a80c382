//! The wire to an existing TAP interface of this host (Linux kernel documentation, networking/tuntap).
//!
//! The interface is never made here: whoever owns the network makes it (`ip tuntap add IF mode tap user USER`), joins it
//! to a bridge or routes it, and switches it on.

use std::fmt;
use std::fs::{File, OpenOptions};
use std::io::{self, ErrorKind, IoSlice, Read, Write};
use std::net::{Ipv4Addr, UdpSocket};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::time::Duration;

use nic_emu::device::{FrameSink, Offload, Offloads, SegmentationKind, TxFrame};
use nix::poll::PollFlags;

use super::drops::Drops;
use super::limits::{FRAME_LEN_MAX, MTU_ETHERNET, MTU_JUMBO, MTU_MIN, RECEIVE_BATCH, SEND_WAIT_MS};
use super::link::{InterfaceLink, Link};
use super::wait::wait_for;
use super::{Wire, WireError, ioctl};

/// Bytes of the virtio-net header before each frame, with the number of buffers (virtio 1.2, 5.1.6).
const VNET_HEADER_LEN: usize = 12;
/// Flag: the checksum is to be completed (`VIRTIO_NET_HDR_F_NEEDS_CSUM`).
const VNET_NEEDS_CSUM: u8 = 1;
/// To be cut as TCP over IPv4 and IPv6 (`VIRTIO_NET_HDR_GSO_*`).
const VNET_GSO_TCPV4: u8 = 1;
const VNET_GSO_TCPV6: u8 = 4;
/// To be cut as UDP datagrams over IPv4 or IPv6.
const VNET_GSO_UDP_L4: u8 = 5;

/// A queue of a TAP interface.
#[derive(Debug)]
pub struct TapWire {
    interface: String,
    tun: File,
    mtu: u16,
    /// The kernel cuts UDP, too (Linux 6.2).
    cuts_udp: bool,
    buffer: Box<[u8]>,
    /// How long a frame waits for room in the interface's queue.
    send_wait: Duration,
    /// Frames that the kernel did not take.
    drops: Drops,
    /// The last reason for which it did not.
    refusal: Option<String>,
    /// Why nothing passes any more, once that is so.
    lost: Option<String>,
}

impl TapWire {
    /// Attaches to the interface of this name.
    ///
    /// # Errors
    /// [`WireError::Open`]: it does not exist, is switched off, belongs to someone else or is in use; with what to do.
    pub fn open(interface: &str) -> Result<Self, WireError> {
        let fail = |why: String| WireError::open(interface, why);
        let mtu = usable_mtu(interface).map_err(fail)?;
        let tun = OpenOptions::new()
            .read(true)
            .write(true)
            .custom_flags(libc::O_NONBLOCK | libc::O_CLOEXEC)
            .open("/dev/net/tun")
            .map_err(|error| fail(format!("cannot open /dev/net/tun: {error}; {}", tun_advice(&error))))?;
        attach(&tun, interface).map_err(fail)?;
        let wanted = i32::try_from(VNET_HEADER_LEN).unwrap_or(0);
        match ioctl::set_vnet_header_len(tun.as_fd(), wanted) {
            Ok(in_force) if in_force == wanted => {}
            Ok(in_force) => {
                return Err(fail(format!(
                    "the kernel keeps a vnet header of {in_force} bytes, not {wanted}"
                )));
            }
            Err(error) => return Err(fail(format!("cannot set the vnet header to {wanted} bytes: {error}"))),
        }
        let cuts_udp = ioctl::offers_udp_segmentation(tun.as_fd());
        ioctl::disable_offloads(tun.as_fd()).map_err(|error| fail(format!("cannot switch offloads off: {error}")))?;
        Ok(Self {
            interface: interface.to_owned(),
            tun,
            mtu,
            cuts_udp,
            buffer: vec![0; VNET_HEADER_LEN + FRAME_LEN_MAX].into_boxed_slice(),
            send_wait: Duration::from_millis(SEND_WAIT_MS.into()),
            drops: Drops::default(),
            refusal: None,
            lost: None,
        })
    }

    /// A wire on which no send ever waits: what the interface does not take at once is dropped.
    #[must_use]
    pub fn without_waiting(mut self) -> Self {
        self.send_wait = Duration::ZERO;
        self
    }

    /// As on a kernel that cuts no UDP: the device does it.
    #[must_use]
    pub fn without_udp_segmentation(mut self) -> Self {
        self.cuts_udp = false;
        self
    }

    /// Frames that the kernel did not take.
    pub fn dropped_frames(&self) -> u64 {
        self.drops.count()
    }

    fn check_lost(&self) -> Result<(), WireError> {
        self.lost
            .as_ref()
            .map_or(Ok(()), |why| Err(WireError::lost(&self.interface, why.as_str())))
    }

    fn send_one(&mut self, frame: &TxFrame<'_>) {
        let header = vnet_header(frame.offload);
        for attempt in 0..2 {
            match (&self.tun).write_vectored(&[IoSlice::new(&header), IoSlice::new(frame.bytes)]) {
                Ok(_) => return,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock && attempt == 0 && !self.send_wait.is_zero() => {
                    let _ = wait_for(self.tun.as_fd(), PollFlags::POLLOUT, self.send_wait);
                }
                Err(error) => {
                    self.note_refusal(&error);
                    break;
                }
            }
        }
        let why = self.lost.as_deref().or(self.refusal.as_deref());
        self.drops.add(1, &self.interface, why.unwrap_or("its queue is full"));
    }

    /// The kernel says EBADFD once the interface is deleted, and EIO while it is switched off (drivers/net/tun.c).
    fn note_refusal(&mut self, error: &io::Error) {
        match error.raw_os_error() {
            Some(libc::EBADFD) => self.lost = Some("the interface was deleted".to_owned()),
            Some(libc::EIO) => {
                self.refusal = Some(format!("{0} is switched off: ip link set {0} up", self.interface));
            }
            _ => self.refusal = Some(format!("{} refuses frames: {error}", self.interface)),
        }
    }
}

/// The interface's MTU, or why it cannot be used as it is.
fn usable_mtu(interface: &str) -> Result<u16, String> {
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).map_err(|error| format!("cannot make a socket: {error}"))?;
    match ioctl::interface_state(socket.as_fd(), interface) {
        Ok(state) if state.is_up => Ok(state.mtu),
        Ok(_) => Err(format!("the interface is switched off: ip link set {interface} up")),
        Err(error) if error.raw_os_error() == Some(libc::ENODEV) => Err(format!(
            "no such interface in this network namespace; make it first: \
             ip tuntap add {interface} mode tap user $USER && ip link set {interface} up"
        )),
        Err(error) => Err(format!("cannot ask for the interface's state: {error}")),
    }
}

/// What is left to the kernel, as a header before the frame (virtio 1.2, 5.1.6.2; all zeroes: nothing).
fn vnet_header(offload: Offload) -> [u8; VNET_HEADER_LEN] {
    let mut header = [0; VNET_HEADER_LEN];
    let mut put = |at: usize, value: u16| {
        if let Some(field) = header.get_mut(at..).and_then(|rest| rest.first_chunk_mut::<2>()) {
            *field = value.to_le_bytes();
        }
    };
    // Flags in the first byte, how to cut in the second.
    let flags = offload.checksum.map_or(0, |_| VNET_NEEDS_CSUM);
    let kind = offload.segmentation.map_or(0, |segmentation| match segmentation.kind {
        SegmentationKind::Tcp4 => VNET_GSO_TCPV4,
        SegmentationKind::Tcp6 => VNET_GSO_TCPV6,
        SegmentationKind::Udp4 | SegmentationKind::Udp6 => VNET_GSO_UDP_L4,
    });
    put(0, u16::from_le_bytes([flags, kind]));
    if let Some(segmentation) = offload.segmentation {
        put(2, segmentation.header_len);
        put(4, segmentation.size);
    }
    if let Some(checksum) = offload.checksum {
        put(6, checksum.start);
        put(8, checksum.offset);
    }
    header
}

fn tun_advice(error: &io::Error) -> &'static str {
    match error.kind() {
        ErrorKind::NotFound => "load the driver (modprobe tun)",
        ErrorKind::PermissionDenied => "let this user open it (mode 0666 is usual: it gives no rights by itself)",
        _ => "is the tun driver there?",
    }
}

/// Attaches to the interface, as its only queue or, where it was made with several, as one of them.
fn attach(tun: &File, interface: &str) -> Result<(), String> {
    let error = match ioctl::attach_tap(tun.as_fd(), interface, false) {
        Ok(()) => return Ok(()),
        Err(error) if error.raw_os_error() == Some(libc::EINVAL) => {
            match ioctl::attach_tap(tun.as_fd(), interface, true) {
                Ok(()) => return Ok(()),
                Err(error) => error,
            }
        }
        Err(error) => error,
    };
    Err(match error.raw_os_error() {
        Some(libc::EPERM) => format!(
            "this user may not attach to it ({error}): give it to the user (ip tuntap add {interface} mode tap user $USER) \
             or run with CAP_NET_ADMIN"
        ),
        Some(libc::EBUSY) => format!("another process is attached to it ({error}): use an interface of its own"),
        Some(libc::EINVAL) => {
            format!("it is no TAP interface ({error}): make one (ip tuntap add NAME mode tap user $USER)")
        }
        _ => format!("cannot attach to it: {error}"),
    })
}

impl FrameSink for TapWire {
    /// The kernel completes checksums and cuts large packets of frames that come with a vnet header.
    fn offloads(&self) -> Offloads {
        Offloads {
            checksum: true,
            tcp4: true,
            tcp6: true,
            udp4: self.cuts_udp,
            udp6: self.cuts_udp,
        }
    }

    fn send(&mut self, frames: &[TxFrame<'_>]) {
        for (frame, left) in frames.iter().zip((1..=frames.len() as u64).rev()) {
            if let Some(why) = &self.lost {
                self.drops.add(left, &self.interface, why);
                return;
            }
            self.send_one(frame);
        }
    }
}

impl Wire for TapWire {
    fn receive(&mut self, deliver: &mut dyn FnMut(&[u8])) -> Result<usize, WireError> {
        self.check_lost()?;
        let mut count = 0;
        while count < RECEIVE_BATCH {
            match (&self.tun).read(&mut self.buffer) {
                Ok(len_bytes) => {
                    if let Some(frame) = self.buffer.get(VNET_HEADER_LEN..len_bytes) {
                        deliver(frame);
                        count += 1;
                    }
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => {
                    self.note_refusal(&error);
                    break;
                }
            }
        }
        if count == 0 {
            self.check_lost().map(|()| 0)
        } else {
            Ok(count)
        }
    }

    fn wait(&self, timeout: Duration) -> Result<(), WireError> {
        self.check_lost()?;
        let seen = wait_for(self.tun.as_fd(), PollFlags::POLLIN, timeout)
            .map_err(|errno| WireError::lost(&self.interface, format!("cannot wait on it: {errno}")))?;
        if seen.contains(PollFlags::POLLERR) {
            return Err(WireError::lost(&self.interface, "the interface was deleted"));
        }
        Ok(())
    }

    fn name(&self) -> String {
        self.interface.clone()
    }

    fn mtu_max(&self) -> u16 {
        self.mtu.min(MTU_JUMBO)
    }

    fn mtu_towards(&self, _server: Ipv4Addr) -> u16 {
        // More only on demand: a link behind this one may carry less, and nobody hears it say so.
        self.mtu.clamp(MTU_MIN, MTU_ETHERNET)
    }

    fn link(&self) -> Option<Box<dyn Link>> {
        match InterfaceLink::watch(&self.interface) {
            Ok(link) => Some(Box::new(link)),
            Err(error) => {
                tracing::warn!(interface = self.interface, %error, "its link cannot be watched");
                None
            }
        }
    }

    fn hint(&self) -> Option<String> {
        self.refusal.clone()
    }
}

impl AsFd for TapWire {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.tun.as_fd()
    }
}

impl fmt::Display for TapWire {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.interface)
    }
}

#[cfg(test)]
mod tests {
    use nic_emu::device::{ChecksumOffload, Segmentation};

    use super::*;

    #[test]
    fn the_vnet_header_says_what_is_left_to_do() {
        assert_eq!(vnet_header(Offload::default()), [0; VNET_HEADER_LEN]);
        let checksum = Some(ChecksumOffload { start: 34, offset: 16 });
        let segmentation = Some(Segmentation {
            kind: SegmentationKind::Tcp6,
            size: 1448,
            header_len: 86,
        });
        assert_eq!(
            vnet_header(Offload {
                checksum,
                segmentation: None
            }),
            [1, 0, 0, 0, 0, 0, 34, 0, 16, 0, 0, 0]
        );
        assert_eq!(
            vnet_header(Offload { checksum, segmentation }),
            [1, 4, 86, 0, 0xa8, 5, 34, 0, 16, 0, 0, 0]
        );
    }

    #[test]
    fn a_missing_interface_says_how_to_make_it() {
        let error = TapWire::open("cf-none-such").unwrap_err().to_string();
        assert!(
            error.starts_with("cf-none-such: no such interface in this network namespace"),
            "{error}"
        );
        assert!(error.contains("ip tuntap add cf-none-such mode tap"), "{error}");
    }

    #[test]
    fn an_interface_that_is_no_tap_is_refused() {
        let error = TapWire::open("lo").unwrap_err().to_string();
        assert!(error.starts_with("lo: "), "{error}");
        assert!(!error.contains("no such interface"), "{error}");
    }
}
