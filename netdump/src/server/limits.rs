use super::AckPolicy;
use crate::{limits, time::Duration};

/// What one session may use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SessionLimits {
    /// Largest end of a VMCORE message in bytes.
    pub file_len_max: u64,
    /// Largest HERALD payload that is kept, in bytes; a longer one is as good as none.
    pub herald_len_max: usize,
    /// Largest end of a kernel dump header message in bytes.
    pub kernel_header_len_max: u64,
    /// Largest end of a key message in bytes.
    pub key_len_max: u64,
    /// Separate ranges of the coverage. Data that would need one more is not taken and not acknowledged, so that its
    /// sender keeps it and turns to its next target.
    pub extents_max: usize,
    /// Acknowledgements that wait to be sent; beyond that they are dropped and their messages come again.
    pub acks_max: usize,
    /// Silence that ends the session.
    pub silent_after: Duration,
    /// How long repeats are answered after FINISHED was acknowledged.
    pub linger: Duration,
    /// When data is acknowledged.
    pub ack_policy: AckPolicy,
}

impl Default for SessionLimits {
    /// For a stock sender: the numbers of [`crate::limits`], 60 s of silence.
    fn default() -> Self {
        Self {
            file_len_max: limits::FILE_LEN_MAX,
            herald_len_max: limits::HERALD_LEN_MAX,
            kernel_header_len_max: limits::KERNEL_HEADER_LEN_MAX,
            key_len_max: limits::KEY_LEN_MAX,
            extents_max: limits::EXTENTS_MAX,
            acks_max: limits::ACKS_MAX,
            silent_after: limits::SILENT_AFTER_STOCK,
            linger: limits::LINGER,
            ack_policy: AckPolicy::default(),
        }
    }
}
