//! The virtual machine and the dump agent beside it

pub mod boot;
pub mod detect;
pub mod devices;
pub mod dump;
pub mod freeze;
pub mod incarnation;
pub mod kvm;
pub mod limits;
pub mod memory;
pub mod net;
