//! Somebody who is told: HTTP by hand.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener};
use std::sync::mpsc::{self, Receiver};

use super::PATIENCE;

/// One request as it came.
#[derive(Debug)]
pub(crate) struct Delivery {
    pub(crate) head: String,
    pub(crate) body: Vec<u8>,
}

impl Delivery {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        let lines = self.head.lines().filter_map(|line| line.split_once(": "));
        lines
            .into_iter()
            .find(|(found, _)| found.eq_ignore_ascii_case(name))
            .map(|(_, value)| value)
    }
}

/// The one who is told.
#[derive(Debug)]
pub(crate) struct Peer {
    address: SocketAddr,
    deliveries: Receiver<Delivery>,
}

impl Peer {
    /// Answers with these statuses one after the other, and with the last for ever.
    pub(crate) fn answering(statuses: &[u16]) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let mut statuses = statuses.to_vec();
        statuses.reverse();
        let (sender, deliveries) = mpsc::channel();
        std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let mut reader = BufReader::new(stream.try_clone().unwrap());
                let mut head = String::new();
                while !head.ends_with("\r\n\r\n") && reader.read_line(&mut head).is_ok_and(|len| len > 0) {}
                let mut delivery = Delivery { head, body: Vec::new() };
                let len = delivery.header("content-length").map_or(0, |len| len.parse().unwrap());
                delivery.body = vec![0; len];
                if reader.read_exact(&mut delivery.body).is_err() || len == 0 {
                    continue;
                }
                let status = if statuses.len() > 1 {
                    statuses.pop()
                } else {
                    statuses.last().copied()
                };
                let status = status.unwrap();
                let place = format!("Location: http://{address}/elsewhere\r\n");
                let answer = format!("HTTP/1.1 {status} Told\r\n{place}Content-Length: 0\r\nConnection: close\r\n\r\n");
                let _ = (&stream).write_all(answer.as_bytes());
                if sender.send(delivery).is_err() {
                    return;
                }
            }
        });
        Self { address, deliveries }
    }

    pub(crate) fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    /// What comes next.
    pub(crate) fn next(&self) -> Delivery {
        self.deliveries.recv_timeout(PATIENCE).expect("a delivery")
    }

    /// Whether everything that came was looked at.
    pub(crate) fn nothing_more(&self) -> bool {
        self.deliveries.try_recv().is_err()
    }
}
