//! The types of the contract. Times are RFC 3339 in UTC, sizes are in bytes.

pub mod core;
pub mod dead_letter;
pub mod dump;
pub mod edit;
pub mod event;
pub mod explanation;
pub mod health;
pub mod page;
pub mod problem;
pub mod vm;
