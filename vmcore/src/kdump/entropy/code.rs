//! Codes for symbols that occur so and so often, made without sorting and without a tree: a word as long as its symbol's share asks
//! for, all of them a little longer until they fit, and what then remains given back. That loses a thousandth to Huffman's code, on pages of a
//! kernel, and takes a fraction of its time.

/// Counts are at most this; a page's symbols are fewer.
const COUNT_END: usize = 8192;
/// Fractions of a bit in which shares are told.
const FRACTION_BITS: u32 = 4;

/// Logarithms to base 2, in sixteenths.
#[derive(Debug, Clone)]
pub(in crate::kdump) struct Logs(Box<[u8; COUNT_END]>);

impl Default for Logs {
    #[allow(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "sixteen times the logarithm of less than 8192 is below 208"
    )]
    fn default() -> Self {
        let mut logs = Box::new([0; COUNT_END]);
        for (log, count) in logs.iter_mut().zip(0_u16..).skip(1) {
            *log = (f64::from(count).log2() * f64::from(1 << FRACTION_BITS)).round() as u8;
        }
        Self(logs)
    }
}

impl Logs {
    #[inline(always)]
    fn of(&self, count: u32) -> u32 {
        self.0.get(count as usize % COUNT_END).map_or(0, |log| u32::from(*log))
    }
}

/// How words are numbered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::kdump) enum Order {
    /// Words of few bits are low (RFC 1951, 3.2.2); they are written from their highest bit on.
    ShortestFirst,
    /// Words of few bits are high (RFC 8878, 4.2.1.3); they are written from their lowest bit on, and read from the highest.
    LongestFirst,
}

impl Order {
    /// The first word of each length, of so many each.
    fn first_words(self, of_len: &[u16; 16]) -> [u16; 16] {
        let (mut first, mut word) = ([0_u16; 16], 0_u16);
        match self {
            Self::ShortestFirst => {
                for (first, shorter) in first.iter_mut().skip(1).zip(of_len) {
                    word = word.wrapping_add(*shorter) << 1;
                    *first = word;
                }
            }
            Self::LongestFirst => {
                for (first, count) in first.iter_mut().zip(of_len).skip(1).rev() {
                    *first = word;
                    word = word.wrapping_add(*count) >> 1;
                }
            }
        }
        first
    }
}

/// A code: words of at most so many bits for some of N symbols.
#[derive(Debug, Clone)]
pub(in crate::kdump) struct Code<const N: usize> {
    /// Zero for symbols that do not occur.
    lens: [u8; N],
    /// The word, its first bit lowest, and its length above 16 bits. Only those of symbols that occur mean anything.
    words: [u32; N],
    /// The symbols that occur, ascending, with what a word of theirs should have, in fractions of a bit.
    used: [(u16, u8); N],
    used_len: usize,
}

impl<const N: usize> Default for Code<N> {
    fn default() -> Self {
        Self {
            lens: [0; N],
            words: [0; N],
            used: [(0, 0); N],
            used_len: 0,
        }
    }
}

impl<const N: usize> Code<N> {
    /// A code with words of these lengths, the shortest first.
    pub(in crate::kdump) fn of_lens(lens: [u8; N]) -> Self {
        let mut code = Self {
            lens,
            ..Self::default()
        };
        for (used, symbol) in code.used.iter_mut().zip(0_u16..) {
            *used = (symbol, 0);
        }
        code.used_len = N;
        code.number(Order::ShortestFirst);
        code
    }

    /// Makes the code anew. With fewer than two symbols it gets words that are never used: a code must be whole.
    pub(in crate::kdump) fn make(&mut self, counts: &[u16; N], logs: &Logs, len_max: u32, order: Order) {
        self.lens = [0; N];
        self.used_len = 0;
        let total: u32 = counts.iter().map(|count| u32::from(*count)).sum();
        let log = logs.of(total);
        for (first, eight) in (0_u16..).step_by(8).zip(counts.chunks(8)) {
            // Pages of data know few bytes.
            if eight.iter().fold(0, |any, count| any | count) == 0 {
                continue;
            }
            for (symbol, count) in (first..).zip(eight) {
                let share = log.wrapping_sub(logs.of(u32::from(*count)));
                if let Some(used) = self.used.get_mut(self.used_len) {
                    *used = (symbol, (share & 0xff) as u8);
                }
                self.used_len = self.used_len.wrapping_add(usize::from(*count > 0));
            }
        }
        if self.used_len < 2 {
            let only = if self.used_len == 0 { 0 } else { self.used[0].0 };
            let other = u16::from(only == 0);
            self.used[0] = (only.min(other), 0);
            self.used[1] = (only.max(other), 0);
            self.used_len = 2;
        }
        self.fit(len_max);
        self.number(order);
    }

    /// Finds lengths with which the words make a whole code.
    fn fit(&mut self, len_max: u32) {
        let used = self.used.get(..self.used_len).unwrap_or_default();
        let whole = 1_u32 << len_max;
        let len_of = |share: u8, more: u32| (u32::from(share).wrapping_add(more) >> FRACTION_BITS).clamp(1, len_max);
        // A word of n bits takes 2^-n of all there is (Kraft). Rounding to the nearest length often fits at once.
        let mut more = 1 << (FRACTION_BITS - 1);
        let taken_with = |more: u32| {
            let taken = used.iter().map(|(_, share)| whole >> len_of(*share, more));
            taken.fold(0, u32::wrapping_add)
        };
        let mut taken = taken_with(more);
        // Ends: at the latest when all have the longest words, which fit since there are fewer symbols than those.
        while taken > whole {
            more += 1;
            taken = taken_with(more);
        }
        for (symbol, share) in used {
            if let Some(len) = self.lens.get_mut(usize::from(*symbol)) {
                *len = (len_of(*share, more) & 0xff) as u8;
            }
        }
        // A word of the longest kind made shorter takes no more than is left, so that each round takes something.
        let mut left = whole.wrapping_sub(taken);
        while left > 0 {
            for (symbol, _) in used {
                let Some(len) = self.lens.get_mut(usize::from(*symbol)) else {
                    continue;
                };
                let cost = whole >> *len;
                let is_shorter = *len > 1 && cost <= left;
                *len = len.wrapping_sub(u8::from(is_shorter));
                left = left.wrapping_sub(if is_shorter { cost } else { 0 });
            }
        }
    }

    /// Gives the words their bits.
    fn number(&mut self, order: Order) {
        let used = self.used.get(..self.used_len).unwrap_or_default();
        let mut of_len = [0_u16; 16];
        for (symbol, _) in used {
            let len = self.lens.get(usize::from(*symbol)).copied().unwrap_or(0);
            if let Some(count) = of_len.get_mut(usize::from(len % 16)) {
                *count = count.wrapping_add(1);
            }
        }
        of_len[0] = 0;
        let mut next = order.first_words(&of_len);
        for (symbol, _) in used {
            let len = self.lens.get(usize::from(*symbol)).copied().unwrap_or(0);
            let next = next.get_mut(usize::from(len % 16));
            if let (Some(next), Some(word)) = (next, self.words.get_mut(usize::from(*symbol))) {
                let bits = match order {
                    Order::ShortestFirst => u32::from(next.reverse_bits()) << (len % 16) >> 16,
                    Order::LongestFirst => u32::from(*next),
                };
                *word = bits & 0xffff | u32::from(len) << 16;
                *next = next.wrapping_add(1);
            }
        }
    }

    /// The symbols that have a word, ascending.
    pub(in crate::kdump) fn symbols(&self) -> impl DoubleEndedIterator<Item = usize> + '_ {
        let used = self.used.get(..self.used_len).unwrap_or_default();
        used.iter().map(|(symbol, _)| usize::from(*symbol))
    }

    /// The lengths up to the last symbol that has one, but at least so many.
    pub(in crate::kdump) fn lens(&self, least: usize) -> &[u8] {
        let last = self.used_len.checked_sub(1).and_then(|last| self.used.get(last));
        let end = last.map_or(0, |(symbol, _)| usize::from(*symbol) + 1).max(least);
        self.lens.get(..end).unwrap_or(&self.lens)
    }

    /// How many bits a symbol's word has.
    pub(in crate::kdump) fn len_of(&self, symbol: usize) -> u8 {
        self.lens.get(symbol).copied().unwrap_or(0)
    }

    /// The words: bits, and above 16 their number.
    #[inline(always)]
    pub(in crate::kdump) fn words(&self) -> &[u32; N] {
        &self.words
    }

    /// Bits of all words of a text.
    pub(in crate::kdump) fn price(&self, counts: &[u16; N]) -> u32 {
        let prices = counts.iter().zip(&self.lens);
        prices.fold(0, |sum: u32, (count, len)| {
            sum.wrapping_add(u32::from(*count).wrapping_mul(u32::from(*len)))
        })
    }
}
