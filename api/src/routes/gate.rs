//! The gate in front of all routes: who calls, and whether they may.
//!
//! ```text
//! unix socket ─► the socket's mode has decided ─► in
//! TCP ─ a token is shown ─► known? ─► has the scope? ─► in
//!     └ none is shown ─► are there tokens? ─ yes ─► 401 (browsers: to /login)
//!                                          └ no, and the caller is this host, or has shown a client certificate ─► in
//! ```

use std::net::IpAddr;
use std::sync::Arc;

use axum::extract::{ConnectInfo, Request, State};
use axum::http::{HeaderMap, HeaderValue, Method, header};
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Redirect, Response};

use super::caller::{Caller, Peer};
use super::problems::Refusal;
use crate::auth::{Scope, TokenStore};
use crate::service::ServiceError;

/// The cookie that a browser shows, set by the login page.
pub(crate) const COOKIE: &str = "coreferry_token";

/// Files of a core that hold no memory of the guest.
const META_FILES: [&str; 3] = ["manifest.json", "info.txt", "explain.json"];

/// Lets a request through or answers it.
pub(super) async fn gate(State(tokens): State<Arc<dyn TokenStore>>, mut request: Request, next: Next) -> Response {
    let peer = request.extensions().get::<ConnectInfo<Peer>>().map(|info| info.0);
    let Some(needed) = needed(request.method(), request.uri().path()) else {
        return next.run(request).await;
    };
    if let Some(Peer::User { .. }) = peer {
        return next.run(request).await;
    }
    let shown = shown(request.headers()).map(str::to_owned);
    let asked = tokio::task::spawn_blocking(move || match shown {
        Some(secret) => Shown::Token(tokens.known(&secret)),
        None => Shown::Nothing { any: tokens.any() },
    });
    match asked.await {
        Ok(Shown::Token(Some(token))) if token.scopes.contains(&needed) => {
            request.extensions_mut().insert(Caller(format!("token {}", token.name)));
            next.run(request).await
        }
        Ok(Shown::Token(Some(token))) => {
            let sentence = format!("the token {} lacks the scope {needed}", token.name);
            Refusal::from(ServiceError::Denied(sentence)).into_response()
        }
        Ok(Shown::Nothing { any: false }) if has_certificate(peer) || is_this_host(peer, request.headers()) => {
            next.run(request).await
        }
        Ok(Shown::Token(None)) => unknown(&request, "this token is not known"),
        Ok(Shown::Nothing { .. }) => unknown(&request, "show a token: Authorization: Bearer TOKEN"),
        Err(_) => Refusal::from(ServiceError::Internal("the token could not be looked up".to_owned())).into_response(),
    }
}

/// What a caller showed, and what is known of it.
enum Shown {
    Token(Option<crate::auth::KnownToken>),
    Nothing { any: bool },
}

/// The scope that a request needs; none for what is open to all.
pub(super) fn needed(method: &Method, path: &str) -> Option<Scope> {
    let parts: Vec<&str> = path.trim_matches('/').split('/').collect();
    let reads = matches!(*method, Method::GET | Method::HEAD);
    match (reads, parts.as_slice()) {
        (true, ["livez" | "readyz" | "openapi.json"] | ["assets", _]) | (_, ["login" | "logout"]) => None,
        (true, ["api", "v1", "cores", _, "extents"]) => Some(Scope::ReadCore),
        (true, ["api", "v1", "cores", _, "files", name]) if !META_FILES.contains(name) => Some(Scope::ReadCore),
        // Where events go is for those who configured it.
        (true, ["api", "v1", "dead-letters"]) => Some(Scope::Admin),
        (true, _) => Some(Scope::ReadMeta),
        (false, ["api", "v1", "vms", _, "dumps"] | ["api", "v1", "dumps", _]) => Some(Scope::Trigger),
        (false, _) => Some(Scope::Admin),
    }
}

/// The secret that a request shows: as a bearer token (RFC 6750, section 2.1), or in the cookie.
fn shown(headers: &HeaderMap) -> Option<&str> {
    let bearer = headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
    // A scheme's name is read in any case (RFC 9110, section 11.1).
    let secret = bearer.and_then(|value| {
        let (scheme, secret) = value.split_once(' ')?;
        scheme.eq_ignore_ascii_case("bearer").then_some(secret.trim())
    });
    secret.or_else(|| cookie(headers))
}

/// The secret in the cookie.
fn cookie(headers: &HeaderMap) -> Option<&str> {
    let all = headers
        .get_all(header::COOKIE)
        .into_iter()
        .filter_map(|value| value.to_str().ok());
    let mut pairs = all
        .flat_map(|value| value.split(';'))
        .filter_map(|pair| pair.trim().split_once('='));
    pairs.find(|(name, _)| *name == COOKIE).map(|(_, secret)| secret)
}

/// Whether a caller has shown a certificate of an authority that this receiver knows.
fn has_certificate(peer: Option<Peer>) -> bool {
    matches!(
        peer,
        Some(Peer::Tls {
            certificate: Some(_),
            ..
        })
    )
}

/// Whether a caller without a token is of this host, and means it: a page of another site that a browser here was made to
/// ask this address by another name (DNS rebinding) does not.
fn is_this_host(peer: Option<Peer>, headers: &HeaderMap) -> bool {
    let address = peer.and_then(|peer| peer.address());
    let is_loopback = address.is_some_and(|address| address.ip().is_loopback());
    let host = headers
        .get(header::HOST)
        .and_then(|host| host.to_str().ok())
        .unwrap_or_default();
    let name = match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => name,
        _ => host,
    };
    let is_address = name.trim_matches(['[', ']']).parse::<IpAddr>().is_ok();
    is_loopback && (is_address || !name.contains('.'))
}

/// 401, or for a browser the way to the login page.
fn unknown(request: &Request, sentence: &str) -> Response {
    let accepts = request
        .headers()
        .get(header::ACCEPT)
        .and_then(|value| value.to_str().ok());
    let is_page = request.method() == Method::GET && !request.uri().path().starts_with("/api/");
    if cfg!(feature = "pages") && is_page && accepts.is_some_and(|accepts| accepts.contains("text/html")) {
        return Redirect::to("/login").into_response();
    }
    let mut response = Refusal::from(ServiceError::Unauthenticated(sentence.to_owned())).into_response();
    response.headers_mut().insert(
        header::WWW_AUTHENTICATE,
        HeaderValue::from_static("Bearer realm=\"coreferry\""),
    );
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_needs_another_scope_than_facts() {
        let of = |method: Method, path: &str| needed(&method, path);
        assert_eq!(of(Method::GET, "/api/v1/cores/x"), Some(Scope::ReadMeta));
        assert_eq!(
            of(Method::GET, "/api/v1/cores/x/files/manifest.json"),
            Some(Scope::ReadMeta)
        );
        for path in [
            "/api/v1/cores/x/files/vmcore",
            "/api/v1/cores/x/files/key.bin",
            "/api/v1/cores/x/extents",
        ] {
            assert_eq!(of(Method::GET, path), Some(Scope::ReadCore), "{path}");
            assert_eq!(of(Method::HEAD, path), Some(Scope::ReadCore), "{path}");
        }
        assert_eq!(of(Method::POST, "/api/v1/vms/a/dumps"), Some(Scope::Trigger));
        assert_eq!(of(Method::DELETE, "/api/v1/dumps/a"), Some(Scope::Trigger));
        for method in [Method::PATCH, Method::DELETE, Method::PUT] {
            assert_eq!(of(method, "/api/v1/cores/x"), Some(Scope::Admin));
        }
        for path in ["/", "/cores/x", "/metrics", "/live", "/unknown"] {
            assert_eq!(of(Method::GET, path), Some(Scope::ReadMeta), "{path}");
        }
        assert_eq!(of(Method::GET, "/api/v1/dead-letters"), Some(Scope::Admin));
        assert_eq!(of(Method::GET, "/livez"), None);
    }

    #[test]
    fn a_secret_is_found_where_it_may_be() {
        let with = |name: header::HeaderName, value: &'static str| {
            HeaderMap::from_iter([(name, HeaderValue::from_static(value))])
        };
        assert_eq!(shown(&with(header::AUTHORIZATION, "bearer abc")), Some("abc"));
        assert_eq!(shown(&with(header::AUTHORIZATION, "Basic abc")), None);
        assert_eq!(
            shown(&with(header::COOKIE, "a=b; coreferry_token=abc; c=d")),
            Some("abc")
        );
        assert_eq!(shown(&with(header::COOKIE, "xcoreferry_token=abc")), None);
    }

    #[test]
    fn another_name_for_this_host_is_not_taken() {
        let here = Some(Peer::Address("127.0.0.1:5".parse().unwrap()));
        let host = |name: &'static str| HeaderMap::from_iter([(header::HOST, HeaderValue::from_static(name))]);
        for name in ["127.0.0.1:20080", "localhost:20080", "[::1]:80", "coreferry"] {
            assert!(is_this_host(here, &host(name)), "{name}");
        }
        assert!(!is_this_host(here, &host("evil.example:20080")));
        assert!(!is_this_host(
            Some(Peer::Address("192.0.2.1:5".parse().unwrap())),
            &host("127.0.0.1")
        ));
    }
}
