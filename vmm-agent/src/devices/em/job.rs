//! The worker's side of an em: frames both ways, and timers.
use std::fmt;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

use nic_emu::device::{FrameSink, Offload, Offloads, TxFrame};
use nic_emu::limits::FRAMES_PER_SEND;

use super::EmFunction;
use crate::devices::bus::{Shared, lock};
use crate::devices::posted::Posted;
use crate::devices::worker::{After, Job};
use crate::net::Wire;

/// After sending, the wire is looked at again this soon: some hold answers that their descriptor does not show.
const AFTER_SEND: Duration = Duration::from_millis(5);
/// A guest that has no buffers left gives new ones by a write that may wait; its next access of any other kind brings the write, and
/// drivers make one soon. This is for those that do not.
const FOR_BUFFERS: Duration = Duration::from_millis(10);

/// The worker's side: frames both ways, and timers.
pub struct EmJob {
    function: Shared<EmFunction>,
    wire: Box<dyn Wire>,
    outbox: Outbox,
    inbox: Inbox,
    posted: Arc<Posted>,
    lost: bool,
}

/// Frames that left the ring and go to the wire once the function's lock is released.
#[derive(Debug, Default)]
struct Outbox {
    offloads: Offloads,
    bytes: Vec<u8>,
    /// Where each frame ends, and what the wire has still to do.
    frames: Vec<(usize, Offload)>,
}

/// A batch of frames from the wire that go to the guest once there is room for them.
#[derive(Debug, Default)]
struct Inbox {
    bytes: Vec<u8>,
    /// Where each frame ends.
    ends: Vec<usize>,
    /// How many of them the guest has.
    taken: usize,
}

impl EmJob {
    pub(super) fn new(function: Shared<EmFunction>, wire: Box<dyn Wire>, posted: Arc<Posted>) -> EmJob {
        EmJob {
            function,
            outbox: Outbox {
                offloads: wire.offloads(),
                ..Outbox::default()
            },
            wire,
            inbox: Inbox::default(),
            posted,
            lost: false,
        }
    }

    /// Takes a batch off the wire, if the last one is gone and the guest can take more; true if there was something.
    fn take_from_wire(&mut self) -> bool {
        if self.lost || !self.inbox.is_empty() || !lock(&self.function).em.can_receive() {
            return false;
        }
        let EmJob { wire, inbox, .. } = self;
        inbox.clear();
        match wire.receive(&mut |frame| inbox.push(frame)) {
            Ok(count) => count > 0,
            Err(error) => {
                tracing::warn!(%error, "the guest's network is gone");
                self.lost = true;
                let mut function = lock(&self.function);
                let now_ns = function.now_ns();
                let actions = function.em.set_link(now_ns, false);
                function.act(actions);
                false
            }
        }
    }
}

impl Job for EmJob {
    fn round(&mut self) -> After {
        self.posted.catch_up();
        lock(&self.function).begin_round();
        let received = self.take_from_wire();
        let mut function = lock(&self.function);
        let now_ns = function.now_ns();
        if !self.inbox.is_empty() || function.em.loopback_pending() {
            let EmFunction { em, ram, .. } = &mut *function;
            self.inbox.taken += em.receive(now_ns, ram, &self.inbox.frames());
        }
        let mut actions = function.em.handle_timeout(now_ns);
        if function.em.transmit_pending() {
            let EmFunction { em, ram, .. } = &mut *function;
            em.transmit(now_ns, ram, &mut self.outbox);
            actions.irq_changed = true;
        }
        // Once for everything that happened, so that a batch is one interrupt.
        actions.transmit = false;
        function.act(actions);
        drop(function);
        let sent = self.outbox.empty_into(&mut *self.wire);
        let mut function = lock(&self.function);
        let holds_frames = !self.inbox.is_empty();
        if received && !holds_frames {
            return After::Again;
        }
        let readable = !holds_frames && !self.lost && function.em.can_receive();
        let Some(until_ns) = function.end_round(!readable, holds_frames) else {
            return After::Again;
        };
        let until = until_ns.map(|due| Duration::from_nanos(due.saturating_sub(function.now_ns())));
        let look_again = sent.then_some(AFTER_SEND);
        let buffers = holds_frames || function.buffers_may_come_unheard();
        let look_for_buffers = buffers.then_some(FOR_BUFFERS);
        After::Wait {
            readable,
            timeout: until.into_iter().chain(look_again).chain(look_for_buffers).min(),
        }
    }

    fn descriptor(&self) -> io::Result<Option<OwnedFd>> {
        Ok(Some(self.wire.as_fd().try_clone_to_owned()?))
    }
}

impl FrameSink for Outbox {
    fn offloads(&self) -> Offloads {
        self.offloads
    }

    fn send(&mut self, frames: &[TxFrame<'_>]) {
        for frame in frames {
            self.bytes.extend_from_slice(frame.bytes);
            self.frames.push((self.bytes.len(), frame.offload));
        }
    }
}

impl Outbox {
    /// Hands everything to the wire, in batches; true if there was something. One `transmit` of the device bounds what lies
    /// here.
    fn empty_into(&mut self, wire: &mut dyn Wire) -> bool {
        let mut start = 0;
        for batch in self.frames.chunks(FRAMES_PER_SEND) {
            let frames: Vec<TxFrame<'_>> = batch
                .iter()
                .map(|(end, offload)| {
                    let bytes = self.bytes.get(start..*end).unwrap_or_default();
                    start = *end;
                    TxFrame {
                        bytes,
                        offload: *offload,
                    }
                })
                .collect();
            wire.send(&frames);
        }
        let sent = !self.frames.is_empty();
        self.frames.clear();
        self.bytes.clear();
        sent
    }
}

impl Inbox {
    /// A wire's batch bounds what lies here.
    fn push(&mut self, frame: &[u8]) {
        self.bytes.extend_from_slice(frame);
        self.ends.push(self.bytes.len());
    }

    fn is_empty(&self) -> bool {
        self.taken >= self.ends.len()
    }

    fn clear(&mut self) {
        self.bytes.clear();
        self.ends.clear();
        self.taken = 0;
    }

    /// What the guest does not have yet.
    fn frames(&self) -> Vec<&[u8]> {
        let starts = std::iter::once(0).chain(self.ends.iter().copied());
        let frames = starts.zip(&self.ends).map(|(start, end)| self.bytes.get(start..*end));
        frames.skip(self.taken).map(Option::unwrap_or_default).collect()
    }
}

impl fmt::Debug for EmJob {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EmJob")
            .field("wire", &self.wire.name())
            .field("waiting", &(self.inbox.ends.len() - self.inbox.taken))
            .finish_non_exhaustive()
    }
}
