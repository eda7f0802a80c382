//! Codes for symbols that occur so and so often, made without sorting and without a tree: a word as long as its symbol's share asks
//! for, all of them a little longer until they fit, and what then remains given back. That loses a thousandth to Huffman's code, on pages of a
//! kernel, and takes a fraction of its time.

use crate::kdump::repeats::add_one;

/// Counts are at most this; a page's symbols are fewer.
const COUNT_END: usize = 8192;
/// Fractions of a bit in which shares are told.
const FRACTION_BITS: u32 = 4;
/// Lengths of words, none included.
const LENS: usize = 16;

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

/// How many symbols have which share; later, which place those of a share have among all.
struct Ranks([u16; 256]);

impl Ranks {
    #[inline(always)]
    fn count(&mut self, share: u8, more: u16) {
        if let Some(count) = self.0.get_mut(usize::from(share)) {
            *count = count.wrapping_add(more);
        }
    }

    /// Turns numbers into places.
    fn begin(&mut self) -> Begin<'_> {
        let mut sum = 0_u16;
        for place in &mut self.0 {
            let count = *place;
            *place = sum;
            sum = sum.wrapping_add(count);
        }
        Begin {
            places: &self.0,
            all: sum,
        }
    }

    /// The place of the next symbol of this share.
    #[inline(always)]
    fn next(&mut self, share: u8) -> usize {
        let place = self.0.get_mut(usize::from(share));
        place.map_or(0, |place| {
            *place = place.wrapping_add(1);
            usize::from(place.wrapping_sub(1))
        })
    }
}

/// Where the symbols of each share begin, the largest shares first.
struct Begin<'r> {
    places: &'r [u16; 256],
    all: u16,
}

impl Begin<'_> {
    /// How many symbols ask for less than so many fractions of a bit.
    fn of(&self, fractions: u32) -> u16 {
        self.places.get(fractions as usize).copied().unwrap_or(self.all)
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

/// How many symbols have words of which length.
#[derive(Debug, Clone, Copy)]
struct Classes {
    counts: [u16; LENS],
}

impl Classes {
    /// Finds lengths with which the words make a whole code, shorter ones for larger shares.
    fn fit(begin: &Begin<'_>, len_max: u32) -> Self {
        let whole = 1_u32 << len_max;
        // A word of n bits takes 2^-n of all there is (Kraft). Rounding to the nearest length often fits at once.
        let mut more = 1 << (FRACTION_BITS - 1);
        let mut classes = Self::rounded(begin, len_max, more);
        // Ends: at the latest when all have the longest words, which fit since there are fewer symbols than those.
        while classes.taken(whole) > whole {
            more += 1;
            classes = Self::rounded(begin, len_max, more);
        }
        classes.give_back(whole, len_max);
        classes
    }

    /// Lengths as shares ask for, with so many fractions of a bit more, rounded down.
    fn rounded(begin: &Begin<'_>, len_max: u32, more: u32) -> Self {
        let mut counts = [0; LENS];
        let mut shorter = 0;
        for (len, count) in (0_u32..).zip(&mut counts).skip(1).take(len_max as usize) {
            let end = if len == len_max {
                u32::MAX
            } else {
                ((len + 1) << FRACTION_BITS).saturating_sub(more)
            };
            let up_to = begin.of(end);
            *count = up_to.wrapping_sub(shorter);
            shorter = up_to;
        }
        Self { counts }
    }

    /// What the words take of the whole.
    fn taken(&self, whole: u32) -> u32 {
        let taken = (0_u32..).zip(self.counts).skip(1);
        taken.fold(0, |sum, (len, count)| {
            sum.wrapping_add(u32::from(count).wrapping_mul(whole >> len))
        })
    }

    /// Makes words shorter until the whole is taken. A word of the longest kind made shorter takes no more than is left, so that each
    /// round takes something.
    fn give_back(&mut self, whole: u32, len_max: u32) {
        let mut left = whole.wrapping_sub(self.taken(whole));
        while left > 0 {
            for len in 2..=len_max {
                let longer = self.counts.get(len as usize).copied().unwrap_or(0);
                let moved = (left >> (len_max - len)).min(longer.into());
                left = left.wrapping_sub(moved << (len_max - len));
                let moved = (moved & 0xffff) as u16;
                for (place, change) in [(len - 1, moved), (len, moved.wrapping_neg())] {
                    if let Some(count) = self.counts.get_mut(place as usize) {
                        *count = count.wrapping_add(change);
                    }
                }
            }
        }
    }
}

/// Numbers words.
#[derive(Debug)]
struct Numbers {
    next: [u16; LENS],
    order: Order,
}

impl Numbers {
    fn new(of_len: &[u16; LENS], order: Order) -> Self {
        let (mut next, mut word) = ([0_u16; LENS], 0_u16);
        match order {
            Order::ShortestFirst => {
                for (next, shorter) in next.iter_mut().skip(1).zip(of_len) {
                    word = word.wrapping_add(*shorter) << 1;
                    *next = word;
                }
            }
            Order::LongestFirst => {
                for (next, count) in next.iter_mut().zip(of_len).skip(1).rev() {
                    *next = word;
                    word = word.wrapping_add(*count) >> 1;
                }
            }
        }
        Self { next, order }
    }

    /// The next word of so many bits, as [`Code::words`] has it.
    #[inline(always)]
    fn next(&mut self, len: u8) -> u32 {
        let Some(next) = self.next.get_mut(usize::from(len) % LENS) else {
            return 0;
        };
        let bits = match self.order {
            Order::ShortestFirst => u32::from(next.reverse_bits()) << (len % 16) >> 16,
            Order::LongestFirst => u32::from(*next),
        };
        *next = next.wrapping_add(1);
        bits & 0xffff | u32::from(len) << 16
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
        code.used_len = N;
        let mut of_len = [0; LENS];
        for len in lens {
            add_one(&mut of_len, usize::from(len) % LENS);
        }
        let mut numbers = Numbers::new(&of_len, Order::ShortestFirst);
        let symbols = (0_u16..).zip(lens).zip(code.used.iter_mut().zip(&mut code.words));
        for ((symbol, len), (used, word)) in symbols {
            *used = (symbol, 0);
            *word = numbers.next(len);
        }
        code
    }

    /// Makes the code anew. With fewer than two symbols it gets words that are never used: a code must be whole.
    pub(in crate::kdump) fn make(&mut self, counts: &[u16; N], logs: &Logs, len_max: u32, order: Order) {
        let mut ranks = self.take(counts, logs);
        let classes = Classes::fit(&ranks.begin(), len_max);
        let mut of_rank = [1_u8; N];
        let mut rest = of_rank.as_mut_slice();
        for (len, count) in (0_u8..).zip(classes.counts) {
            let (class, behind) = rest.split_at_mut(usize::from(count).min(rest.len()));
            class.fill(len);
            rest = behind;
        }
        self.lens = [0; N];
        let mut numbers = Numbers::new(&classes.counts, order);
        for (symbol, share) in self.used.get(..self.used_len).unwrap_or_default() {
            let len = of_rank.get(ranks.next(*share)).copied().unwrap_or(1);
            let places = (
                self.lens.get_mut(usize::from(*symbol)),
                self.words.get_mut(usize::from(*symbol)),
            );
            if let (Some(own_len), Some(word)) = places {
                *own_len = len;
                *word = numbers.next(len);
            }
        }
    }

    /// Notes the symbols that occur, and how many have which share.
    fn take(&mut self, counts: &[u16; N], logs: &Logs) -> Ranks {
        let mut ranks = Ranks([0; 256]);
        self.used_len = 0;
        let total: u32 = counts.iter().map(|count| u32::from(*count)).sum();
        let log = logs.of(total);
        for (first, eight) in (0_u16..).step_by(8).zip(counts.chunks(8)) {
            // Pages of data know few bytes.
            if eight.iter().fold(0, |any, count| any | count) == 0 {
                continue;
            }
            for (symbol, count) in (first..).zip(eight) {
                let share = (log.wrapping_sub(logs.of(u32::from(*count))) & 0xff) as u8;
                if let Some(used) = self.used.get_mut(self.used_len) {
                    *used = (symbol, share);
                }
                let occurs = u16::from(*count > 0);
                ranks.count(share, occurs);
                self.used_len = self.used_len.wrapping_add(usize::from(occurs));
            }
        }
        if self.used_len < 2 {
            let only = if self.used_len == 0 { 0 } else { self.used[0].0 };
            let other = u16::from(only == 0);
            self.used[0] = (only.min(other), 0);
            self.used[1] = (only.max(other), 0);
            self.used_len = 2;
            ranks = Ranks([0; 256]);
            ranks.count(0, 2);
        }
        ranks
    }

    /// The symbols that have a word, ascending.
    pub(in crate::kdump) fn symbols(&self) -> impl DoubleEndedIterator<Item = usize> + ExactSizeIterator + '_ {
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
