//! The frame of every page, and its headers.

use axum::http::{HeaderName, StatusCode, header};
use axum::response::{IntoResponse, Response};
use maud::{DOCTYPE, Markup, html};

use crate::routes::problems::Refusal;

/// What a page may load: our own files, and nothing that stands in the page itself.
pub(super) const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; \
                                 connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'";

/// The pages that are linked on every page.
const PLACES: [(&str, &str); 3] = [("/", "Cores"), ("/groups", "Groups"), ("/health", "Health")];

/// A whole page.
pub(super) fn page(title: &str, at: &str, main: &Markup) -> Response {
    answer(StatusCode::OK, title, at, main)
}

fn answer(status: StatusCode, title: &str, at: &str, main: &Markup) -> Response {
    let text = html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                meta name="color-scheme" content="light dark";
                // Its own styles would have to stand in the page.
                meta name="htmx-config" content=r#"{"includeIndicatorCSS":false}"#;
                title { (title) " · coreferry" }
                link rel="icon" type="image/svg+xml" href="/assets/icon.svg";
                link rel="stylesheet" href="/assets/style.css";
                script src="/assets/script.js" defer {}
            }
            body {
                a class="skip" href="#main" { "Skip to content" }
                header {
                    span class="brand" { "coreferry" }
                    nav aria-label="Pages" {
                        @for (path, name) in PLACES {
                            a href=(path) aria-current=[(path == at).then_some("page")] { (name) }
                        }
                    }
                }
                main id="main" { (main) }
            }
        }
    };
    (status, headers(), text.into_string()).into_response()
}

/// The headers of every page.
fn headers() -> [(HeaderName, &'static str); 5] {
    [
        (header::CONTENT_TYPE, "text/html; charset=utf-8"),
        (header::CONTENT_SECURITY_POLICY, POLICY),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::REFERRER_POLICY, "no-referrer"),
        (header::CACHE_CONTROL, "no-store"),
    ]
}

/// A page that cannot be made.
#[derive(Debug)]
pub(super) struct Failed(Refusal);

impl From<Refusal> for Failed {
    fn from(why: Refusal) -> Self {
        Self(why)
    }
}

impl IntoResponse for Failed {
    fn into_response(self) -> Response {
        let problem = self.0.0;
        let status = StatusCode::from_u16(problem.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let main = html! {
            h1 { (problem.title) }
            p { (problem.detail) }
            p { a href="/" { "All cores" } }
        };
        answer(status, &problem.title, "", &main)
    }
}
