//! The runtime: the sidecar that stands between an application and its stores.
//!
//! It serves the application API on the pod's loopback addresses, routes each primitive to a store,
//! and carries operations to it by a driver. The operator connects stores and programs routes on the
//! control port. Not for replication or state: those are the stores'.

mod application;
mod control;
mod metrics;
pub mod options;
pub mod routes;
mod session_service;
pub mod sessions;
pub mod sidecar;
pub mod state_file;
pub mod stores;
mod streams;

pub use options::Options;
pub use sidecar::{Addresses, Sidecar, StartError, built_in_drivers};
