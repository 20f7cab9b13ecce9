//! The sidecar from outside, over real sockets: in process with the `memory` driver, and as a
//! process with real storage nodes.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "tests"
)]
#![allow(missing_docs, unreachable_pub, reason = "tests")]

mod application;
mod bad_input;
mod conformance;
mod control;
mod counter_conformance;
mod harness;
mod methods;
mod real_nodes;
mod sessions;
mod streams;
mod supervision;
