//! The operator of Atomix: Store, Session and Driver controllers, and the injection webhook.

mod api;
pub mod certificates;
pub mod context;
pub mod driver;
pub mod operator;
pub mod runtimes;
pub mod session;
pub mod store;
pub mod uninstall;
pub mod webhook;

pub use context::{Context, Scope};
