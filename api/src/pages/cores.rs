//! Running dumps, and the list with its filter in the address.

use jiff::Timestamp;
use maud::{Markup, html};
use serde::Deserialize;

use super::words::{bytes, encode, percent, short, time};
use crate::limits::PAGE_ITEMS_DEFAULT;
use crate::service::{CoreQuery, CoreService, ServiceError};
use crate::types::core::{CoreState, CoreSummary};
use crate::types::page::Page;

/// The filter, as it stands in the address. What a form leaves empty is no filter.
#[derive(Debug, Default, Clone, Deserialize)]
pub(super) struct Asked {
    #[serde(default)]
    guest: String,
    #[serde(default)]
    signature: String,
    #[serde(default)]
    state: String,
    #[serde(default)]
    cursor: String,
}

impl Asked {
    /// Whether everything is asked for.
    fn is_empty(&self) -> bool {
        let all = [&self.guest, &self.signature, &self.state, &self.cursor];
        all.iter().all(|text| text.trim().is_empty())
    }
}

/// What the page shows.
#[derive(Debug)]
pub(super) struct Found {
    asked: Asked,
    running: Vec<CoreSummary>,
    page: Page<CoreSummary>,
}

impl Found {
    /// Asks the service.
    pub(super) fn read(service: &dyn CoreService, asked: Asked) -> Result<Self, ServiceError> {
        let some = |text: &str| Some(text.trim().to_owned()).filter(|text| !text.is_empty());
        let state = some(&asked.state).map(|name| {
            let all = CoreState::ALL.map(CoreState::as_str).join(", ");
            CoreState::parse(&name).ok_or_else(|| ServiceError::BadRequest(format!("the states are {all}")))
        });
        let query = CoreQuery {
            cursor: some(&asked.cursor),
            limit: PAGE_ITEMS_DEFAULT,
            guest: some(&asked.guest),
            signature: some(&asked.signature),
            state: state.transpose()?,
            since: None,
        };
        Ok(Self {
            running: super::running(service),
            page: service.list(&query)?,
            asked,
        })
    }

    /// The page.
    pub(super) fn markup(&self) -> Markup {
        html! {
            h1 { "Cores" }
            // Without script the page is asked for again as long as something runs.
            @if !self.running.is_empty() {
                noscript { meta http-equiv="refresh" content="3"; }
            }
            section aria-labelledby="running" {
                h2 id="running" { "Running dumps" }
                div hx-sse:connect="/live" hx-swap="innerHTML" aria-live="polite" { (running(&self.running)) }
            }
            section aria-labelledby="stored" {
                h2 id="stored" { "Stored cores" }
                (self.filter())
                @if self.page.items.is_empty() {
                    p class="empty" { @if self.asked.is_empty() { "No core has come yet." } @else { "No core matches." } }
                } @else {
                    (table(&self.page.items, Timestamp::now()))
                }
                @if let Some(cursor) = &self.page.next_cursor {
                    p { a rel="next" href=(self.next(cursor)) { "Older cores" } }
                }
            }
        }
    }

    fn filter(&self) -> Markup {
        html! {
            form method="get" action="/" role="search" {
                label { "Guest " input name="guest" value=(self.asked.guest); }
                label { "Signature " input name="signature" value=(self.asked.signature); }
                label { "State "
                    select name="state" {
                        option value="" { "any" }
                        @for state in CoreState::ALL {
                            option value=(state) selected[self.asked.state == state.as_str()] { (state) }
                        }
                    }
                }
                button type="submit" { "Filter" }
            }
        }
    }

    fn next(&self, cursor: &str) -> String {
        let Asked {
            guest,
            signature,
            state,
            ..
        } = &self.asked;
        let all = [
            ("guest", guest.as_str()),
            ("signature", signature),
            ("state", state),
            ("cursor", cursor),
        ];
        let given = all.iter().filter(|(_, value)| !value.is_empty());
        let pairs: Vec<String> = given.map(|(name, value)| format!("{name}={}", encode(value))).collect();
        format!("/?{}", pairs.join("&"))
    }
}

/// The dumps that run, each with a bar.
pub(super) fn running(dumps: &[CoreSummary]) -> Markup {
    html! {
        @if dumps.is_empty() {
            p class="empty" { "Nothing is being received." }
        }
        @for core in dumps {
            @let name = format!("Dump of {}", core.guest);
            div class="running" {
                span class="guest" { (core.guest) }
                @if core.file_len_bytes > core.stored_bytes {
                    progress aria-label=(name) max=(core.file_len_bytes) value=(core.stored_bytes) {
                        (percent(core.stored_bytes, core.file_len_bytes)) " %"
                    }
                    span { (percent(core.stored_bytes, core.file_len_bytes)) " %, " (bytes(core.stored_bytes)) " of at most " (bytes(core.file_len_bytes)) }
                } @else {
                    progress aria-label=(name) {}
                    span { (bytes(core.stored_bytes)) " so far" }
                }
                @if let Some(panic) = &core.panic { span class="panic" { (short(panic, 120)) } }
            }
        }
    }
}

/// A table of cores.
fn table(cores: &[CoreSummary], now: Timestamp) -> Markup {
    html! {
        div class="wide" tabindex="0" role="region" aria-label="Table of cores" {
            table class="rows" {
                thead { tr {
                    @for name in ["Core", "Received", "Guest", "Kernel", "Crash", "Stored / size", "State"] {
                        th scope="col" { (name) }
                    }
                } }
                tbody { @for core in cores { (row(core, now)) } }
            }
        }
    }
}

fn row(core: &CoreSummary, now: Timestamp) -> Markup {
    let crash = core.signature.as_ref().or(core.panic.as_ref());
    html! {
        tr {
            td data-name="Core" { a class="id" href={ "/cores/" (core.id) } { (tail(&core.id)) } @if core.pinned { " " span class="pin" title="pinned" { "pinned" } } }
            td data-name="Received" { (time(&core.received_at, now)) }
            td data-name="Guest" { a href={ "/?guest=" (encode(&core.guest)) } { (short(&core.guest, 40)) } }
            td data-name="Kernel" class="kernel" { (short(core.kernel.as_deref().unwrap_or_default(), 40)) }
            td data-name="Crash" class="crash" { (short(crash.map_or("", String::as_str), 100)) }
            td data-name="Stored / size" class="number" { (bytes(core.stored_bytes)) " / " (bytes(core.file_len_bytes)) }
            td data-name="State" { (state(core.state)) }
        }
    }
}

/// The end of an id: the beginning of all ids of a day is the same.
pub(super) fn tail(id: &str) -> &str {
    id.rsplit('-').next().unwrap_or(id)
}

/// A state with its colour.
pub(super) fn state(state: CoreState) -> Markup {
    let class = match state {
        CoreState::Complete => "good",
        CoreState::Receiving => "busy",
        CoreState::Incomplete | CoreState::Aborted | CoreState::Corrupt | CoreState::Missing => "bad",
        CoreState::Pruned | CoreState::RecordOnly => "old",
    };
    html! { span class={ "state " (class) } { (state) } }
}
