//! The demo guest's image.

/// A plain ELF64 executable for the boot protocol of [`crate::boot`], with debug information. Its command line takes
/// `mode=` (`panic`, `heartbeat`, `poweroff`, `reset`, `reset-keyboard`, `triple-fault`, `internal-error`, `page-fault`, `crashloaded`,
/// `pvpanic-only`, `panic-console`), `touch_mib=`, `touch_from_mib=`, `delay_ticks=` (10 ms each), `devices=pci`, and `netdump=`, `netdump_client=`,
/// `netdump_gateway=`, `netdump_mtu=` for a guest that dumps itself.
pub static DEMO_GUEST_ELF: &[u8] = include_bytes!(env!("DEMO_GUEST_ELF"));
