//! The statistics block (SDM chapter 13, statistics registers): counters that saturate and that a read clears.

/// First counter.
pub const FIRST: u32 = 0x4000;
/// Last counter.
pub const LAST: u32 = 0x40FC;

/// One counter, or a run of alike ones.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StatisticSpec {
    /// Name as in the SDM.
    pub name: &'static str,
    /// Byte offset in BAR0.
    pub offset: u32,
    /// Whether anything counts here; the others stay 0, because no wire has what they count.
    pub counts: bool,
    /// What it counts, as documentation.
    pub about: &'static str,
}

/// Declares those that count as constants, and collects all in [`TABLE`].
macro_rules! statistics {
    ($($(#[doc = $doc:literal])* $name:ident = $offset:literal;)* @always_zero $($zero:ident = $at:literal;)*) => {
        $($(#[doc = $doc])* pub const $name: u32 = $offset;)*

        /// Every counter; those that count first.
        pub const TABLE: &[StatisticSpec] = &[
            $(StatisticSpec { name: stringify!($name), offset: $offset, counts: true, about: concat!($($doc,)*) },)*
            $(StatisticSpec { name: stringify!($zero), offset: $at, counts: false, about: "" },)*
        ];
    };
}

statistics! {
    /// Missed frames.
    MPC = 0x4010;
    /// Received frames by length with CRC: up to 64 bytes; the five longer bins follow.
    PRC64 = 0x405C;
    /// Received frames of 65 to 127 bytes.
    PRC127 = 0x4060;
    /// Received frames of 128 to 255 bytes.
    PRC255 = 0x4064;
    /// Received frames of 256 to 511 bytes.
    PRC511 = 0x4068;
    /// Received frames of 512 to 1023 bytes.
    PRC1023 = 0x406C;
    /// Received frames of 1024 bytes and more.
    PRC1522 = 0x4070;
    /// Good frames received.
    GPRC = 0x4074;
    /// Broadcast frames received.
    BPRC = 0x4078;
    /// Multicast frames received.
    MPRC = 0x407C;
    /// Good frames transmitted.
    GPTC = 0x4080;
    /// Good octets received, low half; the high half follows.
    GORCL = 0x4088;
    /// Good octets received, high half; a read clears the low half, too.
    GORCH = 0x408C;
    /// Good octets transmitted, low half; the high half follows.
    GOTCL = 0x4090;
    /// Good octets transmitted, high half.
    GOTCH = 0x4094;
    /// Frames lost because no receive buffer was free.
    RNBC = 0x40A0;
    /// Oversized frames.
    ROC = 0x40AC;
    /// All octets received, low half; the high half follows.
    TORL = 0x40C0;
    /// All octets received, high half.
    TORH = 0x40C4;
    /// All octets transmitted, low half; the high half follows.
    TOTL = 0x40C8;
    /// All octets transmitted, high half.
    TOTH = 0x40CC;
    /// All frames received.
    TPR = 0x40D0;
    /// All frames transmitted.
    TPT = 0x40D4;
    /// Transmitted frames by length with CRC: up to 64 bytes; the five longer bins follow.
    PTC64 = 0x40D8;
    /// Transmitted frames of 65 to 127 bytes.
    PTC127 = 0x40DC;
    /// Transmitted frames of 128 to 255 bytes.
    PTC255 = 0x40E0;
    /// Transmitted frames of 256 to 511 bytes.
    PTC511 = 0x40E4;
    /// Transmitted frames of 512 to 1023 bytes.
    PTC1023 = 0x40E8;
    /// Transmitted frames of 1024 bytes and more.
    PTC1522 = 0x40EC;
    /// Multicast frames transmitted.
    MPTC = 0x40F0;
    /// Broadcast frames transmitted.
    BPTC = 0x40F4;
    /// Packets segmented.
    TSCTC = 0x40F8;
    /// Packets whose segmentation failed.
    TSCTFC = 0x40FC;

    @always_zero
    CRCERRS = 0x4000;
    ALGNERRC = 0x4004;
    SYMERRS = 0x4008;
    RXERRC = 0x400C;
    SCC = 0x4014;
    ECOL = 0x4018;
    MCC = 0x401C;
    LATECOL = 0x4020;
    COLC = 0x4028;
    DC = 0x4030;
    TNCRS = 0x4034;
    SEC = 0x4038;
    CEXTERR = 0x403C;
    RLEC = 0x4040;
    XONRXC = 0x4048;
    XONTXC = 0x404C;
    XOFFRXC = 0x4050;
    XOFFTXC = 0x4054;
    FCRUC = 0x4058;
    RUC = 0x40A4;
    RFC = 0x40A8;
    RJC = 0x40B0;
    MGTPRC = 0x40B4;
    MGTPDC = 0x40B8;
    MGTPTC = 0x40BC;
}

/// High halves of 64-bit counters: reading one clears its low half too.
pub const HIGH_HALVES: [u32; 4] = [GORCH, GOTCH, TORH, TOTH];

/// Is this offset a statistics register?
pub const fn contains(offset: u32) -> bool {
    offset >= FIRST && offset <= LAST
}
