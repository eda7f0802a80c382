//! A seeded network in virtual time, models of stock ends, and the rules that hold over it; for tests only.
//!
//! [`run`] lets a [`Sender`] and a [`Receiver`] talk over two [`Link`]s and checks every acknowledgement as it leaves:
//! what is acknowledged was sent and is in storage, FINISHED only after everything is durable, and both come to an end.
//! [`Plan::check_arrived`] and [`OurReceiver::check_coverage`] then judge what arrived. A run follows from its seed
//! alone, so that a failing one can be repeated. [`Scenario`] draws everything from one seed: both ends, the path, and who
//! loses power when.

mod holes;
mod image;
mod ingest;
mod link;
mod netdumpd;
mod ours;
mod plan;
mod retried;
mod rng;
mod scenario;
mod stock;
mod world;

pub use self::{
    holes::{LongDump, long_dump},
    image::{Image, content},
    ingest::OurIngest,
    link::{Link, LinkConfig, LinkStats},
    netdumpd::StockReceiver,
    ours::{OurReceiver, OurSender, StorageConfig},
    plan::{Order, Plan, Write},
    retried::{Replaced, Restarted, Retried},
    rng::Rng,
    scenario::{From, MTUS, Outcome, Scenario, To, no_silent_hole},
    stock::{StockConfig, StockSender},
    world::{Network, Receiver, Report, SendOutcome, Sender, Violation, run},
};
