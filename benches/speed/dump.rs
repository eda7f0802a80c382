//! A frozen guest through the dump port, the `user` wire and loopback to the receiver; and to the spool.

use std::fs::File;
use std::net::SocketAddrV4;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use nic_emu::device::{FrameSink, Offloads, TxFrame};
use vmcore::CoreferryNote;
use vmm_agent::dump::{ClientNetwork, CoreFile, DumpJob, DumpOutcome, DumpPort, OpenWire, Progress, Target, ferry};
use vmm_agent::net::{Wire, WireError, WireSpec};

use crate::Size;
use crate::floor::{Medium, TwoBuffers, copy_file};
use crate::guest::StillGuest;
use crate::receiver::TestReceiver;
use crate::table::{self, Case, Sample};

/// Runs the group.
pub(crate) fn run(size: Size) -> Result<()> {
    let guest = StillGuest::new(size.touched_mib, size.touched_mib, 1)?;
    let touched_bytes = guest.touched_bytes()?;
    let media = Medium::all()?;
    let receivers = TestReceiver::on_each(&media)?;
    let mut cases = vec![
        TwoBuffers::new(touched_bytes)?.case(),
        Case::new(
            "reading: pieces of the core, to nobody",
            "memfd read, zero scan, BLAKE3",
            || read_core(&guest),
        ),
        Case::new("sending: frames of 4162 bytes, to nobody", "copies: ring, em", || {
            send_frames(touched_bytes)
        }),
    ];
    for (medium, receiver) in media.iter().zip(&receivers) {
        let copy = medium.copy_name();
        let limit = if medium.name == "tmpfs" {
            "memory, page faults"
        } else {
            "disk"
        };
        cases.push(Case::new(copy.clone(), limit, || {
            copy_file(guest.memory().memfd(), touched_bytes, medium.path())
        }));
        let name = format!("dump to the spool, {}", medium.name);
        let limit = "reading, then file";
        cases.push(Case::new(name, limit, || spool(&guest, medium)).beside(copy.clone()));
        for mtu in [1500, 4148] {
            let name = format!("dump to the receiver, MTU {mtu}, {}", medium.name);
            let limit = "UDP with an answer a packet, 64 KiB in flight";
            let guest = &guest;
            cases.push(Case::new(name, limit, move || send(guest, receiver, mtu)).beside(copy.clone()));
        }
    }
    table::run("dump of a frozen guest", size, cases)
}

/// Sends the guest to the receiver, which must have it whole.
fn send(guest: &StillGuest, receiver: &TestReceiver, mtu: u16) -> Result<Sample> {
    let sample = dump(guest, Some((receiver.address(), mtu)), None)?;
    receiver.expect_one_more_core()?;
    Ok(sample)
}

fn spool(guest: &StillGuest, medium: &Medium) -> Result<Sample> {
    dump(guest, None, Some(medium.path().join("spool")))
}

/// The whole of `ferry`, confirmation included.
fn dump(guest: &StillGuest, receiver: Option<(SocketAddrV4, u16)>, spool: Option<PathBuf>) -> Result<Sample> {
    let note = CoreferryNote {
        vm: "bench".to_owned(),
        dump_id: "bench".to_owned(),
        ..CoreferryNote::default()
    };
    let progress = Progress::new();
    let targets: Vec<Target> = receiver.iter().map(|(address, _)| Target::from(*address)).collect();
    let wire = WireSpec::User;
    let open = wire.opener();
    let open_wire: &OpenWire<'_> = &open;
    let job = DumpJob {
        source: guest,
        note: &note,
        targets: &targets,
        open_wire,
        network: ClientNetwork {
            mtu: receiver.map(|(_, mtu)| mtu),
            ..ClientNetwork::for_user_wire("bench")
        },
        spool,
        deadline: None,
        progress: &progress,
    };
    let start = Instant::now();
    let outcome = ferry(&job);
    let took = start.elapsed();
    let bytes = guest.touched_bytes()?;
    match outcome {
        DumpOutcome::Received { stats, .. } if stats.acked_bytes > bytes => Ok(Sample { bytes, took }),
        DumpOutcome::Spooled { path, .. } => {
            std::fs::remove_file(path)?;
            Ok(Sample { bytes, took })
        }
        other => bail!("{other}"),
    }
}

/// One pass over the memory that goes nowhere.
fn read_core(guest: &StillGuest) -> Result<Sample> {
    let start = Instant::now();
    let note = CoreferryNote::default();
    let core = CoreFile::plan(guest, &note)?;
    let mut pieces = core.pieces()?;
    while pieces.next_piece()?.is_some() {}
    let took = start.elapsed();
    Ok(Sample {
        bytes: guest.touched_bytes()?,
        took,
    })
}

/// Full frames through the dump port to a wire that drops them, a window at a time.
fn send_frames(bytes: u64) -> Result<Sample> {
    const FRAME_LEN: usize = 4162;
    const DATA_LEN: u64 = 4096;
    let mac = [2, 0, 0, 0, 0, 1];
    let mut port = DumpPort::open(Box::new(Nowhere(File::open("/dev/null")?)), mac).context("dump port")?;
    let frame = [0x5a; FRAME_LEN];
    let start = Instant::now();
    for _ in 0..bytes / (16 * DATA_LEN) {
        (0..16).for_each(|_| port.queue(&frame));
        port.flush();
    }
    let took = start.elapsed();
    Ok(Sample { bytes, took })
}

/// A wire whose other end is cut off.
struct Nowhere(File);

impl FrameSink for Nowhere {
    fn offloads(&self) -> Offloads {
        Offloads::default()
    }

    fn send(&mut self, frames: &[TxFrame<'_>]) {
        std::hint::black_box(frames);
    }
}

impl Wire for Nowhere {
    fn receive(&mut self, _deliver: &mut dyn FnMut(&[u8])) -> Result<usize, WireError> {
        Ok(0)
    }

    fn wait(&self, _timeout: Duration) -> Result<(), WireError> {
        Ok(())
    }

    fn name(&self) -> String {
        "nowhere".to_owned()
    }

    fn mtu_max(&self) -> u16 {
        9000
    }
}

impl AsFd for Nowhere {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}
