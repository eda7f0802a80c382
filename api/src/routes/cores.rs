//! Cores: list, facts, extents, files.
#![allow(
    unused_qualifications,
    reason = "the code that utoipa generates for query parameters qualifies names"
)]

use std::sync::Arc;

use axum::Json;
use axum::body::Bytes;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Path, Query, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use serde::Deserialize;
use utoipa::IntoParams;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::caller::Caller;
use super::problems::Refusal;
use super::{blocking, files};
use crate::limits;
use crate::service::{CoreQuery, CoreService, Deed, GroupQuery, ServiceError};
use crate::types::core::{CoreInfo, CoreState, CoreSummary, ExtentPage};
use crate::types::edit::CoreEdit;
use crate::types::explanation::CoreGroup;
use crate::types::page::Page;
use crate::types::problem::Problem;

/// State of these routes.
type Cores = State<Arc<dyn CoreService>>;

/// The routes of cores.
pub(super) fn routes() -> OpenApiRouter<Arc<dyn CoreService>> {
    OpenApiRouter::new()
        .routes(routes!(list))
        .routes(routes!(info, edit, remove))
        .routes(routes!(groups))
        .routes(routes!(extents))
        .routes(routes!(file))
}

/// The query of the list.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
struct ListQuery {
    /// Where the last page ended, as its `next_cursor` said.
    cursor: Option<String>,
    /// Most items, 1 to 500.
    #[param(minimum = 1, maximum = 500)]
    limit: Option<usize>,
    /// Only cores of this guest.
    guest: Option<String>,
    /// Only cores with this signature.
    signature: Option<String>,
    /// Only cores in this state.
    #[param(inline)]
    state: Option<CoreState>,
    /// Only cores received at this time (RFC 3339) or later.
    since: Option<String>,
}

/// The query of the extents.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
struct ExtentQuery {
    /// Where the last run ended, as its `next_cursor` said.
    cursor: Option<String>,
    /// Most items, 1 to 4000.
    #[param(minimum = 1, maximum = 4000)]
    limit: Option<usize>,
}

/// Cores, newest first.
#[utoipa::path(get, path = "/api/v1/cores", tag = "cores", params(ListQuery), responses(
    (status = 200, body = Page<CoreSummary>),
    (status = 400, body = Problem, content_type = "application/problem+json"),
))]
async fn list(
    State(service): Cores,
    query: Result<Query<ListQuery>, QueryRejection>,
) -> Result<Json<Page<CoreSummary>>, Refusal> {
    let Query(query) = query.map_err(|why| Refusal::bad_request(why.body_text()))?;
    let query = CoreQuery {
        limit: bounded(query.limit, limits::PAGE_ITEMS_DEFAULT, limits::PAGE_ITEMS_MAX)?,
        cursor: query.cursor,
        guest: query.guest,
        signature: query.signature,
        state: query.state,
        since: query.since,
    };
    Ok(Json(blocking(move || service.list(&query)).await?))
}

/// The query of the groups.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
struct GroupsQuery {
    /// Where the last page ended, as its `next_cursor` said.
    cursor: Option<String>,
    /// Most items, 1 to 500.
    #[param(minimum = 1, maximum = 500)]
    limit: Option<usize>,
}

/// Cores with the same signature together; the group whose last core is the newest comes first.
#[utoipa::path(get, path = "/api/v1/groups", tag = "cores", params(GroupsQuery), responses(
    (status = 200, body = Page<CoreGroup>),
    (status = 400, body = Problem, content_type = "application/problem+json"),
))]
async fn groups(
    State(service): Cores,
    query: Result<Query<GroupsQuery>, QueryRejection>,
) -> Result<Json<Page<CoreGroup>>, Refusal> {
    let Query(query) = query.map_err(|why| Refusal::bad_request(why.body_text()))?;
    let query = GroupQuery {
        limit: bounded(query.limit, limits::PAGE_ITEMS_DEFAULT, limits::PAGE_ITEMS_MAX)?,
        cursor: query.cursor,
    };
    Ok(Json(blocking(move || service.groups(&query)).await?))
}

/// One core; `id` may be a unique prefix or `latest`.
#[utoipa::path(get, path = "/api/v1/cores/{id}", tag = "cores", responses(
    (status = 200, body = CoreInfo),
    (status = 400, body = Problem, content_type = "application/problem+json"),
    (status = 404, body = Problem, content_type = "application/problem+json"),
))]
async fn info(State(service): Cores, Path(id): Path<String>) -> Result<Response, Refusal> {
    Ok(tagged(&blocking(move || service.info(&id)).await?))
}

/// A core with its entity tag.
fn tagged(info: &CoreInfo) -> Response {
    ([(header::ETAG, info.etag())], Json(info)).into_response()
}

/// Changes what people wrote about a core: its note, its pin, its labels. `If-Match` says which state of it is meant, by the
/// entity tag of `GET`; `*` means any.
#[utoipa::path(patch, path = "/api/v1/cores/{id}", tag = "cores", request_body = CoreEdit,
    params(("If-Match" = Option<String>, Header, description = "Entity tag that `GET` gave, or `*`")),
    responses(
        (status = 200, body = CoreInfo),
        (status = 400, body = Problem, content_type = "application/problem+json"),
        (status = 404, body = Problem, content_type = "application/problem+json"),
        (status = 412, description = "It was changed meanwhile", body = Problem, content_type = "application/problem+json"),
        (status = 413, description = "The body is too long"),
        (status = 428, description = "`If-Match` is missing", body = Problem, content_type = "application/problem+json"),
    ))]
async fn edit(
    State(service): Cores,
    Path(id): Path<String>,
    Caller(by): Caller,
    headers: HeaderMap,
    body: Bytes,
) -> Result<Response, Refusal> {
    let edit: CoreEdit =
        serde_json::from_slice(&body).map_err(|why| Refusal::bad_request(format!("the body is no change: {why}")))?;
    let if_match = match headers.get(header::IF_MATCH).map(|tag| tag.to_str()) {
        Some(Ok(tag)) => tag.trim().to_owned(),
        Some(Err(_)) => return Err(Refusal::bad_request("If-Match is no entity tag")),
        None => {
            let sentence = "name the entity tag that GET gave in If-Match, or * for any".to_owned();
            return Err(ServiceError::ConditionMissing(sentence).into());
        }
    };
    let info = blocking(move || service.edit(&id, &edit, &if_match, &by)).await?;
    Ok(tagged(&info))
}

/// Removes a core with all its files. A pinned one stays.
#[utoipa::path(delete, path = "/api/v1/cores/{id}", tag = "cores", responses(
    (status = 204, description = "It is gone"),
    (status = 400, body = Problem, content_type = "application/problem+json"),
    (status = 404, body = Problem, content_type = "application/problem+json"),
    (status = 409, description = "It is pinned, or still being received", body = Problem,
        content_type = "application/problem+json"),
))]
async fn remove(State(service): Cores, Path(id): Path<String>, Caller(by): Caller) -> Result<StatusCode, Refusal> {
    blocking(move || service.remove(&id, &by)).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Received ranges with their digests: what a sparse download needs.
#[utoipa::path(get, path = "/api/v1/cores/{id}/extents", tag = "cores", params(ExtentQuery), responses(
    (status = 200, body = ExtentPage),
    (status = 400, body = Problem, content_type = "application/problem+json"),
    (status = 404, body = Problem, content_type = "application/problem+json"),
))]
async fn extents(
    State(service): Cores,
    Path(id): Path<String>,
    query: Result<Query<ExtentQuery>, QueryRejection>,
) -> Result<Json<ExtentPage>, Refusal> {
    let Query(query) = query.map_err(|why| Refusal::bad_request(why.body_text()))?;
    let limit = bounded(query.limit, limits::EXTENTS_DEFAULT, limits::EXTENTS_MAX)?;
    let page = blocking(move || service.extents(&id, query.cursor.as_deref(), limit)).await?;
    Ok(Json(page))
}

/// A file of a core. `Range` with one range is honoured, `If-Range` makes a resumed download safe.
#[utoipa::path(get, path = "/api/v1/cores/{id}/files/{name}", tag = "cores",
    params(
        ("Range" = Option<String>, Header, description = "`bytes=FIRST-LAST`, `bytes=FIRST-` or `bytes=-COUNT`"),
        ("If-Range" = Option<String>, Header, description = "Entity tag that the range belongs to"),
        ("If-None-Match" = Option<String>, Header, description = "Entity tag that the caller has already"),
    ),
    responses(
        (status = 200, description = "The whole file", content(
            (Vec<u8> = "application/octet-stream"),
            (String = "text/plain; charset=utf-8"),
            (serde_json::Value = "application/json"),
        )),
        (status = 206, description = "The range", content(
            (Vec<u8> = "application/octet-stream"),
            (String = "text/plain; charset=utf-8"),
            (serde_json::Value = "application/json"),
        )),
        (status = 304, description = "The caller has it already"),
        (status = 400, body = Problem, content_type = "application/problem+json"),
        (status = 404, body = Problem, content_type = "application/problem+json"),
        (status = 416, description = "The range is not in the file", body = Problem,
            content_type = "application/problem+json"),
    ))]
async fn file(
    State(service): Cores,
    Path((id, name)): Path<(String, String)>,
    Caller(by): Caller,
    headers: HeaderMap,
) -> Result<Response, Refusal> {
    let (file_name, opened) = (name.clone(), Arc::clone(&service));
    let source = blocking(move || opened.open_file(&id, &name)).await?;
    let core = source.core.clone();
    let (response, range) = files::answer(source, &file_name, &headers).await?;
    if range.is_some() {
        let note = move || {
            service.audit(&Deed {
                by: &by,
                what: "download",
                core: &core,
                file: Some(&file_name),
                range,
            });
            Ok(())
        };
        blocking(note).await?;
    }
    Ok(response)
}

/// The caller's limit, or the default; never more than `most`.
pub(super) fn bounded(limit: Option<usize>, default: usize, most: usize) -> Result<usize, Refusal> {
    match limit {
        None => Ok(default),
        Some(0) => Err(Refusal::bad_request("limit must be at least 1")),
        Some(limit) => Ok(limit.min(most)),
    }
}
