//! Groups on real disks: one program, so that what every test needs is compiled once.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "tests"
)]

mod abort;
mod boots;
mod disk;
mod full_disk;
mod group;
mod inbox;
mod leadership;
mod many_groups;
mod members;
mod powercut;
mod rewrite;
mod several_files;
mod snapshots;
mod support;
