//! The whole story on a real cluster: real pods, disks, network and API server.

#![allow(
    clippy::large_futures,
    reason = "a test is awaited once, as one long story"
)]
#![allow(
    clippy::indexing_slicing,
    reason = "a missing field of a JSON value is null, it does not panic"
)]

mod bad_input;
mod faults;
mod injection;
mod neighbours;
mod rolling;
mod scaling;
mod story;
mod take_over;
