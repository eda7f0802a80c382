//! Dump file formats, as pure functions over bytes: no files, sockets, clocks or threads.
//!
//! The main product is our vmcore: an ELF64 core behind a fixed header room, followed by a trailer that declares the
//! state of every page and carries the digests, so that the file proves itself wherever it is copied. The rest reads and
//! writes what stands around such a file: notes, other people's ELF cores and the FreeBSD kernel dump header.
//!
//! ```text
//!  0            1 MiB                         memory_end     covered_end            file_len
//!  ├────────────┼────────────┬──────────┬──────────┼─────────────┼──────────────────────┤
//!  │ header room│ RAM range 0│ RAM range│   ...    │ the kernel's│ trailer       footer │
//!  │ Ehdr phdrs │ (file offsets depend on the      │ file, if it │ page states, digests │
//!  │ notes, 0…0 │  ranges alone; zero pages: holes)│ was kept    │ never a zero page    │
//!  └────────────┴────────────┴──────────┴──────────┴─────────────┴──────────────────────┘
//! ```
//!
//! - [`elf`]: where everything stands in our file ([`elf::Layout`]), and the bytes of the header room
//! - [`notes`]: ELF notes: iterator, registers (`CORE`, `QEMU`), `VMCOREINFO`
//! - [`coreferry`]: the `COREFERRY` note, what the agent knows about the crash
//! - [`trailer`]: page-state map and digests; `docs/trailer.md` is its specification
//! - [`reader`]: the head of any ELF64 core, ours or another writer's
//! - [`rewrite`]: another writer's ELF core laid out as ours
//! - [`kernel_header`]: the FreeBSD kernel dump header and savecore's info text
//! - [`kdump`]: makedumpfile's compressed form, plain and flattened
//! - [`minidump`]: FreeBSD's minidump
//! - [`image`]: an ELF core's memory by guest physical address
//! - [`dumpfile`]: a core of any of these forms, opened by what it begins with
//! - [`linux`]: a Linux guest read without debug symbols: its virtual memory, its log
//! - [`freebsd`]: the message buffer of a FreeBSD guest
//! - [`scan`]: memory read from one end to the other
//! - [`crash`]: what crashed, from the text of a kernel log, and the signature by which cores group
//! - [`cpu`], [`memory`], [`zero`]: registers, RAM ranges, the zero-page test
//! - [`limits`]: every bound, with its reason
#![cfg_attr(not(test), deny(clippy::indexing_slicing, clippy::panic, clippy::expect_used))]
#![forbid(unsafe_code)]

mod bytes;
pub mod coreferry;
pub mod cpu;
pub mod crash;
pub mod dumpfile;
pub mod elf;
pub mod freebsd;
pub mod image;
pub mod kdump;
pub mod kernel_header;
pub mod limits;
pub mod linux;
pub mod memory;
pub mod minidump;
pub mod notes;
pub mod reader;
pub mod rewrite;
pub mod scan;
pub mod trailer;
pub mod zero;

pub use coreferry::{CoreferryNote, FilterNote, KeptKernelNote, VcpuStop};
pub use cpu::{CpuState, DescriptorTable, SegmentFlags, SegmentRegister};
pub use limits::{HEADER_ROOM_LEN, PAGE_LEN};
pub use memory::MemoryRange;
pub use zero::is_zero;
