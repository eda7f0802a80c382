//! Dump file formats: ELF64 core, notes, trailer, FreeBSD kernel dump header; no I/O
