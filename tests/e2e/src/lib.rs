//! Support for the end-to-end tests: a real cluster, the chart installed in it, and objects applied
//! as a user would apply them.
//!
//! The tests know the custom resources only by their YAML, as a user does; they share no type with
//! the operator.

#![allow(
    clippy::indexing_slicing,
    reason = "a missing field of a JSON value is null, it does not panic"
)]

pub mod application;
pub mod cluster;
pub mod command_line;
pub mod disks;
pub mod kustomize;
pub mod load;
pub mod manifests;
pub mod nodes;
pub mod objects;
pub mod operator;
pub mod processes;
pub mod rows;
pub mod stores;
pub mod wait;
