//! The thread of one vCPU: through the gate, into the guest, act on the exit, again.
use std::sync::Arc;
use std::sync::mpsc::Sender;

use super::VmEvent;
use super::control::{Control, Next};
use super::machine::{Happening, Machine};
use crate::kvm::{Exit, KvmError, Vcpu};

/// Most exits that completing one instruction may take. A `rep outsb` completes one byte at a time; longer strings than
/// this do not occur, and a guest must not keep the host from freezing it.
const COMPLETING_EXITS_MAX: u32 = 1 << 16;

/// What the thread works with.
#[derive(Clone)]
pub(super) struct VcpuThread {
    pub(super) control: Arc<Control>,
    pub(super) machine: Arc<Machine>,
    pub(super) events: Sender<VmEvent>,
}

/// Tells the others that this vCPU is gone, however its thread ends.
pub(super) struct Leaving<'a>(pub(super) &'a VcpuThread, pub(super) u8);

impl Drop for Leaving<'_> {
    fn drop(&mut self) {
        self.0.control.leave(self.1);
        if std::thread::panicking() {
            // The guest does not go on without it, so this is a crash like any other.
            self.0.send(VmEvent::VcpuFailed {
                vcpu: self.1,
                what: "its thread panicked, which is a bug of coreferry".to_owned(),
            });
        }
    }
}

impl VcpuThread {
    /// Runs until it is told to stop.
    pub(super) fn run(&self, mut vcpu: Vcpu) {
        let index = vcpu.index();
        // Declared after the vCPU, so dropped before it: nobody kicks a vCPU that is gone.
        let _leaving = Leaving(self, index);
        match vcpu.kicker() {
            Ok(kicker) => self.control.arrive(index, kicker, vcpu.take_spare()),
            Err(error) => {
                self.send(VmEvent::VcpuFailed {
                    vcpu: index,
                    what: error.to_string(),
                });
                return;
            }
        }
        while self.control.gate(&mut vcpu, |vcpu| self.complete(vcpu)) == Next::Run {
            let happenings = match vcpu.run() {
                Ok(exit) => self.machine.handle(exit),
                Err(error) => vec![failed(&error)],
            };
            self.act(index, happenings);
        }
    }

    /// Finishes pending I/O without running the guest, so that the registers are those after the instruction.
    fn complete(&self, vcpu: &mut Vcpu) {
        for _ in 0..COMPLETING_EXITS_MAX {
            vcpu.set_immediate_exit(true);
            let happenings = match vcpu.run() {
                Ok(Exit::Interrupted) => return,
                Ok(exit @ (Exit::Shutdown | Exit::InternalError { .. } | Exit::EntryFailed { .. })) => {
                    // The same news again: this vCPU does not go on.
                    tracing::debug!(?exit, "still out of the guest");
                    return;
                }
                Ok(exit) => self.machine.handle(exit),
                Err(error) => {
                    tracing::warn!(%error, "pending I/O could not be completed");
                    return;
                }
            };
            self.act(vcpu.index(), happenings);
        }
        tracing::warn!(
            vcpu = vcpu.index(),
            "an instruction did not complete in {COMPLETING_EXITS_MAX} exits"
        );
    }

    fn act(&self, vcpu: u8, happenings: Vec<Happening>) {
        for happening in happenings {
            match happening {
                Happening::Trigger(trigger) => {
                    if trigger.holds_vcpu() {
                        self.control.hold(vcpu, "reported");
                    }
                    self.send(VmEvent::Trigger(trigger));
                }
                Happening::PoweredOff => self.end(VmEvent::PoweredOff),
                Happening::Reset => self.end(VmEvent::Reset),
                Happening::Failed(what) => {
                    self.control.hold(vcpu, "failed");
                    self.send(VmEvent::VcpuFailed { vcpu, what });
                }
            }
        }
    }

    /// The guest is at its end: no vCPU enters it again.
    fn end(&self, event: VmEvent) {
        self.control.order(|orders| orders.ended = true);
        self.send(event);
    }

    /// Nobody listens any more when the machine is being stopped.
    fn send(&self, event: VmEvent) {
        if let Err(unheard) = self.events.send(event) {
            tracing::debug!(event = ?unheard.0, "nobody listens");
        }
    }
}

fn failed(error: &KvmError) -> Happening {
    Happening::Failed(match std::error::Error::source(error) {
        Some(source) => format!("{error}: {source}"),
        None => error.to_string(),
    })
}
