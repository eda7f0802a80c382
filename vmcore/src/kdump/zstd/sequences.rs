//! The sequences of a block: so many literals, then a copy (RFC 8878, 3.1.1.3.2).

use super::symbols::{COPY_LENS, DISTANCES, LITERAL_LENS, Latest, Lengths, Value};
use crate::kdump::entropy::bits::{Bits, ROOM};
use crate::kdump::entropy::fse::{self, LOG_MIN, Shares, Table};
use crate::kdump::repeats::{FOUND_MAX, Finder, Found, add_one};

/// Of so few sequences the tables take more room than they save, and the format's own are taken.
const FEW: usize = 64;
/// From so many sequences on tables have more states.
const MANY: usize = 200;

/// The format's own shares, and the logarithm of their states' number (RFC 8878, 3.1.1.3.2.2).
const LITERAL_LEN_SHARES: (Shares<LITERAL_LENS>, u32) = (
    [
        4, 3, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2, 1, 1, 1, 2, 2, 2, 2, 2, 2, 2, 2, 2, 3, 2, 1, 1, 1, 1, 1, -1, -1, -1, -1,
    ],
    6,
);
const COPY_LEN_SHARES: (Shares<COPY_LENS>, u32) = (
    [
        1, 4, 3, 2, 2, 2, 2, 2, 2, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1,
        1, 1, 1, 1, 1, 1, 1, 1, 1, -1, -1, -1, -1, -1, -1, -1,
    ],
    6,
);
const DISTANCE_SHARES: (Shares<DISTANCES>, u32) = (
    [
        1, 1, 1, 1, 1, 1, 2, 2, 2, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, -1, -1, -1, -1, -1,
    ],
    5,
);

/// Writes sequences. Keeps its tables from page to page.
#[derive(Debug, Clone)]
pub(super) struct Sequences {
    lengths: Lengths,
    literals: Kind<LITERAL_LENS>,
    distances: Kind<DISTANCES>,
    copies: Kind<COPY_LENS>,
    sequences: Box<[Sequence; FOUND_MAX]>,
}

/// The symbols of a sequence, and all their extra bits.
#[derive(Debug, Clone, Copy, Default)]
struct Sequence {
    extra: u64,
    extra_bits: u8,
    literals: u8,
    copy: u8,
    distance: u8,
}

impl Default for Sequences {
    fn default() -> Self {
        Self {
            lengths: Lengths::default(),
            literals: Kind::new(LITERAL_LEN_SHARES),
            distances: Kind::new(DISTANCE_SHARES),
            copies: Kind::new(COPY_LEN_SHARES),
            sequences: Box::new([Sequence::default(); FOUND_MAX]),
        }
    }
}

impl Sequences {
    /// Puts the section of what was found at a place of the room; the place behind it.
    pub(super) fn put(&mut self, finder: &Finder, out: &mut [u8; ROOM], at: usize) -> usize {
        let found = finder.found();
        let mut bits = Bits::new(out, at);
        put_count(found.len(), &mut bits);
        if found.is_empty() {
            return bits.finish();
        }
        self.take(found);
        // How each table is told, and then the tables.
        let modes = [
            self.literals.choose(found.len()),
            self.distances.choose(found.len()),
            self.copies.choose(found.len()),
        ];
        let [literals, distances, copies] = modes.map(|mode| mode as u64);
        bits.put(literals << 6 | distances << 4 | copies << 2, 8);
        let at = bits.finish();
        let at = self.literals.put_table(out, at);
        let at = self.distances.put_table(out, at);
        let at = self.copies.put_table(out, at);
        let mut bits = Bits::new(out, at);
        self.put_sequences(found.len(), &mut bits);
        bits.finish_marked()
    }

    /// Finds the symbols and counts them.
    #[inline(never)]
    fn take(&mut self, found: &[Found]) {
        let mut latest = Latest::default();
        let (mut literals, mut distances, mut copies) = ([0; LITERAL_LENS], [0; DISTANCES], [0; COPY_LENS]);
        for (sequence, found) in self.sequences.iter_mut().zip(found) {
            let before = self.lengths.of_literals(found.literals);
            let copy = self.lengths.of_copy(found.len);
            let distance = latest.of(found.distance, found.literals);
            add_one(&mut literals, before.symbol.into());
            add_one(&mut copies, copy.symbol.into());
            add_one(&mut distances, distance.symbol.into());
            let (extra, extra_bits) = joined([before, copy, distance]);
            *sequence = Sequence {
                extra,
                extra_bits,
                literals: before.symbol,
                copy: copy.symbol,
                distance: distance.symbol,
            };
        }
        (self.literals.counts, self.distances.counts, self.copies.counts) = (literals, distances, copies);
    }

    /// All sequences, the last one first (RFC 8878, 3.1.1.3.2.1.2 and 3).
    #[inline(never)]
    fn put_sequences(&self, count: usize, bits: &mut Bits<'_>) {
        let sequences = self.sequences.get(..count).unwrap_or_default();
        let Some((last, before)) = sequences.split_last() else {
            return;
        };
        let (literals, distances, copies) = (self.literals.table(), self.distances.table(), self.copies.table());
        let (mut literal, mut distance, mut copy) = (
            literals.begin(last.literals),
            distances.begin(last.distance),
            copies.begin(last.copy),
        );
        bits.put(last.extra, last.extra_bits.into());
        bits.flush();
        for sequence in before.iter().rev() {
            distances.put(&mut distance, sequence.distance, bits);
            copies.put(&mut copy, sequence.copy, bits);
            literals.put(&mut literal, sequence.literals, bits);
            // With these at most 60 bits wait: 18 of states, at most 34 extra ones, seven of the byte before.
            bits.put(sequence.extra, sequence.extra_bits.into());
            bits.flush();
        }
        copies.end(copy, bits);
        distances.end(distance, bits);
        literals.end(literal, bits);
    }
}

/// The extra bits of several values behind one another.
#[inline(always)]
fn joined(values: [Value; 3]) -> (u64, u8) {
    values.into_iter().fold((0, 0), |(extra, bits), value| {
        (
            extra | u64::from(value.extra) << (bits % 64),
            bits.wrapping_add(value.extra_bits),
        )
    })
}

/// The number of sequences (RFC 8878, 3.1.1.3.2).
fn put_count(count: usize, bits: &mut Bits<'_>) {
    let count = count as u64;
    if count < 128 {
        bits.put(count, 8);
    } else {
        bits.put((count >> 8) + 128, 8);
        bits.put(count & 0xff, 8);
    }
}

/// How a table is told (RFC 8878, 3.1.1.3.2.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mode {
    /// The format's own.
    Own = 0,
    /// There is only this symbol.
    Single = 1,
    /// By the shares of its symbols.
    Shares = 2,
}

/// Symbols of one kind: how often each occurs, and their table.
#[derive(Debug, Clone)]
struct Kind<const N: usize> {
    counts: [u16; N],
    formats: Table<N>,
    made: Table<N>,
    mode: Mode,
    shares: Shares<N>,
    log: u32,
}

impl<const N: usize> Kind<N> {
    fn new((shares, log): (Shares<N>, u32)) -> Self {
        let mut formats = Table::default();
        formats.set(&shares, log);
        Self {
            counts: [0; N],
            formats,
            made: Table::default(),
            mode: Mode::Own,
            shares,
            log,
        }
    }

    /// Chooses a table for what was counted.
    fn choose(&mut self, total: usize) -> Mode {
        let is_single = self.counts.iter().any(|count| usize::from(*count) == total);
        self.mode = Mode::Own;
        if is_single && total > 1 {
            self.mode = Mode::Single;
            self.made.set_single();
        } else if total > FEW {
            self.log = if total < MANY { LOG_MIN } else { LOG_MIN + 1 };
            let total = u32::try_from(total).unwrap_or(0);
            if let Some(shares) = fse::shares(&self.counts, total, self.log) {
                self.mode = Mode::Shares;
                self.made.set(&shares, self.log);
                self.shares = shares;
            }
        }
        self.mode
    }

    /// Puts what tells the table at a place of the room; the place behind it.
    fn put_table(&self, out: &mut [u8; ROOM], at: usize) -> usize {
        let mut bits = Bits::new(out, at);
        match self.mode {
            Mode::Own => {}
            Mode::Single => bits.put(self.counts.iter().position(|count| *count > 0).unwrap_or(0) as u64, 8),
            Mode::Shares => fse::put_shares(&self.shares, self.log, &mut bits),
        }
        bits.finish()
    }

    fn table(&self) -> &Table<N> {
        if self.mode == Mode::Own {
            &self.formats
        } else {
            &self.made
        }
    }
}
