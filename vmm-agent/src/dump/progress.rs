//! How far a dump is, readable from any thread while it runs.

use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};

/// What a dump is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Phase {
    /// Nothing yet.
    Preparing = 0,
    /// Looking for the next hop and the receiver.
    Connecting = 1,
    /// Sending the core.
    Sending = 2,
    /// Everything is sent; waiting until the receiver has it on disk.
    Finishing = 3,
    /// Writing the core to the spool directory.
    Spooling = 4,
    /// Over, well or not.
    Over = 5,
}

impl Phase {
    /// The phase in one word, as the API shows it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Preparing => "preparing",
            Self::Connecting => "connecting",
            Self::Sending => "sending",
            Self::Finishing => "finishing",
            Self::Spooling => "spooling",
            Self::Over => "over",
        }
    }
}

/// Progress of one dump, and the wish to end it. Written by the dump's thread, read by others; each number by itself is
/// right, together they may be a moment apart.
#[derive(Debug, Default)]
pub struct Progress {
    phase: AtomicU8,
    file_len: AtomicU64,
    file_position: AtomicU64,
    sent_bytes: AtomicU64,
    acked_bytes: AtomicU64,
    retransmitted_packets: AtomicU64,
    cancelled: AtomicBool,
}

/// Progress at one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ProgressSnapshot {
    /// What it is doing.
    pub phase: Phase,
    /// Length of the core in bytes, holes included; 0 before it is planned.
    pub bytes_total: u64,
    /// How far in the core this attempt has come, in bytes, holes included: the measure of what is done.
    pub bytes_done: u64,
    /// Bytes of the core given to the network or the spool by this attempt, without retransmissions.
    pub bytes_sent: u64,
    /// Of these, bytes that the receiver has acknowledged or the spool has taken.
    pub bytes_acked: u64,
    /// Packets sent again by this attempt.
    pub retransmits: u64,
}

impl Progress {
    /// Progress of a dump that has not begun.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Asks the dump to end; it does so within [`super::limits::CANCEL_CHECK_INTERVAL`].
    pub fn cancel(&self) {
        self.cancelled.store(true, Ordering::Relaxed);
    }

    /// Whether it was asked to end.
    #[must_use]
    pub fn is_cancelled(&self) -> bool {
        self.cancelled.load(Ordering::Relaxed)
    }

    /// All numbers now.
    #[must_use]
    pub fn snapshot(&self) -> ProgressSnapshot {
        let phase = match self.phase.load(Ordering::Relaxed) {
            1 => Phase::Connecting,
            2 => Phase::Sending,
            3 => Phase::Finishing,
            4 => Phase::Spooling,
            5 => Phase::Over,
            _ => Phase::Preparing,
        };
        ProgressSnapshot {
            phase,
            bytes_total: self.file_len.load(Ordering::Relaxed),
            bytes_done: self.file_position.load(Ordering::Relaxed),
            bytes_sent: self.sent_bytes.load(Ordering::Relaxed),
            bytes_acked: self.acked_bytes.load(Ordering::Relaxed),
            retransmits: self.retransmitted_packets.load(Ordering::Relaxed),
        }
    }

    /// A new attempt begins: its counts start again.
    pub(super) fn begin(&self, phase: Phase, file_len: u64) {
        self.file_len.store(file_len, Ordering::Relaxed);
        self.update(0, 0, 0, 0);
        self.enter(phase);
    }

    pub(super) fn enter(&self, phase: Phase) {
        self.phase.store(phase as u8, Ordering::Relaxed);
    }

    pub(super) fn update(&self, file_position: u64, sent_bytes: u64, acked_bytes: u64, retransmitted_packets: u64) {
        self.file_position.store(file_position, Ordering::Relaxed);
        self.sent_bytes.store(sent_bytes, Ordering::Relaxed);
        self.acked_bytes.store(acked_bytes, Ordering::Relaxed);
        self.retransmitted_packets
            .store(retransmitted_packets, Ordering::Relaxed);
    }
}
