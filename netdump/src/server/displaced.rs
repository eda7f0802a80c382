//! The first page of a stock client's second dump, which arrives in the wrong place.
//!
//! `nd_tx_off` in FreeBSD's `sys/netinet/netdump/netdump_client.c` is only set when the buffer is flushed. So the second
//! dump after one boot (`netdump` and then `dump` in ddb) sends its first block to the offset where the first dump ended,
//! and goes on at 4096 as if it had sent that block to 0. The block is the header of a minidump (`struct
//! minidumphdr`, `sys/amd64/include/minidump.h`), without which no debugger opens the file.

use core::{iter, ops::Range};

use super::{Extents, Seqno};
use crate::limits;

/// How a minidump of any architecture begins.
const MAGIC: &[u8] = b"minidump FreeBSD/";

const PAGE_LEN: u64 = limits::DUMP_BLOCK_LEN as u64;

/// A page that belongs to offset 0 and was sent to another one.
///
/// Storage copies it to offset 0 and flags the dump as repaired. It is no longer part of
/// [`super::Session::received_extents`]: neither at the offset where it came, whose own data may follow, nor at 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DisplacedPage {
    /// Where it was sent, and is in storage until the data of that place comes.
    pub offset: u64,
    /// Its bytes: one dump block.
    pub len_bytes: u64,
}

/// Watches the first data of a session.
#[derive(Clone, Debug, Default)]
pub(super) enum Watch {
    /// No data came that would tell.
    #[default]
    Nothing,
    /// Everything so far belongs to a page that looks like the header of a minidump.
    Page { offset: u64, seqno: Seqno },
    /// The dump went on at 4096.
    Displaced { offset: u64, next_seqno: Seqno },
    /// The dump is as it should be.
    Fine,
}

/// What to do with data.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// What is usual.
    Take,
    /// It is the first after the displaced page, which is not to be counted as received.
    Displaces,
    /// It is a late copy of the displaced page: it must not overwrite the data of its place.
    Drop,
}

impl Watch {
    /// For a session that is taken over from another process. `displaced` was found by that one; `begins` are the first
    /// bytes of the lowest range in `received`; `seqno` is that of the first packet of the present burst.
    pub(super) fn resumed(received: &Extents, displaced: Option<DisplacedPage>, begins: &[u8], seqno: Seqno) -> Self {
        if let Some(DisplacedPage { offset, .. }) = displaced {
            // The displaced page came in an earlier burst, so that this one has none of it.
            let next_seqno = Seqno(seqno.0.wrapping_sub(1));
            return Self::Displaced { offset, next_seqno };
        }
        let first = received.iter().next().unwrap_or(0..0);
        let page = first.start..first.start.saturating_add(PAGE_LEN);
        let is_header = begins.starts_with(MAGIC) && page.start > 0 && page.start.is_multiple_of(PAGE_LEN);
        if is_header && received.iter().all(|range| is_within(&range, &page)) {
            Self::Page {
                offset: page.start,
                seqno,
            }
        } else if received.covered_bytes() >= PAGE_LEN {
            Self::Fine
        } else {
            Self::Nothing
        }
    }

    pub(super) fn page(&self) -> Option<DisplacedPage> {
        match *self {
            Self::Displaced { offset, .. } => Some(DisplacedPage {
                offset,
                len_bytes: PAGE_LEN,
            }),
            Self::Nothing | Self::Page { .. } | Self::Fine => None,
        }
    }

    /// Looks at data before it is taken; `received` is what was taken before.
    pub(super) fn saw(&mut self, seqno: Seqno, offset: u64, bytes: &[u8], received: &Extents) -> Verdict {
        let within = |page: u64| offset >= page && offset - page < PAGE_LEN;
        match *self {
            Self::Nothing => {
                let is_header = bytes.starts_with(MAGIC) && offset > 0 && offset.is_multiple_of(PAGE_LEN);
                let page = offset..offset.saturating_add(PAGE_LEN);
                if is_header && received.iter().all(|range| is_within(&range, &page)) {
                    *self = Self::Page { offset, seqno };
                } else if received.covered_bytes() >= PAGE_LEN {
                    *self = Self::Fine;
                }
            }
            Self::Page { offset: page, .. } if within(page) => {}
            Self::Page {
                offset: page,
                seqno: first,
            } => {
                let next = PAGE_LEN..PAGE_LEN + u64::from(limits::BURST_BYTES_MAX);
                let whole = received.iter().eq(iter::once(page..page.saturating_add(PAGE_LEN)));
                if whole && next.contains(&offset) && offset < page && is_after(seqno, first) {
                    *self = Self::Displaced {
                        offset: page,
                        next_seqno: seqno,
                    };
                    return Verdict::Displaces;
                }
                *self = Self::Fine;
            }
            Self::Displaced { .. } if offset < PAGE_LEN => *self = Self::Fine,
            Self::Displaced { .. } if self.is_of_page(seqno, offset) => return Verdict::Drop,
            Self::Displaced { .. } | Self::Fine => {}
        }
        Verdict::Take
    }

    /// Whether this is a part of a displaced page, so that its own place is not covered by it.
    pub(super) fn is_of_page(&self, seqno: Seqno, offset: u64) -> bool {
        match *self {
            Self::Displaced {
                offset: page,
                next_seqno,
            } => offset >= page && offset - page < PAGE_LEN && !is_after(seqno, next_seqno),
            Self::Nothing | Self::Page { .. } | Self::Fine => false,
        }
    }
}

fn is_within(range: &Range<u64>, outer: &Range<u64>) -> bool {
    range.start >= outer.start && range.end <= outer.end
}

const fn is_after(seqno: Seqno, other: Seqno) -> bool {
    let ahead = seqno.0.wrapping_sub(other.0);
    ahead != 0 && ahead <= u32::MAX / 2
}
