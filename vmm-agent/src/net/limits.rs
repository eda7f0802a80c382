//! The limits of the wires, each with its reason.

/// The MTU of plain Ethernet in bytes (RFC 894): what every network carries.
pub const MTU_ETHERNET: u16 = 1500;

/// The smallest MTU in bytes that every IPv4 host takes whole (RFC 791 section 3.1): below it nothing is tried.
pub const MTU_MIN: u16 = 576;

/// The MTU in bytes at which one netdump packet carries exactly one page: 4096 + 24 (header) + 28 (IP and UDP). Stock
/// receivers refuse more than 4096 bytes of data (netdumpd, `NETDUMP_DATASIZE`), so a larger one gains nothing.
pub const MTU_ONE_PAGE: u16 = 4148;

/// The largest MTU in bytes of any wire here: what jumbo Ethernet has, and what the dump port's buffers hold.
pub const MTU_JUMBO: u16 = 9000;

/// The longest frame in bytes that is passed on: jumbo MTU, Ethernet header, one VLAN tag.
pub const FRAME_LEN_MAX: usize = 9018;

/// Frames taken from a wire in one call: enough for all acknowledgements of one window, small enough that transmitting
/// is never starved.
pub const RECEIVE_BATCH: usize = 64;

/// Segments of one `UDP_SEGMENT` train: what every kernel that has it takes (udp(7), `UDP_MAX_SEGMENTS` was 64 at first).
pub const GSO_SEGMENTS_MAX: usize = 64;

/// Bytes of one `UDP_SEGMENT` train: an IPv4 packet's 65 535 bytes less the headers of IP and UDP.
pub const GSO_BYTES_MAX: usize = 65_507;

/// UDP flows that the `user` wire keeps: a dump needs one; a guest gets DNS and time besides. The oldest makes room.
pub const USER_FLOWS_MAX: usize = 64;

/// Receive buffer asked for each host socket, in bytes: 64 acknowledgements cost the kernel about 50 KiB, a guest's
/// answers more.
pub const SOCKET_BUFFER_LEN: usize = 1 << 20;

/// How long one send of the dump port may wait for a full socket before the frame counts as lost, in milliseconds: long enough for the
/// slowest link to take some packets, far below the 20 ms .. 1 s after which the client repeats them.
pub const SEND_WAIT_MS: u16 = 20;

/// Bytes that a stream wire keeps for a peer that does not read: four windows of 64 KiB. What comes on top is lost, as
/// on a cable.
pub const STREAM_BACKLOG_LEN_MAX: usize = 256 << 10;

/// The longest frame in bytes that the peer of a stream wire may announce: passt's MTU of 65 520 and a VLAN header; a
/// larger length means that the stream is out of step.
pub const STREAM_FRAME_LEN_MAX: usize = 65_535 + 18;

/// Bytes of a capture that wait for its file: what a disk that stalls for a moment costs in memory. More is counted, not kept.
pub const CAPTURE_QUEUE_LEN_MAX: usize = 4 << 20;

/// Bytes of a capture file: a forgotten one must not fill a disk. With the default snap length it is about eight million
/// frames.
pub const CAPTURE_FILE_LEN_MAX: u64 = 1 << 30;

/// Bytes of each frame that a capture keeps where nobody says otherwise: all headers, and little of a guest's memory.
pub const CAPTURE_SNAP_LEN: u32 = 128;

/// The most that it may keep: the longest frame that is handed over uncut, 64 KiB and its headers, with room.
pub const CAPTURE_SNAP_LEN_MAX: u32 = 262_144;

/// Interfaces in one capture: the dump port's, and more network devices than a guest has slots for.
pub const CAPTURE_INTERFACES_MAX: usize = 64;

/// Frames that the fault injector holds back, in each direction: at a delay of a second still a thousand frames a second.
pub const FAULT_HELD_MAX: usize = 1024;

/// How much later a frame goes that is to come after others, in microseconds: several frames of any wire, and far below
/// the time after which a sender repeats.
pub const FAULT_REORDER_US: u64 = 2_000;

/// The longest delay that the fault injector may be asked for, in milliseconds: beyond it a stock sender gives up anyway.
pub const FAULT_DELAY_MS_MAX: u64 = 10_000;
