//! The PHY: a Marvell 88E1011 at MDIO address 1 (IEEE 802.3 clause 22; Marvell registers as
//! the Linux `e1000` and FreeBSD `lem` drivers name them).

/// MDIO address of the PHY.
pub const ADDRESS: u32 = 1;

/// Registers of a PHY.
pub const REGISTERS: usize = 32;

/// Basic control.
pub const BMCR: u8 = 0;
/// Basic status.
pub const BMSR: u8 = 1;
/// Identifier, high half.
pub const ID1: u8 = 2;
/// Identifier, low half; its low 4 bits are the revision.
pub const ID2: u8 = 3;
/// Auto-negotiation advertisement.
pub const ANAR: u8 = 4;
/// Link partner ability.
pub const ANLPAR: u8 = 5;
/// Auto-negotiation expansion.
pub const ANER: u8 = 6;
/// 1000BASE-T control.
pub const CTRL_1000T: u8 = 9;
/// 1000BASE-T status.
pub const STATUS_1000T: u8 = 10;
/// Extended status.
pub const EXT_STATUS: u8 = 15;
/// Marvell: specific control.
pub const PSCR: u8 = 16;
/// Marvell: specific status.
pub const PSSR: u8 = 17;
/// Marvell: extended specific control.
pub const EPSCR: u8 = 20;
/// Marvell: receive errors.
pub const RX_ERRORS: u8 = 21;

/// Bits of BMCR.
pub mod bmcr {
    /// Resets the PHY; reads 0.
    pub const RESET: u16 = 1 << 15;
    /// Loops frames back.
    pub const LOOPBACK: u16 = 1 << 14;
    /// Power-down: no link while set.
    pub const POWER_DOWN: u16 = 1 << 11;
    /// Starts auto-negotiation anew; reads 0.
    pub const RESTART: u16 = 1 << 9;
}

/// Bits of BMSR.
pub mod bmsr {
    /// Link up; latches low until read.
    pub const LINK: u16 = 1 << 2;
    /// Auto-negotiation complete.
    pub const NEGOTIATED: u16 = 1 << 5;
}

/// Link bit of PSSR, live.
pub const PSSR_LINK: u16 = 1 << 10;

/// Reset values of all registers, link up and negotiated.
pub const RESET: [u16; REGISTERS] = [
    0x1140, 0x796D, 0x0141, 0x0C20, 0x0DE1, 0x41E0, 0, 0, 0, 0x0E00, 0x3C00, 0, 0, 0, 0, 0x3000, 0x0360, 0xAC00, 0, 0,
    0x0D60, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
];

/// Does a write to this register have no effect?
pub const fn read_only(register: u8) -> bool {
    matches!(
        register,
        BMSR | ID1 | ID2 | ANLPAR | ANER | STATUS_1000T | EXT_STATUS | PSSR | RX_ERRORS
    )
}
