//! The network device (5.1) over a wire: one pair of queues, checksums left to us.
use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use nic_emu::device::{ChecksumOffload, Offload, Offloads, Segmentation, SegmentationKind, TxFrame};

use super::device::{Identity, VirtioDevice};
use super::limits::{FRAME_LEN_MAX, PENDING_FRAMES_MAX, QUEUE_SIZE_MAX};
use super::queue::{Broken, Chain, VirtQueue};
use crate::devices::worker::{After, Round};
use crate::memory::{GuestMemory, GuestRam};
use crate::net::{Wire, WireError};

// Feature bits (5.1.3).
const F_CSUM: u64 = 1 << 0;
const F_MTU: u64 = 1 << 3;
const F_MAC: u64 = 1 << 5;
const F_HOST_TSO4: u64 = 1 << 11;
const F_HOST_TSO6: u64 = 1 << 12;
const F_STATUS: u64 = 1 << 16;

/// Header before each frame, with the number of buffers (5.1.6).
const HEADER_LEN: usize = 12;
/// Header flag: the checksum is to be completed (5.1.6.2).
const NEEDS_CSUM: u8 = 1;
// Header: how a large packet is to be cut (5.1.6).
const GSO_NONE: u8 = 0;
const GSO_TCPV4: u8 = 1;
const GSO_TCPV6: u8 = 4;
/// Header: congestion notification, beside the type.
const GSO_ECN: u8 = 0x80;
/// The device's header in what it receives: nothing left to do, one buffer (5.1.6.4).
const RECEIVE_HEADER: [u8; HEADER_LEN] = [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0];
/// Status: the link is up (5.1.4).
const LINK_UP: u16 = 1;
/// The shortest Ethernet frame without its checksum (IEEE 802.3); what is shorter is padded.
const FRAME_LEN_MIN: usize = 60;
/// Frames that leave in one call.
const SEND_BATCH: usize = nic_emu::limits::FRAMES_PER_SEND;
/// After sending, the wire is looked at again this soon: some hold answers, or bytes of their own, that their descriptor
/// does not show.
const AFTER_SEND: Duration = Duration::from_millis(5);

const RECEIVE: usize = 0;
const TRANSMIT: usize = 1;

/// The device.
pub struct Net {
    wire: Box<dyn Wire>,
    mac: [u8; 6],
    offloads: Offloads,
    /// Frames that found no buffer.
    pending: VecDeque<Vec<u8>>,
    chain: Chain,
    batch: Vec<Outgoing>,
    lost: bool,
    dropped_frames: u64,
}

/// A frame on its way out; kept for its allocation.
#[derive(Debug, Default)]
struct Outgoing {
    bytes: Vec<u8>,
    offload: Offload,
}

impl Net {
    /// A device with this address on `wire`.
    #[must_use]
    pub fn new(wire: Box<dyn Wire>, mac: [u8; 6]) -> Net {
        Net {
            offloads: wire.offloads(),
            wire,
            mac,
            pending: VecDeque::new(),
            chain: Chain::default(),
            batch: Vec::new(),
            lost: false,
            dropped_frames: 0,
        }
    }

    /// Takes frames from the transmit queue and sends them; true if something was sent.
    fn transmit(&mut self, queue: &mut VirtQueue, ram: &GuestRam) -> Result<After, Broken> {
        queue.ignore(ram)?;
        let round = Round::begin();
        while !round.is_over() {
            let mut count = 0;
            // A guest that offers nothing but nonsense must not keep the round going.
            while count < SEND_BATCH && !round.is_over() && queue.pop(ram, &mut self.chain)? {
                if self.batch.len() == count {
                    self.batch.push(Outgoing::default());
                }
                if let Some(slot) = self.batch.get_mut(count) {
                    if slot.take(ram, &self.chain, self.offloads) {
                        count += 1;
                    } else {
                        self.dropped_frames += 1;
                    }
                }
                // The bytes are copied, so the buffer can go back before the frame leaves.
                queue.push_used(ram, &self.chain, 0)?;
            }
            if count == 0 {
                let more = queue.listen(ram)?;
                queue.signal(ram)?;
                return Ok(if more { After::Again } else { After::KICK });
            }
            let frames: Vec<TxFrame<'_>> = self.batch.iter().take(count).map(Outgoing::frame).collect();
            self.wire.send(&frames);
        }
        queue.signal(ram)?;
        Ok(After::Again)
    }

    /// Gives frames to the guest; says whether to wait for more.
    fn receive(&mut self, queue: &mut VirtQueue, ram: &GuestRam) -> Result<Receiving, Broken> {
        let mut delivered = 0;
        while let Some(frame) = self.pending.front() {
            if !deliver(queue, ram, &mut self.chain, frame, &mut self.dropped_frames)? {
                queue.signal(ram)?;
                return Ok(Receiving::NoBuffers);
            }
            self.pending.pop_front();
            delivered += 1;
        }
        if self.lost {
            queue.signal(ram)?;
            return Ok(Receiving::NoBuffers);
        }
        let Net {
            wire,
            pending,
            chain,
            dropped_frames,
            ..
        } = self;
        let mut broken = None;
        let received = wire.receive(&mut |frame| {
            let stored = pending.is_empty()
                && broken.is_none()
                && deliver(queue, ram, chain, frame, dropped_frames).unwrap_or_else(|error| {
                    broken = Some(error);
                    true
                });
            if !stored && pending.len() < PENDING_FRAMES_MAX {
                pending.push_back(frame.to_vec());
            }
        });
        if let Some(broken) = broken {
            return Err(broken);
        }
        match received {
            Ok(count) => delivered += count,
            Err(error) => self.lose(&error),
        }
        if delivered > 0 {
            queue.signal(ram)?;
        }
        Ok(match (self.pending.is_empty(), delivered) {
            _ if self.lost => Receiving::NoBuffers,
            (false, _) => Receiving::NoBuffers,
            (true, 0) => Receiving::Idle,
            (true, _) => Receiving::More,
        })
    }

    fn lose(&mut self, error: &WireError) {
        tracing::warn!(%error, "the guest's network is gone");
        self.lost = true;
    }
}

/// What receiving came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Receiving {
    /// The wire had nothing.
    Idle,
    /// It may have more.
    More,
    /// The guest must give buffers first (or the wire is gone).
    NoBuffers,
}

/// Puts one frame into the next buffer; false if there is none.
fn deliver(
    queue: &mut VirtQueue,
    ram: &GuestRam,
    chain: &mut Chain,
    frame: &[u8],
    dropped_frames: &mut u64,
) -> Result<bool, Broken> {
    if !queue.pop(ram, chain)? {
        // Asked for a notification, it may turn out that a buffer came in this moment.
        if !queue.listen(ram)? || !queue.pop(ram, chain)? {
            return Ok(false);
        }
    }
    let len = HEADER_LEN + frame.len();
    let stored = chain
        .writable
        .write(ram, 0, &RECEIVE_HEADER)
        .and_then(|()| chain.writable.write(ram, header_end(), frame));
    let used = match stored {
        Ok(()) => u32::try_from(len).unwrap_or(0),
        // Too long for the buffer, or no memory there: the frame is lost and the buffer goes back empty.
        Err(_) => {
            *dropped_frames += 1;
            0
        }
    };
    queue.push_used(ram, chain, used)?;
    Ok(true)
}

fn header_end() -> u64 {
    u64::try_from(HEADER_LEN).unwrap_or(0)
}

impl Outgoing {
    /// Reads a frame with its header out of a buffer; false if it makes no sense.
    fn take(&mut self, ram: &GuestRam, chain: &Chain, offloads: Offloads) -> bool {
        let mut header = [0; HEADER_LEN];
        let readable = &chain.readable;
        let Some(len) = readable
            .len_bytes()
            .checked_sub(header_end())
            .filter(|len| *len <= FRAME_LEN_MAX)
        else {
            return false;
        };
        let Ok(len) = usize::try_from(len) else { return false };
        self.bytes.clear();
        self.bytes.resize(len, 0);
        let read = readable
            .read(ram, 0, &mut header)
            .and_then(|()| readable.read(ram, header_end(), &mut self.bytes));
        let Some(offload) = read.ok().and_then(|()| parse_header(&header, len)) else {
            return false;
        };
        if offload.segmentation.is_some() && !(offloads.tcp4 || offloads.tcp6) {
            return false;
        }
        self.offload = offload;
        if let Some(checksum) = offload.checksum
            && !offloads.checksum
            && offload.segmentation.is_none()
        {
            complete_checksum(&mut self.bytes, checksum);
            self.offload.checksum = None;
        }
        if self.bytes.len() < FRAME_LEN_MIN {
            self.bytes.resize(FRAME_LEN_MIN, 0);
        }
        true
    }

    fn frame(&self) -> TxFrame<'_> {
        TxFrame {
            bytes: &self.bytes,
            offload: self.offload,
        }
    }
}

/// What the driver leaves to us (5.1.6.2); `None` if the header makes no sense.
fn parse_header(header: &[u8; HEADER_LEN], frame_len: usize) -> Option<Offload> {
    let [
        flags,
        gso,
        header_low,
        header_high,
        size_low,
        size_high,
        start_low,
        start_high,
        at_low,
        at_high,
        ..,
    ] = *header;
    let checksum = ChecksumOffload {
        start: u16::from_le_bytes([start_low, start_high]),
        offset: u16::from_le_bytes([at_low, at_high]),
    };
    let checksum = (flags & NEEDS_CSUM != 0).then_some(checksum);
    if let Some(ChecksumOffload { start, offset }) = checksum
        && usize::from(start) + usize::from(offset) + 2 > frame_len
    {
        return None;
    }
    let kind = match gso & !GSO_ECN {
        GSO_NONE => {
            return Some(Offload {
                checksum,
                segmentation: None,
            });
        }
        GSO_TCPV4 => SegmentationKind::Tcp4,
        GSO_TCPV6 => SegmentationKind::Tcp6,
        _ => return None,
    };
    let segmentation = Segmentation {
        kind,
        size: u16::from_le_bytes([size_low, size_high]),
        header_len: u16::from_le_bytes([header_low, header_high]),
    };
    // A packet is cut behind its headers, so its checksum must be left to us as well.
    (segmentation.size > 0 && checksum.is_some()).then_some(Offload {
        checksum,
        segmentation: Some(segmentation),
    })
}

/// Sums from `start` to the end and stores the result (RFC 1071); the field holds the pseudo-header's sum already.
fn complete_checksum(frame: &mut [u8], checksum: ChecksumOffload) {
    let start = usize::from(checksum.start);
    let Some(part) = frame.get_mut(start..) else { return };
    let (words, last) = part.as_chunks::<2>();
    let mut sum: u64 = words.iter().map(|word| u64::from(u16::from_be_bytes(*word))).sum();
    sum += last.first().map_or(0, |byte| u64::from(*byte) << 8);
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    let folded = u16::try_from(sum).unwrap_or(0);
    // Zero means "no checksum" to UDP (RFC 768), and TCP takes either form.
    let value = if folded == 0xffff { 0xffff } else { !folded };
    let at = usize::from(checksum.offset);
    if let Some(slot) = part.get_mut(at..).and_then(|rest| rest.first_chunk_mut::<2>()) {
        *slot = value.to_be_bytes();
    }
}

impl VirtioDevice for Net {
    fn identity(&self) -> Identity {
        Identity {
            device_type: 1,
            // Network controller, Ethernet.
            class: 0x02_00_00,
        }
    }

    fn features(&self) -> u64 {
        let tso4 = if self.offloads.tcp4 { F_HOST_TSO4 } else { 0 };
        let tso6 = if self.offloads.tcp6 { F_HOST_TSO6 } else { 0 };
        F_CSUM | F_MAC | F_MTU | F_STATUS | tso4 | tso6
    }

    fn queue_sizes(&self) -> Vec<u16> {
        vec![QUEUE_SIZE_MAX; 2]
    }

    /// Address, status, pairs of queues, MTU (5.1.4).
    fn config(&self) -> Vec<u8> {
        let mut config = self.mac.to_vec();
        config.extend(LINK_UP.to_le_bytes());
        config.extend(1_u16.to_le_bytes());
        config.extend(self.wire.mtu_max().min(crate::net::limits::MTU_ETHERNET).to_le_bytes());
        config
    }

    fn reset(&mut self) {
        self.pending.clear();
    }

    fn work(&mut self, queues: &mut [VirtQueue], memory: &GuestMemory) -> Result<After, Broken> {
        let ram = memory.ram();
        let mut sent = false;
        let mut again = false;
        if let Some(queue) = queues.get_mut(TRANSMIT) {
            sent = queue.has_available(ram);
            again = self.transmit(queue, ram)? == After::Again;
        }
        let receiving = match queues.get_mut(RECEIVE) {
            Some(queue) => self.receive(queue, ram)?,
            None => Receiving::NoBuffers,
        };
        if again || receiving == Receiving::More {
            return Ok(After::Again);
        }
        Ok(After::Wait {
            readable: receiving == Receiving::Idle,
            timeout: sent.then_some(AFTER_SEND),
        })
    }

    fn descriptor(&self) -> io::Result<Option<OwnedFd>> {
        Ok(Some(self.wire.as_fd().try_clone_to_owned()?))
    }
}

impl std::fmt::Debug for Net {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Net")
            .field("wire", &self.wire.name())
            .field("mac", &self.mac)
            .field("pending", &self.pending.len())
            .field("dropped_frames", &self.dropped_frames)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::os::unix::net::UnixStream;

    use super::super::rig::{Rig, SIZE};
    use super::*;
    use crate::net::StreamWire;

    const MAC: [u8; 6] = [2, 0, 0, 0, 0, 7];

    /// The device on one end of a socket pair that carries frames behind their lengths.
    fn rig() -> (Rig, UnixStream) {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let wire = StreamWire::from_socket(ours, "stream=test".to_owned()).unwrap();
        theirs.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
        (Rig::new(Box::new(Net::new(Box::new(wire), MAC)), F_MAC), theirs)
    }

    fn read_frame(peer: &mut UnixStream) -> Vec<u8> {
        let mut len = [0; 4];
        peer.read_exact(&mut len).unwrap();
        let mut frame = vec![0; u32::from_be_bytes(len) as usize];
        peer.read_exact(&mut frame).unwrap();
        frame
    }

    fn write_frame(peer: &mut UnixStream, frame: &[u8]) {
        peer.write_all(&u32::try_from(frame.len()).unwrap().to_be_bytes())
            .unwrap();
        peer.write_all(frame).unwrap();
    }

    #[test]
    fn frames_leave_padded_and_whatever_their_descriptors() {
        let (mut rig, mut peer) = rig();
        rig.write(0x1_0000, &[0; HEADER_LEN]);
        rig.write(0x1_1000, &[0xaa; 100]);
        rig.offer(TRANSMIT, &[(0x1_0000, 12), (0x1_1000, 42)], &[]);
        rig.offer(
            TRANSMIT,
            &[(0x1_0000, 5), (0x1_0005, 7), (0x1_1000, 60), (0x1_1020, 40)],
            &[],
        );
        let after = rig.run();
        assert_eq!(
            after,
            After::Wait {
                readable: true,
                timeout: Some(AFTER_SEND)
            }
        );
        let mut padded = vec![0xaa; 42];
        padded.resize(60, 0);
        assert_eq!(read_frame(&mut peer), padded);
        assert_eq!(read_frame(&mut peer), [0xaa; 100]);
        assert_eq!(rig.used(TRANSMIT), [(0, 0), (2, 0)]);
        assert!(!rig.raised().is_empty());
    }

    #[test]
    fn frames_come_in_behind_a_header_and_wait_for_buffers_without_loss() {
        let (mut rig, mut peer) = rig();
        for n in 0..3_u8 {
            write_frame(&mut peer, &[n; 64]);
        }
        let after = rig.run();
        assert_eq!(
            after,
            After::Wait {
                readable: false,
                timeout: None
            },
            "no buffers yet"
        );
        rig.offer(RECEIVE, &[], &[(0x2_0000, 12), (0x2_0100, 1514)]);
        rig.offer(RECEIVE, &[], &[(0x3_0000, 1526)]);
        rig.run();
        assert_eq!(rig.used(RECEIVE), [(0, 76), (2, 76)]);
        assert_eq!(rig.read(0x2_0000, 12), RECEIVE_HEADER);
        assert_eq!(rig.read(0x2_0100, 64), [0; 64]);
        assert_eq!(rig.read(0x3_000c, 64), [1; 64]);
        rig.offer(RECEIVE, &[], &[(0x4_0000, 1526)]);
        rig.run();
        assert_eq!(rig.read(0x4_000c, 64), [2; 64]);
    }

    #[test]
    fn a_frame_that_does_not_fit_is_lost_and_the_next_is_not() {
        let (mut rig, mut peer) = rig();
        write_frame(&mut peer, &[1; 500]);
        write_frame(&mut peer, &[2; 64]);
        rig.offer(RECEIVE, &[], &[(0x2_0000, 100)]);
        rig.offer(RECEIVE, &[], &[(0x3_0000, 100)]);
        rig.run();
        assert_eq!(rig.used(RECEIVE), [(0, 0), (1, 76)]);
        assert_eq!(rig.read(0x3_000c, 64), [2; 64]);
    }

    #[test]
    fn checksums_are_completed() {
        let (mut rig, mut peer) = rig();
        let mut header = [0; HEADER_LEN];
        (header[0], header[6], header[8]) = (NEEDS_CSUM, 34, 6);
        rig.write(0x1_0000, &header);
        let mut frame = vec![0x11; 63];
        (frame[40], frame[41]) = (0x12, 0x34);
        rig.write(0x1_1000, &frame);
        rig.offer(TRANSMIT, &[(0x1_0000, 12), (0x1_1000, 63)], &[]);
        rig.run();
        let sent = read_frame(&mut peer);
        // From byte 34 on everything sums to the checksum's complement: with the pseudo-header's 0x1234 taken out, all ones.
        let words = sent[34..]
            .chunks(2)
            .map(|pair| u32::from(pair[0]) << 8 | u32::from(*pair.get(1).unwrap_or(&0)));
        let sum = words.sum::<u32>() + 0x1234;
        assert_eq!((sum & 0xffff) + (sum >> 16), 0xffff);
    }

    #[test]
    fn senseless_frames_are_dropped_and_given_back() {
        let (mut rig, mut peer) = rig();
        let mut beyond = [0; HEADER_LEN];
        (beyond[0], beyond[6], beyond[8]) = (NEEDS_CSUM, 60, 60);
        let mut segmented = [0; HEADER_LEN];
        (segmented[0], segmented[1], segmented[4]) = (NEEDS_CSUM, GSO_TCPV4, 100);
        rig.write(0x1_0000, &beyond);
        rig.write(0x1_0100, &segmented);
        rig.write(0x1_0200, &[0; HEADER_LEN]);
        rig.offer(TRANSMIT, &[(0x1_0000, 12), (0x1_1000, 64)], &[]);
        rig.offer(TRANSMIT, &[(0x1_0100, 12), (0x1_1000, 200)], &[]);
        rig.offer(TRANSMIT, &[(0x1_0200, 12), (u64::MAX - 3, 64)], &[]);
        rig.offer(TRANSMIT, &[(0x1_0200, 12), (0x1_1000, 70_000)], &[]);
        rig.offer(TRANSMIT, &[(0x1_0200, 4)], &[]);
        rig.offer(TRANSMIT, &[], &[(0x1_0200, 100)]);
        rig.offer(TRANSMIT, &[(0x1_0200, 12), (0x1_1000, 99)], &[]);
        rig.run();
        assert_eq!(rig.used(TRANSMIT).len(), 7);
        assert_eq!(read_frame(&mut peer).len(), 99);
    }

    #[test]
    fn a_wire_that_is_gone_is_not_waited_for() {
        let (mut rig, peer) = rig();
        drop(peer);
        rig.offer(RECEIVE, &[], &[(0x2_0000, 2000)]);
        assert_eq!(
            rig.run(),
            After::Wait {
                readable: false,
                timeout: None
            }
        );
    }

    #[test]
    fn rings_that_make_no_sense_break_the_device_and_nothing_else() {
        let (mut rig, _peer) = rig();
        for _ in 0..SIZE * 2 {
            rig.make_available(TRANSMIT, 0);
        }
        let broken = rig.try_run().unwrap_err();
        assert_eq!(broken.index, 1);
    }
}
