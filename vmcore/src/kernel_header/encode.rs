//! Writes headers of version 4.

use super::parse::parity;
use super::{
    ARCHITECTURE_LEN, DumpKind, HOSTNAME_LEN, KERNEL_HEADER_LEN, KernelDumpHeader, MAGIC_CLEARED, MAGIC_KERNEL,
    MAGIC_LEN, MAGIC_TEXT, PANIC_LEN_V4, PARITY_AT, VERSION_CURRENT, VERSION_STRING_LEN,
};
use crate::bytes::Writer;

impl KernelDumpHeader {
    /// The header as version 4, whatever `self.version` says, with a fresh parity word.
    ///
    /// Texts that are too long are cut between characters and always end with a NUL; a version string that was cut still
    /// ends with a newline, as the kernel's does (sys/kern/kern_shutdown.c).
    #[must_use]
    pub fn encode(&self) -> [u8; KERNEL_HEADER_LEN] {
        let magic = match self.kind {
            DumpKind::Kernel => MAGIC_KERNEL,
            DumpKind::Text => MAGIC_TEXT,
            DumpKind::Cleared => MAGIC_CLEARED,
        };
        let mut out = Writer::with_capacity(KERNEL_HEADER_LEN);
        out.bytes(magic);
        out.fill_to(MAGIC_LEN, 0);
        put_text(&mut out, &self.architecture, ARCHITECTURE_LEN);
        out.u32_be(VERSION_CURRENT);
        out.u32_be(self.architecture_version);
        out.u64_be(self.dump_len_bytes);
        out.u64_be(self.dump_time_s);
        out.u32_be(self.key_len_bytes);
        out.u32_be(self.block_len_bytes);
        put_text(&mut out, &self.hostname, HOSTNAME_LEN);
        put_text(
            &mut out,
            &cut_with_newline(&self.version_string, VERSION_STRING_LEN - 1),
            VERSION_STRING_LEN,
        );
        put_text(&mut out, &self.panic_string, PANIC_LEN_V4);
        out.bytes(&[self.compression.to_byte()]);
        out.u64_be(self.dump_extent_bytes);
        out.fill_to(PARITY_AT, 0); // four unused bytes
        let parity = parity(out.as_slice());
        out.u32_be(parity);
        let mut header = [0; KERNEL_HEADER_LEN];
        for (to, from) in header.iter_mut().zip(out.into_vec()) {
            *to = from;
        }
        header
    }
}

/// A NUL-terminated field of `len` bytes.
fn put_text(out: &mut Writer, text: &str, len: usize) {
    let end = out.len() + len;
    let cut = text.floor_char_boundary(len.saturating_sub(1));
    // A NUL within would end the text for every reader, so it does here.
    out.bytes(crate::bytes::until_nul(text.get(..cut).unwrap_or_default().as_bytes()));
    out.fill_to(end, 0);
}

fn cut_with_newline(text: &str, len_max: usize) -> String {
    if text.len() <= len_max {
        return text.to_owned();
    }
    let cut = text.floor_char_boundary(len_max - 1);
    format!("{}\n", text.get(..cut).unwrap_or_default())
}
