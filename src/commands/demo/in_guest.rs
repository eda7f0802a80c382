//! `demo --in-guest`: the guest sends its own memory, by netdump through an em of its own. The host gives it the em and a
//! wire to the receiver, and freezes it when its dump has ended.

use std::collections::HashSet;
use std::net::SocketAddrV4;
use std::path::PathBuf;
use std::sync::mpsc;
use std::time::Instant;

use anyhow::{Context as _, anyhow};
use object::read::elf::ElfFile64;
use object::{Object as _, ObjectSymbol as _};
use server::Receiver;
use vmcore::MemoryRange;
use vmm_agent::agent::policy::{CrashAction, OnCrash};
use vmm_agent::devices::guest::{EepromWrites, NetConfig, NetModel};
use vmm_agent::dump::{ClientNetwork, mac_for_vm};
use vmm_agent::memory::GuestMemory;
use vmm_agent::net::WireSpec;
use vmm_agent::{AgentConfig, AgentEvent};

use super::{Args, DUMP_PATIENCE, DumpArea, KEEP_PATIENCE, NAME, Report, Steps, compare, next_event};
use crate::cli_failure::Failure;
use crate::commands::run::describe;

/// Marks of the demo guest's linker script around all that its own dump writes.
const AREA_SYMBOLS: [&str; 2] = ["dump_area_start", "dump_area_end"];

/// Gives the guest an em on a wire to the receiver, tells it where to dump, and keeps the agent from dumping it.
pub(super) fn prepare(config: &mut AgentConfig, receiver: SocketAddrV4) {
    let network = ClientNetwork::for_user_wire(NAME);
    config.append = format!("netdump={receiver} netdump_client={}", network.address);
    if let Some(gateway) = network.gateway {
        config.append.push_str(&format!(" netdump_gateway={gateway}"));
    }
    config.devices.nets.push(NetConfig {
        wire: WireSpec::User,
        model: NetModel::Em,
        mac: mac_for_vm(NAME),
        eeprom_writes: EepromWrites::Ignored,
        trusted: true,
    });
    config.targets.clear();
    config.on_crash = OnCrash {
        dump: false,
        action: CrashAction::Preserve,
    };
}

/// The cores that were there before.
pub(super) struct Known(HashSet<String>);

impl Known {
    pub(super) fn of(receiver: &Receiver) -> Self {
        Self(receiver.cores().all().into_iter().map(|core| core.id).collect())
    }
}

/// Prints what happens until the guest has dumped itself and stands still.
pub(super) fn watch(steps: Steps, heard: &mpsc::Receiver<AgentEvent>) -> Result<(), Failure> {
    let until = Instant::now() + DUMP_PATIENCE;
    let otherwise = format!("the guest has not ended within {DUMP_PATIENCE:?}: it did not panic, or its dump hangs");
    loop {
        let event = next_event(heard, until, &otherwise)?;
        if matches!(event, AgentEvent::Policy(_)) {
            return Ok(());
        }
        steps.say(&describe(&event));
    }
}

/// Finds the core and compares it with the frozen guest.
pub(super) fn prove(
    args: &Args,
    known: &Known,
    receiver: &Receiver,
    memory: &GuestMemory,
    dir: PathBuf,
    kernel: PathBuf,
) -> Result<Report, Failure> {
    let area = dump_area(guest_shim::DEMO_GUEST_ELF)?;
    // One that the guest knows to be kept is listed by now; one that it could not finish is kept after some silence.
    let core = receiver
        .wait_for_cores(known.0.len() + 1, KEEP_PATIENCE)
        .and_then(|cores| cores.into_iter().find(|core| !known.0.contains(&core.id)))
        .context("the receiver has no core of the guest; its console says why")?;
    let stored = receiver
        .cores()
        .vmcore(&core.id)
        .context("the core that was listed is gone")?;
    let compared = compare::same_memory(&stored.path, memory, Some(area))?;
    Ok(Report {
        schema_version: api::SCHEMA_VERSION,
        core_id: core.id,
        dump_id: None,
        state: core.state,
        path: stored.path,
        kernel,
        dir,
        panic: core.panic,
        mem_bytes: args.mem_mib << 20,
        // A stock dump is dense: every byte of it is sent.
        sent_bytes: core.file_len_bytes,
        identical: compared.identical,
        dump_area: Some(DumpArea {
            gpa: area.gpa,
            len_bytes: area.len_bytes,
            changed_bytes: compared.changed_bytes,
        }),
    })
}

/// What the guest's dump writes, by the symbols of its image: not by what the guest says.
fn dump_area(image: &[u8]) -> anyhow::Result<MemoryRange> {
    let elf: ElfFile64<'_> = ElfFile64::parse(image).context("the demo guest is no ELF file")?;
    let address = |name: &str| {
        let mut symbols = elf.symbols();
        let symbol = symbols.find(|symbol| symbol.name() == Ok(name));
        symbol
            .map(|symbol| symbol.address())
            .ok_or_else(|| anyhow!("the demo guest has no symbol {name}"))
    };
    let [start, end] = AREA_SYMBOLS;
    let (gpa, end) = (address(start)?, address(end)?);
    let len_bytes = end
        .checked_sub(gpa)
        .context("the demo guest's dump area ends before it begins")?;
    Ok(MemoryRange { gpa, len_bytes })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_dump_area_is_whole_pages_and_a_small_part_of_the_guest() {
        let area = dump_area(guest_shim::DEMO_GUEST_ELF).unwrap();
        assert_eq!((area.gpa % 4096, area.len_bytes % 4096), (0, 0));
        assert!((512 << 10..1 << 20).contains(&area.len_bytes), "{area:?}");
    }
}
