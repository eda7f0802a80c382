//! The web page: what runs, what is stored, one core, groups, health. Made on the server, read without script; with it, what
//! runs is kept current by server-sent events.
//!
//! A guest chooses its panic text and its name: all of it is hostile. Markup is made by `maud` only, which escapes what it
//! is given; no style and no script stands in a page, and the policy sent with each forbids both.

mod answer;
mod core;
mod cores;
mod groups;
mod health;
mod live;
mod login;
mod strip;
mod words;

use std::sync::Arc;

use axum::Router;
use axum::extract::{Path, Query, State};
use axum::http::header;
use axum::response::{IntoResponse as _, Response};
use axum::routing::get;

use crate::routes::{blocking, events};
use crate::service::{CoreService, GroupQuery};
use crate::types::core::CoreSummary;
use answer::{Failed, page};
use cores::Asked;

/// State of these routes.
type Service = State<Arc<dyn CoreService>>;

/// htmx 4.0.1 of npm (sha512-oF7JgXhDW9UXCy/k1ZYFUQgzu/rm19ORWPSPNL91vPluB2PB9+MV55tyQdH/w7o2EAbTYUG5SDW1R60mdkdqGg==), licence 0BSD,
/// and its extension for server-sent events, of the same package.
///
/// One file: htmx looks over the page a moment after it was loaded, and what an extension that comes later would do with the
/// page stays undone.
const SCRIPT: &str = concat!(
    include_str!("vendor/htmx.min.js"),
    ";\n",
    include_str!("vendor/hx-sse.min.js")
);
/// What a browser shows beside the title.
const ICON: &str = include_str!("icon.svg");
/// How pages look.
const STYLE: &str = include_str!("style.css");

/// The pages and what they load.
pub(crate) fn router(service: Arc<dyn CoreService>) -> Router {
    Router::new()
        .route("/", get(cores_page))
        .route("/cores/{id}", get(core_page))
        .route("/groups", get(groups_page))
        .route("/health", get(health_page))
        .route("/live", get(live_running))
        .route("/login", get(login_page).post(login::login))
        .route("/assets/style.css", get(|| asset("text/css; charset=utf-8", STYLE)))
        .route("/assets/icon.svg", get(|| asset("image/svg+xml", ICON)))
        .route(
            "/assets/script.js",
            get(|| asset("text/javascript; charset=utf-8", SCRIPT)),
        )
        .with_state(service)
}

/// A file that pages load. It may change with the program: browsers ask again after an hour.
async fn asset(kind: &'static str, text: &'static str) -> Response {
    let headers = [
        (header::CONTENT_TYPE, kind),
        (header::CACHE_CONTROL, "max-age=3600"),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    ];
    (headers, text).into_response()
}

/// Running dumps and stored cores.
async fn cores_page(State(service): Service, Query(asked): Query<Asked>) -> Result<Response, Failed> {
    let reader = Arc::clone(&service);
    let found = blocking(move || cores::Found::read(&*reader, asked)).await?;
    Ok(page("Cores", "/", &found.markup()))
}

/// One core.
async fn core_page(State(service): Service, Path(id): Path<String>) -> Result<Response, Failed> {
    let facts = blocking(move || core::Facts::read(&*service, &id)).await?;
    let title = format!("Core of {}", facts.info.summary.guest);
    Ok(page(&title, "/cores", &facts.markup()))
}

/// The crashes by which cores group.
async fn groups_page(State(service): Service) -> Result<Response, Failed> {
    let query = GroupQuery {
        limit: crate::limits::PAGE_ITEMS_MAX,
        cursor: None,
    };
    let all = blocking(move || service.groups(&query)).await?;
    Ok(page("Groups", "/groups", &groups::markup(&all.items)))
}

/// How the receiver is.
async fn health_page(State(service): Service) -> Result<Response, Failed> {
    let health = blocking(move || Ok(service.health())).await?;
    Ok(page("Health", "/health", &health::markup(&health)))
}

/// Where a browser shows its token.
async fn login_page() -> Response {
    page("Log in", "", &login::markup())
}

/// What runs, as markup, whenever it changes.
async fn live_running(State(service): Service) -> Result<Response, Failed> {
    let listener = events::listen(&service.events())?;
    Ok(events::stream(move |pipe| live::tell(listener, service, pipe)))
}

/// Dumps that are being received.
fn running(service: &dyn CoreService) -> Vec<CoreSummary> {
    let query = crate::service::CoreQuery {
        limit: crate::limits::PAGE_ITEMS_DEFAULT,
        state: Some(crate::types::core::CoreState::Receiving),
        ..Default::default()
    };
    service.list(&query).map(|page| page.items).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_vendored_is_what_was_published() {
        for (text, digest) in [
            (
                include_str!("vendor/htmx.min.js"),
                "2b78dc2b44f6117680c5863fb5dd9a261c2a769feace82c358a295fe735c83e4",
            ),
            (
                include_str!("vendor/hx-sse.min.js"),
                "f233d6d988eb37e952480f7de406767458fef3d55ff45187f57d220c91abd6b9",
            ),
        ] {
            assert_eq!(blake3::hash(text.as_bytes()).to_hex().as_str(), digest);
        }
    }

    #[test]
    fn pages_name_what_they_load_and_nothing_elsewhere() {
        assert!(
            !STYLE.contains("url(") && !STYLE.contains("@import"),
            "the style loads nothing"
        );
    }
}
