//! The demo guest: a small bare-metal program that a VMM starts like a kernel. It fills memory with a known pattern,
//! keeps all its CPUs busy, and then panics for real, so that a dump of it can be checked byte for byte.
//!
//! Only the entry code and the interrupt handlers run in ring 0; all Rust code runs in ring 3, where every instruction
//! works even under a KVM that emulates ring 0.
//!
//! - [`entry`]: from the boot protocol to ring 3; interrupts and exceptions (assembly)
//! - [`cpu`]: ports, the CPU's own number, requests to ring 0
//! - [`console`]: the serial port, and the log that the panic record points at
//! - [`memory`]: memcpy and its kin
//! - [`options`]: the command line
//! - [`host`]: the guest-shim's registers, pvpanic, power
//! - [`work`]: what the guest does
//! - [`report`]: the panic handler
//! - [`own_dump`], [`em`]: the guest's own dump, by netdump through its own em
#![no_std]
#![no_main]

mod console;
mod cpu;
mod em;
mod entry;
mod host;
mod memory;
mod options;
mod own_dump;
mod report;
mod work;
