//! The operator of Atomix: Store, Session and Driver controllers, and the injection webhook.

mod api;
pub mod certificates;
pub mod check;
pub mod context;
pub mod crds;
pub mod driver;
pub mod identities;
mod object_counts;
pub mod operator;
pub mod runtimes;
pub mod session;
pub mod store;
pub mod uninstall;
pub mod webhook;

pub use context::{Context, Scope};
