//! What the client is fed, in order: the ELF headers, all RAM in chunks, the kernel dump header.
use netdump::{Client, Kind};

use super::file::{CoreLayout, HEADERS_LEN};
use super::kernel_header::KERNEL_HEADER_LEN;
use super::{CHUNK_LEN, Machine, SEND_BUFFER_LEN};

/// Where the dump stands.
pub(super) struct Feed<'a> {
    layout: CoreLayout,
    kernel_header: [u8; KERNEL_HEADER_LEN],
    chunk: &'a mut [u8; CHUNK_LEN],
    source: Source,
    /// File offset of `chunk`, and its bytes that are filled.
    at: u64,
    filled: usize,
    /// Bytes of the current source that the client took.
    taken: usize,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Source {
    File,
    KernelHeader,
    Nothing,
}

impl<'a> Feed<'a> {
    pub(super) fn new(
        layout: CoreLayout,
        kernel_header: [u8; KERNEL_HEADER_LEN],
        chunk: &'a mut [u8; CHUNK_LEN],
    ) -> Self {
        if let Some(room) = chunk.get_mut(..HEADERS_LEN) {
            room.copy_from_slice(&layout.headers());
        }
        Self {
            layout,
            kernel_header,
            chunk,
            source: Source::File,
            at: 0,
            filled: HEADERS_LEN,
            taken: 0,
        }
    }

    /// Gives the client as much as it takes.
    pub(super) fn fill(
        &mut self,
        machine: &mut impl Machine,
        client: &mut Client<&mut [u8; SEND_BUFFER_LEN]>,
        payload_len_max: usize,
    ) {
        loop {
            let (kind, start, bytes) = match self.source {
                Source::File => (Kind::Vmcore, self.at, self.chunk.get(..self.filled).unwrap_or_default()),
                Source::KernelHeader => (Kind::KernelHeader, 0, self.kernel_header.as_slice()),
                Source::Nothing => {
                    client.finish();
                    return;
                }
            };
            let rest = bytes.get(self.taken..).unwrap_or_default();
            if rest.is_empty() {
                self.advance(machine);
                continue;
            }
            // A packet is not cut short for the last bytes of the window: full ones travel together.
            if client.capacity() < rest.len().min(payload_len_max) {
                return;
            }
            self.taken += client.push(kind, start + self.taken as u64, rest);
        }
    }

    /// Goes on to what comes next.
    fn advance(&mut self, machine: &mut impl Machine) {
        self.taken = 0;
        if self.source != Source::File {
            self.source = Source::Nothing;
            return;
        }
        self.at += self.filled as u64;
        let Some((gpa, rest)) = self.layout.memory_at(self.at) else {
            self.source = Source::KernelHeader;
            return;
        };
        self.filled = usize::try_from(rest).unwrap_or(CHUNK_LEN).min(CHUNK_LEN);
        machine.read_ram(gpa, self.chunk.get_mut(..self.filled).unwrap_or_default());
    }
}
