//! The registers of BAR0: offsets, reset values, writable bits, access rules (SDM chapter 13).
//!
//! Reset values are those of a device with its link up. Masks of the registers that Linux `ethtool -t` verifies are
//! exactly what that test expects.

mod bits;
pub mod statistics;

pub use bits::{cause, ctrl, ctrl_ext, eecd, eerd, mdic, rctl, rxcsum, status, tctl, txdctl};

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
    /// Who reads or writes it: F the `lem` driver of FreeBSD, L the `e1000` driver of Linux, T that driver's self-test
    /// (`ethtool -t`), W others (firmware, Windows, small systems). Empty: nobody that is known.
    pub used_by: &'static str,
    /// What it is, as documentation.
    pub about: &'static str,
}

/// Declares offsets as constants and collects them, with everything else, in [`TABLE`].
macro_rules! registers {
    ($($(#[doc = $doc:literal])* $name:ident = $offset:literal $([$count:literal / $stride:literal])?, $reset:literal, $mask:literal, $access:ident, $used_by:literal;)*) => {
        $($(#[doc = $doc])* pub const $name: u32 = $offset;)*

        /// Every register that the device knows, statistics excepted (see [`statistics`]).
        pub const TABLE: &[RegisterSpec] = &[$(RegisterSpec {
            name: stringify!($name),
            offset: $offset,
            count: registers!(@or 1 $($count)?),
            stride: registers!(@or 4 $($stride)?),
            reset: $reset,
            mask: $mask,
            access: Access::$access,
            used_by: $used_by,
            about: concat!($($doc,)*),
        },)*];
    };
    (@or $default:literal) => { $default };
    (@or $default:literal $given:literal) => { $given };
}

registers! {
    /// Device control, see [`ctrl`].
    CTRL = 0x0000, 0x0014_0240, 0x7BFF_FFFF, Effect, "F L";
    /// Device status, see [`status`].
    STATUS = 0x0008, 0x8008_0783, 0, ReadOnly, "F L";
    /// EEPROM wires, see [`eecd`].
    EECD = 0x0010, 0x188, 0x77, Effect, "F L";
    /// EEPROM read, see [`eerd`].
    EERD = 0x0014, 0, 0xFFFF_FFFF, Effect, "W";
    /// Extended control, see [`ctrl_ext`].
    CTRL_EXT = 0x0018, 0, 0xFFFF_DFFF, Effect, "F";
    /// Flash access; inert, there is no flash.
    FLA = 0x001C, 0, 0xFFFF_FFFF, Storage, "";
    /// PHY management, see [`mdic`].
    MDIC = 0x0020, 0, 0xFFFF_FFFF, Effect, "F L";
    /// Flow control address, low; inert.
    FCAL = 0x0028, 0, 0xFFFF_FFFF, Storage, "F L T";
    /// Flow control address, high; inert.
    FCAH = 0x002C, 0, 0xFFFF, Storage, "F L T";
    /// Flow control EtherType; inert.
    FCT = 0x0030, 0, 0xFFFF, Storage, "F L T";
    /// EtherType of VLAN tags.
    VET = 0x0038, 0x8100, 0xFFFF, Storage, "F L T";
    /// Interrupt causes; a read clears all of them, written ones clear.
    ICR = 0x00C0, 0, 0, Effect, "F L";
    /// Least spacing of interrupts in units of 256 ns; 0 is none.
    ITR = 0x00C4, 0, 0xFFFF, Effect, "F L";
    /// Sets interrupt causes; reads as ICR without clearing.
    ICS = 0x00C8, 0, 0, Effect, "F L";
    /// Sets interrupt mask bits; reads as the mask.
    IMS = 0x00D0, 0, 0, Effect, "F L";
    /// Clears interrupt mask bits.
    IMC = 0x00D8, 0, 0, Effect, "F L";
    /// Receive control, see [`rctl`].
    RCTL = 0x0100, 0, 0xFFFF_FFFF, Effect, "F L T";
    /// Pause time that would be sent; inert.
    FCTTV = 0x0170, 0, 0xFFFF, Storage, "F L T";
    /// Transmit configuration of fibre parts; inert.
    TXCW = 0x0178, 0, 0xC000_FFFF, Storage, "T";
    /// Receive configuration of fibre parts; reads 0.
    RXCW = 0x0180, 0, 0, ReadOnly, "";
    /// Transmit control, see [`tctl`].
    TCTL = 0x0400, 0, 0xFFFF_FFFF, Effect, "F L";
    /// Gaps between transmitted frames; inert.
    TIPG = 0x0410, 0, 0x3FFF_FFFF, Storage, "F L T";
    /// Adaptive inter-frame spacing; inert.
    AIT = 0x0458, 0, 0xFFFF, Storage, "L";
    /// LEDs; inert.
    LEDCTL = 0x0E00, 0x602, 0xFFFF_FFFF, Storage, "F L";
    /// Split of the 64 KiB packet buffer, receive half in the low 16 bits; survives CTRL.RST.
    PBA = 0x1000, 0x0010_0030, 0xFFFF, Effect, "F L";
    /// Free-running timer in microseconds.
    FRTIMER = 0x1048, 0, 0, Effect, "";
    /// Flow control threshold, low; inert.
    FCRTL = 0x2160, 0, 0x8000_FFF8, Storage, "L";
    /// Flow control threshold, high; inert.
    FCRTH = 0x2168, 0, 0xFFF8, Storage, "L T";
    /// Receive FIFO diagnostics: RDFH, RDFT, RDFHS, RDFTS, RDFPC.
    RDFH = 0x2410 [5 / 8], 0, 0x1FFF, Storage, "F";
    /// Receive descriptor ring address, low half.
    RDBAL = 0x2800, 0, 0xFFFF_FFF0, Storage, "F L T";
    /// Receive descriptor ring address, high half.
    RDBAH = 0x2804, 0, 0xFFFF_FFFF, Storage, "F L T";
    /// Receive descriptor ring length in bytes.
    RDLEN = 0x2808, 0, 0x000F_FF80, Storage, "F L T";
    /// Receive descriptor head: the next one that hardware fills.
    RDH = 0x2810, 0, 0xFFFF, Storage, "F L T";
    /// Receive descriptor tail: one past the last that hardware may fill.
    RDT = 0x2818, 0, 0xFFFF, Effect, "F L T";
    /// Receive interrupt delay in units of 1.024 us; bit 31 flushes.
    RDTR = 0x2820, 0, 0xFFFF, Effect, "F L T";
    /// Receive descriptor control: thresholds; inert.
    RXDCTL = 0x2828, 0x0101_0000, 0xFF3F_3F3F, Storage, "F";
    /// Absolute cap of the receive interrupt delay in units of 1.024 us.
    RADV = 0x282C, 0, 0xFFFF, Storage, "F L";
    /// Frames up to this length raise the small-packet cause.
    RSRPD = 0x2C00, 0, 0xFFF, Storage, "";
    /// Transmit FIFO diagnostics: TDFH, TDFT.
    TDFH = 0x3410 [2 / 8], 0, 0x7FF, Storage, "F";
    /// Transmit FIFO diagnostics: TDFHS, TDFTS, TDFPC.
    TDFHS = 0x3420 [3 / 8], 0, 0x1FFF, Storage, "F";
    /// Transmit descriptor ring address, low half.
    TDBAL = 0x3800, 0, 0xFFFF_FFF0, Storage, "F L T";
    /// Transmit descriptor ring address, high half.
    TDBAH = 0x3804, 0, 0xFFFF_FFFF, Storage, "F L T";
    /// Transmit descriptor ring length in bytes.
    TDLEN = 0x3808, 0, 0x000F_FF80, Storage, "F L T";
    /// Transmit descriptor head: the next one that hardware takes.
    TDH = 0x3810, 0, 0xFFFF, Storage, "F L";
    /// Transmit descriptor tail: one past the last that software filled; a write is the doorbell.
    TDT = 0x3818, 0, 0xFFFF, Effect, "F L";
    /// Transmit interrupt delay in units of 1.024 us.
    TIDV = 0x3820, 0, 0xFFFF, Storage, "F L T";
    /// Transmit descriptor control: thresholds, of which only the low one (bits 31:25) does something.
    TXDCTL = 0x3828, 0, 0xFF3F_3F3F, Storage, "F L";
    /// Absolute cap of the transmit interrupt delay in units of 1.024 us.
    TADV = 0x382C, 0, 0xFFFF, Storage, "F L";
    /// Segmentation pad and threshold; inert.
    TSPMT = 0x3830, 0x0100_0400, 0xFFFF_FFFF, Storage, "";
    /// Receive checksum control, see [`rxcsum`].
    RXCSUM = 0x5000, 0, 0x7FF, Storage, "F L";
    /// Multicast hash table, 4096 bits.
    MTA = 0x5200 [128 / 4], 0, 0xFFFF_FFFF, Storage, "F L T";
    /// Receive addresses, bytes 0 to 3.
    RAL = 0x5400 [16 / 8], 0, 0xFFFF_FFFF, Storage, "F L";
    /// Receive addresses, bytes 4 and 5, and the valid bit.
    RAH = 0x5404 [16 / 8], 0, 0x8003_FFFF, Storage, "F L T";
    /// VLAN filter table, one bit per VLAN.
    VFTA = 0x5600 [128 / 4], 0, 0xFFFF_FFFF, Storage, "F L";
    /// Wake-up control; inert.
    WUC = 0x5800, 0, 0xFFFF_FFFF, Storage, "F L";
    /// Wake-up filter control; inert.
    WUFC = 0x5808, 0, 0xFFFF_FFFF, Storage, "F L";
    /// Wake-up status; always 0, so "write 1 to clear" has nothing to do.
    WUS = 0x5810, 0, 0, ReadOnly, "F L";
    /// Management control. SMBUS_EN (bit 0) stays 0, else Linux refuses to power the PHY down.
    MANC = 0x5820, 0x0022_2300, 0xFFFF_FFFE, Storage, "F L";
    /// Wake-up: which addresses are valid; inert.
    IPAV = 0x5838, 0, 0xFFFF_FFFF, Storage, "";
    /// Wake-up: IPv4 addresses; inert.
    IP4AT = 0x5840 [8 / 4], 0, 0xFFFF_FFFF, Storage, "";
    /// Wake-up: IPv6 address; inert.
    IP6AT = 0x5880 [4 / 4], 0, 0xFFFF_FFFF, Storage, "";
    /// Wake-up packet length; inert.
    WUPL = 0x5900, 0, 0, ReadOnly, "";
    /// Wake-up packet memory; reads 0.
    WUPM = 0x5A00 [32 / 4], 0, 0, ReadOnly, "";
    /// Flexible filter lengths; inert.
    FFLT = 0x5F00 [4 / 8], 0, 0x7FF, Storage, "";
    /// Flexible filter masks; inert.
    FFMT = 0x9000 [128 / 8], 0, 0xF, Storage, "";
    /// Flexible filter values; inert.
    FFVT = 0x9800 [128 / 8], 0, 0xFFFF_FFFF, Storage, "";
}

/// The valid bit of RAH.
pub const RAH_AV: u32 = 1 << 31;

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
