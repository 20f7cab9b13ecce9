//! Drivers: how the runtime reaches a store. The [`Driver`] trait, and the built-in `multi-raft` and
//! `memory` drivers, which spread primitives over the partitions of a store in the same way, as the
//! kinds of crate `primitives` say.
//!
//! Not for routing primitives to stores, and not for the application API: those are the runtime's.

pub mod driver;
pub mod error;
pub mod memory;
pub mod multiraft;
pub mod resolver;
mod spread;

pub use driver::{
    Connection, ConnectionState, Description, Driver, Holdings, Invocation, Owner, ReplyStream,
    StoreId,
};
pub use error::{DriverError, ErrorKind};
pub use memory::MemoryDriver;
pub use multiraft::MultiRaftDriver;
