//! Frames on a byte stream: each is preceded by its length in four bytes, most significant first (qemu-options,
//! `-netdev stream`; passt(1), `--socket`). Bytes in, frames out; no socket here.

use super::limits::{STREAM_BACKLOG_LEN_MAX, STREAM_FRAME_LEN_MAX};

/// Bytes of the length before each frame.
pub const LENGTH_LEN: usize = 4;

/// Cuts received bytes into frames, however they were split on the way.
#[derive(Debug, Default)]
pub struct Deframer {
    /// What came and is not yet delivered: at most one incomplete frame and one read.
    pending: Vec<u8>,
    /// Bytes at the front of `pending` that are already delivered.
    start: usize,
}

/// The peer announced a length that no frame can have; where the next frame begins is lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the peer announced a frame of {len_bytes} bytes (at most {STREAM_FRAME_LEN_MAX}): the stream is out of step")]
pub struct OutOfStep {
    /// The announced length in bytes.
    pub len_bytes: usize,
}

impl Deframer {
    /// Takes bytes as they came.
    pub fn extend(&mut self, bytes: &[u8]) {
        if self.start > 0 {
            self.pending.drain(..self.start);
            self.start = 0;
        }
        self.pending.extend_from_slice(bytes);
    }

    /// Whether [`Deframer::next_frame`] has something to say without more bytes.
    pub fn has_frame(&self) -> bool {
        let waiting = self.pending.get(self.start..).unwrap_or_default();
        waiting.split_first_chunk::<LENGTH_LEN>().is_some_and(|(length, rest)| {
            let len_bytes = usize::try_from(u32::from_be_bytes(*length)).unwrap_or(usize::MAX);
            len_bytes > STREAM_FRAME_LEN_MAX || rest.len() >= len_bytes
        })
    }

    /// The next whole frame, if one is there.
    ///
    /// # Errors
    /// [`OutOfStep`] for a length of zero or above [`STREAM_FRAME_LEN_MAX`]; nothing after it can be trusted.
    pub fn next_frame(&mut self) -> Result<Option<&[u8]>, OutOfStep> {
        let waiting = self.pending.get(self.start..).unwrap_or_default();
        let Some((length, rest)) = waiting.split_first_chunk::<LENGTH_LEN>() else {
            return Ok(None);
        };
        let len_bytes = usize::try_from(u32::from_be_bytes(*length)).unwrap_or(usize::MAX);
        if len_bytes == 0 || len_bytes > STREAM_FRAME_LEN_MAX {
            return Err(OutOfStep { len_bytes });
        }
        let Some(frame) = rest.get(..len_bytes) else {
            return Ok(None);
        };
        self.start += LENGTH_LEN + len_bytes;
        Ok(Some(frame))
    }
}

/// What is still to be written: whole frames with their lengths, of which the first may have left in part.
#[derive(Debug, Default)]
pub struct Backlog {
    bytes: Vec<u8>,
    written: usize,
}

impl Backlog {
    /// Adds a frame; `false` (and nothing added) when the peer is too far behind or the frame is too long.
    pub fn push(&mut self, frame: &[u8]) -> bool {
        let Ok(length) = u32::try_from(frame.len()) else {
            return false;
        };
        let fits = self.unwritten().len() + LENGTH_LEN + frame.len() <= STREAM_BACKLOG_LEN_MAX;
        if frame.is_empty() || frame.len() > STREAM_FRAME_LEN_MAX || !fits {
            return false;
        }
        self.bytes.extend_from_slice(&length.to_be_bytes());
        self.bytes.extend_from_slice(frame);
        true
    }

    /// What the socket should get next.
    pub fn unwritten(&self) -> &[u8] {
        self.bytes.get(self.written..).unwrap_or_default()
    }

    /// The socket took this many bytes of [`Backlog::unwritten`].
    pub fn advance(&mut self, len_bytes: usize) {
        self.written += len_bytes;
        if self.written >= self.bytes.len() {
            self.bytes.clear();
            self.written = 0;
        } else if self.written >= STREAM_BACKLOG_LEN_MAX {
            self.bytes.drain(..self.written);
            self.written = 0;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn frames_survive_any_split(
            frames in prop::collection::vec(prop::collection::vec(any::<u8>(), 1..2000), 1..20),
            cuts in prop::collection::vec(1usize..700, 1..50),
        ) {
            let mut backlog = Backlog::default();
            for frame in &frames {
                prop_assert!(backlog.push(frame));
            }
            let mut deframer = Deframer::default();
            let mut out = Vec::new();
            let mut cuts = cuts.iter().cycle();
            while !backlog.unwritten().is_empty() {
                let len = (*cuts.next().unwrap()).min(backlog.unwritten().len());
                deframer.extend(&backlog.unwritten()[..len]);
                backlog.advance(len);
                while let Some(frame) = deframer.next_frame().unwrap() {
                    out.push(frame.to_vec());
                }
                prop_assert!(!deframer.has_frame());
            }
            prop_assert_eq!(out, frames);
        }

        #[test]
        fn any_bytes_never_panic(chunks in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..100), 0..20)) {
            let mut deframer = Deframer::default();
            for chunk in chunks {
                deframer.extend(&chunk);
                while let Ok(Some(frame)) = deframer.next_frame() {
                    prop_assert!(!frame.is_empty());
                }
            }
        }
    }

    #[test]
    fn an_impossible_length_is_out_of_step() {
        for len in [0u32, u32::MAX, 65_554] {
            let mut deframer = Deframer::default();
            deframer.extend(&len.to_be_bytes());
            assert_eq!(
                deframer.next_frame(),
                Err(OutOfStep {
                    len_bytes: len as usize
                })
            );
        }
    }

    #[test]
    fn a_peer_that_never_reads_costs_a_bounded_backlog() {
        let mut backlog = Backlog::default();
        let frame = vec![7; 1514];
        let taken = (0..1000).filter(|_| backlog.push(&frame)).count();
        assert_eq!(taken, STREAM_BACKLOG_LEN_MAX / (LENGTH_LEN + frame.len()));
        backlog.advance(LENGTH_LEN + frame.len());
        assert!(backlog.push(&frame), "room again after one frame left");
    }
}
