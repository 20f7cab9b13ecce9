//! Operators that each serve one namespace; the tests run side by side.
#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "tests"
)]

mod api_server_away;
mod at_rest;
mod authority_source;
mod certificates;
mod config_from;
mod connections;
mod data_loss;
mod deletion;
mod disks;
mod fencing;
mod fields;
mod gitops;
mod healing;
mod identities;
mod metrics;
mod mutations;
mod names;
mod partitions;
mod paused;
mod recovery;
mod replacement;
mod restart;
mod rolling;
mod scaling;
mod session;
mod session_service;
mod store_bootstrap;
mod troubles;
mod two_operators;
mod uninstall;
mod webhook;
