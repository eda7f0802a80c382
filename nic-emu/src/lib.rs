//! The emulated Intel 82540EM: register specification, device, polled driver; no I/O
