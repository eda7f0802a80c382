//! Page filtering of a core: the levels of `makedumpfile -d`.

use vmcore::linux::KernelSpace;
use vmcore::linux::filter::{self, FilterLevel, Filtered};
use vmcore::reader::CoreNotes;

use super::{Memory, Pages, Selection};

impl Selection {
    /// Leaves out what a level leaves out. Pages of zeros never take room, so that their level changes nothing: they are there
    /// without it, and stay readable with it, as in makedumpfile's own compressed files. If the guest's structures cannot be read, nothing is left out.
    ///
    /// # Errors
    /// A sentence that says why.
    pub fn filter(&mut self, core: &dyn Pages, level: FilterLevel) -> Result<Filtered, String> {
        let mut filtered = Filtered::default();
        if level.needs_kernel() {
            let notes = CoreNotes::parse(core.notes()).map_err(|why| why.to_string())?;
            let text = notes
                .vmcoreinfo
                .ok_or("the core has no VMCOREINFO, which says what the kernel's pages are")?;
            let space = KernelSpace::new(Memory(core), text).map_err(|why| why.to_string())?;
            let frames = self.ram().frames();
            let mut exclude = |first, count| self.exclude(first, count);
            filtered = filter::filter(&space, text, level, frames, &mut exclude).map_err(|why| why.to_string())?;
        }
        Ok(filtered)
    }
}
