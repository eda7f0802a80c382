//! The login page: a token becomes a cookie that only this site's own pages are sent with.

use axum::Extension;
use axum::extract::{ConnectInfo, Form};
use axum::http::header;
use axum::response::{IntoResponse as _, Redirect, Response};
use maud::{Markup, html};
use serde::Deserialize;

use crate::routes::{COOKIE, Peer};

/// How long a browser keeps the cookie: a working day.
const COOKIE_AGE_S: u32 = 12 * 3600;

/// What the form sends.
#[derive(Debug, Deserialize)]
pub(super) struct Login {
    token: String,
}

/// The page.
pub(super) fn markup() -> Markup {
    html! {
        h1 { "Log in" }
        p { "This receiver wants a token; " code { "coreferry tokens add NAME" } " makes one." }
        form method="post" action="/login" {
            label { "Token " input type="password" name="token" autocomplete="current-password" required; }
            button type="submit" { "Log in" }
        }
    }
}

/// Keeps the token in a cookie. Whether it is known shows on the next page.
pub(super) async fn login(peer: Option<Extension<ConnectInfo<Peer>>>, Form(Login { token }): Form<Login>) -> Response {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
    let token = token.trim();
    if token.is_empty() || token.len() > 256 || !token.bytes().all(plain) {
        return Redirect::to("/login").into_response();
    }
    // Behind TLS, the browser never shows it without.
    let is_tls = peer.is_some_and(|Extension(ConnectInfo(peer))| matches!(peer, Peer::Tls { .. }));
    let secure = if is_tls { "; Secure" } else { "" };
    let cookie = format!("{COOKIE}={token}; Path=/; Max-Age={COOKIE_AGE_S}; HttpOnly; SameSite=Strict{secure}");
    ([(header::SET_COOKIE, cookie)], Redirect::to("/")).into_response()
}
