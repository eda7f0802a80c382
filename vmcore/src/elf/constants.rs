//! Numbers of the ELF64 format that we write or read (elf(5), elf.h).

/// First four bytes of the file, ELFMAG.
pub(crate) const MAGIC: [u8; 4] = *b"\x7fELF";
/// EI_CLASS: 64-bit objects.
pub(crate) const CLASS_64: u8 = 2;
/// EI_DATA: little-endian.
pub(crate) const DATA_LITTLE_ENDIAN: u8 = 1;
/// EI_VERSION and e_version: EV_CURRENT.
pub(crate) const VERSION_CURRENT: u8 = 1;
/// e_type: ET_CORE.
pub(crate) const TYPE_CORE: u16 = 4;
/// e_machine: EM_X86_64.
pub(crate) const MACHINE_X86_64: u16 = 62;
/// Length of Elf64_Ehdr; the program headers follow at once.
pub(crate) const EHDR_LEN: usize = 64;
/// Length of one Elf64_Phdr.
pub(crate) const PHDR_LEN: usize = 56;
/// Length of one Elf64_Shdr.
pub(crate) const SHDR_LEN: usize = 64;
/// e_phnum value that sends the reader to `sh_info` of section 0, PN_XNUM.
pub(crate) const PHNUM_EXTENDED: u16 = 0xffff;
/// p_type: PT_LOAD.
pub(crate) const PT_LOAD: u32 = 1;
/// p_type: PT_NOTE.
pub(crate) const PT_NOTE: u32 = 4;
/// p_flags: PF_R.
pub(crate) const PF_R: u32 = 4;
/// p_flags: PF_R, PF_W and PF_X, as /proc/vmcore has them on every range.
pub(crate) const PF_RWX: u32 = 7;
