//! Whether the process lives, whether it can take work, and its numbers.

use std::sync::Arc;

use axum::extract::State;
use axum::http::header;
use axum::response::IntoResponse;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::blocking;
use super::problems::Refusal;
use crate::service::{CoreService, VmService};
use crate::types::problem::Problem;

/// Health of the receiver.
pub(super) fn core_routes() -> OpenApiRouter<Arc<dyn CoreService>> {
    OpenApiRouter::new()
        .routes(routes!(livez))
        .routes(routes!(readyz))
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

/// Whether new dumps can be taken.
#[utoipa::path(get, path = "/readyz", tag = "health", responses(
    (status = 200, description = "It can take dumps", body = String),
    (status = 503, description = "It cannot, and why", body = Problem, content_type = "application/problem+json"),
))]
async fn readyz(State(service): State<Arc<dyn CoreService>>) -> Result<&'static str, Refusal> {
    blocking(move || service.ready()).await?;
    Ok("ok\n")
}

/// Numbers in the text format of Prometheus.
#[utoipa::path(get, path = "/metrics", tag = "health", responses((status = 200, description = "Numbers", body = String)))]
async fn metrics(State(service): State<Arc<dyn CoreService>>) -> Result<impl IntoResponse, Refusal> {
    let text = blocking(move || Ok(service.metrics())).await?;
    Ok(([(header::CONTENT_TYPE, "text/plain; version=0.0.4")], text))
}
