//! HTTP by hand over a unix socket: what any client would write, without our own client's code.

use std::io::{Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::path::Path;

use serde_json::Value;

use crate::common::PATIENCE;

/// An answer, wholly read.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    head: String,
    /// The body; null where there is none.
    pub(crate) body: Value,
}

impl Answer {
    /// A header of the answer.
    pub(crate) fn header(&self, name: &str) -> &str {
        let named = |line: &&str| line.to_ascii_lowercase().starts_with(&format!("{name}: "));
        let line = self.head.lines().find(named);
        let line = line.unwrap_or_else(|| panic!("no header {name} in:\n{}", self.head));
        &line[name.len() + 2..]
    }
}

/// Sends one request and reads the answer (RFC 9112).
pub(crate) fn request(socket: &Path, method: &str, path: &str, headers: &[&str], body: &str) -> Answer {
    let mut stream =
        UnixStream::connect(socket).unwrap_or_else(|why| panic!("cannot reach {}: {why}", socket.display()));
    stream.set_read_timeout(Some(PATIENCE)).expect("a time-out");
    let more: String = headers.iter().map(|header| format!("{header}\r\n")).collect();
    let head = format!("{method} {path} HTTP/1.1\r\nHost: machine\r\nConnection: close\r\n{more}");
    write!(stream, "{head}Content-Length: {}\r\n\r\n{body}", body.len()).expect("the request can be sent");
    let mut text = String::new();
    stream.read_to_string(&mut text).expect("an answer");
    let (head, body) = text
        .split_once("\r\n\r\n")
        .unwrap_or_else(|| panic!("no HTTP answer: {text:?}"));
    let status = head.split(' ').nth(1).and_then(|code| code.parse().ok());
    Answer {
        status: status.unwrap_or_else(|| panic!("no status in {head:?}")),
        body: serde_json::from_str(body).unwrap_or(Value::Null),
        head: head.to_owned(),
    }
}

/// `GET path`.
pub(crate) fn get(socket: &Path, path: &str) -> Answer {
    request(socket, "GET", path, &[], "")
}
