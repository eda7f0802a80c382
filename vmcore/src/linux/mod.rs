//! Linux guests of x86-64, read without debug symbols: what VMCOREINFO says is enough, and much can be told without it.
//!
//! - [`space`]: kernel virtual addresses, through the kernel's own page tables
//! - [`filter`]: pages that a debugger hardly needs
//! - [`printk`]: the kernel log, out of the ring buffer of 5.10 and later or the record buffer of older kernels
//! - [`search`]: VMCOREINFO anywhere in memory, where no note has it
//! - [`place`]: where KASLR put the kernel, from a processor's page tables alone
//! - [`paging`]: page tables

pub mod filter;
pub mod paging;
pub mod place;
pub mod printk;
pub mod search;
pub mod space;

pub use place::KernelPlace;
pub use printk::{KernelLog, LogError, LogRecord};
pub use space::{KernelSpace, SpaceError};
