//! What goes wrong for a user, and what the user is told: each failure has its exit code, a sentence that names the thing
//! and the way out, and leaves nothing half-written that is called whole. A crashed guest's policy runs in any case.

mod common;
#[path = "road/machine.rs"]
mod machine;
#[path = "errors/sandbox.rs"]
mod sandbox;

#[path = "errors/beginnings.rs"]
mod beginnings;
#[path = "errors/cores.rs"]
mod cores;
#[path = "errors/full.rs"]
mod full;
#[path = "errors/receivers.rs"]
mod receivers;

use std::process::Output;

/// Demands an exit code and that standard error has all of `parts`.
fn fails_with(output: &Output, exit: i32, parts: &[&str]) {
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(exit), "it said:\n{said}");
    for part in parts {
        assert!(said.contains(part), "`{part}` is not said:\n{said}");
    }
}
