//! Linux guests of x86-64, read without debug symbols: what VMCOREINFO says is enough.
//!
//! - [`space`]: kernel virtual addresses, through the kernel's own page tables
//! - [`printk`]: the kernel log, out of the ring buffer of 5.10 and later or the record buffer of older kernels

pub mod printk;
pub mod space;

pub use printk::{KernelLog, LogError, LogRecord};
pub use space::{KernelSpace, SpaceError};
