//! Machines and their dumps.

use std::sync::Arc;

use axum::Json;
use axum::body::Bytes;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::blocking;
use super::problems::Refusal;
use crate::limits;
use crate::service::VmService;
use crate::types::dump::{Dump, DumpRequest};
use crate::types::problem::Problem;
use crate::types::vm::{VmInfo, VmSummary};

/// State of these routes.
type Vms = State<Arc<dyn VmService>>;

/// The routes of machines and dumps.
pub(super) fn routes() -> OpenApiRouter<Arc<dyn VmService>> {
    OpenApiRouter::new()
        .routes(routes!(list))
        .routes(routes!(info))
        .routes(routes!(start_dump))
        .routes(routes!(dump_status, cancel_dump))
        .routes(routes!(nmi))
        .routes(routes!(pause))
        .routes(routes!(resume))
        .routes(routes!(stop))
}

/// All machines of this process.
#[utoipa::path(get, path = "/api/v1/vms", tag = "vms", responses((status = 200, body = Vec<VmSummary>)))]
async fn list(State(service): Vms) -> Result<Json<Vec<VmSummary>>, Refusal> {
    Ok(Json(blocking(move || Ok(service.list())).await?))
}

/// One machine.
#[utoipa::path(get, path = "/api/v1/vms/{name}", tag = "vms", responses(
    (status = 200, body = VmInfo),
    (status = 404, body = Problem, content_type = "application/problem+json"),
))]
async fn info(State(service): Vms, Path(name): Path<String>) -> Result<Json<VmInfo>, Refusal> {
    Ok(Json(blocking(move || service.info(&name)).await?))
}

/// The highest level of filtering: everything of makedumpfile(8)'s `-d`.
const FILTER_LEVEL_MAX: u8 = 31;

/// Starts a dump. The same `Idempotency-Key` names the same dump again.
#[utoipa::path(post, path = "/api/v1/vms/{name}/dumps", tag = "dumps", request_body = Option<DumpRequest>,
    params(("Idempotency-Key" = Option<String>, Header, description = "Names this request; a repeat starts nothing")),
    responses(
        (status = 202, description = "It began; `Location` names it", body = Dump),
        (status = 400, body = Problem, content_type = "application/problem+json"),
        (status = 404, body = Problem, content_type = "application/problem+json"),
        (status = 409, description = "One runs; `existing` names it", body = Problem,
            content_type = "application/problem+json"),
    ))]
async fn start_dump(
    State(service): Vms,
    Path(name): Path<String>,
    headers: HeaderMap,
    body: Bytes,
) -> Result<Response, Refusal> {
    let key = idempotency_key(&headers)?;
    let request = if body.iter().all(u8::is_ascii_whitespace) {
        DumpRequest::default()
    } else {
        serde_json::from_slice(&body)
            .map_err(|why| Refusal::bad_request(format!("the body is not a dump request: {why}")))?
    };
    if let Some(level) = request.filter.filter(|level| *level > FILTER_LEVEL_MAX) {
        return Err(Refusal::bad_request(format!(
            "filter level {level} is none; they are 0 to {FILTER_LEVEL_MAX}"
        )));
    }
    let dump = blocking(move || service.dump(&name, request, key)).await?;
    let location = format!("/api/v1/dumps/{}", dump.id);
    let headers = [(header::LOCATION, location), (header::RETRY_AFTER, "1".to_owned())];
    Ok((StatusCode::ACCEPTED, headers, Json(dump)).into_response())
}

/// Where a dump stands.
#[utoipa::path(get, path = "/api/v1/dumps/{id}", tag = "dumps", responses(
    (status = 200, body = Dump),
    (status = 404, body = Problem, content_type = "application/problem+json"),
))]
async fn dump_status(State(service): Vms, Path(id): Path<String>) -> Result<Json<Dump>, Refusal> {
    Ok(Json(blocking(move || service.dump_status(&id)).await?))
}

/// Cancels a dump; the guest goes on by policy.
#[utoipa::path(delete, path = "/api/v1/dumps/{id}", tag = "dumps", responses(
    (status = 202, body = Dump),
    (status = 404, body = Problem, content_type = "application/problem+json"),
    (status = 409, description = "It is over", body = Problem, content_type = "application/problem+json"),
))]
async fn cancel_dump(State(service): Vms, Path(id): Path<String>) -> Result<(StatusCode, Json<Dump>), Refusal> {
    let dump = blocking(move || service.cancel_dump(&id)).await?;
    Ok((StatusCode::ACCEPTED, Json(dump)))
}

/// Injects a non-maskable interrupt.
#[utoipa::path(post, path = "/api/v1/vms/{name}/nmi", tag = "vms", responses(
    (status = 204), (status = 404, body = Problem, content_type = "application/problem+json"),
    (status = 409, body = Problem, content_type = "application/problem+json"),
))]
async fn nmi(State(service): Vms, Path(name): Path<String>) -> Result<StatusCode, Refusal> {
    blocking(move || service.nmi(&name)).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Stops the processors.
#[utoipa::path(post, path = "/api/v1/vms/{name}/pause", tag = "vms", responses(
    (status = 204), (status = 404, body = Problem, content_type = "application/problem+json"),
    (status = 409, body = Problem, content_type = "application/problem+json"),
))]
async fn pause(State(service): Vms, Path(name): Path<String>) -> Result<StatusCode, Refusal> {
    blocking(move || service.pause(&name)).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Lets the processors go on.
#[utoipa::path(post, path = "/api/v1/vms/{name}/resume", tag = "vms", responses(
    (status = 204), (status = 404, body = Problem, content_type = "application/problem+json"),
    (status = 409, body = Problem, content_type = "application/problem+json"),
))]
async fn resume(State(service): Vms, Path(name): Path<String>) -> Result<StatusCode, Refusal> {
    blocking(move || service.resume(&name)).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Ends the machine.
#[utoipa::path(post, path = "/api/v1/vms/{name}/stop", tag = "vms", responses(
    (status = 204), (status = 404, body = Problem, content_type = "application/problem+json"),
    (status = 409, body = Problem, content_type = "application/problem+json"),
))]
async fn stop(State(service): Vms, Path(name): Path<String>) -> Result<StatusCode, Refusal> {
    blocking(move || service.stop(&name)).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// The caller's `Idempotency-Key`, if it gave one.
fn idempotency_key(headers: &HeaderMap) -> Result<Option<String>, Refusal> {
    let Some(value) = headers.get("idempotency-key") else {
        return Ok(None);
    };
    match value.to_str() {
        Ok(key) if !key.is_empty() && key.len() <= limits::IDEMPOTENCY_KEY_BYTES_MAX => Ok(Some(key.to_owned())),
        _ => Err(Refusal::bad_request(format!(
            "Idempotency-Key must be 1 to {} printable ASCII characters",
            limits::IDEMPOTENCY_KEY_BYTES_MAX
        ))),
    }
}
