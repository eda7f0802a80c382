//! The blocks of a pcapng file (draft-ietf-opsawg-pcapng): bytes only, no file here. Everything is little-endian, as the
//! section header says.

/// Block types (section 11.1).
const SECTION_HEADER: u32 = 0x0a0d_0d0a;
const INTERFACE_DESCRIPTION: u32 = 1;
const INTERFACE_STATISTICS: u32 = 5;
const ENHANCED_PACKET: u32 = 6;

/// The byte-order magic of a section header, and its version.
const BYTE_ORDER: u32 = 0x1a2b_3c4d;
const VERSION_MAJOR: u16 = 1;
const VERSION_MINOR: u16 = 0;

/// Link type Ethernet (tcpdump.org, LINKTYPE_ETHERNET).
const LINKTYPE_ETHERNET: u16 = 1;

/// Options: end of options; the application that writes the file; an interface's name, its resolution of time, what a
/// packet's way was; packets that the interface brought and that are not in the file.
const OPT_END: u16 = 0;
const SHB_USERAPPL: u16 = 4;
const IF_NAME: u16 = 2;
const IF_TSRESOL: u16 = 9;
const EPB_FLAGS: u16 = 2;
const ISB_IFDROP: u16 = 5;

/// Units of time are ten to the power of minus nine of a second.
const NANOSECONDS: u8 = 9;

/// What a packet's block is longer than the kept part of the frame, at most: its fixed fields 32, padding 3, options 12.
pub const PACKET_OVERHEAD_MAX: usize = 47;

/// Which way a frame went, seen from the network device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    /// From the network to the device.
    Inbound,
    /// From the device to the network.
    Outbound,
}

impl Direction {
    /// Bits 0 and 1 of a packet's flags word (section 4.3.1).
    fn flags(self) -> u32 {
        match self {
            Self::Inbound => 1,
            Self::Outbound => 2,
        }
    }
}

/// One frame as it is written down.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Packet<'a> {
    /// Which interface, in the order of their descriptions.
    pub interface: u32,
    /// Nanoseconds since 1970.
    pub at_ns: u64,
    /// Which way it went.
    pub direction: Direction,
    /// The whole frame.
    pub frame: &'a [u8],
    /// How many bytes of it are kept at most.
    pub snap_len: usize,
}

/// Begins a file.
pub fn section_header(out: &mut Vec<u8>) {
    block(out, SECTION_HEADER, |body| {
        body.extend(BYTE_ORDER.to_le_bytes());
        body.extend(VERSION_MAJOR.to_le_bytes());
        body.extend(VERSION_MINOR.to_le_bytes());
        // The section's length is not said: it grows until the end.
        body.extend(u64::MAX.to_le_bytes());
        option(body, SHB_USERAPPL, b"coreferry");
        option(body, OPT_END, &[]);
    });
}

/// Describes the next interface.
pub fn interface(out: &mut Vec<u8>, name: &str, snap_len: u32) {
    block(out, INTERFACE_DESCRIPTION, |body| {
        body.extend(LINKTYPE_ETHERNET.to_le_bytes());
        body.extend([0, 0]);
        body.extend(snap_len.to_le_bytes());
        option(body, IF_NAME, name.as_bytes());
        option(body, IF_TSRESOL, &[NANOSECONDS]);
        option(body, OPT_END, &[]);
    });
}

/// One frame, cut to the length that is kept.
pub fn packet(out: &mut Vec<u8>, packet: &Packet<'_>) {
    let kept = packet.frame.get(..packet.snap_len).unwrap_or(packet.frame);
    block(out, ENHANCED_PACKET, |body| {
        body.extend(packet.interface.to_le_bytes());
        time(body, packet.at_ns);
        body.extend(len32(kept.len()).to_le_bytes());
        body.extend(len32(packet.frame.len()).to_le_bytes());
        body.extend(kept);
        pad(body);
        option(body, EPB_FLAGS, &packet.direction.flags().to_le_bytes());
        option(body, OPT_END, &[]);
    });
}

/// How many frames of an interface are not in the file.
pub fn statistics(out: &mut Vec<u8>, interface: u32, at_ns: u64, missed: u64) {
    block(out, INTERFACE_STATISTICS, |body| {
        body.extend(interface.to_le_bytes());
        time(body, at_ns);
        option(body, ISB_IFDROP, &missed.to_le_bytes());
        option(body, OPT_END, &[]);
    });
}

/// A block: type, length, body, length again (section 3.1).
fn block(out: &mut Vec<u8>, kind: u32, fill: impl FnOnce(&mut Vec<u8>)) {
    out.extend(kind.to_le_bytes());
    let length_at = out.len();
    out.extend([0; 4]);
    let start = length_at - 4;
    fill(out);
    let length = len32(out.len() - start + 4).to_le_bytes();
    out.extend(length);
    if let Some(field) = out.get_mut(length_at..length_at + 4) {
        field.copy_from_slice(&length);
    }
}

/// Time is in two halves, the upper one first (section 4.3).
fn time(body: &mut Vec<u8>, at_ns: u64) {
    let [a, b, c, d, e, f, g, h] = at_ns.to_le_bytes();
    body.extend([e, f, g, h, a, b, c, d]);
}

/// An option's code, length and value (section 3.5).
fn option(body: &mut Vec<u8>, code: u16, value: &[u8]) {
    body.extend(code.to_le_bytes());
    body.extend(u16::try_from(value.len()).unwrap_or(u16::MAX).to_le_bytes());
    body.extend(value.get(..usize::from(u16::MAX)).unwrap_or(value));
    pad(body);
}

/// Fields are aligned to 32 bits; every block begins at a multiple of that.
fn pad(body: &mut Vec<u8>) {
    body.resize(body.len().next_multiple_of(4), 0);
}

fn len32(len: usize) -> u32 {
    u32::try_from(len).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Type and body of each block, both lengths checked.
    fn blocks(mut bytes: &[u8]) -> Vec<(u32, Vec<u8>)> {
        let word = |bytes: &[u8], at: usize| u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap());
        let mut found = Vec::new();
        while !bytes.is_empty() {
            let len = word(bytes, 4) as usize;
            assert_eq!(len % 4, 0);
            assert_eq!(word(bytes, len - 4) as usize, len);
            found.push((word(bytes, 0), bytes[8..len - 4].to_vec()));
            bytes = &bytes[len..];
        }
        found
    }

    #[test]
    fn every_block_has_its_length_at_both_ends_whatever_it_holds() {
        let mut out = Vec::new();
        section_header(&mut out);
        interface(&mut out, "net0", 64);
        let frame: Vec<u8> = (0..100).collect();
        for len in 0..100 {
            let direction = if len % 2 == 0 {
                Direction::Inbound
            } else {
                Direction::Outbound
            };
            let frame = &frame[..len];
            let at_ns = 0x1122_3344_5566_7788;
            packet(
                &mut out,
                &Packet {
                    interface: 0,
                    at_ns,
                    direction,
                    frame,
                    snap_len: 64,
                },
            );
        }
        statistics(&mut out, 0, 1, 7);
        let blocks = blocks(&out);
        assert_eq!(blocks.len(), 103);
        for (len, (kind, body)) in blocks[2..102].iter().enumerate() {
            assert_eq!(*kind, ENHANCED_PACKET);
            assert_eq!(body[4..12], [0x44, 0x33, 0x22, 0x11, 0x88, 0x77, 0x66, 0x55]);
            let kept = len.min(64);
            assert_eq!(body[12..16], u32::try_from(kept).unwrap().to_le_bytes());
            assert_eq!(body[16..20], u32::try_from(len).unwrap().to_le_bytes());
            assert_eq!(body[20..20 + kept], frame[..kept]);
            let flags = &body[20 + kept.next_multiple_of(4)..];
            assert_eq!(flags[..8], [2, 0, 4, 0, if len % 2 == 0 { 1 } else { 2 }, 0, 0, 0]);
        }
    }
}
