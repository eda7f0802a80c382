//! A saved state as bytes. Little-endian, every field in the order of [`EmState`], nothing optional left out; a version in
//! front, so that a later crate can tell what it reads.
//!
//! ```text
//!   "em82" version  registers  irq  tx  loopback  nvm  phy  io_address  bus_master  faults  timer
//! ```
//!
//! Registers are pairs of offset and value, so that a register that a later crate knows besides has its reset value. A list
//! has its length in front, a choice one byte that says which.

use alloc::vec::Vec;
use core::fmt;

use super::Faults;
use super::nvm::{Phase, Target};
use super::registers::RegisterFile;
use super::state::{DelayState, EmState, IrqState, NvmState, PhyState, TxState};
use super::tx::Packet;
use crate::bits::{index, len32};
use crate::spec::descriptors::{DESCRIPTOR_LEN, TxContext, TxDescriptor};

/// The version that [`EmState::encode`] writes and [`EmState::decode`] reads.
pub const STATE_VERSION: u32 = 1;

/// What the bytes begin with.
const MAGIC: [u8; 4] = *b"em82";

/// Why bytes are no state.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StateError {
    /// They do not begin as a state does.
    NotAState,
    /// They are of another version.
    Version(u32),
    /// They end too early, go on too long, or have a value that no field takes; seen at this offset.
    Malformed {
        /// Bytes that were understood.
        at_byte: usize,
    },
}

impl fmt::Display for StateError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotAState => write!(f, "these bytes are no saved state of an em"),
            Self::Version(found) => write!(
                f,
                "a saved state of version {found}, but this program reads {STATE_VERSION}: use the program that saved it"
            ),
            Self::Malformed { at_byte } => write!(f, "the saved state of the em is damaged at byte {at_byte}"),
        }
    }
}

impl core::error::Error for StateError {}

impl EmState {
    /// The state as bytes.
    pub fn encode(&self) -> Vec<u8> {
        let Self {
            registers,
            irq,
            tx,
            loopback,
            nvm,
            phy,
            io_address,
            bus_master,
            faults,
            timer_ns,
        } = self;
        let mut out = Writer(Vec::new());
        out.0.extend(MAGIC);
        out.u32(STATE_VERSION);
        out.registers(registers);
        out.irq(irq);
        out.tx(tx);
        out.u32(len32(loopback.len()));
        loopback.iter().for_each(|frame| out.bytes(frame));
        out.nvm(nvm);
        out.phy(phy);
        out.u32(*io_address);
        out.flag(*bus_master);
        let Faults {
            accesses,
            dma,
            tx_dropped,
        } = *faults;
        [accesses, dma, tx_dropped, *timer_ns]
            .iter()
            .for_each(|value| out.u64(*value));
        out.0
    }

    /// Reads what [`encode`](Self::encode) wrote.
    ///
    /// # Errors
    /// [`StateError`] says why the bytes are no state of this version. What they say is not trusted: see
    /// [`Em::restore`](super::Em::restore).
    pub fn decode(bytes: &[u8]) -> Result<Self, StateError> {
        let mut from = Reader { bytes, at: 0 };
        if from.array() != Some(MAGIC) {
            return Err(StateError::NotAState);
        }
        match from.u32() {
            Some(STATE_VERSION) => {}
            Some(other) => return Err(StateError::Version(other)),
            None => return Err(StateError::NotAState),
        }
        let state = from.state().filter(|_| from.at == bytes.len());
        state.ok_or(StateError::Malformed { at_byte: from.at })
    }
}

struct Writer(Vec<u8>);

impl Writer {
    fn u8(&mut self, value: u8) {
        self.0.push(value);
    }

    fn flag(&mut self, value: bool) {
        self.u8(value.into());
    }

    fn u16(&mut self, value: u16) {
        self.0.extend(value.to_le_bytes());
    }

    fn u32(&mut self, value: u32) {
        self.0.extend(value.to_le_bytes());
    }

    fn u64(&mut self, value: u64) {
        self.0.extend(value.to_le_bytes());
    }

    fn bytes(&mut self, bytes: &[u8]) {
        self.u32(len32(bytes.len()));
        self.0.extend(bytes);
    }

    fn time(&mut self, value: Option<u64>) {
        self.flag(value.is_some());
        self.u64(value.unwrap_or(0));
    }

    fn registers(&mut self, words: &[u32]) {
        let known = RegisterFile::offsets().map(|offset| (offset, words.get(index(offset / 4)).copied().unwrap_or(0)));
        let pairs: Vec<(u32, u32)> = known.collect();
        self.u32(len32(pairs.len()));
        for (offset, value) in pairs {
            self.u32(offset);
            self.u32(value);
        }
    }

    fn irq(&mut self, irq: &IrqState) {
        let IrqState {
            causes,
            mask,
            interval,
            level,
            since_rise_ns,
            receive,
            transmit,
        } = *irq;
        [causes, mask, interval].iter().for_each(|value| self.u32(*value));
        self.flag(level);
        self.time(since_rise_ns);
        for delay in [receive, transmit] {
            let DelayState {
                packet_in_ns,
                cap_in_ns,
            } = delay;
            self.time(packet_in_ns);
            self.time(cap_in_ns);
        }
    }

    fn context(&mut self, context: &TxContext) {
        self.0.extend(context.encode().encode());
    }

    fn tx(&mut self, tx: &TxState) {
        let TxState {
            packet,
            bytes,
            contexts,
        } = tx;
        self.flag(packet.is_some());
        if let Some(packet) = packet {
            let Packet {
                context,
                options,
                segmentation,
                broken,
                vlan,
            } = packet;
            self.flag(context.is_some());
            self.context(&context.unwrap_or_default());
            self.u8(*options);
            self.flag(*segmentation);
            self.flag(*broken);
            self.flag(vlan.is_some());
            self.u16(vlan.unwrap_or(0));
        }
        self.bytes(bytes);
        contexts.iter().for_each(|context| self.context(context));
    }

    fn nvm(&mut self, nvm: &NvmState) {
        let NvmState {
            words,
            unlocked,
            wires,
            eerd,
            phase,
            data_out,
        } = nvm;
        words.iter().for_each(|word| self.u16(*word));
        self.flag(*unlocked);
        self.u32(*wires);
        self.u32(*eerd);
        let (kind, word, value, count) = match *phase {
            Phase::Command { bits, count } => (0, 0, bits, count),
            Phase::Data { word, left } => (1, word, 0, left),
            Phase::Program {
                target: Target::Word(word),
                value,
                left,
            } => (2, word, value, left),
            Phase::Program {
                target: Target::All,
                value,
                left,
            } => (3, 0, value, left),
            Phase::Ignored => (4, 0, 0, 0),
        };
        self.u8(kind);
        self.u8(word);
        self.u16(value);
        self.u8(count);
        self.flag(*data_out);
    }

    fn phy(&mut self, phy: &PhyState) {
        let PhyState {
            registers,
            cable,
            negotiated_in_ns,
            link_lost,
        } = phy;
        registers.iter().for_each(|value| self.u16(*value));
        self.flag(*cable);
        self.time(*negotiated_in_ns);
        self.flag(*link_lost);
    }
}

struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Reader<'a> {
    fn take(&mut self, len: usize) -> Option<&'a [u8]> {
        let taken = self.bytes.get(self.at..self.at.checked_add(len)?)?;
        self.at += len;
        Some(taken)
    }

    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        self.take(N)?.first_chunk().copied()
    }

    fn u8(&mut self) -> Option<u8> {
        self.array().map(u8::from_le_bytes)
    }

    fn flag(&mut self) -> Option<bool> {
        match self.u8()? {
            0 => Some(false),
            1 => Some(true),
            _ => None,
        }
    }

    fn u16(&mut self) -> Option<u16> {
        self.array().map(u16::from_le_bytes)
    }

    fn u32(&mut self) -> Option<u32> {
        self.array().map(u32::from_le_bytes)
    }

    fn u64(&mut self) -> Option<u64> {
        self.array().map(u64::from_le_bytes)
    }

    fn len(&mut self) -> Option<usize> {
        self.u32().map(index)
    }

    fn bytes(&mut self) -> Option<Vec<u8>> {
        let len = self.len()?;
        self.take(len).map(<[u8]>::to_vec)
    }

    fn time(&mut self) -> Option<Option<u64>> {
        let is_there = self.flag()?;
        let value = self.u64()?;
        Some(is_there.then_some(value))
    }

    fn words<const N: usize>(&mut self) -> Option<[u16; N]> {
        let mut words = [0; N];
        for word in &mut words {
            *word = self.u16()?;
        }
        Some(words)
    }

    fn state(&mut self) -> Option<EmState> {
        Some(EmState {
            registers: self.registers()?,
            irq: self.irq()?,
            tx: self.tx()?,
            loopback: {
                let mut frames = Vec::new();
                for _ in 0..self.len()? {
                    frames.push(self.bytes()?);
                }
                frames
            },
            nvm: self.nvm()?,
            phy: self.phy()?,
            io_address: self.u32()?,
            bus_master: self.flag()?,
            faults: Faults {
                accesses: self.u64()?,
                dma: self.u64()?,
                tx_dropped: self.u64()?,
            },
            timer_ns: self.u64()?,
        })
    }

    fn registers(&mut self) -> Option<Vec<u32>> {
        let mut words = RegisterFile::new().words().to_vec();
        for _ in 0..self.len()? {
            let (offset, value) = (self.u32()?, self.u32()?);
            *words.get_mut(index(offset / 4)).filter(|_| offset.is_multiple_of(4))? = value;
        }
        Some(words)
    }

    fn irq(&mut self) -> Option<IrqState> {
        Some(IrqState {
            causes: self.u32()?,
            mask: self.u32()?,
            interval: self.u32()?,
            level: self.flag()?,
            since_rise_ns: self.time()?,
            receive: self.delay()?,
            transmit: self.delay()?,
        })
    }

    fn delay(&mut self) -> Option<DelayState> {
        Some(DelayState {
            packet_in_ns: self.time()?,
            cap_in_ns: self.time()?,
        })
    }

    fn context(&mut self) -> Option<TxContext> {
        let bytes: [u8; DESCRIPTOR_LEN] = self.array()?;
        Some(TxContext::decode(&TxDescriptor::decode(&bytes)))
    }

    fn packet(&mut self) -> Option<Packet> {
        let with_context = self.flag()?;
        let context = self.context()?;
        let (options, segmentation, broken) = (self.u8()?, self.flag()?, self.flag()?);
        let with_tag = self.flag()?;
        let tag = self.u16()?;
        Some(Packet {
            context: with_context.then_some(context),
            options,
            segmentation,
            broken,
            vlan: with_tag.then_some(tag),
        })
    }

    fn tx(&mut self) -> Option<TxState> {
        let packet = if self.flag()? { Some(self.packet()?) } else { None };
        Some(TxState {
            packet,
            bytes: self.bytes()?,
            contexts: [self.context()?, self.context()?],
        })
    }

    fn nvm(&mut self) -> Option<NvmState> {
        let (words, unlocked) = (self.words()?, self.flag()?);
        let (wires, eerd) = (self.u32()?, self.u32()?);
        let (kind, word, value, count) = (self.u8()?, self.u8()?, self.u16()?, self.u8()?);
        let program = |target| Phase::Program {
            target,
            value,
            left: count,
        };
        let phase = match kind {
            0 => Phase::Command { bits: value, count },
            1 => Phase::Data { word, left: count },
            2 => program(Target::Word(word)),
            3 => program(Target::All),
            4 => Phase::Ignored,
            _ => return None,
        };
        Some(NvmState {
            words,
            unlocked,
            wires,
            eerd,
            phase,
            data_out: self.flag()?,
        })
    }

    fn phy(&mut self) -> Option<PhyState> {
        Some(PhyState {
            registers: self.words()?,
            cable: self.flag()?,
            negotiated_in_ns: self.time()?,
            link_lost: self.flag()?,
        })
    }
}
