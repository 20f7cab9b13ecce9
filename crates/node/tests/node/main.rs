//! Real nodes, most of them as processes: one program, so that what every test needs is compiled once.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "tests"
)]

mod bootstrap;
mod control;
mod failures;
mod frame;
mod membership;
mod processes;
mod recovery;
mod snapshots;
mod streams;
mod support;
mod watch;
