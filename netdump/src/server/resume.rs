//! A session that goes on in another process than it began in.

use alloc::{collections::VecDeque, vec::Vec};

use super::{
    DisplacedPage, Extents, Instant, Pairing, ResumePoint, SMALL_EXTENTS_MAX, Session, SessionLimits, SessionState,
    SessionStats, Watch,
};

/// What is known of a session that another process began: what storage has taken, and where the sender is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Resumed {
    /// The last [`Session::resume_point`] that was recorded.
    pub point: ResumePoint,
    /// What of the dump file storage has.
    pub data: Extents,
    /// What of the kernel dump header storage has.
    pub kernel_header: Extents,
    /// What of the key storage has.
    pub key: Extents,
    /// The page that was put to offset 0, if one was.
    pub displaced: Option<DisplacedPage>,
    /// The first bytes of what storage has of the dump file, some twenty of them.
    pub begins: Vec<u8>,
    /// FINISHED is answered already, or may be: everything is durable.
    pub is_durable: bool,
}

impl Session {
    /// A session that goes on where another process left it. Its silence and its lingering count from `now`.
    #[must_use]
    pub fn resumed(limits: SessionLimits, from: Resumed, now: Instant) -> Self {
        let Resumed {
            point,
            data,
            kernel_header,
            key,
            displaced,
            begins,
            is_durable,
        } = from;
        let state = if is_durable {
            SessionState::Lingering
        } else {
            SessionState::Receiving
        };
        let mut own = Extents::new(limits.extents_max);
        let copy = |to: &mut Extents, from: &Extents| {
            for range in from {
                // A range too many counts as missing: it is asked for again, never taken for granted.
                let _ = to.insert(range);
            }
        };
        copy(&mut own, &data);
        let mut small = [Extents::new(SMALL_EXTENTS_MAX), Extents::new(SMALL_EXTENTS_MAX)];
        let [own_header, own_key] = &mut small;
        copy(own_header, &kernel_header);
        copy(own_key, &key);
        let [kernel_header, key] = small;
        Self {
            limits,
            state,
            herald: Vec::new(),
            herald_extents: Extents::new(SMALL_EXTENTS_MAX),
            pairing: Pairing::resumed(limits.ack_policy, point, &own),
            watch: Watch::resumed(&own, displaced, &begins, point.start),
            data: own,
            kernel_header,
            key,
            acks: VecDeque::new(),
            event: None,
            heard_at: now,
            linger_until: now + limits.linger,
            // What came to the process before is not counted here; that something came is what has_data() asks.
            stats: SessionStats {
                messages: 1,
                ..SessionStats::default()
            },
        }
    }

    /// Where the session is in its sender's bursts. To be recorded when it has changed, after each batch of messages was
    /// handled and before their bytes are stored: then [`Session::resumed`] finds the burst of every byte in storage.
    #[must_use]
    pub fn resume_point(&self) -> ResumePoint {
        self.pairing.point()
    }
}
