//! Every bound of the crate, with the reason beside it.

/// Ethernet header: two addresses and a type.
pub const ETHERNET_HEADER_LEN: usize = 14;

/// Shortest frame without its CRC; shorter ones are padded with zeros (IEEE 802.3 clause 3).
pub const FRAME_LEN_MIN: usize = 60;

/// The CRC that ends a frame on the wire; counted by the statistics, and by RX lengths unless RCTL.SECRC is set.
pub const CRC_LEN: usize = 4;

/// Longest received frame without CRC while RCTL.LPE is clear: 1500 of payload, the header and a VLAN tag.
pub const FRAME_LEN_MAX_STANDARD: usize = 1518;

/// Longest frame without CRC in either direction: RX buffers and the length fields end at 16 KiB with the CRC.
pub const FRAME_LEN_MAX: usize = 16_384 - CRC_LEN;

/// Longest packet collected for segmentation: an IP packet of 64 KiB and the largest header before it.
pub const SEGMENTATION_LEN_MAX: usize = 65_535 + SEGMENTATION_HEADER_LEN_MAX;

/// Longest header that segmentation repeats. HDRLEN is 8 bits wide; real headers are at most 14+4+60+60.
pub const SEGMENTATION_HEADER_LEN_MAX: usize = 240;

/// Most segments one packet may become: 64 KiB at an MSS of 32; below that a guest only wastes the host's time.
pub const SEGMENTS_MAX: usize = 2_048;

/// Most datagrams that a sink is asked to cut a packet into: what Linux takes as one (`UDP_MAX_SEGMENTS` of
/// include/linux/udp.h, 64 before Linux 6.8). The device cuts longer packets itself.
pub const DATAGRAMS_UNCUT_MAX: usize = 64;

/// Frames that one [`FrameSink::send`](crate::device::FrameSink::send) call gets at most: the size of a `sendmmsg` batch.
pub const FRAMES_PER_SEND: usize = 64;

/// Bytes of frames that are collected before the sink is called: stays inside a second-level cache.
pub const BYTES_PER_SEND: usize = 128 * 1024;

/// Bytes that one `transmit` call moves at most (one packet more than this); then the caller gets its thread back.
pub const BYTES_PER_TRANSMIT: usize = 4 * 1024 * 1024;

/// Descriptors, null ones included, that one received frame may use: 64 of the smallest buffers hold the longest frame.
pub const SLOTS_PER_FRAME: usize = 128;

/// Bytes of frames that wait in loopback mode: the receive half of the real packet buffer (PBA's reset value, 48 KiB).
pub const LOOPBACK_BYTES: usize = 48 * 1024;

/// Frames that wait in loopback mode, so that empty ones are bounded too.
pub const LOOPBACK_FRAMES: usize = 64;

/// Auto-negotiation takes this long, in nanoseconds. Silicon needs seconds; drivers only need to see that it takes time.
pub const NEGOTIATION_NS: u64 = 2_000_000;
