//! `cores groups`: cores of the same fault together.

use api::CoreGroup;

use super::source::Source;
use crate::cli_failure::{Exit, Outcome};
use crate::output;

/// Names shown in a cell of the table.
const NAMES_SHOWN: usize = 3;

/// Prints the groups.
pub(super) fn run(source: &Source, as_json: bool) -> Outcome {
    let groups = source.groups()?;
    if as_json {
        output::json(&groups)?;
    } else if groups.is_empty() {
        output::say("no core has a signature to be grouped by: none tells by its log what crashed");
    } else {
        output::line(&table(&groups))?;
    }
    Ok(Exit::Ok)
}

fn table(groups: &[CoreGroup]) -> String {
    let rows = groups.iter().map(|group| {
        let count = group.count.to_string();
        let note = if group.regressed { "regressed" } else { "" };
        vec![
            count,
            group.signature.clone(),
            names(&group.guests, group.guest_count),
            names(&group.kernels, group.kernels.len() as u64),
            group.first_seen.clone(),
            group.last_seen.clone(),
            note.to_owned(),
        ]
    });
    let header = ["COUNT", "SIGNATURE", "GUESTS", "KERNELS", "FIRST SEEN", "LAST SEEN", ""];
    output::table(&header, rows.collect())
}

/// The first names, and how many more there are.
fn names(names: &[String], count: u64) -> String {
    let shown = names.iter().take(NAMES_SHOWN).map(String::as_str);
    let text = shown.collect::<Vec<_>>().join(", ");
    match count.saturating_sub(NAMES_SHOWN as u64) {
        0 => text,
        more => format!("{text} and {more} more"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn many_names_are_a_number() {
        let all = ["a", "b", "c", "d"].map(str::to_owned);
        assert_eq!(names(&all, 41), "a, b, c and 38 more");
        assert_eq!(names(&all[..2], 2), "a, b");
    }
}
