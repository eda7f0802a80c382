//! fw_cfg: named items that guests read, and one that they write: where their VMCOREINFO lies (QEMU docs/specs/fw_cfg,
//! docs/specs/vmcoreinfo).
use std::sync::{Arc, Mutex};

use super::bus::{Shared, lock};
use super::{IoOutcome, PioDevice, get, put};
use crate::memory::{Bytes as _, GuestAddress, GuestMemory};

/// First port: the selector, then data at +1 and the DMA address at +4.
pub const FW_CFG_PORT: u16 = 0x510;
/// Number of ports.
pub const FW_CFG_PORTS: u16 = 12;

// Keys of items.
const KEY_SIGNATURE: u16 = 0x0000;
const KEY_ID: u16 = 0x0001;
const KEY_FILE_DIR: u16 = 0x0019;
/// First key of the named files.
const KEY_VMCOREINFO: u16 = 0x0020;
/// Key bit that asks for writing through the data port, which was dropped long ago.
const KEY_MASK: u16 = 0xbfff;

/// Interfaces: the traditional one (bit 0) and DMA (bit 1).
const ID: u32 = 3;
/// What the DMA address register reads as.
const DMA_SIGNATURE: u64 = u64::from_be_bytes(*b"QEMU CFG");

// Offsets of the DMA address register's halves.
const DMA_HIGH: u64 = 4;
const DMA_LOW: u64 = 8;

// Control bits of a DMA request.
const CONTROL_ERROR: u32 = 1 << 0;
const CONTROL_READ: u32 = 1 << 1;
const CONTROL_SKIP: u32 = 1 << 2;
const CONTROL_SELECT: u32 = 1 << 3;
const CONTROL_WRITE: u32 = 1 << 4;

/// Most bytes of one request: all items together are far smaller, and a guest must not make the host work for long.
const DMA_LEN_MAX: u32 = 1 << 20;

/// Length of `etc/vmcoreinfo`: host format, guest format (2 bytes each), size (4), address (8).
const VMCOREINFO_LEN: usize = 16;
/// Format of an ELF note.
const FORMAT_ELF_NOTE: u16 = 1;
/// Largest note that counts.
const VMCOREINFO_NOTE_MAX: u32 = 1 << 20;

/// Where a guest said that its VMCOREINFO note lies. Not checked: the guest may lie.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct VmcoreinfoPlace {
    /// Guest-physical address of the ELF note.
    pub gpa: u64,
    /// Its length.
    pub len_bytes: u32,
}

/// The device; clones share its state.
#[derive(Clone, Debug)]
pub struct FwCfg(Shared<State>);

#[derive(Debug)]
struct State {
    memory: Arc<GuestMemory>,
    key: u16,
    offset: usize,
    dma_high: u64,
    vmcoreinfo: [u8; VMCOREINFO_LEN],
    directory: Vec<u8>,
}

impl FwCfg {
    /// The device of a guest with `memory`.
    #[must_use]
    pub fn new(memory: Arc<GuestMemory>) -> FwCfg {
        let mut vmcoreinfo = [0; VMCOREINFO_LEN];
        if let Some(host_format) = vmcoreinfo.first_mut() {
            *host_format = FORMAT_ELF_NOTE.to_le_bytes()[0];
        }
        FwCfg(Arc::new(Mutex::new(State {
            memory,
            key: KEY_SIGNATURE,
            offset: 0,
            dma_high: 0,
            vmcoreinfo,
            directory: directory(),
        })))
    }

    /// What the guest wrote into `etc/vmcoreinfo`, if it is an ELF note of a sensible length.
    #[must_use]
    pub fn vmcoreinfo(&self) -> Option<VmcoreinfoPlace> {
        let file = lock(&self.0).vmcoreinfo;
        let guest_format = u16::from_le_bytes(part(&file, 2)?);
        let len_bytes = u32::from_le_bytes(part(&file, 4)?);
        let gpa = u64::from_le_bytes(part(&file, 8)?);
        let sensible = guest_format == FORMAT_ELF_NOTE && (1..VMCOREINFO_NOTE_MAX).contains(&len_bytes);
        sensible.then_some(VmcoreinfoPlace { gpa, len_bytes })
    }
}

/// The list of files: their number, then size, key, two reserved bytes and a name of 56 bytes each; big-endian.
fn directory() -> Vec<u8> {
    let mut directory = 1_u32.to_be_bytes().to_vec();
    directory.extend(u32::try_from(VMCOREINFO_LEN).unwrap_or(0).to_be_bytes());
    directory.extend(KEY_VMCOREINFO.to_be_bytes());
    directory.extend([0; 2]);
    let mut name = b"etc/vmcoreinfo".to_vec();
    name.resize(56, 0);
    directory.extend(name);
    directory
}

fn part<const N: usize>(bytes: &[u8], at: usize) -> Option<[u8; N]> {
    bytes.get(at..)?.first_chunk().copied()
}

impl State {
    fn select(&mut self, key: u16) {
        self.key = key & KEY_MASK;
        self.offset = 0;
    }

    /// The next `len` bytes of the selected item; zeros behind its end.
    fn take(&mut self, len: usize) -> Vec<u8> {
        let id = ID.to_le_bytes();
        let item: &[u8] = match self.key {
            KEY_SIGNATURE => b"QEMU",
            KEY_ID => &id,
            KEY_FILE_DIR => &self.directory,
            KEY_VMCOREINFO => &self.vmcoreinfo,
            _ => &[],
        };
        let rest = item.get(self.offset..).unwrap_or_default();
        let mut bytes: Vec<u8> = rest.iter().copied().take(len).collect();
        bytes.resize(len, 0);
        self.offset = self.offset.saturating_add(len);
        bytes
    }

    /// Serves the request at `gpa`: control and length (4 bytes each), address (8); big-endian. Errors go back into it.
    fn dma(&mut self, gpa: u64) {
        let memory = Arc::clone(&self.memory);
        let mut request = [0; 16];
        if let Err(error) = memory.ram().read_slice(&mut request, GuestAddress(gpa)) {
            tracing::debug!(gpa = format_args!("{gpa:#x}"), %error, "a fw_cfg request that is not in RAM");
            return;
        }
        let status = if self.serve(&memory, &request).is_some() {
            0
        } else {
            CONTROL_ERROR
        };
        if let Err(error) = memory.ram().write_slice(&status.to_be_bytes(), GuestAddress(gpa)) {
            tracing::debug!(%error, "a fw_cfg request cannot be answered");
        }
    }

    fn serve(&mut self, memory: &GuestMemory, request: &[u8]) -> Option<()> {
        let control = u32::from_be_bytes(part(request, 0)?);
        let len_bytes = u32::from_be_bytes(part(request, 4)?);
        let address = GuestAddress(u64::from_be_bytes(part(request, 8)?));
        if control & CONTROL_SELECT != 0 {
            self.select(u16::try_from(control >> 16).ok()?);
        }
        let len = usize::try_from(len_bytes).ok().filter(|_| len_bytes <= DMA_LEN_MAX)?;
        if control & CONTROL_READ != 0 {
            let bytes = self.take(len);
            memory.ram().write_slice(&bytes, address).ok()
        } else if control & CONTROL_WRITE != 0 {
            // Only the whole file at once counts.
            if (self.key, self.offset, len) != (KEY_VMCOREINFO, 0, VMCOREINFO_LEN) {
                return None;
            }
            let mut file = [0; VMCOREINFO_LEN];
            memory.ram().read_slice(&mut file, address).ok()?;
            self.vmcoreinfo = file;
            self.offset = len;
            Some(())
        } else {
            if control & CONTROL_SKIP != 0 {
                self.offset = self.offset.saturating_add(len);
            }
            Some(())
        }
    }
}

impl PioDevice for FwCfg {
    fn read(&mut self, offset: u64, data: &mut [u8]) -> IoOutcome {
        let mut state = lock(&self.0);
        match (offset, data.len()) {
            (0, 2) => put(data, u64::from(state.key)),
            (1, 1) => {
                let byte = state.take(1);
                data.copy_from_slice(&byte);
                IoOutcome::Done
            }
            (DMA_HIGH, 4) => put(data, u64::from(swapped(DMA_SIGNATURE >> 32))),
            (DMA_LOW, 4) => put(data, u64::from(swapped(DMA_SIGNATURE))),
            _ => IoOutcome::BadAccess("fw_cfg: no such register in that width"),
        }
    }

    fn write(&mut self, offset: u64, data: &[u8]) -> IoOutcome {
        let mut state = lock(&self.0);
        match (offset, data.len()) {
            (0, 2) => state.select(u16::try_from(get(data)).unwrap_or(0)),
            // The address register is big-endian; its lower half starts the request.
            (DMA_HIGH, 4) => state.dma_high = u64::from(swapped(get(data))),
            (DMA_LOW, 4) => {
                let gpa = state.dma_high << 32 | u64::from(swapped(get(data)));
                state.dma_high = 0;
                state.dma(gpa);
            }
            _ => return IoOutcome::BadAccess("fw_cfg: no such register in that width"),
        }
        IoOutcome::Done
    }
}

/// The lower 32 bits with their bytes turned round.
fn swapped(value: u64) -> u32 {
    u32::try_from(value & 0xffff_ffff).unwrap_or(0).swap_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn device() -> (FwCfg, Arc<GuestMemory>) {
        let memory = Arc::new(GuestMemory::create(1).unwrap());
        (FwCfg::new(Arc::clone(&memory)), memory)
    }

    fn request(fw_cfg: &mut FwCfg, memory: &GuestMemory, control: u32, len: u32, gpa: u64) -> u32 {
        let mut bytes = [control.to_be_bytes(), len.to_be_bytes()].concat();
        bytes.extend(gpa.to_be_bytes());
        memory.ram().write_slice(&bytes, GuestAddress(0x1000)).unwrap();
        assert_eq!(fw_cfg.write(DMA_HIGH, &[0; 4]), IoOutcome::Done);
        assert_eq!(fw_cfg.write(DMA_LOW, &0x1000_u32.to_be_bytes()), IoOutcome::Done);
        let mut status = [0; 4];
        memory.read_at(0x1000, &mut status).unwrap();
        u32::from_be_bytes(status)
    }

    fn read_item(fw_cfg: &mut FwCfg, key: u16, len: usize) -> Vec<u8> {
        assert_eq!(fw_cfg.write(0, &key.to_le_bytes()), IoOutcome::Done);
        let mut byte = [0];
        (0..len)
            .map(|_| {
                assert_eq!(fw_cfg.read(1, &mut byte), IoOutcome::Done);
                byte[0]
            })
            .collect()
    }

    #[test]
    fn items_are_read_through_the_data_port() {
        let (mut fw_cfg, _) = device();
        assert_eq!(read_item(&mut fw_cfg, KEY_SIGNATURE, 6), b"QEMU\0\0");
        assert_eq!(read_item(&mut fw_cfg, KEY_ID, 4), [3, 0, 0, 0]);
        let directory = read_item(&mut fw_cfg, KEY_FILE_DIR, 4 + 64);
        assert_eq!(&directory[..12], [0, 0, 0, 1, 0, 0, 0, 16, 0, 0x20, 0, 0]);
        assert!(directory[12..].starts_with(b"etc/vmcoreinfo\0"));
        let mut high = [0; 4];
        assert_eq!(fw_cfg.read(DMA_HIGH, &mut high), IoOutcome::Done);
        assert_eq!(&high, b"QEMU");
    }

    #[test]
    fn a_guest_tells_by_dma_where_its_note_lies() {
        let (mut fw_cfg, memory) = device();
        assert_eq!(fw_cfg.vmcoreinfo(), None);
        let mut file = [1_u16.to_le_bytes(), 1_u16.to_le_bytes()].concat();
        file.extend(3300_u32.to_le_bytes());
        file.extend(0x130_a000_u64.to_le_bytes());
        memory.ram().write_slice(&file, GuestAddress(0x2000)).unwrap();
        let write = u32::from(KEY_VMCOREINFO) << 16 | CONTROL_SELECT | CONTROL_WRITE;
        assert_eq!(
            request(&mut fw_cfg, &memory, write, 8, 0x2000),
            CONTROL_ERROR,
            "a part only"
        );
        assert_eq!(fw_cfg.vmcoreinfo(), None);
        assert_eq!(request(&mut fw_cfg, &memory, write, 16, 0x2000), 0);
        let place = VmcoreinfoPlace {
            gpa: 0x130_a000,
            len_bytes: 3300,
        };
        assert_eq!(fw_cfg.vmcoreinfo(), Some(place));
        let read = u32::from(KEY_VMCOREINFO) << 16 | CONTROL_SELECT | CONTROL_READ;
        assert_eq!(request(&mut fw_cfg, &memory, read, 16, 0x3000), 0);
        let mut back = vec![0; 16];
        memory.read_at(0x3000, &mut back).unwrap();
        assert_eq!(back, file);
    }

    #[test]
    fn wild_requests_fail_and_do_no_harm() {
        let (mut fw_cfg, memory) = device();
        let read = CONTROL_SELECT | CONTROL_READ;
        assert_eq!(request(&mut fw_cfg, &memory, read, 16, u64::MAX - 4), CONTROL_ERROR);
        assert_eq!(request(&mut fw_cfg, &memory, read, u32::MAX, 0x2000), CONTROL_ERROR);
        let other_file = 0x0030 << 16 | CONTROL_SELECT | CONTROL_WRITE;
        assert_eq!(request(&mut fw_cfg, &memory, other_file, 16, 0x2000), CONTROL_ERROR);
        assert_eq!(fw_cfg.write(DMA_HIGH, &[0xff; 4]), IoOutcome::Done);
        assert_eq!(fw_cfg.write(DMA_LOW, &[0xff; 4]), IoOutcome::Done);
        assert!(matches!(fw_cfg.read(3, &mut [0]), IoOutcome::BadAccess(_)));
        assert_eq!(fw_cfg.vmcoreinfo(), None);
    }
}
