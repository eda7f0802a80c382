//! Losing datagrams on purpose, the same ones for the same seed.

/// Decides which datagrams are lost.
#[derive(Debug, Clone)]
pub(crate) struct Loss {
    state: u64,
    per_mille: u64,
    /// The one datagram that is lost whatever the dice say, counted from 1.
    doomed: Option<u64>,
    count: u64,
    lost: u64,
}

impl Loss {
    /// No loss.
    pub(crate) fn none() -> Self {
        Self::seeded(0, 0)
    }

    /// Loses `per_mille` of a thousand datagrams.
    pub(crate) fn seeded(seed: u64, per_mille: u64) -> Self {
        Self {
            state: seed,
            per_mille,
            doomed: None,
            count: 0,
            lost: 0,
        }
    }

    /// Loses one datagram, the one of this number; the first is number 1.
    pub(crate) fn only(number: u64) -> Self {
        Self {
            doomed: Some(number),
            ..Self::none()
        }
    }

    /// Whether the next datagram is lost.
    pub(crate) fn strikes(&mut self) -> bool {
        // SplitMix64 (Steele, Lea, Flood 2014).
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.state;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        self.count += 1;
        let lost = (mixed ^ (mixed >> 31)) % 1000 < self.per_mille || self.doomed == Some(self.count);
        self.lost += u64::from(lost);
        lost
    }

    /// How many datagrams were lost so far.
    pub(crate) fn lost(&self) -> u64 {
        self.lost
    }
}
