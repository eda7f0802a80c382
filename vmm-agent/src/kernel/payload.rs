//! Where a bzImage has its vmlinux (Linux Documentation/arch/x86/boot.rst, "The Real-Mode Kernel Header").

use super::ReadAt;

/// Of the file that matters here.
const HEADER_LEN: usize = 0x250;
// Offsets in the file.
const SETUP_SECTORS: usize = 0x1f1;
const MAGIC: usize = 0x202;
const VERSION: usize = 0x206;
const PAYLOAD_OFFSET: usize = 0x248;
const PAYLOAD_LENGTH: usize = 0x24c;
/// First version with the payload's place.
const VERSION_MIN: u16 = 0x0208;
/// What no sectors mean, for the sake of old kernels.
const SETUP_SECTORS_DEFAULT: u8 = 4;
const SECTOR_LEN: u64 = 512;

/// Offset and length of the packed vmlinux; nothing if this is no bzImage that says.
pub(super) fn find(image: &dyn ReadAt) -> Option<(u64, u64)> {
    let mut header = [0; HEADER_LEN];
    if image.read_at(&mut header, 0).ok()? < HEADER_LEN || header.get(MAGIC..MAGIC + 4)? != b"HdrS" {
        return None;
    }
    let version = u16::from_le_bytes(*header.get(VERSION..)?.first_chunk()?);
    if version < VERSION_MIN {
        return None;
    }
    let word = |at: usize| Some(u64::from(u32::from_le_bytes(*header.get(at..)?.first_chunk()?)));
    let sectors = match *header.get(SETUP_SECTORS)? {
        0 => SETUP_SECTORS_DEFAULT,
        given => given,
    };
    // The sectors behind the first one; the payload's offset counts from their end.
    let protected_mode = (u64::from(sectors) + 1) * SECTOR_LEN;
    Some((protected_mode + word(PAYLOAD_OFFSET)?, word(PAYLOAD_LENGTH)?))
}
