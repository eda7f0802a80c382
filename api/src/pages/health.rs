//! How the receiver is.

use jiff::Timestamp;
use maud::{Markup, html};

use super::words::{bytes, percent, time};
use crate::types::health::Health;

/// From this share of the quota on the bar warns.
const WARN_PERCENT: u64 = 75;
/// From this share on it alarms.
const ALARM_PERCENT: u64 = 90;

/// The page.
pub(super) fn markup(health: &Health) -> Markup {
    let now = Timestamp::now();
    let used = percent(health.stored_bytes, health.quota_bytes);
    let class = match used {
        ALARM_PERCENT.. => "bad",
        WARN_PERCENT.. => "busy",
        _ => "good",
    };
    html! {
        h1 { "Health" }
        p { @if health.ready { span class="state good" { "ready" } " New dumps are taken." }
            @else { span class="state bad" { "not ready" } " New dumps are not taken." } }
        h2 { "Checks" }
        dl {
            @for check in &health.checks {
                dt { (check.name) }
                dd { span class={ "state " @if check.ok { "good" } @else { "bad" } } { @if check.ok { "ok" } @else { "failed" } } " " (check.detail) }
            }
        }
        h2 { "Space" }
        p { meter aria-label="Space that cores take" class=(class) min="0" max="100" low=(WARN_PERCENT) high=(ALARM_PERCENT) optimum="0" value=(used) { (used) " %" }
            " " (bytes(health.stored_bytes)) " of " (bytes(health.quota_bytes)) " that cores may take (" (used) " %)" }
        dl {
            dt { "Free" } dd { (bytes(health.free_bytes)) " of " (bytes(health.size_bytes)) }
            dt { "Cores" } dd { (health.cores) }
            dt { "Oldest core" } dd { @match &health.oldest_core { Some(at) => (time(at, now)), None => "none" } }
            dt { "Sessions that run or linger" } dd { (health.sessions) }
            dt { "Datagrams dropped by the kernel" } dd { (health.kernel_drops) }
            dt { "Last canary" } dd { @match &health.last_canary {
                Some(at) => (time(at, now)),
                None => { "none yet; " code { "coreferry doctor --to HOST" } " sends one" },
            } }
        }
    }
}
