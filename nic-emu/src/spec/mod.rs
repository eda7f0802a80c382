//! What the 82540EM looks like from outside: constants and plain codecs, shared by the device and by drivers.
//!
//! Sources: "PCI/PCI-X Family of Gigabit Ethernet Controllers Software Developer's Manual" (Intel 317453, "SDM" below),
//! and what the Linux `e1000` and FreeBSD `lem` drivers rely on.

pub mod descriptors;
pub mod eeprom;
pub mod phy;
pub mod registers;
