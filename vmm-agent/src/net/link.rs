//! The cable at the other end of a wire: whether it is plugged in, and news of it.

use std::io;
use std::os::fd::{AsFd, AsRawFd as _, BorrowedFd, OwnedFd};

use nix::errno::Errno;
use nix::sys::socket::{AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, bind, recv, socket};

use super::ioctl;

/// News that is thrown away at once; more of it makes us look again.
const MESSAGES_MAX: usize = 1024;

/// Says whether there is a cable.
pub trait Link: Send {
    /// Whether frames can pass now. Whatever was news before is no longer.
    fn is_up(&mut self) -> bool;

    /// Becomes readable when the answer may have changed.
    fn news(&self) -> BorrowedFd<'_>;
}

/// An interface of the network namespace in which it was made.
#[derive(Debug)]
pub(super) struct InterfaceLink {
    interface: String,
    /// Hears of every change of an interface (rtnetlink(7)).
    changes: OwnedFd,
    /// The last answer; holds while the interface is not to be found, for it may have moved to another namespace with frames passing.
    up: bool,
}

impl InterfaceLink {
    /// # Errors
    /// When the system gives no netlink socket.
    pub(super) fn watch(interface: &str) -> io::Result<Self> {
        let changes = socket(
            AddressFamily::Netlink,
            SockType::Raw,
            SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK,
            SockProtocol::NetlinkRoute,
        )?;
        let links = u32::try_from(libc::RTMGRP_LINK).map_err(io::Error::other)?;
        bind(changes.as_raw_fd(), &NetlinkAddr::new(0, links))?;
        Ok(Self {
            interface: interface.to_owned(),
            changes,
            up: true,
        })
    }
}

impl Link for InterfaceLink {
    fn is_up(&mut self) -> bool {
        // What changed is asked anew, so the messages themselves do not matter, nor does one that was lost (ENOBUFS).
        let mut message = [0; 8192];
        for _ in 0..MESSAGES_MAX {
            match recv(self.changes.as_raw_fd(), &mut message, MsgFlags::MSG_DONTWAIT) {
                Ok(_) | Err(Errno::ENOBUFS | Errno::EINTR) => {}
                Err(_) => break,
            }
        }
        if let Ok(up) = ioctl::has_carrier(self.changes.as_fd(), &self.interface) {
            self.up = up;
        }
        self.up
    }

    fn news(&self) -> BorrowedFd<'_> {
        self.changes.as_fd()
    }
}
