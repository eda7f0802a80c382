//! A small blocking client: HTTP/1 over TCP, TLS or a unix socket, one connection per request.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::body::{Frame, Incoming};
use hyper::{Method, Request, Response, StatusCode};
use rustls::ClientConfig;
use serde::de::DeserializeOwned;

pub use crate::endpoint::Endpoint;
use crate::limits;
use crate::outgoing::{OutgoingError, exchange, within};
use crate::types::problem::Problem;

/// How long a connection may take to come about, and how long an answer may stay away.
const PATIENCE: Duration = Duration::from_secs(30);

/// Why a request failed.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// No connection, or it broke off before the answer.
    #[error("cannot reach {endpoint}: {why}")]
    Unreachable {
        /// Where the server should be.
        endpoint: String,
        /// What the system said.
        why: String,
    },
    /// One side does not believe the other's certificate, or they do not both speak TLS.
    #[error("no TLS connection with {endpoint}: {why}")]
    Tls {
        /// Where the server should be.
        endpoint: String,
        /// Who does not believe whom.
        why: String,
    },
    /// The server refused, and said why.
    #[error("{}", .0.detail)]
    Problem(Box<Problem>),
    /// The answer is not what the contract says.
    #[error("{endpoint} gave an answer that is not understood: {why}")]
    BadAnswer {
        /// Where the server is.
        endpoint: String,
        /// What is wrong with the answer.
        why: String,
    },
    /// The caller's sink for a download failed.
    #[error("cannot store what was downloaded: {0}")]
    Sink(#[source] std::io::Error),
}

impl ClientError {
    /// HTTP status, if the server gave one.
    #[must_use]
    pub fn status(&self) -> Option<u16> {
        match self {
            Self::Problem(problem) => Some(problem.status),
            _ => None,
        }
    }
}

/// A blocking client of one server.
#[derive(Debug, Clone)]
pub struct Client {
    endpoint: Endpoint,
    /// Whom to trust; the system's authorities if nobody said.
    trust: Option<Arc<ClientConfig>>,
    /// Shown with each request, never printed.
    token: Option<Secret>,
}

/// A token.
#[derive(Clone)]
struct Secret(String);

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Secret")
    }
}

/// A small answer, wholly in memory.
#[derive(Debug)]
pub struct Answer {
    /// HTTP status, 2xx.
    pub status: u16,
    /// The `Location` header.
    pub location: Option<String>,
    /// The body.
    pub body: Vec<u8>,
}

impl Client {
    /// A client of the server at `endpoint`; nothing is sent yet.
    #[must_use]
    pub fn new(endpoint: Endpoint) -> Self {
        Self {
            endpoint,
            trust: None,
            token: None,
        }
    }

    /// A client over TCP, from `http://HOST:PORT`.
    ///
    /// # Errors
    /// As [`Endpoint::parse`].
    pub fn tcp(url: &str) -> Result<Self, String> {
        Endpoint::parse(url).map(Self::new)
    }

    /// A client over a unix socket.
    #[must_use]
    pub fn unix(path: impl Into<PathBuf>) -> Self {
        Self::new(Endpoint::Unix(path.into()))
    }

    /// The same client, which shows this token.
    #[must_use]
    pub fn with_token(mut self, token: Option<String>) -> Self {
        self.token = token.map(Secret);
        self
    }

    /// The same client, which trusts whom [`Trust::read`](crate::tls::Trust::read) said, over TLS.
    #[must_use]
    pub fn with_trust(mut self, trust: Option<Arc<ClientConfig>>) -> Self {
        self.trust = trust;
        self
    }

    /// Where the server is.
    #[must_use]
    pub fn endpoint(&self) -> &Endpoint {
        &self.endpoint
    }

    /// `GET path`, answered in JSON.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, ClientError> {
        let answer = self.request(Method::GET, path, &[], Bytes::new())?;
        self.decode(&answer.body)
    }

    /// `POST path` with a JSON body and headers of the caller's choice.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub fn post(&self, path: &str, headers: &[(&str, &str)], body: Vec<u8>) -> Result<Answer, ClientError> {
        self.request(Method::POST, path, headers, body.into())
    }

    /// `PATCH path` with a JSON body and headers of the caller's choice.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub fn patch(&self, path: &str, headers: &[(&str, &str)], body: Vec<u8>) -> Result<Answer, ClientError> {
        self.request(Method::PATCH, path, headers, body.into())
    }

    /// `DELETE path`.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub fn delete(&self, path: &str) -> Result<Answer, ClientError> {
        self.request(Method::DELETE, path, &[], Bytes::new())
    }

    /// Reads an answer's body as JSON.
    ///
    /// # Errors
    /// [`ClientError::BadAnswer`].
    pub fn decode<T: DeserializeOwned>(&self, body: &[u8]) -> Result<T, ClientError> {
        serde_json::from_slice(body).map_err(|why| self.bad_answer(why.to_string()))
    }

    /// `GET path` into `sink`, piece by piece; gives the entity tag.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub fn download(
        &self,
        path: &str,
        headers: &[(&str, &str)],
        sink: &mut dyn FnMut(&[u8]) -> std::io::Result<()>,
    ) -> Result<Option<String>, ClientError> {
        self.run(async {
            let response = self.send(Method::GET, path, headers, Bytes::new()).await?;
            let tag = header_text(&response, "etag");
            let expected = header_text(&response, "content-length").and_then(|text| text.parse::<u64>().ok());
            let mut body = response.into_body();
            let mut taken = 0_u64;
            while let Some(frame) = self.frame(&mut body).await? {
                if let Some(bytes) = frame.data_ref() {
                    sink(bytes).map_err(ClientError::Sink)?;
                    taken += u64::try_from(bytes.len()).unwrap_or(u64::MAX);
                }
            }
            match expected {
                Some(expected) if expected != taken => {
                    Err(self.unreachable(format!("the download ended after {taken} of {expected} bytes")))
                }
                _ => Ok(tag),
            }
        })
    }

    /// One request with a small answer.
    fn request(
        &self,
        method: Method,
        path: &str,
        headers: &[(&str, &str)],
        body: Bytes,
    ) -> Result<Answer, ClientError> {
        self.run(async {
            let response = self.send(method, path, headers, body).await?;
            let status = response.status().as_u16();
            let location = header_text(&response, "location");
            let body = self.collect(response).await?;
            Ok(Answer { status, location, body })
        })
    }

    /// Sends a request; an answer that is not 2xx is an error.
    async fn send(
        &self,
        method: Method,
        path: &str,
        headers: &[(&str, &str)],
        body: Bytes,
    ) -> Result<Response<Incoming>, ClientError> {
        let mut request = Request::builder().method(method).uri(path).header("host", "coreferry");
        if !body.is_empty() {
            request = request.header("content-type", "application/json");
        }
        if let Some(Secret(token)) = &self.token {
            request = request.header("authorization", format!("Bearer {token}"));
        }
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request
            .body(Full::new(body))
            .map_err(|why| self.bad_answer(format!("cannot ask for {path}: {why}")))?;
        let response = exchange(&self.endpoint, self.trust.as_ref(), PATIENCE, request).await;
        let response = response.map_err(|why| self.failed(why))?;
        if response.status().is_success() {
            return Ok(response);
        }
        let status = response.status();
        let body = self.collect(response).await?;
        Err(self.refusal(status, &body))
    }

    /// The whole body of a small answer.
    async fn collect(&self, response: Response<Incoming>) -> Result<Vec<u8>, ClientError> {
        let mut body = response.into_body();
        let mut all = Vec::new();
        while let Some(frame) = self.frame(&mut body).await? {
            if let Some(bytes) = frame.data_ref() {
                if all.len() + bytes.len() > limits::ANSWER_BYTES_MAX {
                    return Err(self.bad_answer(format!("it is longer than {} bytes", limits::ANSWER_BYTES_MAX)));
                }
                all.extend_from_slice(bytes);
            }
        }
        Ok(all)
    }

    /// Runs `work` to its end on a runtime of its own.
    fn run<T>(&self, work: impl Future<Output = Result<T, ClientError>>) -> Result<T, ClientError> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(|why| self.unreachable(format!("cannot start an event loop: {why}")))?;
        runtime.block_on(work)
    }

    /// The next piece of a body.
    async fn frame(&self, body: &mut Incoming) -> Result<Option<Frame<Bytes>>, ClientError> {
        let next = async { body.frame().await.transpose() };
        within(PATIENCE, next).await.map_err(|why| self.failed(why))
    }

    /// The error for an answer that is not 2xx.
    fn refusal(&self, status: StatusCode, body: &[u8]) -> ClientError {
        match serde_json::from_slice::<Problem>(body) {
            Ok(problem) => ClientError::Problem(Box::new(problem)),
            Err(_) => self.bad_answer(format!("status {status} without a problem in it")),
        }
    }

    fn failed(&self, why: OutgoingError) -> ClientError {
        match why {
            OutgoingError::Unreachable(why) => self.unreachable(why),
            OutgoingError::Tls(why) => ClientError::Tls {
                endpoint: self.endpoint.to_string(),
                why,
            },
        }
    }

    fn unreachable(&self, why: String) -> ClientError {
        ClientError::Unreachable {
            endpoint: self.endpoint.to_string(),
            why,
        }
    }

    fn bad_answer(&self, why: String) -> ClientError {
        ClientError::BadAnswer {
            endpoint: self.endpoint.to_string(),
            why,
        }
    }
}

/// A header as text.
fn header_text(response: &Response<Incoming>, name: &str) -> Option<String> {
    response.headers().get(name)?.to_str().ok().map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_socket_is_unreachable() {
        let error = Client::unix("/nonexistent/x.sock")
            .get::<serde_json::Value>("/livez")
            .unwrap_err();
        assert!(matches!(error, ClientError::Unreachable { .. }), "{error}");
    }
}
