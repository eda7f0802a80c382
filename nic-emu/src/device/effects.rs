//! What the device needs from the world and what it tells it: memory, the wire, and hints what to do next.

use core::fmt;

/// Memory as the device sees it. It must reach RAM only, never another device's registers, and must not call back into
/// the device.
pub trait Dma {
    /// Fills `buf` from guest physical address `gpa`.
    fn read(&mut self, gpa: u64, buf: &mut [u8]) -> Result<(), DmaError>;

    /// Writes `bytes` at guest physical address `gpa`. Each call's bytes must be visible before those of a later call.
    fn write(&mut self, gpa: u64, bytes: &[u8]) -> Result<(), DmaError>;
}

/// An access to memory that is not there. The device drops the frame, counts it and goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DmaError {
    /// Where the access started.
    pub gpa: u64,
    /// How long it was.
    pub len_bytes: usize,
}

impl fmt::Display for DmaError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "DMA of {} bytes at guest physical address {:#x}: no memory there",
            self.len_bytes, self.gpa
        )
    }
}

impl core::error::Error for DmaError {}

/// Where transmitted frames go.
pub trait FrameSink {
    /// What the sink can do itself; asked once per `transmit` call. The device does the rest in software.
    fn offloads(&self) -> Offloads;

    /// Takes a batch of frames, in order, at most [`FRAMES_PER_SEND`](crate::limits::FRAMES_PER_SEND). What cannot be
    /// sent is the sink's to drop and count.
    fn send(&mut self, frames: &[TxFrame<'_>]);
}

/// What a sink can do itself. Segmentation implies checksums.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Offloads {
    /// Completes TCP and UDP checksums.
    pub checksum: bool,
    /// Segments TCP over IPv4.
    pub tcp4: bool,
    /// Segments TCP over IPv6.
    pub tcp6: bool,
    /// Segments UDP over IPv4: each segment is a datagram of its own.
    pub udp4: bool,
    /// Segments UDP over IPv6.
    pub udp6: bool,
}

/// One outgoing frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TxFrame<'a> {
    /// The frame from its destination address on, at least 60 bytes, without CRC.
    pub bytes: &'a [u8],
    /// What the sink has still to do.
    pub offload: Offload,
}

/// Work left to the sink; the fields of a `virtio_net_hdr` (virtio 1.2, 5.1.6.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Offload {
    /// A checksum to complete; the field holds the pseudo-header's sum.
    pub checksum: Option<ChecksumOffload>,
    /// A packet to cut into segments; `checksum` is then set as well.
    pub segmentation: Option<Segmentation>,
}

/// A checksum to complete: sum from `start` to the end, store at `start + offset`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ChecksumOffload {
    /// First byte summed.
    pub start: u16,
    /// Where the checksum goes, counted from `start`.
    pub offset: u16,
}

/// A packet to cut into segments.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Segmentation {
    /// Protocols.
    pub kind: SegmentationKind,
    /// Payload bytes per segment.
    pub size: u16,
    /// Bytes of the headers that each segment repeats.
    pub header_len: u16,
}

/// The protocols of a packet to be cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SegmentationKind {
    /// TCP over IPv4.
    Tcp4,
    /// TCP over IPv6.
    Tcp6,
    /// UDP over IPv4.
    Udp4,
    /// UDP over IPv6.
    Udp6,
}

/// What the caller should do after an access or an event. Acting late is allowed, and acting without need is harmless.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Actions {
    /// Frames may wait in the transmit ring: call [`Em::transmit`](super::Em::transmit).
    pub transmit: bool,
    /// Receiving became possible: offer frames again, or an empty batch if none wait.
    pub receive: bool,
    /// The interrupt level changed: read [`Em::irq_level`](super::Em::irq_level).
    pub irq_changed: bool,
}
