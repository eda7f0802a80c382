//! An event that an address could not be told of.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::types::event::Event;

/// A delivery to a webhook that was given up.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct DeadLetter {
    /// Version of this object.
    pub schema_version: u32,
    /// Id; younger ones sort behind older ones.
    pub id: String,
    /// Where it was to go, without the path, which may hold a secret.
    pub to: String,
    /// How often it was tried.
    pub tries: u64,
    /// Why the last try failed.
    pub last_error: Option<String>,
    /// When it was given up. RFC 3339, UTC.
    pub died_at: String,
    /// What happened: what would have been delivered.
    pub event: Event,
}
