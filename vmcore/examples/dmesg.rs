//! Prints the kernel log of an ELF core of a Linux guest: `cargo run -p vmcore --example dmesg -- vmcore`.

use std::fs::File;
use std::io::Write as _;
use std::os::unix::fs::FileExt as _;

use vmcore::image::{Absent, CoreMemory, FileBytes};
use vmcore::linux::{KernelLog, KernelSpace};
use vmcore::reader::{CoreHead, CoreNotes, ReadError};

/// A file of which every byte is there.
struct Whole(File);

impl FileBytes for Whole {
    fn read_at(&self, file_offset: u64, bytes: &mut [u8]) -> Result<(), Absent> {
        self.0.read_exact_at(bytes, file_offset).map_err(|_| Absent {
            at: file_offset,
            len_bytes: bytes.len(),
        })
    }
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let path = std::env::args_os().nth(1).ok_or("name a core file")?;
    let file = File::open(path)?;
    let mut start = Vec::new();
    let mut need = 1 << 16;
    let (head, notes) = loop {
        start.resize(usize::try_from(file.metadata()?.len().min(need))?, 0);
        file.read_exact_at(&mut start, 0)?;
        let found = CoreHead::parse(&start)
            .and_then(|head| head.notes_in(&start).map(<[u8]>::to_vec).map(|notes| (head, notes)));
        match found {
            Err(ReadError::NeedMore { needed, .. }) if needed > need => need = needed,
            found => break found?,
        }
    };
    let notes = CoreNotes::parse(&notes)?;
    let vmcoreinfo = notes.vmcoreinfo.ok_or("the core has no VMCOREINFO")?;
    let space = KernelSpace::new(CoreMemory::new(Whole(file), &head.loads), vmcoreinfo)?;
    let log = KernelLog::read(&space, vmcoreinfo)?;
    std::io::stdout().write_all(log.to_text().as_bytes())?;
    if log.unreadable_records > 0 {
        eprintln!("{} records could not be read", log.unreadable_records);
    }
    Ok(())
}
