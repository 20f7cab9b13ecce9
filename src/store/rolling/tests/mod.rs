//! The planner of rolling changes: cases one by one, and random histories against a model.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "tests"
)]

use super::*;

mod histories;
mod table;
mod world;
