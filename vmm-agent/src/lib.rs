//! The virtual machine and the dump agent beside it
