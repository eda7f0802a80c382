//! Bounds of the REST interface, with the reason beside each number.

use std::time::Duration;

/// Items of a page when the caller names no limit: a screenful or two.
pub const PAGE_ITEMS_DEFAULT: usize = 50;

/// Most items of a page: keeps an answer well below a megabyte.
pub const PAGE_ITEMS_MAX: usize = 500;

/// Extents of a page when the caller names no limit.
pub const EXTENTS_DEFAULT: usize = 1000;

/// Most extents of a page: their digests may have to be computed from at most as many chunks of 1 MiB.
pub const EXTENTS_MAX: usize = 4000;

/// Largest request body: a dump request is a few hundred bytes.
pub const REQUEST_BODY_BYTES_MAX: usize = 64 * 1024;

/// Largest answer that the client keeps in memory (downloads are streamed): a page of 500 items with room to spare.
pub const ANSWER_BYTES_MAX: usize = 16 * 1024 * 1024;

/// Longest `Idempotency-Key` that is taken: a UUID has 36 characters.
pub const IDEMPOTENCY_KEY_BYTES_MAX: usize = 255;

/// Events that a listener who comes back finds: days of a busy fleet, some MiB.
pub const EVENTS_KEPT: usize = 10_000;

/// Events given to a listener at a time, so that one who reads slowly holds little.
pub const EVENTS_AT_ONCE: usize = 256;

/// Those who listen at one time, each a connection: more than a control room has.
pub const LISTENERS_MAX: usize = 64;

/// Longest note on a core.
pub const NOTE_BYTES_MAX: usize = 4096;

/// Labels of one core, and the longest name and value of one: names for scripts, not texts.
pub const LABELS_MAX: usize = 32;

/// Longest name or value of a label.
pub const LABEL_BYTES_MAX: usize = 128;

/// How long the handshake of a TLS connection may take: a few round trips, on slow lines too.
pub const HANDSHAKE_TIME: Duration = Duration::from_secs(10);

/// TLS connections at one time, those in their handshake included; each has some 40 KiB of buffers.
pub const TLS_CONNECTIONS_MAX: usize = 512;

/// A TLS connection on which nothing moves for so long gives its place back; streams of events are pinged every 15 s.
pub const TLS_IDLE_TIME: Duration = Duration::from_secs(90);

/// How long a delivery to a webhook may take from the connection to its answer.
pub const WEBHOOK_TIME: Duration = Duration::from_secs(10);
