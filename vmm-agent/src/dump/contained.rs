//! Keeps a bug in one step of a dump from costing the core.

use std::panic::{AssertUnwindSafe, catch_unwind};

/// What a bug of ours looks like to an operator, behind what panicked.
pub(crate) const PANICKED: &str = "panicked, which is a bug of coreferry; the log says where";

/// Runs what reads a hostile guest's memory or talks to a hostile network; nothing if it panicked. What it leaves half-done must
/// not be looked at again, or be whole by itself.
pub(crate) fn contained<T>(work: impl FnOnce() -> T) -> Option<T> {
    catch_unwind(AssertUnwindSafe(work)).ok()
}
