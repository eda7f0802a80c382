//! The limits of the dump agent, each with its reason.

use std::time::Duration;

/// Bytes of memory read at a time: one window of the client, and what stays in a second-level cache on its way through
/// zero scan, digest and copy.
pub const READ_LEN: usize = 64 << 10;

/// Bytes of memory whose untouched parts are asked for at a time: bounds the list to 2 MiB even if every second page was
/// touched.
pub const EXTENT_QUERY_LEN: u64 = 512 << 20;

/// How often a dump looks whether it was cancelled, or its deadline passed, while it waits for something else.
pub const CANCEL_CHECK_INTERVAL: Duration = Duration::from_millis(100);

/// Longest part of a VM's name in the name of a spooled file, in bytes: with the id and the endings the name stays
/// below the 255 of every file system.
pub const SPOOL_NAME_LEN_MAX: usize = 128;

/// Guest physical address of the dump port's private window: above all RAM (52 bits at most on x86-64, AMD64 APM
/// vol. 2, 5.1) and no memory slot, so no guest and no other device can reach it.
pub const PORT_WINDOW_GPA: u64 = 1 << 52;

/// Longest frame of the dump port in bytes: what its driver takes, rounded up.
pub const PORT_FRAME_LEN_MAX: usize = 9216;

/// How long the dump port's link may take to come up: silicon needs seconds, the emulated one milliseconds.
pub const PORT_LINK_WAIT: Duration = Duration::from_millis(500);
