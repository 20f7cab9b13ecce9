//! The rules that hold for every kind, over random logs of its operations: what the tests of the
//! kinds share.

use atomix_proto::multiraft::v1::{CommandBatch, Operation};
use proptest::prelude::*;

use super::random::batches_of;

pub(crate) use super::replay::replicas_agree;
pub(crate) use super::snapshots::{Edit, forged_snapshots_never_panic};

/// A log of a kind's operations amid sessions that come and go, cancels, releases and ticks.
pub(crate) fn logs(
    operation: impl Strategy<Value = Operation> + 'static,
) -> impl Strategy<Value = Vec<CommandBatch>> {
    batches_of(60, operation.boxed())
}

/// Where to damage a snapshot.
pub(crate) fn edits() -> impl Strategy<Value = Vec<Edit>> {
    let place = any::<prop::sample::Index>;
    proptest::collection::vec((place(), place(), any::<u8>()), 0..4)
}
