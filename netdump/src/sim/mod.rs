//! A seeded network in virtual time, models of stock ends, and the rules that hold over it; for tests only.
//!
//! [`run`] lets a [`Sender`] and a [`Receiver`] talk over two [`Link`]s and checks every acknowledgement as it leaves:
//! what is acknowledged was sent and is in storage, FINISHED only after everything is durable, and both come to an end.
//! [`Plan::check_arrived`] and [`OurReceiver::check_coverage`] then judge what arrived. A run follows from its seed
//! alone, so that a failing one can be repeated.

mod image;
mod link;
mod netdumpd;
mod ours;
mod plan;
mod rng;
mod stock;
mod world;

pub use self::{
    image::{Image, content},
    link::{Link, LinkConfig, LinkStats},
    netdumpd::StockReceiver,
    ours::{OurReceiver, OurSender, StorageConfig},
    plan::{Order, Plan, Write},
    rng::Rng,
    stock::{StockConfig, StockSender},
    world::{Network, Receiver, Report, SendOutcome, Sender, Violation, run},
};
