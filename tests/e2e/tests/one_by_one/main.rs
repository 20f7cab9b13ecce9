//! Stories that need the operator for themselves: they take it away, or ask it while other tests would
//! kill it.

#![allow(
    clippy::large_futures,
    reason = "a test is awaited once, as one long story"
)]
#![allow(
    clippy::indexing_slicing,
    reason = "a missing field of a JSON value is null, it does not panic"
)]

mod bad_days;
mod release;
