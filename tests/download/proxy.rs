//! Something between a client and an API that counts bytes, and holds an answer back or cuts it off.
#![allow(dead_code, reason = "each test file uses its own part of this module")]

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex};

/// A running proxy; its threads end with the test's process.
#[derive(Debug)]
pub(crate) struct Proxy {
    /// Where clients reach it.
    pub(crate) api: String,
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    /// Bytes of all answers, headers and all.
    answer_bytes: AtomicU64,
    /// Whether the held answer goes on.
    is_released: Mutex<bool>,
    released: Condvar,
}

impl Proxy {
    /// One that only counts.
    pub(crate) fn counting(api: &str) -> Self {
        Self::start(api, u32::MAX, Some(0))
    }

    /// One that closes the connection of download number `cut` without an answer, and takes no more.
    pub(crate) fn cutting(api: &str, cut: u32) -> Self {
        Self::start(api, cut, None)
    }

    /// One that lets only `bytes` of the answer to download number `held` through until it is told to go on.
    pub(crate) fn holding(api: &str, held: u32, bytes: usize) -> Self {
        Self::start(api, held, Some(bytes))
    }

    /// Of the answer to download number `special` so many bytes come at once; nothing at all ends the proxy.
    fn start(api: &str, special: u32, at_once: Option<usize>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("an address").to_string();
        let shared = Arc::new(Shared::default());
        let (api, kept) = (api.to_owned(), Arc::clone(&shared));
        std::thread::spawn(move || {
            let mut downloads = 0;
            for stream in listener.incoming().map_while(Result::ok) {
                let mut head = Vec::new();
                let mut reader = BufReader::new(stream.try_clone().expect("a second handle"));
                while !head.ends_with(b"\r\n\r\n") && reader.read_until(b'\n', &mut head).is_ok_and(|len| len > 0) {}
                let head = String::from_utf8_lossy(&head).replace("\r\n\r\n", "\r\nConnection: close\r\n\r\n");
                downloads += u32::from(head.contains("/files/vmcore"));
                let is_special = downloads == special && head.contains("/files/vmcore");
                if is_special && at_once.is_none() {
                    return;
                }
                let (api, kept) = (api.clone(), Arc::clone(&kept));
                std::thread::spawn(move || kept.pass(&api, &head, stream, at_once.filter(|_| is_special)));
            }
        });
        Self { api: address, shared }
    }

    /// Bytes that came from the API so far.
    pub(crate) fn answer_bytes(&self) -> u64 {
        self.shared.answer_bytes.load(Ordering::SeqCst)
    }

    /// Lets the held answer go on.
    pub(crate) fn release(&self) {
        *self.shared.is_released.lock().expect("no thread panicked") = true;
        self.shared.released.notify_all();
    }
}

impl Shared {
    /// Hands on one request and its answer; `limit` bytes of it at once, the rest when it is released.
    fn pass(&self, api: &str, head: &str, mut to: TcpStream, limit: Option<usize>) {
        let mut upstream = TcpStream::connect(api).expect("the API answers");
        upstream.write_all(head.as_bytes()).expect("sent");
        let mut buffer = vec![0; 64 * 1024];
        let mut left = limit;
        while let Ok(len @ 1..) = upstream.read(&mut buffer) {
            self.answer_bytes.fetch_add(len as u64, Ordering::SeqCst);
            let mut bytes = &buffer[..len];
            if let Some(limit) = left {
                let (now, rest) = bytes.split_at(limit.min(len));
                if to.write_all(now).is_err() {
                    return;
                }
                left = Some(limit - now.len());
                bytes = rest;
                if !bytes.is_empty() {
                    let held = self.is_released.lock().expect("no thread panicked");
                    drop(self.released.wait_while(held, |is_released| !*is_released));
                    left = None;
                }
            }
            // Who is gone needs no more.
            if to.write_all(bytes).is_err() {
                return;
            }
        }
    }
}
