//! Errors as answers.

use axum::Json;
use axum::http::{HeaderValue, Method, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};

use crate::service::ServiceError;
use crate::types::problem::Problem;

/// A problem on its way to the caller.
#[derive(Debug)]
pub(crate) struct Refusal(pub(crate) Box<Problem>);

impl From<ServiceError> for Refusal {
    fn from(error: ServiceError) -> Self {
        Self(Box::new(error.to_problem()))
    }
}

impl Refusal {
    /// A request that makes no sense.
    pub(crate) fn bad_request(detail: impl Into<String>) -> Self {
        ServiceError::BadRequest(detail.into()).into()
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let status = StatusCode::from_u16(self.0.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let kind = HeaderValue::from_static("application/problem+json");
        (status, [(header::CONTENT_TYPE, kind)], Json(*self.0)).into_response()
    }
}

/// Answer for a path that no route has.
pub(super) async fn unknown_path(uri: Uri) -> Refusal {
    let mut problem = Problem::new(404, "not-found", "Not found", format!("nothing is at {}", uri.path()));
    problem.instance = Some(uri.path().to_owned());
    Refusal(Box::new(problem))
}

/// Answer for a method that the path does not have.
pub(super) async fn unknown_method(method: Method, uri: Uri) -> Refusal {
    let detail = format!("{} has no method {method}", uri.path());
    let mut problem = Problem::new(405, "method-not-allowed", "Method not allowed", detail);
    problem.instance = Some(uri.path().to_owned());
    Refusal(Box::new(problem))
}
