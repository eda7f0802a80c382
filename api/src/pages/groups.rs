//! The crashes by which cores group.

use jiff::Timestamp;
use maud::{Markup, html};

use super::words::{encode, short, time};
use crate::types::explanation::CoreGroup;

/// The page.
pub(super) fn markup(groups: &[CoreGroup]) -> Markup {
    let now = Timestamp::now();
    html! {
        h1 { "Groups" }
        p { "Cores with the same signature crashed in the same place." }
        @if groups.is_empty() {
            p class="empty" { "No core has a signature yet." }
        } @else {
            div class="wide" tabindex="0" role="region" aria-label="Table of groups" {
                table class="rows" {
                    thead { tr {
                        @for name in ["Signature", "Cores", "Guests", "Kernels", "First", "Last"] {
                            th scope="col" { (name) }
                        }
                    } }
                    tbody { @for group in groups { (row(group, now)) } }
                }
            }
        }
    }
}

fn row(group: &CoreGroup, now: Timestamp) -> Markup {
    html! {
        tr {
            td data-name="Signature" class="crash" { a href={ "/?signature=" (encode(&group.signature)) } { (short(&group.signature, 120)) } @if group.regressed { " " span class="state bad" { "came back" } } }
            td data-name="Cores" class="number" { (group.count) }
            td data-name="Guests" { (some(&group.guests, group.guest_count)) }
            td data-name="Kernels" class="kernel" { (some(&group.kernels, group.kernels.len() as u64)) }
            td data-name="First" { (time(&group.first_seen, now)) }
            td data-name="Last" { a href={ "/cores/" (group.last_id) } { (time(&group.last_seen, now)) } }
        }
    }
}

/// The first names, and how many more there are.
fn some(names: &[String], count: u64) -> Markup {
    html! {
        @for (index, name) in names.iter().take(3).enumerate() {
            @if index > 0 { ", " }
            (short(name, 40))
        }
        @if count > 3 { " and " (count - 3) " more" }
    }
}
