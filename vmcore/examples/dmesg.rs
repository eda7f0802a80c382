//! Prints the kernel log of an ELF core of a Linux guest: `cargo run -p vmcore --example dmesg -- vmcore`.

use std::fs::File;
use std::io::Write as _;
use std::os::unix::fs::FileExt as _;

use vmcore::image::{Absent, CoreImage, FileBytes};
use vmcore::linux::{KernelLog, KernelPlace, KernelSpace, search};
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
    let (memory, ranges, cpus) = (&image.memory, image.memory.ranges(), notes.cpu_states());
    let found = || search::vmcoreinfo(memory, &ranges, &cpus).map(|found| found.text);
    let log = match notes.vmcoreinfo.map(<[u8]>::to_vec).or_else(found) {
        Some(text) => KernelLog::read(&KernelSpace::new(memory, &text)?, &text)?,
        None => {
            let place = KernelPlace::find(memory, &cpus).ok_or("there is no Linux kernel in it")?;
            eprintln!("{place:x?}");
            KernelLog::search(&KernelSpace::at(memory, &place), &place).ok_or("its log has no known form")?
        }
    };
    std::io::stdout().write_all(log.to_text().as_bytes())?;
    if log.unreadable_records > 0 {
        eprintln!("{} records could not be read", log.unreadable_records);
    }
    Ok(())
}
