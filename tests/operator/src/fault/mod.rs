//! Sees every call that an operator makes, and every event of its watches; can end the operator at one
//! of its calls, let calls fail, and lose an event.
//!
//! A [`Gate`] belongs to one operator; both layers, on kube's client and on the gRPC channels, ask
//! it before a request leaves and after its answer has come. A call is named by what it does, not
//! only by its number: two runs make the same calls, but not always in the same order.

mod audit;
mod call;
mod dialer;
mod disturbance;
mod gate;
mod kubernetes;
mod points;
mod silence;
mod stand;
mod trouble;
mod watch_body;

pub use audit::{Audit, Request};
pub use call::{Call, Verb};
pub use dialer::{Names, WatchedDialer};
pub use disturbance::Disturbance;
pub use gate::{Gate, Recorded};
pub use kubernetes::{WatchTimeout, WatchedApi};
pub use points::{CrashPoint, EventPoint, Side};
pub use trouble::{ASKED_TO_WAIT, Faults, LeaseTrouble, Trouble};
