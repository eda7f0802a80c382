//! The thread that decides: owns the incarnation, hears guests, dumps and callers, one input at a time.

use std::sync::mpsc::{self, Receiver, Sender};
use std::sync::{Arc, Mutex};
use std::time::Instant;

use super::dump_thread::{DumpThread, DumpWork, EndOfDump};
use super::dumps::Dumps;
use super::frozen::{self, FrozenGuest};
use super::policy::{CrashAction, Policy};
use super::{AgentConfig, AgentEvent, CoreFate, RunEnd, Shared, View};
use crate::detect::{Decision, Detector, Trigger};
use crate::dump::{DumpOutcome, Progress};
use crate::freeze::FrozenState;
use crate::incarnation::{BootError, Incarnation, IncarnationConfig, VmEvent};
use crate::kernel::BootedKernel;
use api::ServiceError;
use api::types::dump::{Dump, DumpRequest};
use api::types::vm::VmState;
use vmcore::linux::filter::FilterLevel;

/// Where an answer goes.
pub(super) type Reply<T> = Sender<Result<T, ServiceError>>;

/// What reaches the supervisor.
#[derive(Debug)]
pub(super) enum Input {
    /// News from the guest of this incarnation.
    Guest(u64, VmEvent),
    /// The dump that ran has ended.
    DumpEnded(DumpOutcome),
    /// A caller wants a dump.
    Dump {
        request: DumpRequest,
        idempotency_key: Option<String>,
        reply: Reply<Dump>,
    },
    /// A caller wants something done to the guest.
    Act { action: Action, reply: Reply<()> },
    /// The machine shall end.
    Stop,
}

/// What callers can have done to a guest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Action {
    Nmi,
    Pause,
    Resume,
}

/// The dump that runs.
#[derive(Debug)]
struct InFlight {
    id: String,
    /// The guest crashed: the policy follows. Otherwise it goes on.
    crashed: bool,
    progress: Arc<Progress>,
}

/// What the guest did in the moment before a dump that somebody asked for froze it; it is dealt with after the dump.
#[derive(Debug)]
enum Pending {
    Crash(Trigger),
    PoweredOff,
    Reset,
}

/// See the module.
#[derive(Debug)]
pub(super) struct Supervisor {
    shared: Arc<Shared>,
    inputs: Sender<Input>,
    received: Receiver<Input>,
    incarnation: Incarnation,
    /// The kernel file that it was started from.
    kernel: BootedKernel,
    number: u64,
    detector: Detector,
    /// Zero of the detector's clock.
    booted: Instant,
    policy: Policy,
    dump_thread: DumpThread,
    in_flight: Option<InFlight>,
    pending: Option<Pending>,
    /// The guest crashed and is kept: what became of its memory.
    kept: Option<CoreFate>,
    stopping: bool,
}

impl Supervisor {
    /// Boots the first incarnation.
    pub(super) fn boot(
        config: AgentConfig,
        inputs: Sender<Input>,
        received: Receiver<Input>,
    ) -> Result<(Self, Arc<Shared>), BootError> {
        let dump_thread = DumpThread::start().map_err(|source| BootError::Resource { what: "thread", source })?;
        let mut incarnation = boot_incarnation(&config, 1, &inputs)?;
        let kernel = BootedKernel::examine(incarnation.take_kernel(), config.keep_kernel);
        let policy = Policy::new(config.on_crash, config.restart_limit);
        let view = View {
            state: VmState::Running,
            incarnation: 1,
            started_at: now_text(),
            crashes: 0,
            dumps: Dumps::default(),
            memory: incarnation.memory(),
        };
        let shared = Arc::new(Shared {
            config,
            view: Mutex::new(view),
        });
        let supervisor = Self {
            shared: Arc::clone(&shared),
            inputs,
            received,
            incarnation,
            kernel,
            number: 1,
            detector: Detector::default(),
            booted: Instant::now(),
            policy,
            dump_thread,
            in_flight: None,
            pending: None,
            kept: None,
            stopping: false,
        };
        supervisor.tell(&AgentEvent::Booted { incarnation: 1 });
        Ok((supervisor, shared))
    }

    /// Runs until the machine ends.
    pub(super) fn run(mut self) -> RunEnd {
        let end = loop {
            if let Some(end) = self.step() {
                break end;
            }
        };
        self.shared.view().state = VmState::Stopped;
        self.incarnation.stop();
        end
    }

    /// Takes one input; says how the machine ended, if it did.
    fn step(&mut self) -> Option<RunEnd> {
        let Some(input) = self.next_input() else {
            return match self.detector.handle_timeout(self.booted.elapsed()) {
                Some(Decision::Dump(trigger)) => self.unless_dumping(Pending::Crash(trigger)),
                Some(Decision::Record) | None => None,
            };
        };
        match input {
            Input::Guest(number, event) if number == self.number => self.hear_guest(event),
            // The last words of an incarnation that is gone.
            Input::Guest(..) => None,
            Input::DumpEnded(outcome) => self.end_dump(outcome),
            Input::Stop => self.stop(),
            Input::Dump {
                request,
                idempotency_key,
                reply,
            } => {
                answer(&reply, self.dump_on_request(request, idempotency_key));
                None
            }
            Input::Act { action, reply } => {
                answer(&reply, self.act(action));
                None
            }
        }
    }

    /// The next input, or nothing when the detector's deadline has come.
    fn next_input(&self) -> Option<Input> {
        // The supervisor holds a sender itself, so the channel never closes.
        match self.detector.poll_timeout() {
            Some(at) => self
                .received
                .recv_timeout(at.saturating_sub(self.booted.elapsed()))
                .ok(),
            None => self.received.recv().ok(),
        }
    }

    fn hear_guest(&mut self, event: VmEvent) -> Option<RunEnd> {
        let trigger = match event {
            VmEvent::Trigger(trigger) => trigger,
            VmEvent::VcpuFailed { vcpu, what } => Trigger::VcpuFailed { vcpu, what },
            VmEvent::PoweredOff => return self.unless_dumping(Pending::PoweredOff),
            VmEvent::Reset => return self.unless_dumping(Pending::Reset),
        };
        match self.detector.handle(self.booted.elapsed(), trigger.clone()) {
            Decision::Dump(trigger) => self.unless_dumping(Pending::Crash(trigger)),
            Decision::Record => {
                // A guest may report as often as it likes; only what the detector remembers is told.
                if self.detector.recorded_dropped() == 0 {
                    self.tell(&AgentEvent::Recorded(trigger));
                }
                None
            }
        }
    }

    /// Deals with what the guest did, now or after the dump that runs. A guest that crashed does nothing that counts.
    fn unless_dumping(&mut self, pending: Pending) -> Option<RunEnd> {
        if self.kept.is_some() {
            return None;
        }
        if self.in_flight.is_some() {
            if !matches!(self.pending, Some(Pending::Crash(_))) {
                self.pending = Some(pending);
            }
            return None;
        }
        match pending {
            Pending::Crash(trigger) => self.crash(&trigger),
            Pending::PoweredOff => Some(RunEnd::PoweredOff),
            Pending::Reset => {
                self.tell(&AgentEvent::Reset);
                self.reboot()
            }
        }
    }

    /// The guest crashed.
    fn crash(&mut self, trigger: &Trigger) -> Option<RunEnd> {
        self.shared.view().crashes += 1;
        self.tell(&AgentEvent::Triggered(trigger.clone()));
        if self.policy.dumps() {
            self.start_dump(trigger, None, self.shared.config.filter);
            None
        } else {
            self.freeze();
            self.after_crash(CoreFate::Lost)
        }
    }

    /// The attempt to save the guest's memory has ended: the policy runs.
    fn after_crash(&mut self, fate: CoreFate) -> Option<RunEnd> {
        if self.stopping {
            return Some(RunEnd::Crashed(fate));
        }
        let verdict = self.policy.after_crash(Instant::now());
        self.tell(&AgentEvent::Policy(verdict));
        match verdict.action {
            CrashAction::Destroy => Some(RunEnd::Crashed(fate)),
            CrashAction::Restart => self.reboot(),
            CrashAction::Preserve => {
                self.kept = Some(fate);
                self.shared.view().state = VmState::Preserved;
                None
            }
        }
    }

    /// Boots the next incarnation in the place of this one.
    fn reboot(&mut self) -> Option<RunEnd> {
        let number = self.number + 1;
        // Its wires and disks are the next one's.
        self.incarnation.halt();
        let next = match boot_incarnation(&self.shared.config, number, &self.inputs) {
            Ok(next) => next,
            Err(error) => {
                self.tell(&AgentEvent::Trouble(format!(
                    "incarnation {number} does not boot: {error}"
                )));
                return Some(RunEnd::BootFailed);
            }
        };
        std::mem::replace(&mut self.incarnation, next).stop();
        self.kernel = BootedKernel::examine(self.incarnation.take_kernel(), self.shared.config.keep_kernel);
        self.number = number;
        self.detector = Detector::default();
        self.booted = Instant::now();
        let mut view = self.shared.view();
        view.state = VmState::Running;
        view.incarnation = number;
        view.started_at = now_text();
        view.memory = self.incarnation.memory();
        drop(view);
        self.tell(&AgentEvent::Booted { incarnation: number });
        None
    }

    /// Freezes the guest as well as it can be done.
    fn freeze(&self) -> FrozenState {
        let state = self.incarnation.freeze();
        self.tell(&AgentEvent::Frozen {
            took: state.took,
            vcpus: state.cpus.len(),
        });
        for trouble in &state.troubles {
            self.tell(&AgentEvent::Trouble(format!(
                "the guest does not stand quite still: {trouble}"
            )));
        }
        state
    }

    /// Freezes the guest and has the dump's thread begin.
    fn start_dump(&mut self, trigger: &Trigger, idempotency_key: Option<String>, filter: FilterLevel) {
        let triggered_at = now_text();
        let state = self.freeze();
        // The record of an earlier incarnation is gone with its memory; one that is there is this guest's.
        let record = self.incarnation.panic_record().filter(|_| trigger.is_crash());
        let id = uuid::Uuid::now_v7().to_string();
        let name = &self.shared.config.name;
        let mut note = frozen::note(
            name,
            &id,
            trigger,
            &triggered_at,
            &self.incarnation,
            &state,
            record.as_ref(),
        );
        note.kernel_file = self.shared.config.kernel.absolute_path();
        let guest = FrozenGuest::new(&self.incarnation, &state, record, self.kernel.clone());
        let progress = Arc::new(Progress::new());
        let limit = self.shared.config.dump_deadline;
        let work = DumpWork {
            shared: Arc::clone(&self.shared),
            progress: Arc::clone(&progress),
            deadline: limit.and_then(|limit| Instant::now().checked_add(limit)),
            filter,
            end: EndOfDump::new(self.inputs.clone()),
        };
        let mut view = self.shared.view();
        view.dumps.begin(&id, name, idempotency_key, Arc::clone(&progress));
        view.state = VmState::Dumping;
        drop(view);
        self.tell(&AgentEvent::DumpStarted { id: id.clone() });
        self.in_flight = Some(InFlight {
            id,
            crashed: trigger.is_crash(),
            progress,
        });
        self.dump_thread.give(Box::new(move || work.run(guest, note)));
    }

    fn end_dump(&mut self, outcome: DumpOutcome) -> Option<RunEnd> {
        let dump = self.in_flight.take()?;
        let fate = if outcome.is_safe() {
            CoreFate::Safe
        } else {
            CoreFate::Lost
        };
        self.shared.view().dumps.end(&dump.id, &outcome);
        self.tell(&AgentEvent::DumpEnded {
            id: dump.id,
            outcome: Arc::new(outcome),
        });
        if dump.crashed {
            // What the guest did in its last moment, before its crash froze it, is not of the next incarnation.
            self.pending = None;
            return self.after_crash(fate);
        }
        if let Some(pending) = self.pending.take() {
            return self.unless_dumping(pending);
        }
        match &mut self.kept {
            // A guest that had crashed before stays as it is; a later dump can only make its memory safer.
            Some(kept) => {
                if fate == CoreFate::Safe {
                    *kept = fate;
                }
                self.shared.view().state = VmState::Preserved;
            }
            None => {
                self.incarnation.thaw();
                self.shared.view().state = self.state_of_the_living();
            }
        }
        if self.stopping { self.stop() } else { None }
    }

    fn dump_on_request(&mut self, request: DumpRequest, key: Option<String>) -> Result<Dump, ServiceError> {
        let view = self.shared.view();
        if let Some(dump) = key.as_deref().and_then(|key| view.dumps.with_key(key)) {
            return Ok(dump);
        }
        if let Some(running) = view.dumps.running() {
            return Err(ServiceError::Conflict {
                detail: format!("dump {} of {} is still running", running.id, running.vm),
                existing: format!("/api/v1/dumps/{}", running.id),
            });
        }
        drop(view);
        let reason = request.reason.unwrap_or_else(|| "no reason given".to_owned());
        // A number that is no level was refused by the API.
        let level = request.filter.and_then(FilterLevel::new);
        let level = level.unwrap_or(self.shared.config.filter);
        self.start_dump(&Trigger::ApiRequest { reason }, key, level);
        let gone = || ServiceError::Internal("the dump is gone".to_owned());
        self.shared.view().dumps.running().ok_or_else(gone)
    }

    fn act(&mut self, action: Action) -> Result<(), ServiceError> {
        if self.kept.is_some() {
            return Err(ServiceError::WrongState(
                "the guest crashed and is preserved as it is".to_owned(),
            ));
        }
        if let Some(dump) = &self.in_flight {
            return Err(ServiceError::WrongState(format!(
                "the guest is frozen while dump {} runs",
                dump.id
            )));
        }
        match action {
            Action::Nmi => self.incarnation.nmi(),
            Action::Pause => self
                .incarnation
                .pause()
                .map_err(|error| ServiceError::Internal(error.to_string()))?,
            Action::Resume => self.incarnation.resume(),
        }
        self.shared.view().state = self.state_of_the_living();
        Ok(())
    }

    fn state_of_the_living(&self) -> VmState {
        if self.incarnation.is_paused() {
            VmState::Paused
        } else {
            VmState::Running
        }
    }

    /// Ends the machine, a dump that runs first. Told again, the dump is cancelled.
    fn stop(&mut self) -> Option<RunEnd> {
        let Some(dump) = &self.in_flight else {
            return Some(self.kept.map_or(RunEnd::Stopped, RunEnd::Crashed));
        };
        if self.stopping {
            dump.progress.cancel();
        }
        self.stopping = true;
        None
    }

    fn tell(&self, event: &AgentEvent) {
        (self.shared.config.observer)(event);
    }
}

/// Boots a guest whose news reach `inputs` under its number.
fn boot_incarnation(config: &AgentConfig, number: u64, inputs: &Sender<Input>) -> Result<Incarnation, BootError> {
    let (events, heard) = mpsc::channel();
    let guest = IncarnationConfig {
        kernel: config.kernel.clone(),
        initrd: config.initrd.clone(),
        append: config.append.clone(),
        mem_mib: config.mem_mib,
        vcpus: config.vcpus,
        devices: config.devices.clone(),
        console: (config.open_console)(),
        panic_console: config.panic_console,
    };
    let incarnation = Incarnation::boot(guest, events)?;
    let inputs = inputs.clone();
    // Ends when the incarnation, and with it the last sender, is gone.
    let forward = move || {
        for event in heard {
            if inputs.send(Input::Guest(number, event)).is_err() {
                break;
            }
        }
    };
    std::thread::Builder::new()
        .name("guest-events".to_owned())
        .spawn(forward)
        .map_err(|source| BootError::Resource { what: "thread", source })?;
    Ok(incarnation)
}

/// A caller that has gone away needs no answer.
fn answer<T>(reply: &Reply<T>, result: Result<T, ServiceError>) {
    let _ = reply.send(result);
}

fn now_text() -> String {
    jiff::Timestamp::now().to_string()
}
