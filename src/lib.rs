//! The operator of Atomix: Store, Session and Driver controllers.

mod api;
pub mod client;
pub mod context;
pub mod controller;
pub mod crd;
pub mod dialer;
pub mod driver;
pub mod lease;
pub mod metrics;
pub mod operator;
pub mod runtimes;
pub mod session;
pub mod store;

pub use context::{Context, Scope};
