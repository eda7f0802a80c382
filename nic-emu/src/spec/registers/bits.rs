//! Bits of the registers that mean something to the device or to the driver (SDM chapter 13).

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
    /// Few descriptors wait for transmission.
    pub const TXD_LOW: u32 = 1 << 15;
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

/// Bits of RXCSUM.
pub mod rxcsum {
    /// Reports the IPv4 header's checksum.
    pub const IPOFL: u32 = 1 << 8;
    /// Reports TCP and UDP checksums.
    pub const TUOFL: u32 = 1 << 9;
    /// Does so for IPv6, too.
    pub const IPV6OFL: u32 = 1 << 10;
}

/// Fields of TXDCTL.
pub mod txdctl {
    /// LWTHRESH: so many waiting descriptors are few, in units of 8; 0 is none.
    pub const fn low_threshold(txdctl: u32) -> u32 {
        (txdctl >> 25) * 8
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
