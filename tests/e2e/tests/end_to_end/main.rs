//! The whole story on a real cluster: real pods, disks, network and API server.

#![allow(
    clippy::indexing_slicing,
    reason = "a missing field of a JSON value is null, it does not panic"
)]

mod bad_input;
mod faults;
mod story;
