//! Operators that each serve one namespace; the tests run side by side.
#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::unwrap_used,
    reason = "tests"
)]

mod at_rest;
mod healing;
mod session;
mod store_bootstrap;
