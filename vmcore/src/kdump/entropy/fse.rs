//! Finite state entropy (RFC 8878, 4.1): a state machine that writes a symbol as the bits that its next state leaves over, fewer for
//! symbols that occur often, and fractions of one on the average.

use super::bits::Bits;

/// The logarithm of the number of states at most, and at least (RFC 8878, 4.1.1).
const LOG_MAX: u32 = 6;
pub(in crate::kdump) const LOG_MIN: u32 = 5;
const STATES_MAX: usize = 1 << LOG_MAX;

/// How many of the states each symbol gets; -1 is one with the fewest bits left over.
pub(in crate::kdump) type Shares<const N: usize> = [i16; N];

/// Shares of 2^`log` states for symbols that occur so often, `total` times in all. Nothing if only one occurs, or more than there are
/// states.
pub(in crate::kdump) fn shares<const N: usize>(counts: &[u16; N], total: u32, log: u32) -> Option<Shares<N>> {
    let size = 1_i32 << log;
    let (mut shares, mut left) = ([0; N], size);
    // A division for all of them.
    let of_one = (1_u64 << 32) / u64::from(total.max(1));
    for (share, count) in shares.iter_mut().zip(counts).filter(|(_, count)| **count > 0) {
        let wanted = u64::from(*count).wrapping_mul(of_one).wrapping_add(1 << (31 - log)) >> (32 - log);
        *share = i16::try_from(wanted).unwrap_or(1).max(1);
        left = left.wrapping_sub(i32::from(*share));
    }
    // What rounding has left over or taken too much, to or from those that have most.
    while left != 0 {
        let most = shares.iter_mut().max()?;
        let change = left.max(i32::from(*most) / -2);
        if change == 0 {
            return None;
        }
        *most = most.wrapping_add(i16::try_from(change).ok()?);
        left = left.wrapping_sub(change);
    }
    let is_alone = shares.iter().any(|share| i32::from(*share) == size);
    (!is_alone).then_some(shares)
}

/// Writes shares down (RFC 8878, 4.1.1).
pub(in crate::kdump) fn put_shares<const N: usize>(shares: &Shares<N>, log: u32, bits: &mut Bits<'_>) {
    bits.put((log - LOG_MIN).into(), 4);
    // What is left, plus one, decides how many bits a share may need.
    let (mut left, mut shares) = ((1_u32 << log) + 1, shares.iter());
    while left > 1 {
        let Some(share) = shares.next() else { break };
        let value = u32::try_from(share + 1).unwrap_or(0);
        put_share(value, left, bits);
        left = left.wrapping_sub(u32::from(share.unsigned_abs()));
        if *share == 0 {
            let zeros = shares.clone().take_while(|share| **share == 0).count();
            for _ in 0..zeros / 3 {
                bits.put(3, 2);
                bits.flush();
            }
            bits.put((zeros % 3) as u64, 2);
            shares = shares.as_slice().get(zeros..).unwrap_or_default().iter();
        }
        bits.flush();
    }
}

/// A value below `left` + 1: low ones have a bit less.
fn put_share(value: u32, left: u32, bits: &mut Bits<'_>) {
    let threshold = 1_u32 << left.ilog2();
    let count = left.ilog2() + 1;
    let short = 2 * threshold - 1 - left;
    if value < short {
        bits.put(value.into(), count - 1);
    } else {
        let above = if value >= threshold { short } else { 0 };
        bits.put((value + above).into(), count);
    }
}

/// How a symbol moves the state.
#[derive(Debug, Clone, Copy, Default)]
struct Move {
    /// Added to the state, the number of bits left over above 16 bits.
    bits: u32,
    /// Added to the state without them, the place of the next one.
    place: u32,
}

/// The states for some of N symbols.
#[derive(Debug, Clone)]
pub(in crate::kdump) struct Table<const N: usize> {
    log: u32,
    moves: [Move; N],
    states: [u16; STATES_MAX],
}

impl<const N: usize> Default for Table<N> {
    fn default() -> Self {
        Self {
            log: 0,
            moves: [Move::default(); N],
            states: [0; STATES_MAX],
        }
    }
}

impl<const N: usize> Table<N> {
    /// For a single symbol, which takes no bits.
    pub(in crate::kdump) fn set_single(&mut self) {
        self.log = 0;
        self.moves = [Move::default(); N];
        self.states[0] = 0;
    }

    /// For shares of 2^`log` states.
    pub(in crate::kdump) fn set(&mut self, shares: &Shares<N>, log: u32) {
        self.log = log.min(LOG_MAX);
        let size = 1_usize << self.log;
        let owners = owners(shares, size);
        let mut next = [0_u16; N];
        let mut taken = 0_u32;
        for ((step, next), share) in self.moves.iter_mut().zip(&mut next).zip(shares) {
            *next = (taken & 0xffff) as u16;
            let share_len = u32::from(share.unsigned_abs());
            *step = match share_len {
                0 => Move::default(),
                1 => Move {
                    bits: (log << 16).wrapping_sub(1 << log),
                    place: taken.wrapping_sub(1),
                },
                _ => {
                    let most = log.wrapping_sub((share_len - 1).ilog2());
                    Move {
                        bits: (most << 16).wrapping_sub(share_len << most),
                        place: taken.wrapping_sub(share_len),
                    }
                }
            };
            taken = taken.wrapping_add(share_len);
        }
        for (state, owner) in (0_u16..).zip(owners.iter().take(size)) {
            let Some(next) = next.get_mut(usize::from(*owner)) else {
                continue;
            };
            if let Some(place) = self.states.get_mut(usize::from(*next)) {
                *place = (1_u16 << self.log).wrapping_add(state);
            }
            *next = next.wrapping_add(1);
        }
    }

    #[inline(always)]
    fn state(&self, above: u32, step: Move) -> u32 {
        let place = above.wrapping_add(step.place) as usize % STATES_MAX;
        self.states.get(place).copied().unwrap_or(0).into()
    }

    /// The state of the last symbol, which comes first.
    #[inline(always)]
    pub(in crate::kdump) fn begin(&self, symbol: u8) -> u32 {
        let step = self.moves.get(usize::from(symbol)).copied().unwrap_or_default();
        let count = step.bits.wrapping_add(1 << 15) >> 16;
        self.state((count << 16).wrapping_sub(step.bits) >> (count % 32), step)
    }

    /// Writes the symbol before. At most six bits, and nothing is flushed.
    #[inline(always)]
    pub(in crate::kdump) fn put(&self, state: &mut u32, symbol: u8, bits: &mut Bits<'_>) {
        let step = self.moves.get(usize::from(symbol)).copied().unwrap_or_default();
        let count = state.wrapping_add(step.bits) >> 16;
        bits.put(u64::from(*state) & ((1 << (count % 32)) - 1), count);
        *state = self.state(*state >> (count % 32), step);
    }

    /// Writes the state of the first symbol.
    #[inline(always)]
    pub(in crate::kdump) fn end(&self, state: u32, bits: &mut Bits<'_>) {
        bits.put(u64::from(state) & ((1 << self.log) - 1), self.log);
    }
}

/// Which symbol owns each state (RFC 8878, 4.1.1).
fn owners<const N: usize>(shares: &Shares<N>, size: usize) -> [u8; STATES_MAX] {
    let mut owners = [0; STATES_MAX];
    let mut top = size;
    let symbols = || (0_u8..).zip(shares);
    for (symbol, _) in symbols().filter(|(_, share)| **share < 0) {
        top = top.wrapping_sub(1);
        if let Some(owner) = owners.get_mut(top % STATES_MAX) {
            *owner = symbol;
        }
    }
    let (step, mut at) = ((size >> 1) + (size >> 3) + 3, 0_usize);
    for (symbol, share) in symbols().filter(|(_, share)| **share > 0) {
        for _ in 0..*share {
            if let Some(owner) = owners.get_mut(at % STATES_MAX) {
                *owner = symbol;
            }
            // Ends: the step is odd, and `top` is above zero while anybody still owns nothing.
            loop {
                at = at.wrapping_add(step) & size.wrapping_sub(1);
                if at < top {
                    break;
                }
            }
        }
    }
    owners
}
