//! Kernels that name an entry of the PVH protocol in a Xen note, such as an uncompressed Linux vmlinux (Xen
//! docs/misc/pvh.pandoc, xen/include/public/arch-x86/hvm/start_info.h).
use super::layout::{COMMAND_LINE_GPA, COMMAND_LINE_ROOM, START_INFO_GPA, memory_map};
use super::{KernelError, place_command_line, place_initrd};
use crate::kvm::{ProtectedModeEntry, Start};
use crate::memory::{Bytes as _, GuestAddress, GuestMemory};

/// XEN_HVM_START_MAGIC_VALUE.
const START_MAGIC: u32 = 0x336e_c578;
/// The version that has the memory map.
const START_VERSION: u32 = 1;
/// The list of modules and the memory map follow the start info.
const MODULES_GPA: u64 = START_INFO_GPA + 0x40;
const MAP_GPA: u64 = START_INFO_GPA + 0x80;

/// Puts down what goes with a kernel that lies in memory already, up to `kernel_end`.
///
/// # Errors
/// [`KernelError`].
pub(super) fn finish(
    memory: &GuestMemory,
    entry: u64,
    kernel_end: u64,
    initrd: Option<&[u8]>,
    command_line: &str,
    rsdp_gpa: u64,
) -> Result<Start, KernelError> {
    let eip = u32::try_from(entry).map_err(|_| KernelError::Format {
        why: format!("its PVH entry {entry:#x} is not below 4 GiB"),
    })?;
    place_command_line(memory, command_line, COMMAND_LINE_ROOM - 1)?;
    let (initrd_gpa, initrd_len) = place_initrd(memory, initrd, kernel_end, 4 << 30)?;
    let modules = u32::from(initrd_len > 0);
    let map = memory_map(memory);
    let mut info = Vec::new();
    // Magic, version, flags, number of modules.
    for field in [START_MAGIC, START_VERSION, 0, modules] {
        info.extend(field.to_le_bytes());
    }
    let modules_gpa = if modules > 0 { MODULES_GPA } else { 0 };
    for field in [modules_gpa, COMMAND_LINE_GPA, rsdp_gpa, MAP_GPA] {
        info.extend(field.to_le_bytes());
    }
    info.extend(u32::try_from(map.len()).unwrap_or(0).to_le_bytes());
    // A module: where, how long, no command line, reserved.
    let module = [initrd_gpa, initrd_len, 0, 0].map(u64::to_le_bytes).concat();
    let entries = map.iter().flat_map(|range| {
        let kind = u64::from(range.kind.number());
        [range.gpa, range.len_bytes, kind].map(u64::to_le_bytes).concat()
    });
    let put = |bytes: &[u8], gpa| {
        let place_error = |source| KernelError::Place {
            what: "start info",
            source,
        };
        memory.ram().write_slice(bytes, GuestAddress(gpa)).map_err(place_error)
    };
    put(&info, START_INFO_GPA)?;
    put(&module, MODULES_GPA)?;
    put(&entries.collect::<Vec<u8>>(), MAP_GPA)?;
    let ebx = u32::try_from(START_INFO_GPA).unwrap_or(0);
    Ok(Start::ProtectedMode(ProtectedModeEntry { eip, ebx }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn start_info_names_command_line_initrd_and_map() {
        let memory = GuestMemory::create(64).unwrap();
        let start = finish(&memory, 0x100_0000, 0x200_0000, Some(b"0707"), "quiet", 0xe_0000).unwrap();
        assert_eq!(
            start,
            Start::ProtectedMode(ProtectedModeEntry {
                eip: 0x100_0000,
                ebx: 0x6000
            })
        );
        let long = |gpa| {
            let mut bytes = [0; 8];
            memory.read_at(gpa, &mut bytes).unwrap();
            u64::from_le_bytes(bytes)
        };
        assert_eq!((long(0x6000), long(0x6008)), (1 << 32 | 0x336e_c578, 1 << 32));
        assert_eq!(
            [long(0x6010), long(0x6018), long(0x6020)],
            [MODULES_GPA, COMMAND_LINE_GPA, 0xe_0000]
        );
        assert_eq!((long(0x6028), long(0x6030)), (MAP_GPA, 3));
        assert_eq!((long(MODULES_GPA), long(MODULES_GPA + 8)), ((64 << 20) - 4096, 4));
        assert_eq!([long(MAP_GPA), long(MAP_GPA + 8), long(MAP_GPA + 16)], [0, 0x9_fc00, 1]);
        assert!(finish(&memory, 1 << 32, 0, None, "", 0).is_err());
    }
}
