//! The demo guest's image.

/// A plain ELF64 executable for the boot protocol of [`crate::boot`], with debug information.
pub static DEMO_GUEST_ELF: &[u8] = &[];
