//! The cable: what happens to it behind the wire, the guest sees as its link going down or up.
use std::fmt;
use std::io;
use std::os::fd::OwnedFd;

use super::EmFunction;
use crate::devices::bus::{Shared, lock};
use crate::devices::worker::{After, Job};
use crate::net::Link;

/// Shows an em what becomes of its cable. Does nothing but that, so that it costs the path of frames nothing.
pub struct LinkJob {
    function: Shared<EmFunction>,
    link: Box<dyn Link>,
    /// As the device was told; it starts with a cable.
    up: bool,
}

impl LinkJob {
    /// For an em whose wire has this cable.
    #[must_use]
    pub fn new(function: Shared<EmFunction>, link: Box<dyn Link>) -> LinkJob {
        LinkJob {
            function,
            link,
            up: true,
        }
    }
}

impl Job for LinkJob {
    fn round(&mut self) -> After {
        let up = self.link.is_up();
        if up != self.up {
            self.up = up;
            tracing::info!(up, "the cable of the guest's network device");
            let mut function = lock(&self.function);
            let now_ns = function.now_ns();
            let actions = function.em.set_link(now_ns, up);
            function.act(actions);
        }
        After::Wait {
            readable: true,
            timeout: None,
        }
    }

    fn descriptor(&self) -> io::Result<Option<OwnedFd>> {
        Ok(Some(self.link.news().try_clone_to_owned()?))
    }
}

impl fmt::Debug for LinkJob {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LinkJob").field("up", &self.up).finish_non_exhaustive()
    }
}
