//! The client against a sidecar in this process, over real sockets, with the `memory` driver.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "tests"
)]
#![allow(missing_docs, unreachable_pub, reason = "tests")]

mod collections;
mod entries;
mod examples;
mod harness;
mod numbers;
mod owners;
mod proxy;
mod retries;
mod streams;
