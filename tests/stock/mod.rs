//! The other side of the wire, as stock machines behave: senders and a receiver of the netdump protocol.
//!
//! They are written from the protocol's description (netdump(4), FreeBSD sys/netinet/netdump/netdump_client.c and
//! sys/net/debugnet.c, netdumpd(8)) on plain UDP sockets, and share no code with our own implementation: an error there
//! shows here instead of cancelling out. They keep the faults of the originals where those faults reach the wire.
#![allow(dead_code, unused_imports, reason = "each test file uses its own part of the models")]

mod content;
mod engine;
mod header;
mod loss;
mod nat;
mod receiver;
mod sender;
mod wire;

pub(crate) use content::dense_core;
pub(crate) use engine::GaveUp;
pub(crate) use header::{kernel_dump_header, reference_header, with_field};
pub(crate) use loss::Loss;
pub(crate) use nat::{Kind as NatKind, Nat};
pub(crate) use receiver::{End, StockDump, StockReceiver};
pub(crate) use sender::{AckBits, CLIENT_PORT, Order, StockSender, own_address};
