//! HTTP by hand over TCP: what any client would write, without our own client's code.
#![allow(dead_code, reason = "each test file uses its own part of this module")]

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;

use serde_json::Value;

use crate::common::PATIENCE;

/// An answer, wholly read.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) head: String,
    pub(crate) body: Vec<u8>,
}

impl Answer {
    /// A header of the answer, if it has it.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        let lines = self.head.lines().filter_map(|line| line.split_once(':'));
        lines
            .filter(|(found, _)| found.eq_ignore_ascii_case(name))
            .map(|(_, value)| value.trim())
            .next()
    }

    /// The body as text.
    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// The body as JSON.
    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|why| panic!("{why}: {}\n{}", self.head, self.text()))
    }

    /// The same, for an answer that must have this status.
    pub(crate) fn expect(self, status: u16) -> Self {
        assert_eq!(self.status, status, "{}\n{}", self.head, self.text());
        self
    }

    /// A refusal of this status must be a problem of RFC 9457 of this kind.
    pub(crate) fn problem(self, status: u16, code: &str) -> Self {
        let answer = self.expect(status);
        assert_eq!(
            answer.header("content-type"),
            Some("application/problem+json"),
            "{}",
            answer.head
        );
        assert_eq!(answer.json()["code"], code);
        answer
    }
}

/// Sends one request; the connection with the answer coming.
pub(crate) fn send(api: &str, method: &str, path: &str, headers: &[&str], body: &str) -> TcpStream {
    let mut stream = TcpStream::connect(api).unwrap_or_else(|why| panic!("cannot reach {api}: {why}"));
    stream.set_read_timeout(Some(PATIENCE)).expect("a time-out");
    let more: String = headers.iter().map(|header| format!("{header}\r\n")).collect();
    let head = format!("{method} {path} HTTP/1.1\r\nHost: {api}\r\nConnection: close\r\n{more}");
    write!(stream, "{head}Content-Length: {}\r\n\r\n{body}", body.len()).expect("the request can be sent");
    stream
}

/// Sends one request and reads the answer (RFC 9112).
pub(crate) fn request(api: &str, method: &str, path: &str, headers: &[&str], body: &str) -> Answer {
    let mut stream = BufReader::new(send(api, method, path, headers, body));
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let len = stream.read_until(b'\n', &mut head).expect("an answer in time");
        assert!(len > 0, "no HTTP answer: {}", String::from_utf8_lossy(&head));
    }
    let head = String::from_utf8_lossy(&head).trim_end().to_owned();
    let status = head.split(' ').nth(1).and_then(|code| code.parse().ok());
    let mut answer = Answer {
        status: status.unwrap_or_else(|| panic!("no status in {head:?}")),
        body: Vec::new(),
        head,
    };
    // A server may keep the connection open, whatever it was asked.
    let length = answer.header("content-length").and_then(|length| length.parse().ok());
    let is_bare = method == "HEAD" || matches!(answer.status, 204 | 304);
    let length = if is_bare { 0 } else { length.unwrap_or(u64::MAX) };
    let read = stream.take(length).read_to_end(&mut answer.body);
    read.expect("the whole answer");
    answer
}

/// `GET path`.
pub(crate) fn get(api: &str, path: &str) -> Answer {
    request(api, "GET", path, &[], "")
}
