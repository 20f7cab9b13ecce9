//! Tests of the frame, through its public API and the test-only kind.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::cast_possible_truncation,
    reason = "a test that cannot go on fails"
)]

mod consistency;
mod contract;
mod events;
mod intents;
mod ownership;
mod random;
mod replay;
pub(crate) mod rules;
mod sessions;
mod snapshots;
pub(crate) mod support;
mod timers;
mod versions;

pub(crate) use consistency::check as check_consistency;
