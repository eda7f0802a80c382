//! The whole road as a user walks it: `run` and `demo` start real guests under KVM, `serve` takes their dumps over real
//! sockets, `vms`, `cores` and `send` do what people do. Each test is a host of its own: one temporary folder, free
//! ports, and processes that end with it.

mod common;
#[path = "road/http.rs"]
mod http;
#[path = "road/machine.rs"]
mod machine;
#[path = "road/reluctant.rs"]
mod reluctant;

#[path = "road/away.rs"]
mod away;
#[path = "road/cancelled.rs"]
mod cancelled;
#[path = "road/crashes.rs"]
mod crashes;
#[path = "road/demo.rs"]
mod demo;
#[path = "road/dumps.rs"]
mod dumps;
#[path = "road/policies.rs"]
mod policies;
#[path = "road/vms.rs"]
mod vms;
