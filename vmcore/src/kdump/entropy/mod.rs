//! Symbols as bits: what compressors of pages have in common.
//!
//! - [`bits`]: bits behind one another
//! - [`code`]: codes of whole bits for symbols that occur so and so often
//! - [`fse`]: states that give symbols fractions of bits

pub(super) mod bits;
pub(super) mod code;
pub(super) mod fse;
