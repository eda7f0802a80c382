//! Our ELF64 core: [`Layout`] says where every byte of memory stands, [`Layout::header`] makes the header room.
//!
//! The order that every reader accepts: ELF header, program headers directly behind it at offset 64 (makedumpfile reads
//! them there), PT_NOTE first, the notes before all memory (crash looks nowhere else), page-aligned PT_LOADs with
//! `p_align` 0 (with 4096, crash takes the file for its older "netdump" flavour, crash netdump.c), `p_filesz` equal to
//! `p_memsz`, and zero pages inside the segments, as holes of the file.
//!
//! [`ElfPlan`] is the same for memory with gaps, in any number of pieces, without header room and trailer.

mod constants;
mod header;
mod layout;
mod plan;

pub(crate) use constants::*;
pub use header::{HeaderError, HeaderInput, TextMapping};
pub use layout::{Layout, LayoutError, Segment};
pub use plan::{ElfPlan, ElfPlanError};
