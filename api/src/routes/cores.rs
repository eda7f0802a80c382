//! Cores: list, facts, extents, files.
#![allow(
    unused_qualifications,
    reason = "the code that utoipa generates for query parameters qualifies names"
)]

use std::sync::Arc;

use axum::Json;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Path, Query, State};
use axum::http::HeaderMap;
use axum::response::Response;
use serde::Deserialize;
use utoipa::IntoParams;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::problems::Refusal;
use super::{blocking, files};
use crate::limits;
use crate::service::{CoreQuery, CoreService, GroupQuery};
use crate::types::core::{CoreInfo, CoreState, CoreSummary, ExtentPage};
use crate::types::explanation::CoreGroup;
use crate::types::page::Page;
use crate::types::problem::Problem;

/// State of these routes.
type Cores = State<Arc<dyn CoreService>>;

/// The routes of cores.
pub(super) fn routes() -> OpenApiRouter<Arc<dyn CoreService>> {
    OpenApiRouter::new()
        .routes(routes!(list))
        .routes(routes!(groups))
        .routes(routes!(info))
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
    (status = 404, body = Problem, content_type = "application/problem+json"),
))]
async fn info(State(service): Cores, Path(id): Path<String>) -> Result<Json<CoreInfo>, Refusal> {
    Ok(Json(blocking(move || service.info(&id)).await?))
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
        (status = 200, description = "The whole file", content_type = "application/octet-stream"),
        (status = 206, description = "The range", content_type = "application/octet-stream"),
        (status = 304, description = "The caller has it already"),
        (status = 404, body = Problem, content_type = "application/problem+json"),
        (status = 416, description = "The range is not in the file", body = Problem,
            content_type = "application/problem+json"),
    ))]
async fn file(
    State(service): Cores,
    Path((id, name)): Path<(String, String)>,
    headers: HeaderMap,
) -> Result<Response, Refusal> {
    let file_name = name.clone();
    let source = blocking(move || service.open_file(&id, &name)).await?;
    files::answer(source, &file_name, &headers).await
}

/// The caller's limit, or the default; never more than `most`.
fn bounded(limit: Option<usize>, default: usize, most: usize) -> Result<usize, Refusal> {
    match limit {
        None => Ok(default),
        Some(0) => Err(Refusal::bad_request("limit must be at least 1")),
        Some(limit) => Ok(limit.min(most)),
    }
}
