//! INTx: levels of interrupt lines that several functions may share (PCI Local Bus Specification 3.0, 2.2.6).
use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use crate::devices::Interrupts;

/// Command register bit 10: the function keeps its line deasserted (PCI 3.0, 6.2.2).
pub const COMMAND_INTX_DISABLE: u16 = 1 << 10;
/// Status register bit 3: the function wants an interrupt, whether disabled or not (PCI 3.0, 6.2.3).
pub const STATUS_INTERRUPT: u16 = 1 << 3;

/// The lines of one machine. A line is asserted while any of its pins is.
pub struct IntxLines {
    sink: Arc<dyn Interrupts>,
    /// How many pins assert each GSI.
    asserting: Mutex<BTreeMap<u32, u32>>,
}

/// The INTA# of one function.
#[derive(Debug)]
pub struct IntxPin {
    lines: Arc<IntxLines>,
    gsi: Option<u32>,
    wanted: bool,
    disabled: bool,
    shown: bool,
}

impl IntxLines {
    /// Lines that nobody asserts.
    #[must_use]
    pub fn new(sink: Arc<dyn Interrupts>) -> Arc<IntxLines> {
        Arc::new(IntxLines {
            sink,
            asserting: Mutex::default(),
        })
    }

    /// A pin that is connected to no line yet.
    #[must_use]
    pub fn pin(self: &Arc<Self>) -> IntxPin {
        IntxPin {
            lines: Arc::clone(self),
            gsi: None,
            wanted: false,
            disabled: false,
            shown: false,
        }
    }

    fn change(&self, gsi: u32, asserted: bool) {
        let mut asserting = self.asserting.lock().unwrap_or_else(PoisonError::into_inner);
        let count = asserting.entry(gsi).or_insert(0);
        let before = *count > 0;
        *count = if asserted {
            count.saturating_add(1)
        } else {
            count.saturating_sub(1)
        };
        // Under the lock, so that the last change is also the last that the controller hears.
        if before != (*count > 0) {
            self.sink.set_line(gsi, *count > 0);
        }
    }
}

impl IntxPin {
    /// Connects the pin to a line.
    pub fn connect(&mut self, gsi: u32) {
        self.show(false);
        self.gsi = Some(gsi);
        self.show(self.wanted && !self.disabled);
    }

    /// What the device wants.
    pub fn set(&mut self, asserted: bool) {
        self.wanted = asserted;
        self.show(asserted && !self.disabled);
    }

    /// What the guest's command register says.
    pub fn set_command(&mut self, command: u16) {
        self.disabled = command & COMMAND_INTX_DISABLE != 0;
        self.show(self.wanted && !self.disabled);
    }

    /// Whether the device wants an interrupt; for the status register.
    #[must_use]
    pub fn is_wanted(&self) -> bool {
        self.wanted
    }

    fn show(&mut self, asserted: bool) {
        if let Some(gsi) = self.gsi
            && asserted != self.shown
        {
            self.shown = asserted;
            self.lines.change(gsi, asserted);
        }
    }
}

impl Drop for IntxPin {
    fn drop(&mut self) {
        self.show(false);
    }
}

impl fmt::Debug for IntxLines {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("IntxLines")
            .field("asserting", &self.asserting)
            .finish_non_exhaustive()
    }
}

/// Remembers what a device raised.
#[cfg(test)]
#[derive(Debug, Default)]
pub(crate) struct Recorder(pub(crate) Mutex<Vec<Raised>>);

/// One thing that a device raised.
#[cfg(test)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Raised {
    Line(u32, bool),
    Msi(u64, u32),
}

#[cfg(test)]
impl Interrupts for Recorder {
    fn set_line(&self, gsi: u32, asserted: bool) {
        self.0.lock().unwrap().push(Raised::Line(gsi, asserted));
    }

    fn signal_msi(&self, address: u64, data: u32) {
        self.0.lock().unwrap().push(Raised::Msi(address, data));
    }
}

#[cfg(test)]
impl Recorder {
    pub(crate) fn take(&self) -> Vec<Raised> {
        std::mem::take(&mut self.0.lock().unwrap())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shared_line_falls_with_its_last_pin() {
        let recorder = Arc::new(Recorder::default());
        let lines = IntxLines::new(recorder.clone());
        let (mut one, mut two, mut other) = (lines.pin(), lines.pin(), lines.pin());
        one.connect(17);
        two.connect(17);
        other.connect(18);
        for (pin, asserted) in [(1, true), (1, true), (2, true), (1, false), (2, false), (2, false)] {
            if pin == 1 { &mut one } else { &mut two }.set(asserted);
        }
        other.set(true);
        assert_eq!(
            recorder.take(),
            [Raised::Line(17, true), Raised::Line(17, false), Raised::Line(18, true)]
        );
    }

    #[test]
    fn a_disabled_pin_is_silent_and_speaks_up_when_it_is_enabled() {
        let recorder = Arc::new(Recorder::default());
        let mut pin = IntxLines::new(recorder.clone()).pin();
        pin.connect(16);
        pin.set_command(COMMAND_INTX_DISABLE);
        pin.set(true);
        assert!(pin.is_wanted());
        assert_eq!(recorder.take(), []);
        pin.set_command(0);
        pin.set_command(COMMAND_INTX_DISABLE);
        assert_eq!(recorder.take(), [Raised::Line(16, true), Raised::Line(16, false)]);
    }

    #[test]
    fn a_device_that_goes_away_lets_go_of_its_line() {
        let recorder = Arc::new(Recorder::default());
        let mut pin = IntxLines::new(recorder.clone()).pin();
        pin.set(true);
        pin.connect(16);
        drop(pin);
        assert_eq!(recorder.take(), [Raised::Line(16, true), Raised::Line(16, false)]);
    }
}
