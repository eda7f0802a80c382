//! Routers over the service traits, and the OpenAPI document made from the same handlers.

mod caller;
mod cores;
pub(crate) mod events;
mod files;
mod gate;
mod health;
pub(crate) mod problems;
mod vms;

use std::sync::Arc;

use axum::Router;
use axum::http::Method;
use axum::routing::get;
use utoipa::openapi::path::PathItem;
use utoipa::openapi::{ContentBuilder, InfoBuilder, OpenApi, OpenApiBuilder, Ref, ResponseBuilder};
use utoipa_axum::router::OpenApiRouter;

pub use self::caller::Peer;
#[cfg(feature = "pages")]
pub(crate) use self::gate::COOKIE;
use crate::auth::TokenStore;
use crate::limits;
use crate::service::{CoreService, ServiceError, VmService};

/// The routes of the receiver: cores, health, metrics and the document.
pub fn core_router(service: Arc<dyn CoreService>) -> Router {
    let (router, _) = core_routes().with_state(Arc::clone(&service)).split_for_parts();
    #[cfg(feature = "pages")]
    let router = router.merge(crate::pages::router(service));
    #[cfg(not(feature = "pages"))]
    drop(service);
    finished(router)
}

/// The routes of a process that runs machines: machines, dumps, liveness and the document.
pub fn vm_router(service: Arc<dyn VmService>) -> Router {
    let (router, _) = vm_routes().with_state(service).split_for_parts();
    finished(router)
}

/// The same routes behind a gate: over TCP a caller shows a token as soon as there are any; without any, only this host comes
/// in.
pub fn guarded(router: Router, tokens: Arc<dyn TokenStore>) -> Router {
    router.layer(axum::middleware::from_fn_with_state(tokens, gate::gate))
}

/// The whole document (OpenAPI 3.1): what the receiver and the machines' processes serve together.
#[must_use]
pub fn openapi() -> OpenApi {
    let info = InfoBuilder::new()
        .title("coreferry")
        .version("1")
        .description(Some(
            "Dumps of crashed guests and the cores that are made of them. The receiver serves the paths of cores, each \
             process that runs machines serves the paths of machines and dumps. Errors are problems of RFC 9457.",
        ))
        .build();
    let mut document = OpenApiBuilder::new().info(info).build();
    document.merge(core_routes().into_openapi());
    document.merge(vm_routes().into_openapi());
    for (path, item) in &mut document.paths.paths {
        document_gate(path, item);
    }
    document
}

/// Adds to each operation what the gate in front of it may answer.
fn document_gate(path: &str, item: &mut PathItem) {
    let operations = [
        (Method::GET, &mut item.get),
        (Method::PATCH, &mut item.patch),
        (Method::POST, &mut item.post),
        (Method::DELETE, &mut item.delete),
    ];
    for (method, operation) in operations {
        let (Some(operation), Some(scope)) = (operation, gate::needed(&method, path)) else {
            continue;
        };
        let refusals = [
            ("401", "No known token was shown".to_owned()),
            ("403", format!("The token lacks the scope {scope}")),
        ];
        for (status, description) in refusals {
            let problem = ContentBuilder::new()
                .schema(Some(Ref::from_schema_name("Problem")))
                .build();
            let response = ResponseBuilder::new()
                .description(description)
                .content("application/problem+json", problem)
                .build();
            operation.responses.responses.insert(status.to_owned(), response.into());
        }
    }
}

/// The receiver's routes with their descriptions.
fn core_routes() -> OpenApiRouter<Arc<dyn CoreService>> {
    OpenApiRouter::new()
        .merge(cores::routes())
        .merge(events::routes())
        .merge(health::core_routes())
}

/// The machines' routes with their descriptions.
fn vm_routes() -> OpenApiRouter<Arc<dyn VmService>> {
    OpenApiRouter::new().merge(vms::routes()).merge(health::vm_routes())
}

/// Adds what every router has: the document, answers for unknown paths, a bound on request bodies.
fn finished(router: Router) -> Router {
    router
        .route("/openapi.json", get(|| async { axum::Json(openapi()) }))
        .fallback(problems::unknown_path)
        .method_not_allowed_fallback(problems::unknown_method)
        .layer(axum::extract::DefaultBodyLimit::max(limits::REQUEST_BODY_BYTES_MAX))
}

/// Runs a blocking service call off the event loop.
pub(crate) async fn blocking<T, F>(call: F) -> Result<T, problems::Refusal>
where
    T: Send + 'static,
    F: FnOnce() -> Result<T, ServiceError> + Send + 'static,
{
    match tokio::task::spawn_blocking(call).await {
        Ok(outcome) => outcome.map_err(problems::Refusal::from),
        Err(_) => Err(ServiceError::Internal("the request was dropped before it was answered".to_owned()).into()),
    }
}
