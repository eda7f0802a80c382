//! Prints the kernel log of an ELF core of a Linux guest: `cargo run -p vmcore --example dmesg -- vmcore`.

use std::fs::File;
use std::io::Write as _;
use std::os::unix::fs::FileExt as _;

use vmcore::image::{Absent, CoreImage, FileBytes};
use vmcore::linux::{KernelLog, KernelSpace};
use vmcore::reader::CoreNotes;

/// A file of which every byte is there.
struct Whole {
    file: File,
    len_bytes: u64,
}

impl FileBytes for Whole {
    fn len_bytes(&self) -> u64 {
        self.len_bytes
    }

    fn read_at(&self, file_offset: u64, bytes: &mut [u8]) -> Result<(), Absent> {
        self.file.read_exact_at(bytes, file_offset).map_err(|_| Absent {
            at: file_offset,
            len_bytes: bytes.len(),
        })
    }
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let path = std::env::args_os().nth(1).ok_or("name a core file")?;
    let file = File::open(path)?;
    let len_bytes = file.metadata()?.len();
    let image = CoreImage::open(Whole { file, len_bytes })?;
    let notes = CoreNotes::parse(&image.notes)?;
    let vmcoreinfo = notes.vmcoreinfo.ok_or("the core has no VMCOREINFO")?;
    let log = KernelLog::read(&KernelSpace::new(&image.memory, vmcoreinfo)?, vmcoreinfo)?;
    std::io::stdout().write_all(log.to_text().as_bytes())?;
    if log.unreadable_records > 0 {
        eprintln!("{} records could not be read", log.unreadable_records);
    }
    Ok(())
}
