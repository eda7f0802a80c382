//! Datagrams of one flow to one destination that leave in one call (udp(7), `UDP_SEGMENT`).

use std::io::IoSlice;
use std::net::SocketAddrV4;

use nic_emu::device::Segmentation;

use crate::net::limits::{GSO_BYTES_MAX, GSO_SEGMENTS_MAX};

/// Payloads of datagrams that lie one behind the other: all of one length, only the last may be shorter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Part<'a> {
    bytes: &'a [u8],
    segment_len: usize,
}

impl<'a> Part<'a> {
    /// The payload of a frame, in parts that each fit a train.
    pub(super) fn all(payload: &'a [u8], segmentation: Option<Segmentation>) -> impl Iterator<Item = Self> {
        let whole = payload.len().max(1);
        let segment_len = segmentation.map_or(whole, |cut| usize::from(cut.size).clamp(1, whole));
        let most = (GSO_BYTES_MAX / segment_len).clamp(1, GSO_SEGMENTS_MAX);
        let parts = payload.chunks(segment_len * most);
        // A datagram without data is one as well.
        let empty = payload.is_empty().then_some(payload);
        parts.chain(empty).map(move |bytes| Self { bytes, segment_len })
    }

    fn segments(self) -> usize {
        self.bytes.len().div_ceil(self.segment_len).max(1)
    }
}

/// Parts that leave together.
#[derive(Debug)]
pub(super) struct Train<'a> {
    pub(super) flow: usize,
    pub(super) to: SocketAddrV4,
    segment_len: usize,
    segments: usize,
    len_bytes: usize,
    parts: Vec<IoSlice<'a>>,
}

impl<'a> Train<'a> {
    /// A train of one part.
    pub(super) fn new(flow: usize, to: SocketAddrV4, part: Part<'a>) -> Self {
        let mut parts = Vec::with_capacity(GSO_SEGMENTS_MAX);
        parts.push(IoSlice::new(part.bytes));
        Self {
            flow,
            to,
            segment_len: part.segment_len,
            segments: part.segments(),
            len_bytes: part.bytes.len(),
            parts,
        }
    }

    /// Adds a part if it may leave in the same call: same flow and destination, and all datagrams of one length, of which
    /// only the very last may be shorter.
    pub(super) fn push(&mut self, flow: usize, to: SocketAddrV4, part: Part<'a>) -> bool {
        let len = part.bytes.len();
        let all_full = self.len_bytes == self.segments * self.segment_len;
        let alike = part.segment_len == self.segment_len || (part.segments() == 1 && len <= self.segment_len);
        let fits = self.flow == flow
            && self.to == to
            && all_full
            && alike
            && len > 0
            && self.segments + part.segments() <= GSO_SEGMENTS_MAX
            && self.len_bytes + len <= GSO_BYTES_MAX;
        if fits {
            self.parts.push(IoSlice::new(part.bytes));
            self.segments += part.segments();
            self.len_bytes += len;
        }
        fits
    }

    /// Everything, for one call.
    pub(super) fn parts(&self) -> &[IoSlice<'a>] {
        &self.parts
    }

    /// Bytes of every datagram but the last.
    pub(super) fn segment_len(&self) -> usize {
        self.segment_len
    }

    /// How many datagrams.
    pub(super) fn count(&self) -> usize {
        self.segments
    }

    /// The datagrams one by one.
    pub(super) fn datagrams(&self) -> Vec<IoSlice<'_>> {
        let mut all = Vec::with_capacity(self.segments);
        for part in &self.parts {
            if part.is_empty() {
                all.push(IoSlice::new(part));
            }
            all.extend(part.chunks(self.segment_len).map(IoSlice::new));
        }
        all
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use nic_emu::device::SegmentationKind;

    use super::*;

    const TO: SocketAddrV4 = SocketAddrV4::new(Ipv4Addr::LOCALHOST, 9);

    fn cut(size: u16) -> Option<Segmentation> {
        let kind = SegmentationKind::Udp4;
        Some(Segmentation {
            kind,
            size,
            header_len: 42,
        })
    }

    /// Datagrams of the trains into which these payloads are put: each train's lengths.
    fn trains(payloads: &[(usize, Option<Segmentation>)]) -> Vec<Vec<usize>> {
        let zeros = vec![0; 70_000];
        let mut trains: Vec<Train<'_>> = Vec::new();
        for (len, segmentation) in payloads {
            for part in Part::all(&zeros[..*len], *segmentation) {
                if !trains.last_mut().is_some_and(|train| train.push(0, TO, part)) {
                    trains.push(Train::new(0, TO, part));
                }
            }
        }
        for train in &trains {
            assert!(train.parts().iter().map(|part| part.len()).sum::<usize>() <= GSO_BYTES_MAX);
        }
        let lengths = |train: &Train<'_>| train.datagrams().iter().map(|one| one.len()).collect();
        trains.iter().map(lengths).collect()
    }

    #[test]
    fn a_burst_is_one_train_and_joins_what_has_its_length() {
        assert_eq!(trains(&[(250, cut(100))]), [[100, 100, 50]]);
        assert_eq!(
            trains(&[(100, None), (200, cut(100)), (30, None)]),
            [[100, 100, 100, 30]]
        );
        // Nothing follows a short one, and datagrams of another length are not run together.
        assert_eq!(trains(&[(130, cut(100)), (100, None)]), [vec![100, 30], vec![100]]);
        assert_eq!(trains(&[(100, None), (80, cut(40))]), [vec![100], vec![40, 40]]);
        assert_eq!(
            trains(&[(0, None), (0, cut(9)), (10, None)]),
            [vec![0], vec![0], vec![10]]
        );
    }

    #[test]
    fn a_train_never_has_more_than_the_kernel_takes() {
        let lengths: Vec<usize> = trains(&[(65_000, cut(8))]).iter().map(Vec::len).collect();
        assert_eq!(lengths.iter().sum::<usize>(), 65_000 / 8);
        assert!(lengths.iter().all(|count| *count <= GSO_SEGMENTS_MAX));
        assert_eq!(trains(&[(65_507, cut(9000))])[0].len(), 8);
        assert_eq!(trains(&[(40_000, cut(20_000)), (40_000, cut(20_000))]).len(), 2);
    }
}
