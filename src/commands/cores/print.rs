//! Cores for people.

use api::CoreSummary;

use crate::output;

/// The list as a table.
pub(super) fn list(cores: &[CoreSummary]) -> String {
    let now = jiff::Timestamp::now();
    let rows = cores.iter().map(|core| {
        vec![
            core.id.clone(),
            output::ago(&core.received_at, now),
            core.guest.clone(),
            core.kernel.clone().unwrap_or_default(),
            core.panic.clone().map(short).unwrap_or_default(),
            format!(
                "{}/{}",
                output::bytes(core.stored_bytes),
                output::bytes(core.file_len_bytes)
            ),
            core.state.to_string(),
        ]
    });
    let header = ["ID", "RECEIVED", "GUEST", "KERNEL", "PANIC", "STORED/SIZE", "STATE"];
    output::table(&header, rows.collect())
}

/// The first words of a text.
fn short(text: String) -> String {
    const CHARS_MAX: usize = 40;
    if text.chars().count() <= CHARS_MAX {
        return text;
    }
    text.chars().take(CHARS_MAX - 1).chain(['…']).collect()
}
