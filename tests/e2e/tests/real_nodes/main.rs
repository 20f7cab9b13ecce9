//! What happens to real machines happens to three kubelets, while a load counts: power failures, cut
//! networks, drains, an operator that is killed in each phase, deletions. Every row ends with a whole
//! Store, and nothing that was acknowledged is lost or counted twice, but where a person gives up what only
//! lost copies had.
//!
//! Too long for `make test`: `make chaos-operator` runs it on a cluster of its own.

#![allow(
    clippy::large_futures,
    reason = "a test is awaited once, as one long story"
)]
#![allow(
    clippy::indexing_slicing,
    reason = "a missing field of a JSON value is null, it does not panic"
)]

mod deletion;
mod drains;
mod namespaces;
mod network;
mod operator_killed;
mod power;
mod zones;
