//! What `uname` would have said in the guest: readers of kdump files find the architecture by it.

use vmcore::kdump::Utsname;
use vmcore::linux::KernelSpace;
use vmcore::notes::vmcoreinfo;
use vmcore::reader::CoreNotes;

use super::{Memory, Pages};

/// Length of a field of `struct new_utsname` (linux/utsname.h).
const FIELD_LEN: usize = 65;

/// The names, and a warning if they do not come from a Linux kernel.
pub(super) fn utsname(core: &dyn Pages) -> (Utsname, Option<String>) {
    let notes = CoreNotes::parse(core.notes()).unwrap_or_default();
    let note = notes.coreferry().ok().flatten();
    let fallback = |sysname: String, release: Option<String>| Utsname {
        sysname,
        nodename: note.as_ref().map(|note| note.vm.clone()).unwrap_or_default(),
        release: release.unwrap_or_else(|| "unknown".to_owned()),
        version: "unknown".to_owned(),
        machine: "x86_64".to_owned(),
        domainname: String::new(),
    };
    let os = note.as_ref().and_then(|note| note.os.clone());
    if let Some(text) = notes.vmcoreinfo {
        let names = of_kernel(core, text).or_else(|| {
            // Others may describe themselves in Linux' way; whose core it is says the note.
            let is_linux = os.as_deref().is_none_or(|os| os == "linux");
            let release = vmcoreinfo::value(text, "OSRELEASE").map(str::to_owned);
            is_linux.then(|| fallback("Linux".to_owned(), release))
        });
        if let Some(names) = names {
            return (names, None);
        }
    }
    let release = note.as_ref().and_then(|note| note.release.clone());
    let is_linux = os.as_deref() == Some("linux");
    let warning = if is_linux {
        "the core has no VMCOREINFO: drgn will not open the file, and crash has to guess where the kernel is".to_owned()
    } else {
        let os = os
            .as_deref()
            .map_or_else(|| "an unknown system".to_owned(), crate::escape::one_line);
        format!("the core is of {os}, no Linux that describes itself: crash and drgn will not know what they see")
    };
    let sysname = if is_linux {
        "Linux".to_owned()
    } else {
        os.unwrap_or_else(|| "unknown".to_owned())
    };
    (fallback(sysname, release), Some(warning))
}

/// The kernel's own `init_uts_ns.name`.
fn of_kernel(core: &dyn Pages, text: &[u8]) -> Option<Utsname> {
    let space = KernelSpace::new(Memory(core), text).ok()?;
    let offset: u64 = vmcoreinfo::value(text, "OFFSET(uts_namespace.name)")?.parse().ok()?;
    let va = vmcoreinfo::symbol(text, "init_uts_ns")?.checked_add(offset)?;
    let mut bytes = [0; 6 * FIELD_LEN];
    space.read(va, &mut bytes).ok()?;
    let mut fields = bytes.chunks_exact(FIELD_LEN).map(|field| {
        let name = field.split(|byte| *byte == 0).next().unwrap_or_default();
        crate::escape::one_line(&String::from_utf8_lossy(name))
    });
    let names = Utsname {
        sysname: fields.next()?,
        nodename: fields.next()?,
        release: fields.next()?,
        version: fields.next()?,
        machine: fields.next()?,
        domainname: fields.next()?,
    };
    let is_usable = [&names.sysname, &names.release, &names.version, &names.machine]
        .iter()
        .all(|name| !name.is_empty());
    is_usable.then_some(names)
}
