use alloc::{vec, vec::Vec};
use core::ops::Range;

use super::{image, rng::Rng, world::Violation};
use crate::{sim::world::Receiver, wire::Kind};

/// Bytes of a stock kernel dump header (`struct kerneldumpheader`).
const KERNEL_HEADER_LEN: usize = 512;

/// Bytes of a stock key message, padded to one block.
const KEY_LEN: usize = 4096;

/// Largest write of the stock dumper.
const WRITE_LEN_MAX: u64 = 64 * 1024;

/// How a minidump begins (`MINIDUMP_MAGIC`, `sys/amd64/include/minidump.h`).
const MINIDUMP_MAGIC: &[u8] = b"minidump FreeBSD/amd64\0\0";

/// One write of a dumper.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Write {
    /// The object that is written to.
    pub kind: Kind,
    /// Offset in it.
    pub offset: u64,
    /// What is written, at most 64 KiB.
    pub bytes: Vec<u8>,
}

/// The order in which a dump is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// FreeBSD 12: data, header, key.
    FreeBsd12,
    /// FreeBSD 13 and later, and our own client: key, data, header.
    FreeBsd13,
    /// The client of Sandvine and Duke: header, data, and the header once more behind the data.
    Sandvine,
    /// The test client of netdumpd: data, header.
    TestClient,
}

/// A dump to be sent: its writes in order.
#[derive(Clone, Debug)]
pub struct Plan {
    /// What is written, without HERALD and FINISHED.
    pub writes: Vec<Write>,
    /// Length of the dump file.
    pub file_len: u64,
}

impl Plan {
    /// A dense dump of `file_len` bytes as a stock client sends it: 64 KiB at a time.
    #[must_use]
    pub fn dense(order: Order, file_len: u64, seed: u64) -> Self {
        Self::new(order, file_len, core::iter::once(0..file_len), seed)
    }

    /// A dense dump that begins with the page of a minidump header and a few smaller writes, as FreeBSD's minidumps do
    /// (`sys/amd64/amd64/minidump_machdep.c`): header, message buffer, bitmap, page tables, pages.
    #[must_use]
    pub fn minidump(order: Order, file_len: u64, seed: u64) -> Self {
        let mut rng = Rng::new(seed);
        let mut runs = Vec::new();
        let mut at = 0;
        for blocks in [1, rng.within(1..30), 1, rng.within(1..20)] {
            let end = (at + 4096 * blocks).min(file_len);
            runs.push(at..end);
            at = end;
        }
        runs.push(at..file_len);
        let mut plan = Self::new(order, file_len, runs.into_iter(), seed);
        let first = plan.writes.iter_mut().find(|write| write.kind == Kind::Vmcore);
        if let Some(magic) = first.and_then(|write| write.bytes.get_mut(..MINIDUMP_MAGIC.len())) {
            magic.copy_from_slice(MINIDUMP_MAGIC);
        }
        plan
    }

    /// A dump with random holes from `base` on, as our agent sends it: runs of pages.
    #[must_use]
    pub fn sparse(order: Order, base: u64, file_len: u64, seed: u64) -> Self {
        let mut rng = Rng::new(seed);
        let mut runs = Vec::new();
        let mut at = base;
        while at < base + file_len {
            let end = (at + 4096 * rng.within(1..40)).min(base + file_len);
            runs.push(at..end);
            at = end + 4096 * rng.within(1..20);
        }
        Self::new(order, base + file_len, runs.into_iter(), seed)
    }

    fn new(order: Order, file_len: u64, runs: impl Iterator<Item = Range<u64>>, seed: u64) -> Self {
        let object = |kind, offset, len| Write {
            kind,
            offset,
            bytes: image::content(seed ^ u64::from(kind.number()), offset, len),
        };
        let mut data = Vec::new();
        for run in runs {
            let mut at = run.start;
            while at < run.end {
                let len = (run.end - at).min(WRITE_LEN_MAX);
                data.push(object(Kind::Vmcore, at, usize::try_from(len).unwrap_or(0)));
                at += len;
            }
        }
        let header = object(Kind::KernelHeader, 0, KERNEL_HEADER_LEN);
        let key = object(Kind::Key, 0, KEY_LEN);
        let writes = match order {
            Order::FreeBsd12 => [data, vec![header, key]].concat(),
            Order::FreeBsd13 => [vec![key], data, vec![header]].concat(),
            Order::TestClient => [data, vec![header]].concat(),
            Order::Sandvine => {
                let trailing = Write {
                    kind: Kind::Vmcore,
                    offset: file_len,
                    bytes: header.bytes.clone(),
                };
                [vec![header], data, vec![trailing]].concat()
            }
        };
        Self { writes, file_len }
    }

    /// Bytes of data, headers and keys.
    #[must_use]
    pub fn len_bytes(&self) -> u64 {
        self.writes.iter().map(|write| write.bytes.len() as u64).sum()
    }

    /// Whether every write is in storage.
    ///
    /// # Errors
    ///
    /// [`Violation::Missing`] names the first that is not.
    pub fn check_arrived<R: Receiver + ?Sized>(&self, receiver: &R) -> Result<(), Violation> {
        let kept = |write: &&Write| {
            receiver
                .image(write.kind)
                .is_some_and(|image| image.holds(write.offset, &write.bytes))
        };
        match self.writes.iter().find(|write| !kept(write)) {
            Some(Write { kind, offset, .. }) => Err(Violation::Missing {
                kind: *kind,
                offset: *offset,
            }),
            None => Ok(()),
        }
    }
}
