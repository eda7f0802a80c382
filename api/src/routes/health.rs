//! Whether the process lives, whether it can take work, and its numbers.
#![allow(
    unused_qualifications,
    reason = "the code that utoipa generates for query parameters qualifies names"
)]

use std::sync::Arc;

use axum::Json;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Deserialize;
use utoipa::IntoParams;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::blocking;
use super::problems::Refusal;
use crate::service::{CoreService, VmService};
use crate::types::health::Health;
use crate::types::problem::Problem;

/// Health of the receiver.
pub(super) fn core_routes() -> OpenApiRouter<Arc<dyn CoreService>> {
    OpenApiRouter::new()
        .routes(routes!(livez))
        .routes(routes!(readyz))
        .routes(routes!(health))
        .routes(routes!(metrics))
}

/// Health of a process that runs machines.
pub(super) fn vm_routes() -> OpenApiRouter<Arc<dyn VmService>> {
    OpenApiRouter::new().routes(routes!(livez))
}

/// Whether the process answers at all.
#[utoipa::path(get, path = "/livez", tag = "health", responses((status = 200, description = "It lives", body = String)))]
async fn livez() -> &'static str {
    "ok\n"
}

/// The query of the readiness.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
struct ReadyQuery {
    /// Whether everything that was looked at is told, one line each.
    verbose: Option<String>,
}

/// Whether new dumps can be taken.
#[utoipa::path(get, path = "/readyz", tag = "health", params(ReadyQuery), responses(
    (status = 200, description = "It can take dumps", body = String, content_type = "text/plain"),
    (status = 400, body = Problem, content_type = "application/problem+json"),
    (status = 503, description = "It cannot, and why", body = Problem, content_type = "application/problem+json"),
))]
async fn readyz(
    State(service): State<Arc<dyn CoreService>>,
    query: Result<Query<ReadyQuery>, QueryRejection>,
) -> Result<Response, Refusal> {
    let Query(query) = query.map_err(|why| Refusal::bad_request(why.body_text()))?;
    if query.verbose.is_none() {
        blocking(move || service.ready()).await?;
        return Ok("ok\n".into_response());
    }
    let health = blocking(move || Ok(service.health())).await?;
    let mark = |ok| if ok { "ok  " } else { "FAIL" };
    let lines = health
        .checks
        .iter()
        .map(|check| format!("{} {}: {}\n", mark(check.ok), check.name, check.detail));
    let status = if health.ready {
        StatusCode::OK
    } else {
        StatusCode::SERVICE_UNAVAILABLE
    };
    Ok((status, lines.collect::<String>()).into_response())
}

/// How the receiver is: space, what was looked at, the last canary.
#[utoipa::path(get, path = "/api/v1/health", tag = "health", responses((status = 200, body = Health)))]
async fn health(State(service): State<Arc<dyn CoreService>>) -> Result<Json<Health>, Refusal> {
    Ok(Json(blocking(move || Ok(service.health())).await?))
}

/// Numbers in the text format of Prometheus.
#[utoipa::path(get, path = "/metrics", tag = "health", responses((status = 200, description = "Numbers", body = String)))]
async fn metrics(State(service): State<Arc<dyn CoreService>>) -> Result<impl IntoResponse, Refusal> {
    let text = blocking(move || Ok(service.metrics())).await?;
    Ok(([(header::CONTENT_TYPE, "text/plain; version=0.0.4")], text))
}
