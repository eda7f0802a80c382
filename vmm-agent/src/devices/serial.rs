//! The first serial port of a PC: a 16550A at I/O port 0x3f8 with interrupt line 4.
use std::fmt;
use std::io;

use vm_superio::Trigger;
use vm_superio::serial::{NoEvents, Serial as Uart};
use vmm_sys_util::eventfd::EventFd;

use super::console::ConsoleSink;
use super::{IoOutcome, PioDevice, Signal};

/// First port.
pub const SERIAL_PORT: u16 = 0x3f8;
/// Number of ports.
pub const SERIAL_PORTS: u16 = 8;
/// Interrupt line.
pub const SERIAL_IRQ: u32 = 4;

/// A serial port whose output goes to a [`ConsoleSink`].
pub struct Serial {
    uart: Uart<IrqEvent, NoEvents, ConsoleSink>,
}

impl Serial {
    /// A serial port that raises `irq`.
    #[must_use]
    pub fn new(irq: EventFd, sink: ConsoleSink) -> Serial {
        Serial {
            uart: Uart::new(IrqEvent(irq), sink),
        }
    }

    /// Sends input to the guest; returns how many bytes its buffer took.
    ///
    /// # Errors
    /// If the interrupt cannot be raised.
    pub fn input(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.uart
            .enqueue_raw_bytes(bytes)
            .map_err(|error| io::Error::other(format!("{error:?}")))
    }
}

impl PioDevice for Serial {
    fn read(&mut self, offset: u64, data: &mut [u8]) -> IoOutcome {
        match (data, u8::try_from(offset)) {
            ([byte], Ok(offset)) => {
                *byte = self.uart.read(offset);
                IoOutcome::Done
            }
            _ => IoOutcome::BadAccess("serial registers are one byte wide"),
        }
    }

    fn write(&mut self, offset: u64, data: &[u8]) -> IoOutcome {
        let (&[byte], Ok(offset)) = (data, u8::try_from(offset)) else {
            return IoOutcome::BadAccess("serial registers are one byte wide");
        };
        if let Err(error) = self.uart.write(offset, byte) {
            // In loop-back mode a full receive buffer is the guest's own doing.
            tracing::trace!(?error, "serial port");
        }
        match self.uart.writer_mut().take_panic_line() {
            Some(line) => IoOutcome::Signal(Signal::PanicLine(line)),
            None => IoOutcome::Done,
        }
    }
}

impl fmt::Debug for Serial {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Serial").finish_non_exhaustive()
    }
}

/// One write to the event is one edge of the interrupt line.
struct IrqEvent(EventFd);

impl Trigger for IrqEvent {
    type E = io::Error;

    fn trigger(&self) -> io::Result<()> {
        self.0.write(1)
    }
}

#[cfg(test)]
mod tests {
    use super::super::console::ConsoleTail;
    use super::*;

    fn serial(watch: bool) -> (Serial, ConsoleTail) {
        let tail = ConsoleTail::default();
        let sink = ConsoleSink::new(Box::new(io::sink()), tail.clone(), watch);
        (Serial::new(EventFd::new(0).unwrap(), sink), tail)
    }

    #[test]
    fn output_reaches_the_tail_and_a_panic_is_signalled_at_the_end_of_its_line() {
        let (mut serial, tail) = serial(true);
        let text = b"Kernel panic - not syncing: test";
        for byte in text {
            assert_eq!(serial.write(0, &[*byte]), IoOutcome::Done);
        }
        let signal = Signal::PanicLine(String::from_utf8(text.to_vec()).unwrap());
        assert_eq!(serial.write(0, b"\n"), IoOutcome::Signal(signal));
        assert_eq!(tail.bytes(), b"Kernel panic - not syncing: test\n");
    }

    #[test]
    fn the_transmitter_is_always_empty() {
        let (mut serial, _) = serial(false);
        let mut status = [0];
        assert_eq!(serial.read(5, &mut status), IoOutcome::Done);
        assert_eq!(status[0] & 0x60, 0x60);
    }

    #[test]
    fn wide_accesses_are_refused() {
        let (mut serial, tail) = serial(false);
        assert!(matches!(serial.write(0, b"ab"), IoOutcome::BadAccess(_)));
        assert!(matches!(serial.read(0, &mut [0; 4]), IoOutcome::BadAccess(_)));
        assert_eq!(tail.bytes(), b"");
    }
}
