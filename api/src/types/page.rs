//! One page of a list.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// Part of a list, with the way to the next part.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Page<T> {
    /// Version of this object.
    pub schema_version: u32,
    /// The items, newest first.
    pub items: Vec<T>,
    /// What to give as `cursor` for the next page; none on the last one.
    pub next_cursor: Option<String>,
}
