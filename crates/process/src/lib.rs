//! What every program of Atomix shares: logging, traces, the admin server, how gRPC servers end, supervised
//! tasks, shutdown.
//!
//! Not for anything that knows about stores, sessions or partitions.

pub mod admin;
pub mod grpc;
pub mod logging;
#[cfg(feature = "test-panics")]
pub mod panics;
pub mod shutdown;
pub mod tasks;
pub mod traces;
