//! Fuzz targets, one of which runs: the one that COREFERRY_FUZZ_TARGET names. `cargo xtask fuzz` runs them all.
#![no_main]

mod em;
mod parsers;
mod session;

use std::sync::OnceLock;

use libfuzzer_sys::fuzz_target;

/// Names and what they run.
const TARGETS: [(&str, fn(&[u8])); 14] = [
    ("netdump-datagram", parsers::datagram),
    ("netdump-session", session::operations),
    ("herald-path", server::fuzz::herald_path),
    ("kernel-header", parsers::kernel_header),
    ("journal", server::fuzz::journal),
    ("manifest", server::fuzz::manifest),
    ("trailer", parsers::trailer),
    ("vmcore-reader", parsers::vmcore_reader),
    ("notes", parsers::notes),
    ("core-file", parsers::core_file),
    ("page", parsers::page),
    ("em-registers", em::registers),
    ("em-transmit", em::transmit),
    ("em-receive", em::receive),
];

fuzz_target!(|bytes: &[u8]| {
    static TARGET: OnceLock<fn(&[u8])> = OnceLock::new();
    let run = TARGET.get_or_init(|| {
        let name = std::env::var("COREFERRY_FUZZ_TARGET").unwrap_or_default();
        let found = TARGETS.iter().find(|(target, _)| *target == name);
        let names = TARGETS.map(|(target, _)| target).join(", ");
        found
            .unwrap_or_else(|| panic!("COREFERRY_FUZZ_TARGET={name:?}; there are: {names}"))
            .1
    });
    run(bytes);
});
