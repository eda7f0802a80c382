//! A wire that loses, doubles, reorders, delays and damages frames by a seed: for those who work on coreferry and want to
//! see what a bad network does to a dump. [`Lane`] decides, this puts it around a wire.

mod lane;

use std::cell::RefCell;
use std::fmt;
use std::net::Ipv4Addr;
use std::os::fd::{AsFd, BorrowedFd};
use std::str::FromStr;
use std::time::{Duration, Instant};

use nic_emu::device::{FrameSink, Offload, Offloads, TxFrame};

use super::limits::FAULT_DELAY_MS_MAX;
use super::{Link, Wire, WireError};
pub use lane::{Lane, LaneStats};

/// Which faults, and how often: the same in both directions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct FaultPlan {
    /// From which all chances follow.
    pub seed: u64,
    /// A frame is lost.
    pub loss: Chance,
    /// It comes twice.
    pub duplicate: Chance,
    /// It comes after later ones.
    pub reorder: Chance,
    /// One of its bits is wrong.
    pub corrupt: Chance,
    /// How much later every frame comes.
    pub delay: Duration,
}

/// A chance in parts of a million.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Chance(pub u32);

/// What is wrong with the text of a plan.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FaultPlanError {
    /// No such fault.
    #[error(
        "`{0}` is no fault: they are seed=N, loss=P%, duplicate=P%, reorder=P%, corrupt=P% and delay=TIME, with commas"
    )]
    Unknown(String),
    /// Not a part of a hundred.
    #[error("`{0}` is no chance: from 0% to 100%, such as 0.5%")]
    Chance(String),
    /// Not a time.
    #[error("`{0}` is no delay: whole milliseconds or seconds up to {FAULT_DELAY_MS_MAX} ms, such as 5ms")]
    Delay(String),
}

impl FromStr for FaultPlan {
    type Err = FaultPlanError;

    fn from_str(text: &str) -> Result<Self, FaultPlanError> {
        let mut plan = Self::default();
        for part in text.split(',') {
            let unknown = || FaultPlanError::Unknown(part.to_owned());
            let (name, value) = part.split_once('=').ok_or_else(unknown)?;
            match name {
                "seed" => plan.seed = value.parse().map_err(|_| unknown())?,
                "loss" => plan.loss = value.parse()?,
                "duplicate" => plan.duplicate = value.parse()?,
                "reorder" => plan.reorder = value.parse()?,
                "corrupt" => plan.corrupt = value.parse()?,
                "delay" => plan.delay = parse_delay(value)?,
                _ => return Err(unknown()),
            }
        }
        Ok(plan)
    }
}

impl FromStr for Chance {
    type Err = FaultPlanError;

    fn from_str(text: &str) -> Result<Self, FaultPlanError> {
        let wrong = || FaultPlanError::Chance(text.to_owned());
        let percent: f64 = text.strip_suffix('%').ok_or_else(wrong)?.parse().map_err(|_| wrong())?;
        if !(0.0..=100.0).contains(&percent) {
            return Err(wrong());
        }
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "it is 0 to 1 000 000"
        )]
        Ok(Self((percent * 10_000.0).round() as u32))
    }
}

fn parse_delay(text: &str) -> Result<Duration, FaultPlanError> {
    let wrong = || FaultPlanError::Delay(text.to_owned());
    let (number, unit_ms) = match text.strip_suffix("ms") {
        Some(number) => (number, 1),
        None => (text.strip_suffix('s').ok_or_else(wrong)?, 1000),
    };
    let ms = number
        .parse::<u64>()
        .ok()
        .and_then(|number| number.checked_mul(unit_ms));
    ms.filter(|ms| *ms <= FAULT_DELAY_MS_MAX)
        .map(Duration::from_millis)
        .ok_or_else(wrong)
}

impl FaultPlan {
    /// Puts the faults around a wire. They need [`Wire::wait`] to be called, as the dump port does: the wire's descriptor
    /// does not show frames that are held back.
    #[must_use]
    pub fn around(self, wire: Box<dyn Wire>) -> Box<dyn Wire> {
        Box::new(FaultyWire {
            wire,
            epoch: Instant::now(),
            outbound: Lane::new(self, self.seed),
            inbound: RefCell::new(Lane::new(self, !self.seed)),
        })
    }
}

/// A wire with faults around it.
struct FaultyWire {
    wire: Box<dyn Wire>,
    epoch: Instant,
    outbound: Lane,
    /// Looked at while waiting.
    inbound: RefCell<Lane>,
}

impl FaultyWire {
    /// Sends what is due.
    fn flush(&mut self) {
        let now = self.epoch.elapsed();
        while let Some(frame) = self.outbound.pop(now) {
            let offload = Offload::default();
            self.wire.send(&[TxFrame { bytes: &frame, offload }]);
        }
    }
}

impl FrameSink for FaultyWire {
    /// None: a wrong bit must be in the frame as it travels, under its checksum.
    fn offloads(&self) -> Offloads {
        Offloads::default()
    }

    fn send(&mut self, frames: &[TxFrame<'_>]) {
        let now = self.epoch.elapsed();
        for frame in frames {
            self.outbound.push(now, frame.bytes);
        }
        self.flush();
    }
}

impl Wire for FaultyWire {
    fn receive(&mut self, deliver: &mut dyn FnMut(&[u8])) -> Result<usize, WireError> {
        self.flush();
        let now = self.epoch.elapsed();
        let lane = self.inbound.get_mut();
        let came = self.wire.receive(&mut |frame| lane.push(now, frame));
        let mut count = 0;
        while let Some(frame) = lane.pop(now) {
            deliver(&frame);
            count += 1;
        }
        // What came before the end still counts; the next call tells the loss.
        if count == 0 { came.map(|_| 0) } else { Ok(count) }
    }

    fn wait(&self, timeout: Duration) -> Result<(), WireError> {
        let due = [self.outbound.due(), self.inbound.borrow().due()];
        let now = self.epoch.elapsed();
        match due.into_iter().flatten().min() {
            Some(due) if due <= now => Ok(()),
            Some(due) => self.wire.wait(timeout.min(due.saturating_sub(now))),
            None => self.wire.wait(timeout),
        }
    }

    fn name(&self) -> String {
        self.wire.name()
    }

    fn mtu_max(&self) -> u16 {
        self.wire.mtu_max()
    }

    fn mtu_towards(&self, server: Ipv4Addr) -> u16 {
        self.wire.mtu_towards(server)
    }

    fn link(&self) -> Option<Box<dyn Link>> {
        self.wire.link()
    }

    fn hint(&self) -> Option<String> {
        self.wire.hint()
    }
}

impl AsFd for FaultyWire {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.wire.as_fd()
    }
}

impl Drop for FaultyWire {
    fn drop(&mut self) {
        let (out, inbound) = (self.outbound.stats(), self.inbound.get_mut().stats());
        tracing::info!(?out, r#in = ?inbound, "faults of {}", self.wire.name());
    }
}

impl fmt::Debug for FaultyWire {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FaultyWire")
            .field("wire", &self.wire.name())
            .field("outbound", &self.outbound.stats())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read as _, Write as _};
    use std::os::unix::net::UnixStream;

    use super::*;
    use crate::net::StreamWire;

    #[test]
    fn a_plan_is_read_from_its_text() {
        let plan: FaultPlan = "seed=7,loss=1%,duplicate=0.5%,reorder=100%,corrupt=0%,delay=5ms"
            .parse()
            .unwrap();
        let expected = FaultPlan {
            seed: 7,
            loss: Chance(10_000),
            duplicate: Chance(5_000),
            reorder: Chance(1_000_000),
            corrupt: Chance(0),
            delay: Duration::from_millis(5),
        };
        assert_eq!(plan, expected);
        assert_eq!("delay=2s".parse::<FaultPlan>().unwrap().delay, Duration::from_secs(2));
        for text in [
            "",
            "los=1%",
            "loss",
            "loss=1",
            "loss=-1%",
            "loss=101%",
            "loss=NaN%",
            "seed=x",
            "delay=5",
            "delay=11s",
            "delay=1.5s",
        ] {
            assert!(text.parse::<FaultPlan>().is_err(), "`{text}` was taken");
        }
    }

    #[test]
    fn a_delayed_frame_ends_the_wait_for_it_in_both_directions() {
        let (ours, mut peer) = UnixStream::pair().unwrap();
        let wire = StreamWire::from_socket(ours, "stream=test".to_owned()).unwrap();
        let plan: FaultPlan = "delay=30ms".parse().unwrap();
        let mut wire = plan.around(Box::new(wire));
        let start = Instant::now();
        peer.write_all(&[0, 0, 0, 3, 1, 2, 3]).unwrap();
        wire.send(&[TxFrame {
            bytes: &[9; 60],
            offload: Offload::default(),
        }]);
        let mut frames = Vec::new();
        // Longer than any test may last: only what is due can end these waits.
        while frames.is_empty() {
            wire.wait(Duration::from_secs(3600)).unwrap();
            wire.receive(&mut |frame| frames.push(frame.to_vec())).unwrap();
        }
        assert!(start.elapsed() >= Duration::from_millis(30));
        assert_eq!(frames, [[1, 2, 3]]);
        let mut sent = [0; 64];
        peer.read_exact(&mut sent).unwrap();
        assert_eq!(sent[4..], [9; 60]);
    }
}
