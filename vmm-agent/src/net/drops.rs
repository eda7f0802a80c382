//! Frames that a wire did not get rid of.

/// Counts them, and says so at powers of two: a guest can make any number of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Drops(u64);

impl Drops {
    /// So many frames more are lost on this wire; `why` is the end of a sentence.
    pub(super) fn add(&mut self, frames: u64, wire: &str, why: &str) {
        let before = self.0;
        self.0 += frames;
        if before.checked_ilog2() < self.0.checked_ilog2() {
            tracing::warn!("{wire}: {} frames lost so far: {why}", self.0);
        }
    }

    /// How many there were.
    pub(super) fn count(self) -> u64 {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_frame_counts() {
        let mut drops = Drops::default();
        for frames in [0, 1, 1, 64, 0, 7] {
            drops.add(frames, "tap0", "a test");
        }
        assert_eq!(drops.count(), 73);
    }
}
