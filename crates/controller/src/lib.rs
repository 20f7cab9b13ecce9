//! What every controller of this operator is built from: a work queue with growing per-object
//! backoff, watched caches, server-side apply that costs nothing when nothing changed, status
//! patches only on difference, finalizers, events, bounded error categories.
//!
//! Not for anything that knows a Store, a Session or a Driver.
//!
//! Each controller is a folder of its own with a type that has three steps:
//! - `new(&Context, …)` makes its queue and adds its listeners to the shared caches;
//! - `watch(&self, &mut Tasks)` starts the watches of its own caches, also without the lease, so
//!   that a standby takes over at once;
//! - `run(self, CancellationToken)` reconciles; it is started once the lease is held.

pub mod apply;
pub mod backoff;
pub mod cache;
pub mod caller;
pub mod client;
pub mod decoded;
pub mod dialer;
pub mod error;
pub mod events;
pub mod finalizer;
pub mod key;
pub mod lease;
pub mod metrics;
pub mod queue;
pub mod status;
pub mod undecodable;
pub mod uninstall;

pub use apply::{Applier, ApplyError, Observed};
pub use cache::{Cache, Change};
pub use caller::Caller;
pub use decoded::Decoded;
pub use error::{ApiError, Category, ReconcileError, call};
pub use events::{Events, Severity};
pub use key::ObjectKey;
pub use queue::{Next, Queue};
pub use status::StatusWriter;
pub use undecodable::UndecodableReports;

/// The field manager of everything that this operator applies.
pub const FIELD_MANAGER: &str = "atomix-operator";

/// Label that says which program manages an object; its value is [`FIELD_MANAGER`].
pub const MANAGED_BY_LABEL: &str = "app.kubernetes.io/managed-by";
