//! LZO1X, the codec of `makedumpfile -l`: reading only, since no maintained crate has it and zstd is better in every way.
//!
//! A stream of instructions, each a literal run or a copy from what was written before, with up to three literals behind it
//! (Linux, Documentation/staging/lzo.rst, describes it byte by byte).

/// Fills `out` wholly from a stream. False if the stream is damaged or is not of exactly that length.
#[must_use]
pub fn decompress(stream: &[u8], out: &mut [u8]) -> bool {
    let mut state = State {
        stream,
        at: 0,
        out,
        written: 0,
    };
    state.run() == Some(()) && state.written == state.out.len()
}

struct State<'a> {
    stream: &'a [u8],
    at: usize,
    out: &'a mut [u8],
    written: usize,
}

/// What an instruction means depends on how many literals the one before it brought: none, one to three, or a run of four and more.
const RUN: usize = 4;

impl State<'_> {
    fn run(&mut self) -> Option<()> {
        let mut literals = 0;
        let first = *self.stream.first()?;
        if first > 17 {
            self.at = 1;
            let len = usize::from(first - 17);
            self.literals(len)?;
            literals = len.min(RUN);
        }
        loop {
            let byte = self.byte()?;
            literals = match byte {
                0..=15 if literals == 0 => {
                    let len = self.length(byte, 15)?.checked_add(3)?;
                    self.literals(len)?;
                    RUN
                }
                0..=15 => {
                    let far = usize::from(self.byte()?) << 2;
                    let near = usize::from(byte >> 2 & 3);
                    let (distance, len) = if literals == RUN {
                        (far + near + 2049, 3)
                    } else {
                        (far + near + 1, 2)
                    };
                    self.copy(distance, len)?;
                    self.trailing(byte)?
                }
                16..=31 => {
                    let len = self.length(byte & 7, 7)?.checked_add(2)?;
                    let (low, high) = (self.byte()?, self.byte()?);
                    let word = usize::from(u16::from_le_bytes([low, high]));
                    let distance = 16_384 + (usize::from(byte & 8) << 11) + (word >> 2);
                    if distance == 16_384 {
                        // The end, and nothing behind it.
                        return (len == 3 && self.at == self.stream.len()).then_some(());
                    }
                    self.copy(distance, len)?;
                    self.trailing(low)?
                }
                32..=63 => {
                    let len = self.length(byte & 31, 31)?.checked_add(2)?;
                    let (low, high) = (self.byte()?, self.byte()?);
                    let word = usize::from(u16::from_le_bytes([low, high]));
                    self.copy((word >> 2) + 1, len)?;
                    self.trailing(low)?
                }
                64.. => {
                    let (len, near) = match byte {
                        128.. => (5 + usize::from(byte >> 5 & 3), byte >> 2 & 7),
                        _ => (3 + usize::from(byte >> 5 & 1), byte >> 2 & 7),
                    };
                    let far = usize::from(self.byte()?) << 3;
                    self.copy(far + usize::from(near) + 1, len)?;
                    self.trailing(byte)?
                }
            };
        }
    }

    fn byte(&mut self) -> Option<u8> {
        let byte = *self.stream.get(self.at)?;
        self.at += 1;
        Some(byte)
    }

    /// A length whose field is `field`; zero means that bytes of zero count `most` + … and a last byte the rest.
    fn length(&mut self, field: u8, most: usize) -> Option<usize> {
        if field != 0 {
            return Some(usize::from(field));
        }
        let mut len = most;
        loop {
            match self.byte()? {
                0 => len = len.checked_add(255)?,
                last => return len.checked_add(usize::from(last)),
            }
        }
    }

    fn literals(&mut self, len: usize) -> Option<()> {
        let from = self.stream.get(self.at..self.at.checked_add(len)?)?;
        let to = self.out.get_mut(self.written..self.written.checked_add(len)?)?;
        to.copy_from_slice(from);
        self.at += len;
        self.written += len;
        Some(())
    }

    /// The literals that the two low bits of an instruction count.
    fn trailing(&mut self, instruction: u8) -> Option<usize> {
        let len = usize::from(instruction & 3);
        self.literals(len)?;
        Some(len)
    }

    /// Repeats `len` bytes from `distance` bytes before; they may overlap with what they make.
    fn copy(&mut self, distance: usize, len: usize) -> Option<()> {
        let from = self.written.checked_sub(distance)?;
        let end = self.written.checked_add(len).filter(|end| *end <= self.out.len())?;
        if distance >= len {
            self.out.copy_within(from..from + len, self.written);
        } else {
            for at in self.written..end {
                let byte = *self.out.get(at - distance)?;
                *self.out.get_mut(at)? = byte;
            }
        }
        self.written = end;
        Some(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn literals_and_overlapping_copies_make_the_text() {
        // 4 literals, a copy of 5 from 2 before (byte 128…: length 5, near 1), the end.
        let stream = [17 + 4, b'a', b'b', b'c', b'd', 128 | (1 << 2), 0, 17, 0, 0];
        let mut out = [0; 9];
        assert!(decompress(&stream, &mut out));
        assert_eq!(&out, b"abcdcdcdc");
        assert!(!decompress(&stream, &mut [0; 8]), "too long for it");
        assert!(!decompress(&stream, &mut [0; 10]), "too short for it");
        for len in 0..stream.len() {
            assert!(!decompress(&stream[..len], &mut out), "cut at {len}");
        }
        assert!(
            !decompress(&[21, 1, 2, 3, 4, 128, 255, 17, 0, 0], &mut out),
            "from before the beginning"
        );
    }
}
