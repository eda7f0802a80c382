//! The registers of BAR0: offsets, reset values, writable bits, access rules (SDM chapter 13).
//!
//! Reset values are those of a device with its link up. Masks of the registers that Linux `ethtool -t` verifies are
//! exactly what that test expects.

/// Size of BAR0 in bytes (SDM chapter 4, base address registers).
pub const BAR0_LEN: u32 = 0x2_0000;

/// Size of the I/O BAR in bytes: IOADDR and IODATA (SDM chapter 13, I/O-mapped access).
pub const IO_BAR_LEN: u32 = 8;

/// Offset of IOADDR in the I/O BAR: the register that IODATA reaches.
pub const IOADDR: u32 = 0;

/// Offset of IODATA in the I/O BAR: reads and writes the register at IOADDR, with all side effects.
pub const IODATA: u32 = 4;

/// How a register answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// Keeps what is written, under its mask.
    Storage,
    /// Ignores writes.
    ReadOnly,
    /// A counter: ignores writes, saturates, and a read clears it.
    Statistic,
    /// Reads or writes do something; the device handles each of these by name.
    Effect,
}

/// One row of the register table: a register, or a run of alike ones.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RegisterSpec {
    /// Name as in the SDM.
    pub name: &'static str,
    /// Byte offset in BAR0 of the first.
    pub offset: u32,
    /// How many.
    pub count: u32,
    /// Bytes from one to the next.
    pub stride: u32,
    /// Value after power-on and CTRL.RST.
    pub reset: u32,
    /// Bits that keep what is written.
    pub mask: u32,
    /// How it answers.
    pub access: Access,
}

/// Declares offsets as constants and collects them, with everything else, in [`TABLE`].
macro_rules! registers {
    ($($(#[$doc:meta])* $name:ident = $offset:literal $([$count:literal / $stride:literal])?, $reset:literal, $mask:literal, $access:ident;)*) => {
        $($(#[$doc])* pub const $name: u32 = $offset;)*

        /// Every register that the device knows, statistics excepted (see [`statistics`]).
        pub const TABLE: &[RegisterSpec] = &[$(RegisterSpec {
            name: stringify!($name),
            offset: $offset,
            count: registers!(@or 1 $($count)?),
            stride: registers!(@or 4 $($stride)?),
            reset: $reset,
            mask: $mask,
            access: Access::$access,
        },)*];
    };
    (@or $default:literal) => { $default };
    (@or $default:literal $given:literal) => { $given };
}

registers! {
    /// Device control, see [`ctrl`].
    CTRL = 0x0000, 0x0014_0240, 0x7BFF_FFFF, Effect;
    /// Device status, see [`status`].
    STATUS = 0x0008, 0x8008_0783, 0, ReadOnly;
    /// EEPROM wires, see [`eecd`].
    EECD = 0x0010, 0x188, 0x77, Effect;
    /// EEPROM read, see [`eerd`].
    EERD = 0x0014, 0, 0xFFFF_FFFF, Effect;
    /// Extended control, see [`ctrl_ext`].
    CTRL_EXT = 0x0018, 0, 0xFFFF_DFFF, Effect;
    /// Flash access; inert, there is no flash.
    FLA = 0x001C, 0, 0xFFFF_FFFF, Storage;
    /// PHY management, see [`mdic`].
    MDIC = 0x0020, 0, 0xFFFF_FFFF, Effect;
    /// Flow control address, low; inert.
    FCAL = 0x0028, 0, 0xFFFF_FFFF, Storage;
    /// Flow control address, high; inert.
    FCAH = 0x002C, 0, 0xFFFF, Storage;
    /// Flow control EtherType; inert.
    FCT = 0x0030, 0, 0xFFFF, Storage;
    /// EtherType of VLAN tags.
    VET = 0x0038, 0x8100, 0xFFFF, Storage;
    /// Interrupt causes; a read clears all of them, written ones clear.
    ICR = 0x00C0, 0, 0, Effect;
    /// Least spacing of interrupts in units of 256 ns; 0 is none.
    ITR = 0x00C4, 0, 0xFFFF, Effect;
    /// Sets interrupt causes; reads as ICR without clearing.
    ICS = 0x00C8, 0, 0, Effect;
    /// Sets interrupt mask bits; reads as the mask.
    IMS = 0x00D0, 0, 0, Effect;
    /// Clears interrupt mask bits.
    IMC = 0x00D8, 0, 0, Effect;
    /// Receive control, see [`rctl`].
    RCTL = 0x0100, 0, 0xFFFF_FFFF, Effect;
    /// Pause time that would be sent; inert.
    FCTTV = 0x0170, 0, 0xFFFF, Storage;
    /// Transmit configuration of fibre parts; inert.
    TXCW = 0x0178, 0, 0xC000_FFFF, Storage;
    /// Receive configuration of fibre parts; reads 0.
    RXCW = 0x0180, 0, 0, ReadOnly;
    /// Transmit control, see [`tctl`].
    TCTL = 0x0400, 0, 0xFFFF_FFFF, Effect;
    /// Gaps between transmitted frames; inert.
    TIPG = 0x0410, 0, 0x3FFF_FFFF, Storage;
    /// Adaptive inter-frame spacing; inert.
    AIT = 0x0458, 0, 0xFFFF, Storage;
    /// LEDs; inert.
    LEDCTL = 0x0E00, 0x602, 0xFFFF_FFFF, Storage;
    /// Split of the 64 KiB packet buffer, receive half in the low 16 bits; survives CTRL.RST.
    PBA = 0x1000, 0x0010_0030, 0xFFFF, Effect;
    /// Free-running timer in microseconds.
    FRTIMER = 0x1048, 0, 0, Effect;
    /// Flow control threshold, low; inert.
    FCRTL = 0x2160, 0, 0x8000_FFF8, Storage;
    /// Flow control threshold, high; inert.
    FCRTH = 0x2168, 0, 0xFFF8, Storage;
    /// Receive FIFO diagnostics: RDFH, RDFT, RDFHS, RDFTS, RDFPC.
    RDFH = 0x2410 [5 / 8], 0, 0x1FFF, Storage;
    /// Receive descriptor ring address, low half.
    RDBAL = 0x2800, 0, 0xFFFF_FFF0, Storage;
    /// Receive descriptor ring address, high half.
    RDBAH = 0x2804, 0, 0xFFFF_FFFF, Storage;
    /// Receive descriptor ring length in bytes.
    RDLEN = 0x2808, 0, 0x000F_FF80, Storage;
    /// Receive descriptor head: the next one that hardware fills.
    RDH = 0x2810, 0, 0xFFFF, Storage;
    /// Receive descriptor tail: one past the last that hardware may fill.
    RDT = 0x2818, 0, 0xFFFF, Effect;
    /// Receive interrupt delay in units of 1.024 us; bit 31 flushes.
    RDTR = 0x2820, 0, 0xFFFF, Effect;
    /// Receive descriptor control: thresholds; inert.
    RXDCTL = 0x2828, 0x0101_0000, 0xFF3F_3F3F, Storage;
    /// Absolute cap of the receive interrupt delay in units of 1.024 us.
    RADV = 0x282C, 0, 0xFFFF, Storage;
    /// Frames up to this length raise the small-packet cause.
    RSRPD = 0x2C00, 0, 0xFFF, Storage;
    /// Transmit FIFO diagnostics: TDFH, TDFT, TDFHS, TDFTS, TDFPC.
    TDFH = 0x3410 [5 / 8], 0, 0x1FFF, Storage;
    /// Transmit descriptor ring address, low half.
    TDBAL = 0x3800, 0, 0xFFFF_FFF0, Storage;
    /// Transmit descriptor ring address, high half.
    TDBAH = 0x3804, 0, 0xFFFF_FFFF, Storage;
    /// Transmit descriptor ring length in bytes.
    TDLEN = 0x3808, 0, 0x000F_FF80, Storage;
    /// Transmit descriptor head: the next one that hardware takes.
    TDH = 0x3810, 0, 0xFFFF, Storage;
    /// Transmit descriptor tail: one past the last that software filled; a write is the doorbell.
    TDT = 0x3818, 0, 0xFFFF, Effect;
    /// Transmit interrupt delay in units of 1.024 us.
    TIDV = 0x3820, 0, 0xFFFF, Storage;
    /// Transmit descriptor control: thresholds; inert.
    TXDCTL = 0x3828, 0, 0xFF3F_3F3F, Storage;
    /// Absolute cap of the transmit interrupt delay in units of 1.024 us.
    TADV = 0x382C, 0, 0xFFFF, Storage;
    /// Segmentation pad and threshold; inert.
    TSPMT = 0x3830, 0x0100_0400, 0xFFFF_FFFF, Storage;
    /// Receive checksum control; kept, but every frame is reported as "checksum not looked at".
    RXCSUM = 0x5000, 0, 0x7FF, Storage;
    /// Multicast hash table, 4096 bits.
    MTA = 0x5200 [128 / 4], 0, 0xFFFF_FFFF, Storage;
    /// Receive addresses, bytes 0 to 3.
    RAL = 0x5400 [16 / 8], 0, 0xFFFF_FFFF, Storage;
    /// Receive addresses, bytes 4 and 5, and the valid bit.
    RAH = 0x5404 [16 / 8], 0, 0x8003_FFFF, Storage;
    /// VLAN filter table, one bit per VLAN.
    VFTA = 0x5600 [128 / 4], 0, 0xFFFF_FFFF, Storage;
    /// Wake-up control; inert.
    WUC = 0x5800, 0, 0xFFFF_FFFF, Storage;
    /// Wake-up filter control; inert.
    WUFC = 0x5808, 0, 0xFFFF_FFFF, Storage;
    /// Wake-up status; always 0, so "write 1 to clear" has nothing to do.
    WUS = 0x5810, 0, 0, ReadOnly;
    /// Management control. SMBUS_EN (bit 0) stays 0, else Linux refuses to power the PHY down.
    MANC = 0x5820, 0x0022_2300, 0xFFFF_FFFE, Storage;
    /// Wake-up: which addresses are valid; inert.
    IPAV = 0x5838, 0, 0xFFFF_FFFF, Storage;
    /// Wake-up: IPv4 addresses; inert.
    IP4AT = 0x5840 [8 / 4], 0, 0xFFFF_FFFF, Storage;
    /// Wake-up: IPv6 address; inert.
    IP6AT = 0x5880 [4 / 4], 0, 0xFFFF_FFFF, Storage;
    /// Wake-up packet length; inert.
    WUPL = 0x5900, 0, 0, ReadOnly;
    /// Wake-up packet memory; reads 0.
    WUPM = 0x5A00 [32 / 4], 0, 0, ReadOnly;
    /// Flexible filter lengths; inert.
    FFLT = 0x5F00 [4 / 8], 0, 0x7FF, Storage;
    /// Flexible filter masks; inert.
    FFMT = 0x9000 [128 / 8], 0, 0xF, Storage;
    /// Flexible filter values; inert.
    FFVT = 0x9800 [128 / 8], 0, 0xFFFF_FFFF, Storage;
}

/// Bits of CTRL.
pub mod ctrl {
    /// Set link up.
    pub const SLU: u32 = 1 << 6;
    /// Resets the device; reads 0.
    pub const RST: u32 = 1 << 26;
    /// Inserts and strips VLAN tags.
    pub const VME: u32 = 1 << 30;
    /// Resets the PHY; reads 0.
    pub const PHY_RST: u32 = 1 << 31;
}

/// Bits of STATUS.
pub mod status {
    /// Link up.
    pub const LU: u32 = 1 << 1;
}

/// Bits of EECD.
pub mod eecd {
    /// Clock.
    pub const SK: u32 = 1 << 0;
    /// Chip select.
    pub const CS: u32 = 1 << 1;
    /// Data into the EEPROM.
    pub const DI: u32 = 1 << 2;
    /// Data out of the EEPROM.
    pub const DO: u32 = 1 << 3;
    /// Software asks for the wires.
    pub const REQ: u32 = 1 << 6;
    /// Software has the wires; always, nobody else wants them.
    pub const GNT: u32 = 1 << 7;
    /// An EEPROM is there. SIZE (bit 9) is 0: 64 words, 6 address bits.
    pub const PRES: u32 = 1 << 8;
}

/// Bits of EERD.
pub mod eerd {
    /// Starts a read; reads 0.
    pub const START: u32 = 1 << 0;
    /// The read is done.
    pub const DONE: u32 = 1 << 4;
    /// Where the word address stands, 8 bits.
    pub const ADDRESS_SHIFT: u32 = 8;
    /// Where the data stands, 16 bits.
    pub const DATA_SHIFT: u32 = 16;
}

/// Bits of CTRL_EXT.
pub mod ctrl_ext {
    /// Loads the EEPROM's contents into the device again; reads 0.
    pub const EE_RST: u32 = 1 << 13;
}

/// Bits of MDIC.
pub mod mdic {
    /// Where the PHY register stands, 5 bits.
    pub const REGISTER_SHIFT: u32 = 16;
    /// Where the PHY address stands, 5 bits.
    pub const ADDRESS_SHIFT: u32 = 21;
    /// Operation: write.
    pub const WRITE: u32 = 1 << 26;
    /// Operation: read.
    pub const READ: u32 = 1 << 27;
    /// The operation is done.
    pub const READY: u32 = 1 << 28;
    /// Raise MDAC when done.
    pub const INTERRUPT: u32 = 1 << 29;
    /// The operation failed.
    pub const ERROR: u32 = 1 << 30;
}

/// Interrupt causes: bits of ICR, ICS, IMS, IMC.
pub mod cause {
    /// A descriptor with RS was written back.
    pub const TXDW: u32 = 1 << 0;
    /// The transmit ring is empty.
    pub const TXQE: u32 = 1 << 1;
    /// Link status changed.
    pub const LSC: u32 = 1 << 2;
    /// Receive sequence error.
    pub const RXSEQ: u32 = 1 << 3;
    /// Few receive descriptors are left.
    pub const RXDMT0: u32 = 1 << 4;
    /// A frame was lost for want of room.
    pub const RXO: u32 = 1 << 6;
    /// A frame was received.
    pub const RXT0: u32 = 1 << 7;
    /// An MDIC operation is done.
    pub const MDAC: u32 = 1 << 9;
    /// A small frame was received.
    pub const SRPD: u32 = 1 << 16;
    /// Every bit that ICR and IMS have here.
    pub const ALL: u32 = 0x0001_FFFF;
}

/// Bits of RCTL.
pub mod rctl {
    /// Receiver on.
    pub const EN: u32 = 1 << 1;
    /// Store bad (here: overlong) frames.
    pub const SBP: u32 = 1 << 2;
    /// Accept all unicast.
    pub const UPE: u32 = 1 << 3;
    /// Accept all multicast.
    pub const MPE: u32 = 1 << 4;
    /// Long frames: up to 16 KiB.
    pub const LPE: u32 = 1 << 5;
    /// Loopback mode, 2 bits; 0 is none.
    pub const LBM: u32 = 3 << 6;
    /// Where the low-on-descriptors threshold stands, 2 bits.
    pub const RDMTS_SHIFT: u32 = 8;
    /// Where the multicast hash offset stands, 2 bits.
    pub const MO_SHIFT: u32 = 12;
    /// Accept broadcast.
    pub const BAM: u32 = 1 << 15;
    /// Where the buffer size stands, 2 bits.
    pub const BSIZE_SHIFT: u32 = 16;
    /// Use the VLAN filter.
    pub const VFE: u32 = 1 << 18;
    /// Buffer sizes times 16.
    pub const BSEX: u32 = 1 << 25;
    /// Strip the CRC.
    pub const SECRC: u32 = 1 << 26;

    /// Size in bytes of every receive buffer; the reserved encoding counts as 2048, so it is never 0.
    pub const fn buffer_len(rctl: u32) -> usize {
        match ((rctl >> BSIZE_SHIFT) & 3, rctl & BSEX != 0) {
            (0, _) => 2048,
            (1, false) => 1024,
            (2, false) => 512,
            (_, false) => 256,
            (1, true) => 16_384,
            (2, true) => 8192,
            (_, true) => 4096,
        }
    }
}

/// Bits of TCTL.
pub mod tctl {
    /// Transmitter on.
    pub const EN: u32 = 1 << 1;
    /// Pad short frames.
    pub const PSP: u32 = 1 << 3;
    /// Collision threshold and distance for full duplex, as drivers write them.
    pub const COLLISION: u32 = (0x0F << 4) | (0x3F << 12);
}

/// The valid bit of RAH.
pub const RAH_AV: u32 = 1 << 31;

/// The statistics block (SDM chapter 13, statistics registers): counters that saturate and that a read clears.
pub mod statistics {
    /// First counter.
    pub const FIRST: u32 = 0x4000;
    /// Last counter.
    pub const LAST: u32 = 0x40FC;
    /// Missed frames.
    pub const MPC: u32 = 0x4010;
    /// Received frames by length with CRC: the 64-byte bin, five more follow.
    pub const PRC64: u32 = 0x405C;
    /// Good frames received.
    pub const GPRC: u32 = 0x4074;
    /// Broadcast frames received.
    pub const BPRC: u32 = 0x4078;
    /// Multicast frames received.
    pub const MPRC: u32 = 0x407C;
    /// Good frames transmitted.
    pub const GPTC: u32 = 0x4080;
    /// Good octets received, low half; the high half follows.
    pub const GORCL: u32 = 0x4088;
    /// Good octets transmitted, low half; the high half follows.
    pub const GOTCL: u32 = 0x4090;
    /// Frames lost because no receive buffer was free.
    pub const RNBC: u32 = 0x40A0;
    /// Undersized frames.
    pub const RUC: u32 = 0x40A4;
    /// Oversized frames.
    pub const ROC: u32 = 0x40AC;
    /// All octets received, low half; the high half follows.
    pub const TORL: u32 = 0x40C0;
    /// All octets transmitted, low half; the high half follows.
    pub const TOTL: u32 = 0x40C8;
    /// All frames received.
    pub const TPR: u32 = 0x40D0;
    /// All frames transmitted.
    pub const TPT: u32 = 0x40D4;
    /// Transmitted frames by length with CRC: the 64-byte bin, five more follow.
    pub const PTC64: u32 = 0x40D8;
    /// Multicast frames transmitted.
    pub const MPTC: u32 = 0x40F0;
    /// Broadcast frames transmitted.
    pub const BPTC: u32 = 0x40F4;
    /// Packets segmented.
    pub const TSCTC: u32 = 0x40F8;
    /// Packets whose segmentation failed.
    pub const TSCTFC: u32 = 0x40FC;
    /// High halves of 64-bit counters: reading one clears its low half too.
    pub const HIGH_HALVES: [u32; 4] = [GORCL + 4, GOTCL + 4, TORL + 4, TOTL + 4];

    /// Is this offset a statistics register?
    pub const fn contains(offset: u32) -> bool {
        offset >= FIRST && offset <= LAST
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_two_registers_share_an_offset_and_all_fit_bar0() {
        let mut seen = std::collections::BTreeSet::new();
        for spec in TABLE {
            for n in 0..spec.count {
                let offset = spec.offset + n * spec.stride;
                assert_eq!(offset % 4, 0, "{}", spec.name);
                assert!(offset < BAR0_LEN && !statistics::contains(offset), "{}", spec.name);
                assert!(seen.insert(offset), "{} at {offset:#x} collides", spec.name);
            }
        }
    }

    #[test]
    fn buffer_len_is_never_zero() {
        for bsize in 0..4 {
            for bsex in [0, rctl::BSEX] {
                assert!(rctl::buffer_len(bsize << rctl::BSIZE_SHIFT | bsex) >= 256);
            }
        }
    }
}
