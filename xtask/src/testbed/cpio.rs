//! Writes the archive format of an initramfs: cpio "newc" (Linux, Documentation/driver-api/early-userspace/buffer-format).

/// An archive under construction. Folders must be added before what is in them.
#[derive(Debug, Default)]
pub(crate) struct Archive {
    bytes: Vec<u8>,
    entries: u32,
}

const FOLDER: u32 = 0o040_000;
const FILE: u32 = 0o100_000;

impl Archive {
    /// Adds a folder that everybody may enter.
    pub(crate) fn folder(&mut self, name: &str) {
        self.entry(name, FOLDER | 0o755, &[]);
    }

    /// Adds a file with its permissions.
    pub(crate) fn file(&mut self, name: &str, permissions: u32, content: &[u8]) {
        self.entry(name, FILE | permissions, content);
    }

    /// Ends the archive and returns its bytes.
    pub(crate) fn finish(mut self) -> Vec<u8> {
        self.entry("TRAILER!!!", 0, &[]);
        self.bytes
    }

    /// A header of 13 fields in hexadecimal after the magic, the name with its NUL and the content, both padded to 4.
    fn entry(&mut self, name: &str, mode: u32, content: &[u8]) {
        self.entries += 1;
        let (inode, links) = (self.entries, 1);
        let (content_len, name_len) = (content.len(), name.len() + 1);
        self.bytes.extend_from_slice(b"070701");
        let fields = [inode, mode, 0, 0, links, 0]
            .map(|field| format!("{field:08X}"))
            .concat();
        let devices = "00000000".repeat(4);
        let header = format!("{fields}{content_len:08X}{devices}{name_len:08X}00000000{name}\0");
        self.bytes.extend_from_slice(header.as_bytes());
        self.pad();
        self.bytes.extend_from_slice(content);
        self.pad();
    }

    fn pad(&mut self) {
        let len = self.bytes.len().next_multiple_of(4);
        self.bytes.resize(len, 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_header_is_110_bytes_and_everything_is_aligned() {
        let mut archive = Archive::default();
        archive.folder("bin");
        archive.file("bin/x", 0o755, b"hello");
        let bytes = archive.finish();
        assert_eq!(bytes.len() % 4, 0);
        assert_eq!(&bytes[..6], b"070701");
        assert_eq!(&bytes[110..114], b"bin\0");
        let second = (110_usize + 4).next_multiple_of(4);
        assert_eq!(&bytes[second + 14..second + 22], b"000081ED", "a file with mode 0755");
        assert_eq!(&bytes[second + 54..second + 62], b"00000005", "of 5 bytes");
        assert!(bytes.windows(10).any(|window| window == b"TRAILER!!!"));
    }
}
