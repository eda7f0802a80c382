//! Events as they happen, by server-sent events (HTML standard, section 9.2), with replay after `Last-Event-ID`.
#![allow(
    unused_qualifications,
    reason = "the code that utoipa generates for query parameters qualifies names"
)]

use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::body::Body;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State};
use axum::http::{HeaderMap, header};
use axum::response::{IntoResponse as _, Response};
use serde::Deserialize;
use tokio::io::{AsyncWriteExt as _, DuplexStream};
use tokio_util::io::ReaderStream;
use utoipa::IntoParams;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::blocking;
use super::cores::bounded;
use super::problems::Refusal;
use crate::events::{EventLog, Listener};
use crate::limits;
use crate::service::{CoreService, ServiceError};
use crate::types::dead_letter::DeadLetter;
use crate::types::event::{EVENT_KINDS, Event};
use crate::types::page::Page;
use crate::types::problem::Problem;

/// Silence after which a comment is sent, so that what is between does not close the connection.
const PING_AFTER: Duration = Duration::from_secs(15);

/// Bytes that may wait for a slow reader; who reads more slowly than that waits with it, and the ring goes on.
const PIPE_BYTES: usize = 64 * 1024;

/// The routes of events.
pub(super) fn routes() -> OpenApiRouter<Arc<dyn CoreService>> {
    OpenApiRouter::new()
        .routes(routes!(events))
        .routes(routes!(dead_letters))
}

/// The query of the events.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
struct EventQuery {
    /// Only events of these kinds, separated by commas.
    types: Option<String>,
}

/// What happens, as server-sent events; the data of each is an [`Event`]. A `Last-Event-ID` is gone on from.
#[utoipa::path(get, path = "/api/v1/events", tag = "events", params(EventQuery,
    ("Last-Event-ID" = Option<String>, Header, description = "Id of the last event that was seen; 0 for all that is kept")),
    responses(
        (status = 200, body = Event, content_type = "text/event-stream"),
        (status = 400, body = Problem, content_type = "application/problem+json"),
        (status = 503, description = "Too many listen", body = Problem, content_type = "application/problem+json"),
    ))]
async fn events(
    State(service): State<Arc<dyn CoreService>>,
    query: Result<Query<EventQuery>, QueryRejection>,
    headers: HeaderMap,
) -> Result<Response, Refusal> {
    let Query(query) = query.map_err(|why| Refusal::bad_request(why.body_text()))?;
    let wanted = query.types.as_deref().map(kinds).transpose()?;
    let last = headers.get("last-event-id").and_then(|id| id.to_str().ok());
    let log = service.events();
    let at = log.position(last);
    let listener = listen(&log)?;
    Ok(stream(move |pipe| tell(listener, at, wanted, pipe)))
}

/// The query of the dead letters.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
struct DeadLetterQuery {
    /// Where the last page ended, as its `next_cursor` said.
    cursor: Option<String>,
    /// Most items, 1 to 500.
    #[param(minimum = 1, maximum = 500)]
    limit: Option<usize>,
}

/// Events that a webhook could not be told of, newest first.
#[utoipa::path(get, path = "/api/v1/dead-letters", tag = "events", params(DeadLetterQuery), responses(
    (status = 200, body = Page<DeadLetter>),
    (status = 400, body = Problem, content_type = "application/problem+json"),
))]
async fn dead_letters(
    State(service): State<Arc<dyn CoreService>>,
    query: Result<Query<DeadLetterQuery>, QueryRejection>,
) -> Result<Json<Page<DeadLetter>>, Refusal> {
    let Query(query) = query.map_err(|why| Refusal::bad_request(why.body_text()))?;
    let limit = bounded(query.limit, limits::PAGE_ITEMS_DEFAULT, limits::PAGE_ITEMS_MAX)?;
    let page = blocking(move || service.dead_letters(query.cursor.as_deref(), limit)).await?;
    Ok(Json(page))
}

/// The kinds that a caller wants.
fn kinds(text: &str) -> Result<Vec<&'static str>, Refusal> {
    let known = |name: &str| EVENT_KINDS.into_iter().find(|kind| *kind == name);
    let wanted = text.split(',').map(|name| {
        known(name.trim()).ok_or_else(|| {
            Refusal::bad_request(format!(
                "`{name}` is no kind of event; they are {}",
                EVENT_KINDS.join(", ")
            ))
        })
    });
    wanted.collect()
}

/// A place among the listeners.
pub(crate) fn listen(log: &Arc<EventLog>) -> Result<Listener, Refusal> {
    let full = || ServiceError::Unavailable("too many listen to events already; try again later".to_owned());
    Ok(EventLog::listen(log).ok_or_else(full)?)
}

/// An answer whose body is written by `write` for as long as the caller stays.
pub(crate) fn stream<F>(write: impl FnOnce(DuplexStream) -> F) -> Response
where
    F: Future<Output = std::io::Result<()>> + Send + 'static,
{
    let (ours, theirs) = tokio::io::duplex(PIPE_BYTES);
    // It ends with an error as soon as the caller is gone.
    tokio::spawn(write(ours));
    let headers = [
        (header::CONTENT_TYPE, "text/event-stream"),
        (header::CACHE_CONTROL, "no-store"),
    ];
    (headers, Body::from_stream(ReaderStream::new(theirs))).into_response()
}

/// Writes events until the caller is gone.
async fn tell(
    listener: Listener,
    mut at: u64,
    wanted: Option<Vec<&'static str>>,
    mut pipe: DuplexStream,
) -> std::io::Result<()> {
    let mut newest = listener.log().watch();
    pipe.write_all(b": coreferry\n\n").await?;
    loop {
        newest.mark_unchanged();
        let events = listener.log().after(at);
        let is_all = events.is_empty();
        for (number, event) in events {
            at = at.max(number);
            if wanted
                .as_ref()
                .is_none_or(|wanted| wanted.contains(&event.kind.as_str()))
            {
                pipe.write_all(message(&event).as_bytes()).await?;
            }
        }
        if is_all && tokio::time::timeout(PING_AFTER, newest.changed()).await.is_err() {
            pipe.write_all(b": ping\n\n").await?;
        }
    }
}

/// One event as it goes over the wire.
fn message(event: &Event) -> String {
    // JSON in one line: no line feed can end the field early.
    let json = serde_json::to_string(event).unwrap_or_default();
    format!("id: {}\nevent: {}\ndata: {json}\n\n", event.id, event.kind)
}
