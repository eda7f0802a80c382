//! kdump-compressed: the "diskdump" format of makedumpfile, version 6 with a 64-bit sub-header (makedumpfile IMPLEMENTATION;
//! crash, diskdump.h), plain and flattened.
//!
//! ```text
//! block 0   1              1+n        ...            descriptors        pages
//! ┌────────┬──────────────┬──────────┬──────────┬───────────────────┬──────────────┐
//! │ header │ sub-header,  │ bitmap 1 │ bitmap 2 │ 24 bytes for each │ compressed,  │
//! │        │ notes        │ RAM      │ in file  │ bit of bitmap 2   │ one by one   │
//! └────────┴──────────────┴──────────┴──────────┴───────────────────┴──────────────┘
//! ```
//!
//! - [`codec`]: how a page is stored; compressors and decompressors enter by traits
//! - [`header`]: header and sub-header
//! - [`bitmap`]: one bit for each page frame
//! - [`plan`]: a file to be written: where everything stands, and the descriptors
//! - [`flattened`]: the form without seeking: records that say where their bytes belong
//! - [`image`]: a file that is read; `lzo`, `unflattened` and `rank` are its parts
//! - [`Deflate`], [`Lzo`], [`Zstd`]: compressors; `repeats` and `entropy` are their parts

pub mod bitmap;
pub mod codec;
mod deflate;
mod entropy;
pub mod flattened;
pub mod header;
pub mod image;
mod lzo;
pub mod plan;
mod rank;
mod repeats;
#[cfg(test)]
mod testing;
mod unflattened;
mod write_lzo;
mod zstd;

pub use bitmap::PageBitmap;
pub use codec::{Compress, Decompress, PageCodec};
pub use deflate::Deflate;
pub use header::{KdumpHeader, Utsname};
pub use image::{KdumpError, KdumpImage};
pub use lzo::decompress as decompress_lzo;
pub use plan::{Descriptors, KdumpEnd, KdumpPlan, KdumpPlanError, Place, StoredPage, store_page};
pub(crate) use rank::RankedBitmap;
pub use write_lzo::Lzo;
pub use zstd::Zstd;
