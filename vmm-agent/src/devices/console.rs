//! Where serial output goes: to the operator's writer and into a bounded tail for the dump, and past a search for a
//! panic when that is switched on.
use std::collections::VecDeque;
use std::fmt;
use std::io::{self, Write};
use std::sync::{Arc, Mutex};

use super::bus::lock;
use crate::limits::{CONSOLE_LINE_MAX, CONSOLE_TAIL_LEN};

/// What a Linux kernel prints when it panics (kernel/panic.c, `panic`).
const PANIC_MARK: &[u8] = b"Kernel panic - not syncing";
/// How a FreeBSD kernel's line begins (sys/kern/kern_shutdown.c, `vpanic`). Programs say such things too, so the next line counts.
const BSD_PANIC: &[u8] = b"panic: ";
/// How the line behind it begins.
const BSD_CPU: &[u8] = b"cpuid = ";

/// The last output, shared with whoever asks for it.
#[derive(Clone, Debug, Default)]
pub struct ConsoleTail(Arc<Mutex<VecDeque<u8>>>);

impl ConsoleTail {
    /// The last [`CONSOLE_TAIL_LEN`] bytes of output.
    #[must_use]
    pub fn bytes(&self) -> Vec<u8> {
        lock(&self.0).iter().copied().collect()
    }

    fn push(&self, bytes: &[u8]) {
        let mut tail = lock(&self.0);
        tail.extend(bytes);
        let excess = tail.len().saturating_sub(CONSOLE_TAIL_LEN);
        tail.drain(..excess);
    }
}

/// The writer that a serial device prints to.
pub struct ConsoleSink {
    out: Box<dyn Write + Send>,
    out_failed: bool,
    tail: ConsoleTail,
    watcher: Option<PanicWatcher>,
}

impl ConsoleSink {
    /// Prints to `out` as well as to `tail`; `watch_for_panic` starts the search.
    #[must_use]
    pub fn new(out: Box<dyn Write + Send>, tail: ConsoleTail, watch_for_panic: bool) -> ConsoleSink {
        let watcher = watch_for_panic.then(PanicWatcher::default);
        ConsoleSink {
            out,
            out_failed: false,
            tail,
            watcher,
        }
    }

    /// The line that said the kernel panics, once.
    pub fn take_panic_line(&mut self) -> Option<String> {
        self.watcher.as_mut().and_then(|watcher| watcher.found.take())
    }
}

impl Write for ConsoleSink {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.tail.push(bytes);
        if let Some(watcher) = &mut self.watcher {
            watcher.feed(bytes);
        }
        // A console that nobody reads any more must not stop the guest.
        if !self.out_failed
            && let Err(error) = self.out.write_all(bytes).and_then(|()| self.out.flush())
        {
            tracing::warn!(%error, "the guest's console output cannot be written any more");
            self.out_failed = true;
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl fmt::Debug for ConsoleSink {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ConsoleSink")
            .field("out_failed", &self.out_failed)
            .finish_non_exhaustive()
    }
}

/// Looks for the panic line in a stream of bytes. It reports when the line ends, so that the whole text is there.
#[derive(Debug, Default)]
pub struct PanicWatcher {
    line: Vec<u8>,
    /// The line before began as FreeBSD's does.
    perhaps: Option<String>,
    found: Option<String>,
    done: bool,
}

impl PanicWatcher {
    /// Takes more output.
    pub fn feed(&mut self, bytes: &[u8]) {
        for byte in bytes {
            if *byte == b'\n' || self.line.len() >= CONSOLE_LINE_MAX {
                self.end_line();
            }
            if !matches!(byte, b'\n' | b'\r') {
                self.line.push(*byte);
            }
        }
    }

    fn end_line(&mut self) {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let start = self
            .line
            .windows(PANIC_MARK.len())
            .position(|window| window == PANIC_MARK);
        let of_linux = start.and_then(|start| self.line.get(start..)).map(text);
        let of_bsd = self.perhaps.take().filter(|_| self.line.starts_with(BSD_CPU));
        if !self.done {
            self.found = of_linux.or(of_bsd);
            self.done = self.found.is_some();
            self.perhaps = self.line.starts_with(BSD_PANIC).then(|| text(&self.line));
        }
        self.line.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tail_keeps_the_last_bytes_only() {
        let tail = ConsoleTail::default();
        let mut sink = ConsoleSink::new(Box::new(io::sink()), tail.clone(), false);
        for number in 0..20_000 {
            writeln!(sink, "line {number}").unwrap();
        }
        let bytes = tail.bytes();
        assert_eq!(bytes.len(), CONSOLE_TAIL_LEN);
        assert!(bytes.ends_with(b"line 19999\n"));
    }

    #[test]
    fn a_panic_line_is_found_once_however_it_is_cut() {
        let text =
            b"[    1.0] hello\r\n[    1.2] Kernel panic - not syncing: sysrq\r\nKernel panic - not syncing: again\n";
        for step in [1, 3, 1000] {
            let mut sink = ConsoleSink::new(Box::new(io::sink()), ConsoleTail::default(), true);
            for piece in text.chunks(step) {
                sink.write_all(piece).unwrap();
            }
            assert_eq!(
                sink.take_panic_line().as_deref(),
                Some("Kernel panic - not syncing: sysrq"),
                "pieces of {step}"
            );
            assert_eq!(sink.take_panic_line(), None);
        }
    }

    #[test]
    fn freebsd_panics_in_two_lines_and_programs_in_one() {
        let found = |text: &[u8]| {
            let mut sink = ConsoleSink::new(Box::new(io::sink()), ConsoleTail::default(), true);
            sink.write_all(text).unwrap();
            sink.take_panic_line()
        };
        let panic = found(b"da0: lost\r\npanic: page fault\r\ncpuid = 1\r\ntime = 1700000000\r\n");
        assert_eq!(panic.as_deref(), Some("panic: page fault"));
        assert_eq!(found(b"panic: runtime error\n\ncpuid = 1\n"), None);
        assert_eq!(found(b"x panic: no\ncpuid = 1\n"), None);
        assert_eq!(found(b"cpuid = 1\n"), None);
    }

    #[test]
    fn the_search_is_opt_in() {
        let mut sink = ConsoleSink::new(Box::new(io::sink()), ConsoleTail::default(), false);
        sink.write_all(b"Kernel panic - not syncing: x\n").unwrap();
        assert_eq!(sink.take_panic_line(), None);
    }

    #[test]
    fn a_line_without_end_takes_bounded_memory() {
        let mut watcher = PanicWatcher::default();
        watcher.feed(&[b'x'; 100_000]);
        assert!(watcher.line.capacity() <= 2 * CONSOLE_LINE_MAX);
    }

    #[test]
    fn a_broken_console_does_not_stop_the_guest() {
        struct Broken;
        impl Write for Broken {
            fn write(&mut self, _: &[u8]) -> io::Result<usize> {
                Err(io::ErrorKind::BrokenPipe.into())
            }
            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        let tail = ConsoleTail::default();
        let mut sink = ConsoleSink::new(Box::new(Broken), tail.clone(), false);
        sink.write_all(b"ab").unwrap();
        assert_eq!(tail.bytes(), b"ab");
    }
}
