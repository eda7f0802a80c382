//! How often each symbol of the format occurs.

use super::symbols::{DISTANCES, END, LITERALS, Lengths, distance_symbol};
use crate::kdump::repeats::{Finder, add_one};

#[derive(Debug, Clone)]
pub(super) struct Counts {
    pub(super) literals: [u16; LITERALS],
    pub(super) distances: [u16; DISTANCES],
}

impl Default for Counts {
    fn default() -> Self {
        Self {
            literals: [0; LITERALS],
            distances: [0; DISTANCES],
        }
    }
}

impl Counts {
    /// Counts anew what was found.
    pub(super) fn take(&mut self, finder: &Finder, lengths: &Lengths) {
        let (mut of_lengths, mut of_distances) = ([0_u16; 32], [0_u16; 32]);
        for found in finder.found() {
            add_one(&mut of_lengths, usize::from(lengths.of(found.len).symbol) % 32);
            add_one(&mut of_distances, distance_symbol(found.distance).0 as usize % 32);
        }
        // Symbols of lengths begin at 257, a multiple of 32 and one.
        let literals = finder.count_literals().into_iter().chain(of_lengths);
        for (count, own) in self.literals.iter_mut().zip(literals) {
            *count = own;
        }
        if let Some(end) = self.literals.get_mut(END) {
            *end = 1;
        }
        for (count, own) in self.distances.iter_mut().zip(of_distances) {
            *count = own;
        }
    }
}
