//! Which operator this node listens to, kept in its engine: see [`atomix_process::grpc::fencing`].

use atomix_process::grpc::fencing::{Fence, OperatorTerm};
use atomix_raft::{Engine, StoredOperator};
use tonic::Status;

/// The fence of a node with this data directory.
pub(crate) fn of(engine: &Engine, is_required: bool) -> Fence {
    let seen = engine.operator_at_open().map(|stored| OperatorTerm {
        id: stored.id,
        term: stored.term,
    });
    let engine = engine.clone();
    let keep = move |operator: OperatorTerm| {
        let engine = engine.clone();
        let stored = StoredOperator {
            id: operator.id,
            term: operator.term,
        };
        Box::pin(async move {
            let kept = engine.store_operator(&stored).await;
            kept.map_err(|error| Status::internal(error.to_string()))
        }) as _
    };
    Fence::new(seen, is_required, Box::new(keep))
}
