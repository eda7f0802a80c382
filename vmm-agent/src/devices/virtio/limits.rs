//! The limits of the virtio devices, each with its reason.

/// Entries of a queue: what QEMU and others offer; a driver may choose fewer.
pub const QUEUE_SIZE_MAX: u16 = 256;

/// Segments of one chain that are looked at: four times a whole queue of direct descriptors; indirect tables may be longer.
/// What a chain has beyond them is taken as not there.
pub const SEGMENTS_MAX: usize = 1024;

/// Data bytes of one block request. Linux asks for at most 1280 KiB at once unless told otherwise.
pub const BLOCK_REQUEST_LEN_MAX: u64 = 32 << 20;

/// Segments of one block request that the driver is told of (5.2.4, `seg_max`): the queue less header and status.
pub const BLOCK_SEGMENTS_MAX: u32 = 254;

/// Disks of one guest: with the other devices they fit on one bus.
pub const DISKS_MAX: usize = 16;

/// Network devices of one guest, likewise.
pub const NETS_MAX: usize = 8;

/// Bytes of randomness given for one buffer. Linux asks for 64.
pub const ENTROPY_LEN_MAX: u64 = 64 << 10;

/// Page frame numbers taken from one balloon buffer at a time. Linux sends 256.
pub const BALLOON_FRAMES_MAX: u64 = 4096;

/// Received frames that are kept when the guest has no buffers: one batch of the wire.
pub const PENDING_FRAMES_MAX: usize = 64;

/// The longest frame in bytes that a guest may send: 64 KiB of IP packet to be cut, and its Ethernet header.
pub const FRAME_LEN_MAX: u64 = 65_535 + 18;
