//! The guest's console on standard error, so that standard output is the result alone.

use std::io::{self, Write};

/// Longest line that is held back for its end.
const LINE_LEN_MAX: usize = 1024;

/// Prints whole lines, indented, with control characters of the guest made harmless.
#[derive(Debug, Default)]
pub(super) struct Indented {
    line: Vec<u8>,
}

impl Indented {
    fn print(&mut self) {
        let text = String::from_utf8_lossy(&self.line);
        crate::output::note(&format!("            guest | {}", server::one_line(text.trim_end())));
        self.line.clear();
    }
}

impl Write for Indented {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        for &byte in bytes {
            if byte == b'\n' || self.line.len() == LINE_LEN_MAX {
                self.print();
            }
            if byte != b'\n' {
                self.line.push(byte);
            }
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
