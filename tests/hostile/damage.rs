//! Damage to a core by a seed: flipped bits and senseless numbers where readers look, anywhere else, and ends that are missing.

use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt as _;

use crate::form::Form;

/// Numbers that a field of a file is seldom made for.
const NUMBERS: [u64; 16] = [
    0,
    1,
    2,
    0x7f,
    0xff,
    0xffff,
    0x1_0000,
    0x7fff_ffff,
    0xffff_ffff,
    1 << 32,
    1 << 40,
    1 << 45,
    (1 << 52) - 4096,
    1 << 63,
    u64::MAX - 4095,
    u64::MAX,
];

/// Numbers that follow from a seed (xorshift64).
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    pub(crate) fn below(&mut self, most: u64) -> u64 {
        self.next() % most.max(1)
    }

    pub(crate) fn pick<'t, T>(&mut self, of: &'t [T]) -> &'t T {
        &of[usize::try_from(self.below(of.len() as u64)).expect("an index")]
    }
}

/// What became of the file.
pub(crate) struct Damaged {
    /// The length that the store believes.
    pub(crate) len: u64,
    /// Ranges that are lost, as the store believes.
    pub(crate) lost: Vec<Range<u64>>,
}

impl Damaged {
    /// Nothing is missing.
    pub(crate) const fn whole(len: u64) -> Self {
        Self { len, lost: Vec::new() }
    }
}

/// Damages a file that [`Form::write`] wrote.
pub(crate) fn damage(form: &Form, file: &File, random: &mut Random) -> io::Result<Damaged> {
    let mut done = Damaged::whole(form.len);
    // Most aim at one place, so that what lies behind the first check is reached too.
    let aimed = random.pick(&form.places).1.clone();
    for _ in 0..1 + random.below(8) {
        let place = match random.below(8) {
            0 => 0..form.len,
            1 => random.pick(&form.places).1.clone(),
            _ => aimed.clone(),
        };
        hurt(file, &place, form.len, random)?;
    }
    match random.below(8) {
        // The end never came, and the store knows, or takes the file for whole.
        0 => done.lost.push(random.below(form.len)..form.len),
        1 => done.len = random.below(form.len),
        2 => {
            for _ in 0..1 + random.below(4) {
                let start = random.below(form.len) & !4095;
                done.lost
                    .push(start..(start + 4096 * (1 + random.below(64))).min(form.len));
            }
            done.lost.sort_by_key(|range| range.start);
        }
        _ => {}
    }
    file.set_len(done.len)?;
    Ok(done)
}

/// Changes a few bytes within a place.
fn hurt(file: &File, place: &Range<u64>, len: u64, random: &mut Random) -> io::Result<()> {
    let at = (place.start + random.below(place.end - place.start)).min(len - 1);
    let mut byte = [0];
    match random.below(6) {
        // A number, where numbers are: aligned as they are.
        0 | 1 => {
            let number = *random.pick(&NUMBERS);
            let (at, width) = if random.below(2) == 0 {
                (at & !7, 8)
            } else {
                (at & !3, 4)
            };
            let bytes = number.to_le_bytes();
            let width = width.min(usize::try_from(len - at).unwrap_or(8));
            file.write_all_at(&bytes[..width], at)
        }
        // Of a text a digit or a letter.
        2 => file.write_all_at(&[*random.pick(b"0123456789abcdef\n=(-")], at),
        // A pointer that is nearly right.
        3 => {
            let at = at & !7;
            let mut word = [0; 8];
            if at + 8 > len {
                return Ok(());
            }
            file.read_exact_at(&mut word, at)?;
            let moved = u64::from_le_bytes(word).wrapping_add((random.below(64) * 8).wrapping_sub(256));
            file.write_all_at(&moved.to_le_bytes(), at)
        }
        _ => {
            file.read_exact_at(&mut byte, at)?;
            byte[0] ^= 1 << random.below(8);
            file.write_all_at(&byte, at)
        }
    }
}
