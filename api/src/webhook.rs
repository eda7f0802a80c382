//! Delivers an event to an address that was told to be one for events.

use std::net::IpAddr;
use std::sync::Arc;

use bytes::Bytes;
use http_body_util::Full;
use hyper::{Method, Request};
use rustls::ClientConfig;
use tokio::time::timeout;

use crate::endpoint::Endpoint;
use crate::limits::WEBHOOK_TIME;
use crate::outgoing::exchange;

/// Where events go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WebhookUrl {
    endpoint: Endpoint,
    /// Path and query.
    path: String,
}

impl WebhookUrl {
    /// Reads `https://HOST[:PORT]/PATH`; for an address of this host also `http://HOST:PORT/PATH`.
    ///
    /// # Errors
    /// A sentence that says what is wrong with `text`.
    pub fn parse(text: &str) -> Result<Self, String> {
        let scheme = ["https://", "http://"]
            .into_iter()
            .find(|scheme| text.starts_with(scheme));
        let scheme = scheme.ok_or_else(|| format!("`{text}` is no address for events; write https://HOST/PATH"))?;
        let rest = text.trim_start_matches(scheme);
        let end = rest.find(['/', '?']).unwrap_or(rest.len());
        let (authority, path) = rest.split_at(end);
        let plain = |byte: u8| byte.is_ascii_graphic() && byte != b'#';
        if !path.bytes().all(plain) {
            return Err(format!(
                "the path of `{text}` has characters that must be percent-encoded"
            ));
        }
        let endpoint = Endpoint::parse(&format!("{scheme}{authority}"))?;
        if matches!(&endpoint, Endpoint::Tcp(address) if !is_this_host(address)) {
            return Err(format!(
                "`{text}` is not of this host, and everybody on the way could read the events: write https://"
            ));
        }
        let slash = if path.starts_with('/') { "" } else { "/" };
        Ok(Self {
            endpoint,
            path: format!("{slash}{path}"),
        })
    }

    /// All of it; it may hold a secret.
    #[must_use]
    pub fn text(&self) -> String {
        format!("{}{}", self.endpoint, self.path)
    }

    /// Where it is, without the path: that may hold a secret.
    #[must_use]
    pub fn origin(&self) -> String {
        self.endpoint.to_string()
    }

    /// Posts `body` and gives the status of the answer, whose body is not read. A redirect is an answer, and not followed.
    ///
    /// # Errors
    /// A sentence that says why there is no answer.
    pub async fn post(
        &self,
        trust: Option<&Arc<ClientConfig>>,
        headers: &[(&str, String)],
        body: Vec<u8>,
    ) -> Result<u16, String> {
        let host = match &self.endpoint {
            Endpoint::Tcp(address) | Endpoint::Tls(address) => address.as_str(),
            Endpoint::Unix(_) => "localhost",
        };
        let mut request = Request::builder().method(Method::POST).uri(&self.path);
        request = request
            .header("host", host)
            .header("content-type", "application/cloudevents+json");
        for (name, value) in headers {
            request = request.header(*name, value);
        }
        let request = request
            .body(Full::new(Bytes::from(body)))
            .map_err(|why| why.to_string())?;
        let answer = timeout(WEBHOOK_TIME, exchange(&self.endpoint, trust, WEBHOOK_TIME, request)).await;
        let answer = answer.map_err(|_| format!("no answer within {} s", WEBHOOK_TIME.as_secs()))?;
        let answer = answer.map_err(|why| why.to_string())?;
        Ok(answer.status().as_u16())
    }
}

fn is_this_host(address: &str) -> bool {
    let host = address.rsplit_once(':').map_or(address, |(host, _)| host);
    let address = host.trim_matches(['[', ']']).parse::<IpAddr>();
    host == "localhost" || address.is_ok_and(|address| address.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_for_events_are_read_and_plain_http_stays_on_this_host() {
        let read = |text: &str| WebhookUrl::parse(text).map(|url| (url.origin(), url.path));
        let is = |origin: &str, path: &str| Ok((origin.to_owned(), path.to_owned()));
        assert_eq!(read("https://h.example/a?b=c"), is("https://h.example:443", "/a?b=c"));
        assert_eq!(read("https://h.example"), is("https://h.example:443", "/"));
        assert_eq!(read("https://h.example:1?x"), is("https://h.example:1", "/?x"));
        assert_eq!(read("http://127.0.0.1:8080/x"), is("http://127.0.0.1:8080", "/x"));
        assert_eq!(read("http://[::1]:8080"), is("http://[::1]:8080", "/"));
        for wrong in [
            "ftp://h",
            "http://h.example:80/x",
            "http://192.0.2.1:80/",
            "https://a@b/x",
            "https://h/a b",
            "https:///x",
        ] {
            assert!(read(wrong).is_err(), "{wrong}");
        }
    }
}
