use alloc::{boxed::Box, format, string::String, vec::Vec};
use core::ops::Range;

use super::{
    ingest::OurIngest,
    link::{Link, LinkConfig},
    netdumpd::StockReceiver,
    ours::{OurReceiver, OurSender, StorageConfig},
    plan::{Order, Plan},
    retried::{Replaced, Restarted, Retried},
    rng::Rng,
    stock::{StockConfig, StockSender},
    world::{Network, Report, SendOutcome, Sender, run},
};
use crate::{
    client::ClientConfig,
    extents::Extents,
    server::{
        AckPolicy, Session, SessionLimits,
        invariants::{accounts_for_every_byte, is_bound_to_end},
    },
    time::{Duration, Instant},
    wire::STOCK_DATA_LEN_MAX,
};

/// MTUs of the usual networks, and those at which stock clients behave differently.
pub const MTUS: [u16; 7] = [576, 1076, 1280, 1500, 2100, 4148, 9000];

/// Virtual time in which everything must be over.
const END_BY: Instant = Instant::from_nanos(4 * 3600 * 1_000_000_000);

/// A dump from one end to another, as a seed draws it.
#[derive(Clone, Debug)]
pub struct Scenario {
    /// What everything follows from.
    pub seed: u64,
    /// The sending end.
    pub from: From,
    /// The receiving end.
    pub to: To,
    /// MTU of the path.
    pub mtu: u16,
    /// Length of the dump file.
    pub file_len: u64,
    /// From sender to receiver.
    pub up: LinkConfig,
    /// From receiver to sender.
    pub down: LinkConfig,
    /// The storage of our receiver.
    pub storage: StorageConfig,
    /// When the sender loses power.
    pub cut_at: Option<Instant>,
    /// When the receiver is killed and started again.
    pub restart_at: Option<Instant>,
    /// How long our receiver is down then before it goes on with what it stored; one that is not given begins at once and
    /// with nothing.
    pub down_for: Option<Duration>,
}

/// The sending end of a scenario.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum From {
    /// Our client, with a window of so many packets.
    Ours {
        /// Packets in flight.
        window_packets: u32,
        /// Whether it says so.
        declared: bool,
    },
    /// A stock client.
    Stock {
        /// Whose habits it has.
        order: Order,
        /// Whether packets 32 apart share a bit, as in all released ones.
        shift_fault: bool,
        /// It is the second dump after a boot: its first block goes to this offset.
        old_len: Option<u64>,
    },
}

/// The receiving end of a scenario.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum To {
    /// Our receiver.
    Ours(AckPolicy),
    /// netdumpd.
    Stock,
}

/// How a scenario ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Outcome {
    /// Dumps that were begun.
    pub dumps: u32,
    /// Whether the sender believes that its dump is safe.
    pub finished: bool,
    /// Ranges that are missing in a dump that was finished.
    pub holes: u64,
    /// Time from the first datagram to the end of the dump.
    pub took: Duration,
}

impl Scenario {
    /// The scenario of a seed.
    #[must_use]
    pub fn of_seed(seed: u64) -> Self {
        let mut rng = Rng::new(seed);
        let from = from(&mut rng);
        let to = pick(
            &mut rng,
            To::Ours(AckPolicy::Paired),
            &[To::Ours(AckPolicy::Paired), To::Ours(AckPolicy::Immediate), To::Stock],
        );
        let at = |rng: &mut Rng, ppm| rng.chance(ppm).then(|| Instant::ZERO + rng.duration(&ms(1..3000)));
        let link = |rng: &mut Rng| match from {
            From::Ours { .. } => LinkConfig::faulty(rng),
            From::Stock { .. } => patient_link(rng),
        };
        let cut_at = at(&mut rng, 80_000);
        let len_min = match from {
            // A dump of nothing but its first page cannot be repaired: nothing follows that would show what it is.
            From::Stock { old_len: Some(_), .. } => 8 * 4096,
            _ => 0,
        };
        let instant = rng.chance(500_000);
        let (write, commit) = if instant {
            (0, 0)
        } else {
            (rng.below(8), rng.below(5000))
        };
        Self {
            seed,
            from,
            to,
            mtu: pick(&mut rng, 1500, &MTUS),
            file_len: (4096 * pick(&mut rng, 4, &[64, 64, 300]).min(rng.within(1..301))).max(len_min),
            up: link(&mut rng),
            down: link(&mut rng),
            storage: StorageConfig {
                write: ms(write / 2..write),
                commit: ms(commit / 2..commit),
                ..StorageConfig::instant()
            },
            cut_at,
            // There are two attempts, and only one of them may be interrupted.
            restart_at: at(&mut rng, 80_000).filter(|_| cut_at.is_none()),
            down_for: rng.chance(750_000).then(|| rng.duration(&ms(0..8000))),
        }
    }

    /// What is sent.
    #[must_use]
    pub fn plan(&self) -> Plan {
        match self.from {
            From::Ours { .. } => Plan::sparse(Order::FreeBsd13, 0, self.file_len, self.seed),
            From::Stock {
                order: Order::TestClient,
                ..
            } => Plan::dense(Order::TestClient, self.file_len, self.seed),
            From::Stock { order, .. } => Plan::minidump(order, self.file_len, self.seed),
        }
    }

    /// Plays it, and judges every acknowledgement and what arrived.
    ///
    /// # Errors
    ///
    /// What went wrong, in a sentence.
    pub fn run(&self) -> Result<Outcome, String> {
        let plan = self.plan();
        let pause = Rng::new(self.seed).duration(&ms(500..20_000));
        let mut sender = Retried::new(self.sender(&plan)?, self.sender(&plan)?, self.cut_at, pause);
        let mut network = Network {
            up: Link::new(self.up.clone(), self.seed ^ 0xa11ce),
            down: Link::new(self.down.clone(), self.seed ^ 0xb0b),
        };
        let restart_at = self.restart_at.unwrap_or(END_BY);
        let (report, holes) = match self.to {
            To::Ours(ack_policy) => {
                let limits = SessionLimits {
                    ack_policy,
                    ..SessionLimits::default()
                };
                let ours = |port| OurIngest::new(limits, self.storage.clone(), port, self.seed);
                if let (Some(down_at), Some(down_for)) = (self.restart_at, self.down_for) {
                    let mut receiver = Restarted::new(ours(50_000), down_at, down_for);
                    let report = run(&mut sender, &mut receiver, &mut network, END_BY).map_err(|v| format!("{v}"))?;
                    let holes = self.judge(report.outcome, receiver.ingest(), &plan)?;
                    return Ok(outcome(&sender, report, holes));
                }
                let mut receiver = Replaced::new(ours(50_000), ours(60_000), restart_at);
                let report = run(&mut sender, &mut receiver, &mut network, END_BY).map_err(|v| format!("{v}"))?;
                (report, self.judge(report.outcome, receiver.judged(), &plan)?)
            }
            To::Stock => {
                let mut receiver = Replaced::new(StockReceiver::new(50_000), StockReceiver::new(60_000), restart_at);
                let report = run(&mut sender, &mut receiver, &mut network, END_BY).map_err(|v| format!("{v}"))?;
                (report, self.judge_stock(report.outcome, receiver.judged(), &plan)?)
            }
        };
        Ok(outcome(&sender, report, holes))
    }

    fn sender(&self, plan: &Plan) -> Result<Box<dyn Sender>, String> {
        let path = pick(&mut Rng::new(self.seed ^ 1), 0, &[9, 1000]);
        match self.from {
            From::Ours {
                window_packets,
                declared,
            } => {
                let config = ClientConfig {
                    window_packets,
                    ..ClientConfig::stock(self.mtu)
                };
                let label = if path == 0 { "" } else { "lab/rack1" };
                let sender = OurSender::new(config, label, plan).map_err(|error| format!("{error}"))?;
                Ok(Box::new(if declared { sender } else { sender.undeclared() }))
            }
            From::Stock {
                order,
                shift_fault,
                old_len,
            } => {
                let config = StockConfig {
                    order,
                    mtu: self.mtu,
                    shift_fault,
                };
                // The test client sends one message at a time and so no path that needs two.
                let path = if order == Order::TestClient { path.min(9) } else { path };
                let sender = StockSender::new(config, path, plan);
                Ok(Box::new(match old_len {
                    Some(old_len) => sender.after_a_dump_of(old_len),
                    None => sender,
                }))
            }
        }
    }

    /// Whether the sender takes a packet for acknowledged that is not.
    const fn is_deceived(&self, ack_policy: AckPolicy) -> bool {
        let faulty = matches!(self.from, From::Stock { shift_fault: true, .. });
        faulty && matches!(ack_policy, AckPolicy::Immediate)
    }

    fn judge(&self, outcome: SendOutcome, ingest: &OurIngest, plan: &Plan) -> Result<u64, String> {
        for session in ingest.sessions() {
            session.check_coverage().map_err(|v| format!("{v}"))?;
            let Some(protocol) = session.session() else { continue };
            if !is_bound_to_end(protocol.state(), protocol.poll_timeout()) {
                return Err(format!("a session that is {:?} never ends", protocol.state()));
            }
        }
        if outcome == SendOutcome::Failed {
            return Err(String::from("the sender failed"));
        }
        let session = ingest
            .judged()
            .ok_or("the dump is finished and no session knows of it")?;
        let arrived = plan.check_arrived(session);
        let To::Ours(ack_policy) = self.to else { return Ok(0) };
        if !self.is_deceived(ack_policy) {
            arrived.map_err(|v| format!("{v}"))?;
            return Ok(0);
        }
        let holes = no_silent_hole(session, plan)?;
        Ok(holes.len() as u64)
    }

    fn judge_stock(&self, outcome: SendOutcome, receiver: &StockReceiver, plan: &Plan) -> Result<u64, String> {
        let payload_len_max = match self.from {
            From::Ours { .. } => STOCK_DATA_LEN_MAX,
            From::Stock { .. } => usize::from(self.mtu) - crate::limits::MTU_OVERHEAD,
        };
        let displaced = matches!(self.from, From::Stock { old_len: Some(_), .. });
        // Its known defects: it takes no larger messages, and forgets a running dump for a late copy of its HERALD.
        let excused = payload_len_max > STOCK_DATA_LEN_MAX || receiver.forgotten() > 0 || displaced;
        let arrived = plan.check_arrived(receiver);
        if outcome == SendOutcome::Failed || excused || self.is_deceived(AckPolicy::Immediate) {
            return Ok(u64::from(outcome == SendOutcome::Finished && arrived.is_err()));
        }
        arrived.map_err(|v| format!("{v}"))?;
        Ok(0)
    }
}

fn outcome(sender: &Retried<Box<dyn Sender>>, report: Report, holes: u64) -> Outcome {
    Outcome {
        dumps: 1 + u32::from(sender.was_retried()),
        finished: report.outcome == SendOutcome::Finished,
        holes,
        took: report.sent_at.since(Instant::ZERO),
    }
}

/// What is missing of a finished, dense dump; an error if the session does not know of it.
///
/// # Errors
///
/// The hole that is silent.
pub fn no_silent_hole(session: &OurReceiver, plan: &Plan) -> Result<Vec<Range<u64>>, String> {
    let known = session.known_lost(plan.file_len);
    match plan.check_arrived(session) {
        Err(violation) if is_complete(session, plan.file_len) => {
            Err(format!("{violation}, and the session does not know"))
        }
        Ok(()) if !known.is_empty() => Err(format!("{known:?} is there and counts as lost")),
        _ => Ok(known),
    }
}

/// Whether the core would be called complete.
fn is_complete(session: &OurReceiver, file_len: u64) -> bool {
    let mut declared = Extents::new(1);
    let page = session.repaired().map_or(0..0, |page| 0..page.len_bytes);
    let received = session.session().map(Session::received_extents);
    declared.insert(page).is_ok()
        && received.is_some_and(|received| accounts_for_every_byte(file_len, received, &declared))
}

fn from(rng: &mut Rng) -> From {
    if rng.chance(250_000) {
        let window_packets = pick(rng, 64, &[64, 16, 1]);
        let declared = rng.chance(500_000);
        return From::Ours {
            window_packets,
            declared,
        };
    }
    let order = pick(
        rng,
        Order::FreeBsd13,
        &[Order::FreeBsd13, Order::FreeBsd12, Order::Sandvine, Order::TestClient],
    );
    let is_freebsd = matches!(order, Order::FreeBsd12 | Order::FreeBsd13);
    let second_dump = is_freebsd && rng.chance(100_000);
    From::Stock {
        order,
        shift_fault: rng.chance(700_000),
        old_len: second_dump.then(|| 4096 * rng.within(20..400)),
    }
}

/// A link with some of every fault over which a client completes that tries each packet twelve times.
fn patient_link(rng: &mut Rng) -> LinkConfig {
    let faulty = LinkConfig::faulty(rng);
    LinkConfig {
        loss_ppm: faulty.loss_ppm / 2,
        burst_ppm: faulty.burst_ppm / 5,
        rate: None,
        ..faulty
    }
}

fn ms(millis: Range<u64>) -> Range<Duration> {
    Duration::from_millis(millis.start)..Duration::from_millis(millis.end)
}

/// One of these, each as likely as the others.
fn pick<T: Copy>(rng: &mut Rng, first: T, others: &[T]) -> T {
    let index = usize::try_from(rng.below(others.len() as u64 + 1)).unwrap_or(0);
    others.get(index).copied().unwrap_or(first)
}
