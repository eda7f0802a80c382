//! What a core says about itself: format, note, kernel, panic. Every text from a guest is escaped here.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;

use api::{FilterFacts, KeptKernelFacts, KernelHeaderFacts, NoteFacts};
use netdump::Extents;
use vmcore::CoreferryNote;
use vmcore::kernel_header::{Compression, KernelDumpHeader, ParityVerdict};
use vmcore::reader::{CoreHead, CoreNotes};

use crate::escape;
use crate::limits::{CONSOLE_CHARS_MAX, HEAD_BYTES_MAX, TROUBLES_MAX};

/// What was found.
#[derive(Debug, Default)]
pub(crate) struct Facts {
    /// Kind of file.
    pub(crate) format: &'static str,
    /// The sender's note.
    pub(crate) note: Option<NoteFacts>,
    /// Kernel release by VMCOREINFO (`OSRELEASE=`, Linux kernel/crash_core.c).
    pub(crate) linux_release: Option<String>,
}

/// A kernel dump header and whether its parity holds.
pub(crate) type KernelHeader = (KernelDumpHeader, ParityVerdict);

impl Facts {
    /// Looks at the head of a vmcore, as far as it arrived.
    pub(crate) fn read(file: &File, received: &Extents) -> io::Result<Self> {
        let first_gap = received.gaps(0..HEAD_BYTES_MAX).next();
        // Our own header room is padded with zeros that are not sent: read it all once its beginning is there.
        let begins = first_gap.is_none_or(|gap| gap.start >= 64);
        let len = received.end().min(HEAD_BYTES_MAX);
        if !begins {
            return Ok(Self {
                format: "unknown",
                ..Self::default()
            });
        }
        let mut head = vec![0; usize::try_from(len).unwrap_or(0)];
        file.read_exact_at(&mut head, 0)?;
        Ok(Self::of_head(&head))
    }

    /// What the first bytes say.
    fn of_head(head: &[u8]) -> Self {
        let mut facts = Self {
            format: format_of(head),
            ..Self::default()
        };
        let Ok(core) = CoreHead::parse(head) else {
            return facts;
        };
        let Ok(notes) = core.notes_in(head).and_then(|bytes| Ok(CoreNotes::parse(bytes)?)) else {
            return facts;
        };
        facts.linux_release = notes.vmcoreinfo.and_then(linux_release);
        if let Ok(Some(note)) = notes.coreferry() {
            facts.note = Some(note_facts(&note));
        }
        facts
    }

    /// Name of the guest, from the best source there is.
    pub(crate) fn guest(&self, header: Option<&KernelHeader>, label: Option<&str>, client_addr: &str) -> String {
        let hostname = header.and_then(|(header, _)| escape::some_line(&header.hostname));
        let vm = self.note.as_ref().and_then(|note| note.vm.clone());
        let label = label.filter(|label| !matches!(*label, "." | "/")).map(str::to_owned);
        let address = client_addr.rsplit_once(':').map_or(client_addr, |(address, _)| address);
        hostname.or(vm).or(label).unwrap_or_else(|| address.to_owned())
    }

    /// Operating system and release.
    pub(crate) fn kernel(&self, header: Option<&KernelHeader>) -> Option<String> {
        let note = self.note.as_ref().and_then(|note| match (&note.os, &note.release) {
            (Some(os), Some(release)) => Some(format!("{os} {release}")),
            (os, release) => os.clone().or_else(|| release.clone()),
        });
        let linux = || self.linux_release.as_ref().map(|release| format!("Linux {release}"));
        let version = || {
            let first = header?.0.version_string.lines().next()?;
            escape::some_line(first)
        };
        note.or_else(linux).or_else(version)
    }

    /// Panic text. An agent without one puts its trigger into the kernel dump header, which is no panic.
    pub(crate) fn panic(&self, header: Option<&KernelHeader>) -> Option<String> {
        let note = self.note.as_ref();
        let in_header = || escape::some_line(&header?.0.panic_string);
        let trigger = note.and_then(|note| note.trigger.as_ref());
        note.and_then(|note| note.panic.clone())
            .or_else(|| in_header().filter(|text| Some(text) != trigger))
    }
}

/// Kind of file by its first bytes.
fn format_of(head: &[u8]) -> &'static str {
    if head.starts_with(crate::CANARY_MAGIC) {
        return crate::CANARY_FORMAT;
    }
    // System V ABI, ELF header; sys/amd64/include/minidump.h MINIDUMP_MAGIC; makedumpfile diskdump_mod.h;
    // RFC 1952, section 2.3.1; RFC 8878, section 3.1.1.
    if head.starts_with(b"\x7fELF") {
        "elf"
    } else if head.starts_with(b"minidump FreeBSD/") {
        "minidump"
    } else if head.starts_with(b"KDUMP   ") {
        "kdump"
    } else if head.starts_with(&[0x1f, 0x8b]) {
        "gzip"
    } else if head.starts_with(&[0x28, 0xb5, 0x2f, 0xfd]) {
        "zstd"
    } else {
        "unknown"
    }
}

/// The `OSRELEASE=` line of VMCOREINFO.
fn linux_release(vmcoreinfo: &[u8]) -> Option<String> {
    let text = String::from_utf8_lossy(vmcoreinfo);
    let release = text.lines().find_map(|line| line.strip_prefix("OSRELEASE="))?;
    escape::some_line(release)
}

/// The note's fields, escaped.
fn note_facts(note: &CoreferryNote) -> NoteFacts {
    let optional = |text: &Option<String>| text.as_deref().and_then(escape::some_line);
    NoteFacts {
        dump_id: escape::some_line(&note.dump_id),
        vm: escape::some_line(&note.vm),
        trigger: escape::some_line(&note.trigger),
        panic: optional(&note.panic),
        os: optional(&note.os),
        release: optional(&note.release),
        crashed_cpu: note.crashed_cpu,
        triggered_at: optional(&note.triggered_at),
        frozen_at: optional(&note.frozen_at),
        build_id: optional(&note.build_id),
        booted_build_id: optional(&note.booted_build_id),
        kept_kernel: note.kept_kernel.as_ref().map(|kernel| KeptKernelFacts {
            name: escape::one_line(&kernel.name),
            file_offset: kernel.file_offset,
            length_bytes: kernel.len_bytes,
            digest: escape::one_line(&kernel.digest),
        }),
        kernel_file: optional(&note.kernel_file),
        filter: note.filter.map(|filter| FilterFacts {
            level: filter.level,
            excluded_pages: filter.excluded_pages,
            scattered_pages: filter.scattered_pages,
            unknown_pages: filter.unknown_pages,
        }),
        troubles: note
            .troubles
            .iter()
            .take(TROUBLES_MAX)
            .map(|text| escape::one_line(text))
            .collect(),
        console_tail: (!note.console_tail.is_empty()).then(|| escape::lines(&note.console_tail, CONSOLE_CHARS_MAX)),
    }
}

/// The kernel dump header's fields, escaped.
pub(crate) fn header_facts((header, parity): &KernelHeader) -> KernelHeaderFacts {
    KernelHeaderFacts {
        architecture: escape::one_line(&header.architecture),
        version: header.version,
        architecture_version: header.architecture_version,
        dump_length_bytes: header.dump_len_bytes,
        dump_time_s: header.dump_time_s,
        key_length_bytes: header.key_len_bytes,
        block_length_bytes: header.block_len_bytes,
        compression: match header.compression {
            Compression::None => 0,
            Compression::Gzip => 1,
            Compression::Zstd => 2,
            Compression::Other(number) => number,
        },
        hostname: escape::one_line(&header.hostname),
        version_string: escape::one_line(&header.version_string),
        panic_string: escape::one_line(&header.panic_string),
        parity_ok: *parity == ParityVerdict::Pass,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_guest_is_named_by_the_best_source() {
        let facts = Facts::default();
        let header = KernelDumpHeader {
            hostname: "web\n1".to_owned(),
            ..KernelDumpHeader::default()
        };
        let header = (header, ParityVerdict::Pass);
        assert_eq!(facts.guest(Some(&header), Some("lab"), "192.0.2.1:20024"), "web\\n1");
        assert_eq!(facts.guest(None, Some("lab"), "192.0.2.1:20024"), "lab");
        assert_eq!(facts.guest(None, Some("."), "192.0.2.1:20024"), "192.0.2.1");
        assert_eq!(facts.guest(None, None, "192.0.2.1:20024"), "192.0.2.1");
    }

    #[test]
    fn formats_are_known_by_their_first_bytes() {
        assert_eq!(format_of(b"\x7fELF\x02"), "elf");
        assert_eq!(format_of(b"minidump FreeBSD/amd64\0"), "minidump");
        assert_eq!(format_of(&[0x1f, 0x8b, 8]), "gzip");
        assert_eq!(format_of(&[0x28, 0xb5, 0x2f, 0xfd, 0]), "zstd");
        assert_eq!(format_of(b""), "unknown");
    }

    #[test]
    fn the_release_is_found_in_vmcoreinfo() {
        assert_eq!(
            linux_release(b"X=1\nOSRELEASE=6.1.0-18-cloud-amd64\nY=2\n"),
            Some("6.1.0-18-cloud-amd64".to_owned())
        );
    }
}
