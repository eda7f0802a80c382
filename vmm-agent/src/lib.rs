//! One virtual machine on KVM, and the agent beside it that gets a crashed guest's memory to safety.
//! The machine half boots a guest, runs its vCPUs and devices, and can freeze it. The agent half hears of a crash, makes
//! a vmcore of the frozen guest, and ferries it to a receiver or to disk before any policy touches the guest.
//!
//! ```text
//!  incarnation (vCPUs, devices, memory) ──trigger──► detect ──► agent ──► freeze ──► dump ──► net ──► receiver
//!        ▲                                                        │                   └─────────────► spool
//!        └──────────────── policy: restart, preserve, destroy ◄───┘
//! ```
//!
//! The machine:
//! - [`incarnation`]: one life of a guest
//! - [`memory`]: its RAM, one memfd
//! - [`boot`]: puts a kernel into it
//! - [`kernel`]: what the kernel file itself tells
//! - [`devices`]: what the guest finds on its buses
//! - [`kvm`]: the one place that talks to KVM
//! - [`freeze`]: what a frozen guest is
//!
//! The agent:
//! - [`agent`]: the thread that decides, and the policy
//! - [`detect`]: what counts as a crash
//! - [`dump`]: from a frozen guest to a receiver
//! - [`net`]: the wires that frames leave by
//!
//! [`limits`] has every bound with its reason.

pub mod agent;
pub mod boot;
pub mod detect;
pub mod devices;
pub mod dump;
pub mod freeze;
pub mod incarnation;
pub mod kernel;
pub mod kvm;
pub mod limits;
pub mod memory;
pub mod net;

pub use agent::{Agent, AgentConfig, AgentEvent, AgentHandle, CoreFate, RunEnd};
