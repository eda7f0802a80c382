//! What may be put around the dump port's wire.

use super::{Capture, FaultPlan, Wire};

/// The name under which the dump port's frames stand in a capture.
const DUMP_INTERFACE: &str = "dump";

/// Around the dump port's wire, from the inside out: a recording, and faults. So the recording shows what really crossed.
#[derive(Debug, Clone, Default)]
pub struct Instruments {
    /// Where frames are written down.
    pub capture: Option<Capture>,
    /// What happens to them.
    pub faults: Option<FaultPlan>,
}

impl Instruments {
    /// Puts them around a wire.
    #[must_use]
    pub fn around(&self, wire: Box<dyn Wire>) -> Box<dyn Wire> {
        let wire = match &self.capture {
            Some(capture) => capture.around(wire, DUMP_INTERFACE),
            None => wire,
        };
        match self.faults {
            Some(faults) => faults.around(wire),
            None => wire,
        }
    }
}
