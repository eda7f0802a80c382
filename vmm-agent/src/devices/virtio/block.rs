//! The block device (5.2) over a raw image or a disk of the host's.
use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, ErrorKind, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use super::device::{Identity, VirtioDevice};
use super::limits::{BLOCK_REQUEST_LEN_MAX, BLOCK_SEGMENTS_MAX, QUEUE_SIZE_MAX};
use super::queue::{Broken, Chain, VirtQueue, size};
use crate::devices::worker::{After, Round};
use crate::memory::{Bytes, GuestMemory, GuestMemoryError, GuestRam};

// Feature bits (5.2.3).
const F_SEG_MAX: u64 = 1 << 2;
const F_RO: u64 = 1 << 5;
const F_BLK_SIZE: u64 = 1 << 6;
const F_FLUSH: u64 = 1 << 9;

// Request types (5.2.6).
const TYPE_IN: u32 = 0;
const TYPE_OUT: u32 = 1;
const TYPE_FLUSH: u32 = 4;
const TYPE_GET_ID: u32 = 8;

// Request states (5.2.6).
const STATUS_OK: u8 = 0;
const STATUS_IOERR: u8 = 1;
const STATUS_UNSUPP: u8 = 2;

/// Bytes of a sector in requests and in the capacity, whatever the block size is (5.2.4).
const SECTOR: u64 = 512;
/// Type, reserved, sector (5.2.6).
const HEADER_LEN: u64 = 16;
/// Bytes of the serial number (5.2.6).
const ID_LEN: usize = 20;

/// A disk cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum DiskError {
    /// It cannot be opened.
    #[error("cannot open the disk {}", path.display())]
    Open {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// Another process has it, or a worker that had to be left behind.
    #[error(
        "the disk {} is in use, by another process or by a request of this guest's last life that hangs; two writers would \
         destroy it",
        path.display()
    )]
    InUse {
        /// Which.
        path: PathBuf,
    },
    /// It holds less than one sector.
    #[error("the disk {} has {len_bytes} bytes: less than one sector of 512", path.display())]
    TooSmall {
        /// Which.
        path: PathBuf,
        /// Its length.
        len_bytes: u64,
    },
}

/// The device.
#[derive(Debug)]
pub struct Block {
    path: PathBuf,
    file: File,
    sectors: u64,
    read_only: bool,
    id: [u8; ID_LEN],
    chain: Chain,
    failures: u64,
}

/// A request as its header has it (5.2.6).
#[derive(Clone, Copy, Debug)]
struct Request {
    kind: u32,
    sector: u64,
}

impl Block {
    /// A disk over a raw image: read-only if the file is not writable. `name` is its serial number.
    ///
    /// # Errors
    /// [`DiskError`] with what to do.
    pub fn open(path: &Path, name: &str) -> Result<Block, DiskError> {
        let fail = |source| DiskError::Open {
            path: path.to_owned(),
            source,
        };
        let (mut file, read_only) = match OpenOptions::new().read(true).write(true).open(path) {
            Ok(file) => (file, false),
            Err(error)
                if matches!(
                    error.kind(),
                    ErrorKind::PermissionDenied | ErrorKind::ReadOnlyFilesystem
                ) =>
            {
                (File::open(path).map_err(fail)?, true)
            }
            Err(error) => return Err(fail(error)),
        };
        let locked = if read_only {
            file.try_lock_shared()
        } else {
            file.try_lock()
        };
        match locked {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(DiskError::InUse { path: path.to_owned() }),
            Err(TryLockError::Error(error)) => {
                tracing::debug!(%error, disk = %path.display(), "its file system has no locks");
            }
        }
        // Seeking finds the length of block devices as well.
        let len_bytes = file.seek(SeekFrom::End(0)).map_err(fail)?;
        if len_bytes < SECTOR {
            let path = path.to_owned();
            return Err(DiskError::TooSmall { path, len_bytes });
        }
        let mut id = [0; ID_LEN];
        for (slot, byte) in id.iter_mut().zip(name.bytes()) {
            *slot = byte;
        }
        Ok(Block {
            path: path.to_owned(),
            file,
            sectors: len_bytes / SECTOR,
            read_only,
            id,
            chain: Chain::default(),
            failures: 0,
        })
    }

    /// Whether the guest may only read it.
    #[must_use]
    pub fn is_read_only(&self) -> bool {
        self.read_only
    }

    /// Serves the taken request; returns how many bytes were written into its buffer. Data and status share the writable
    /// part: the status is its last byte (5.2.6).
    fn serve(&mut self, ram: &GuestRam) -> u32 {
        let Some(status_at) = self.chain.writable.len_bytes().checked_sub(1) else {
            return 0;
        };
        let (status, data_len) = match self.execute(ram, status_at) {
            Ok(data_len) => (STATUS_OK, data_len),
            Err(Refusal::Unsupported) => (STATUS_UNSUPP, 0),
            Err(Refusal::Invalid(what)) => {
                tracing::debug!(disk = %self.path.display(), what, "bad request");
                (STATUS_IOERR, 0)
            }
            Err(Refusal::Failed(error)) => {
                self.failures += 1;
                if self.failures.is_power_of_two() {
                    tracing::warn!(%error, disk = %self.path.display(), failures = self.failures, "the disk fails");
                }
                (STATUS_IOERR, 0)
            }
        };
        match self.chain.writable.write(ram, status_at, &[status]) {
            // The whole buffer up to the status counts, as drivers expect it of reads.
            Ok(()) if data_len == status_at => u32::try_from(status_at + 1).unwrap_or(u32::MAX),
            Ok(()) => 1,
            Err(_) => 0,
        }
    }

    fn execute(&mut self, ram: &GuestRam, in_len: u64) -> Result<u64, Refusal> {
        let mut header = [0; 16];
        let readable = &self.chain.readable;
        let request = readable
            .read(ram, 0, &mut header)
            .ok()
            .and_then(|()| Request::parse(&header));
        let request = request.ok_or(Refusal::Invalid("no header"))?;
        match request.kind {
            TYPE_IN => {
                self.seek(request, in_len)?;
                for (gpa, len) in self.chain.writable.parts(0, in_len) {
                    ram.read_exact_volatile_from(gpa, &mut self.file, size(len))
                        .map_err(Refusal::memory)?;
                }
                Ok(in_len)
            }
            TYPE_OUT if self.read_only => Err(Refusal::Invalid("write to a read-only disk")),
            TYPE_OUT => {
                let out_len = readable.len_bytes().saturating_sub(HEADER_LEN);
                self.seek(request, out_len)?;
                for (gpa, len) in self.chain.readable.parts(HEADER_LEN, out_len) {
                    ram.write_all_volatile_to(gpa, &mut self.file, size(len))
                        .map_err(Refusal::memory)?;
                }
                Ok(0)
            }
            TYPE_FLUSH if self.read_only => Ok(0),
            TYPE_FLUSH => self
                .file
                .sync_data()
                .map(|()| 0)
                .map_err(|error| Refusal::Failed(error.to_string())),
            TYPE_GET_ID => {
                let len = usize::try_from(in_len).unwrap_or(ID_LEN).min(ID_LEN);
                let id = self.id.get(..len).unwrap_or_default();
                let written = self.chain.writable.write(ram, 0, id);
                written
                    .map(|()| in_len)
                    .map_err(|_| Refusal::Invalid("no room for an id"))
            }
            _ => Err(Refusal::Unsupported),
        }
    }

    /// Goes to the request's place, if it lies on the disk.
    fn seek(&mut self, request: Request, len_bytes: u64) -> Result<(), Refusal> {
        let sectors = len_bytes / SECTOR;
        let on_disk = request
            .sector
            .checked_add(sectors)
            .is_some_and(|end| end <= self.sectors);
        if !len_bytes.is_multiple_of(SECTOR) || !on_disk || len_bytes > BLOCK_REQUEST_LEN_MAX {
            return Err(Refusal::Invalid("not whole sectors of the disk, or too many"));
        }
        let place = SeekFrom::Start(request.sector * SECTOR);
        self.file
            .seek(place)
            .map(drop)
            .map_err(|error| Refusal::Failed(error.to_string()))
    }
}

/// Why a request was not served.
#[derive(Debug)]
enum Refusal {
    Unsupported,
    Invalid(&'static str),
    Failed(String),
}

impl Refusal {
    /// The guest named memory that is not there, or the host's file failed.
    fn memory(error: GuestMemoryError) -> Refusal {
        match error {
            GuestMemoryError::InvalidGuestAddress(_) => Refusal::Invalid("a buffer outside RAM"),
            other => Refusal::Failed(other.to_string()),
        }
    }
}

impl Request {
    fn parse(header: &[u8; 16]) -> Option<Request> {
        let (kind, rest) = header.split_first_chunk::<4>()?;
        let (_reserved, sector) = rest.split_first_chunk::<4>()?;
        Some(Request {
            kind: u32::from_le_bytes(*kind),
            sector: u64::from_le_bytes(*sector.first_chunk()?),
        })
    }
}

impl VirtioDevice for Block {
    fn identity(&self) -> Identity {
        Identity {
            device_type: 2,
            // Mass storage controller, other.
            class: 0x01_80_00,
        }
    }

    fn features(&self) -> u64 {
        let read_only = if self.read_only { F_RO } else { 0 };
        F_SEG_MAX | F_BLK_SIZE | F_FLUSH | read_only
    }

    fn queue_sizes(&self) -> Vec<u16> {
        vec![QUEUE_SIZE_MAX]
    }

    /// Capacity, size_max, seg_max, geometry, blk_size (5.2.4).
    fn config(&self) -> Vec<u8> {
        let mut config = self.sectors.to_le_bytes().to_vec();
        config.extend([0; 4]);
        config.extend(BLOCK_SEGMENTS_MAX.to_le_bytes());
        config.extend([0; 4]);
        config.extend(512_u32.to_le_bytes());
        config
    }

    fn work(&mut self, queues: &mut [VirtQueue], memory: &GuestMemory) -> Result<After, Broken> {
        let ram = memory.ram();
        let Some(queue) = queues.first_mut() else {
            return Ok(After::KICK);
        };
        queue.ignore(ram)?;
        // A freeze waits for the request that the disk has begun, and for no other.
        let round = Round::begin();
        while !round.is_over() {
            if !queue.pop(ram, &mut self.chain)? {
                let more = queue.listen(ram)?;
                queue.signal(ram)?;
                return Ok(if more { After::Again } else { After::KICK });
            }
            let len = self.serve(ram);
            queue.push_used(ram, &self.chain, len)?;
        }
        queue.signal(ram)?;
        Ok(After::Again)
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};

    use super::super::rig::Rig;
    use super::*;

    const HEADER: u64 = 0x1_0000;
    const DATA: u64 = 0x2_0000;
    const STATUS: u64 = 0x3_0000;

    fn image(len: usize) -> tempfile::NamedTempFile {
        let mut image = tempfile::NamedTempFile::new().unwrap();
        let bytes: Vec<u8> = (0..len).map(|n| u8::try_from(n / 512).unwrap()).collect();
        image.write_all(&bytes).unwrap();
        image
    }

    fn rig(image: &tempfile::NamedTempFile) -> Rig {
        Rig::new(Box::new(Block::open(image.path(), "disk0").unwrap()), 0)
    }

    /// Does one request and returns its status and used length.
    fn request(rig: &mut Rig, kind: u32, sector: u64, out: &[(u64, u32)], into: &[(u64, u32)]) -> (u8, u32) {
        let mut header = kind.to_le_bytes().to_vec();
        header.extend([0; 4]);
        header.extend(sector.to_le_bytes());
        rig.write(HEADER, &header);
        rig.write(STATUS, &[0xee]);
        let readable: Vec<_> = [(HEADER, 16)].iter().chain(out).copied().collect();
        let writable: Vec<_> = into.iter().chain(&[(STATUS, 1)]).copied().collect();
        let head = rig.offer(0, &readable, &writable);
        assert_eq!(rig.run(), After::KICK);
        let used = rig.used(0);
        let (id, len) = *used.last().unwrap();
        assert_eq!(id, u32::from(head));
        (rig.read(STATUS, 1)[0], len)
    }

    #[test]
    fn what_is_written_is_read_back_and_lies_in_the_file() {
        let image = image(64 * 512);
        let mut rig = rig(&image);
        rig.write(DATA, &[0xab; 1024]);
        assert_eq!(
            request(&mut rig, TYPE_OUT, 3, &[(DATA, 512), (DATA + 512, 512)], &[]),
            (STATUS_OK, 1)
        );
        assert_eq!(request(&mut rig, TYPE_FLUSH, 0, &[], &[]), (STATUS_OK, 1));
        assert_eq!(
            request(
                &mut rig,
                TYPE_IN,
                2,
                &[],
                &[(DATA + 0x2000, 512), (DATA + 0x4000, 1024)]
            ),
            (STATUS_OK, 1537)
        );
        assert_eq!(rig.read(DATA + 0x2000, 512), [2; 512]);
        assert_eq!(rig.read(DATA + 0x4000, 1024), [0xab; 1024]);
        let mut bytes = Vec::new();
        image.reopen().unwrap().read_to_end(&mut bytes).unwrap();
        assert_eq!(bytes[3 * 512..5 * 512], [0xab; 1024]);
        assert_eq!(bytes[5 * 512], 5);
        assert!(!rig.raised().is_empty());
    }

    #[test]
    fn what_lies_beyond_the_end_or_outside_ram_is_an_error_and_changes_nothing() {
        let image = image(8 * 512);
        let mut rig = rig(&image);
        for (sector, len) in [(8, 512), (7, 1024), (u64::MAX, 512), (0, 511), (0, 4096 + 512)] {
            assert_eq!(
                request(&mut rig, TYPE_IN, sector, &[], &[(DATA, len)]).0,
                STATUS_IOERR,
                "{sector} {len}"
            );
        }
        assert_eq!(request(&mut rig, TYPE_IN, 0, &[], &[(1 << 40, 512)]).0, STATUS_IOERR);
        assert_eq!(
            request(&mut rig, TYPE_OUT, 0, &[(u64::MAX - 511, 512)], &[]).0,
            STATUS_IOERR
        );
        assert_eq!(image.as_file().metadata().unwrap().len(), 8 * 512);
    }

    #[test]
    fn a_file_that_cannot_be_written_is_a_read_only_disk() {
        let image = image(8 * 512);
        let mut disk = Block::open(image.path(), "disk0").unwrap();
        assert!(!disk.is_read_only());
        assert_eq!(disk.features() & F_RO, 0);
        disk.read_only = true;
        assert_eq!(disk.features() & F_RO, F_RO);
        let mut rig = Rig::new(Box::new(disk), 0);
        assert_eq!(request(&mut rig, TYPE_OUT, 0, &[(DATA, 512)], &[]).0, STATUS_IOERR);
        assert_eq!(request(&mut rig, TYPE_FLUSH, 0, &[], &[]).0, STATUS_OK);
        assert_eq!(request(&mut rig, TYPE_IN, 0, &[], &[(DATA, 512)]).0, STATUS_OK);
    }

    #[test]
    fn odd_requests_are_answered_as_the_specification_says() {
        let image = image(8 * 512);
        let mut rig = rig(&image);
        assert_eq!(request(&mut rig, 99, 0, &[], &[]).0, STATUS_UNSUPP);
        assert_eq!(request(&mut rig, TYPE_GET_ID, 0, &[], &[(DATA, 20)]).0, STATUS_OK);
        assert_eq!(rig.read(DATA, 6), b"disk0\0");
        // No header, no room for a status.
        rig.offer(0, &[], &[(STATUS, 1)]);
        rig.offer(0, &[(HEADER, 16)], &[]);
        rig.offer(0, &[(HEADER, 3)], &[(STATUS, 1)]);
        rig.run();
        let used: Vec<u32> = rig.used(0).iter().map(|(_, len)| *len).collect();
        assert_eq!(used[2..], [1, 0, 1]);
        assert_eq!(rig.read(STATUS, 1), [STATUS_IOERR]);
    }

    #[test]
    fn a_disk_that_is_missing_empty_or_in_use_is_refused_by_name() {
        let missing = Block::open(Path::new("/nonexistent/disk.img"), "disk0").unwrap_err();
        assert!(missing.to_string().contains("/nonexistent/disk.img"), "{missing}");
        let empty = image(0);
        assert!(matches!(
            Block::open(empty.path(), "d"),
            Err(DiskError::TooSmall { len_bytes: 0, .. })
        ));
        let image = image(512);
        let _first = Block::open(image.path(), "d").unwrap();
        assert!(matches!(Block::open(image.path(), "d"), Err(DiskError::InUse { .. })));
    }
}
