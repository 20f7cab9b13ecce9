//! The storage node: hosts partitions of one Store, each a Raft group with a replicated state
//! machine, and serves three protocols.
//!
//! - Node (control port): the operator creates partitions, changes their members and watches them,
//!   module `control`;
//! - Peers, Plans and Members (peer port): the other nodes, modules `peers`, `bootstrap` and
//!   `members`;
//! - Partitions (peer port): the runtimes' drivers, module `exchange`.
//!
//! Module `partition` joins a group to the requests; `service` puts everything together.
//! Not for Raft and the log (crate `raft`) nor for what operations do (crate `primitives`).

mod bootstrap;
mod control;
mod drain;
mod error;
mod exchange;
mod faults;
mod fence;
mod grpc;
mod hosted;
mod members;
mod metrics;
mod options;
mod partition;
mod peers;
mod reach;
mod recover;
mod resolver;
mod security;
mod service;

pub use error::NodeError;
pub use options::Options;
pub use recover::offline::{OfflineError, RecoverOptions, recover as recover_offline};
pub use resolver::{DnsResolver, HostsFileResolver, ResolveError, Resolver};
pub use service::{Handle, Service};
