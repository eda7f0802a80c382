//! What can be known of vCPUs that were told to stop.
use vmcore::{CpuState, VcpuStop};

use super::control::{Orders, Slot};
use crate::limits::VCPU_STOP_TIMEOUT;

/// Registers and stop states of all vCPUs, in their order.
#[derive(Debug, Default)]
pub(super) struct Collected {
    pub(super) cpus: Vec<CpuState>,
    pub(super) stops: Vec<VcpuStop>,
    pub(super) troubles: Vec<String>,
}

/// Collects from every vCPU: from its thread if that has parked, else by the second way to its registers.
pub(super) fn collect(orders: &Orders) -> Collected {
    let mut all = Collected::default();
    for (index, slot) in (0_u32..).zip(&orders.slots) {
        let (registers, state) = match known(slot) {
            Ok((registers, state)) => (registers, state),
            Err(why) => {
                let spare = slot.spare.as_ref().and_then(|spare| spare.cpu_state());
                let (registers, what) = match spare {
                    Some(registers) => (
                        registers,
                        "its registers are those of this moment, perhaps in the middle of an instruction",
                    ),
                    None => (CpuState::default(), "its registers are not known and stand as zeroes"),
                };
                all.troubles.push(format!("vCPU {index} {why}; {what}"));
                (registers, "failed")
            }
        };
        all.cpus.push(registers);
        all.stops.push(VcpuStop {
            index,
            state: state.to_owned(),
        });
    }
    all
}

/// What the vCPU's own thread says.
fn known(slot: &Slot) -> Result<(CpuState, &'static str), String> {
    match &slot.parked {
        Some(parked) => match &parked.registers {
            Ok(registers) => Ok((registers.clone(), slot.held.unwrap_or(parked.activity))),
            Err(why) => Err(format!("stands still and does not show its registers ({why})")),
        },
        None if slot.gone => Err("has lost its thread".to_owned()),
        None => Err(format!(
            "did not stop within {VCPU_STOP_TIMEOUT:?}; it may wait for a device that hangs"
        )),
    }
}
