//! How primitives are spread over the partitions of a store: which partitions an operation goes to,
//! and what the streams consist of that are read from pages and events.
//!
//! For drivers, which ask [`Kinds`](crate::Kinds) and carry the answers out; a state machine has one
//! partition and needs none of this. Not for how a partition is reached.

pub(crate) mod plan;
mod routing;
pub(crate) mod streaming;

use bytes::Bytes;
use prost::Message;

pub use self::plan::{Place, Plan, encode_remaining};
pub use self::routing::{PartitionId, partition_of, partition_of_key};
pub use self::streaming::{Listing, Streaming};
use crate::error::{ErrorCode, OperationError};

/// What else a kind of primitive implements: without more, one that lives in one partition and has
/// no streams.
pub trait Spread {
    /// Where its operations go, if its keys are spread over all partitions. This is a promise to the
    /// data on the disks: it never changes.
    const KEYS: Option<PlanKeys> = None;

    /// What a streaming method consists of; `None` = the kind has no such method.
    ///
    /// # Errors
    /// INVALID_ARGUMENT for a request that does not decode.
    fn streaming(_method: &str, _request: &Bytes) -> Result<Option<Streaming>, OperationError> {
        Ok(None)
    }
}

/// Where an operation goes, by its method and its request, which are valid.
pub type PlanKeys = fn(&str, &Bytes, &Place<'_>) -> Result<Plan, OperationError>;

pub(crate) fn decode<M: Message + Default>(request: &Bytes) -> Result<M, OperationError> {
    M::decode(request.clone())
        .map_err(|error| OperationError::invalid(format!("the request does not decode: {error}")))
}

/// What a partition answered.
///
/// # Errors
/// INTERNAL: it does not decode.
pub fn decode_reply<M: Message + Default>(reply: Bytes) -> Result<M, OperationError> {
    M::decode(reply).map_err(|error| {
        let message = format!("the store answered what does not decode: {error}");
        OperationError::new(ErrorCode::Internal, message)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Kinds;
    use crate::tests::support::operation;

    /// Data that is on disks is looked for there.
    #[test]
    fn the_keys_of_four_kinds_are_spread_and_the_others_live_where_their_name_says() {
        let kinds = Kinds::with_test_kind();
        for kind in kinds.names() {
            let home = partition_of(kind, "it", 4);
            let partitions = |key: Option<&[u8]>| kinds.partitions_of(kind, "it", key, 4);
            if ["countermap", "map", "multimap", "set"].contains(&kind) {
                assert_eq!(partitions(None), [1, 2, 3, 4].map(PartitionId), "{kind}");
                let of_key = partition_of_key(kind, "it", b"k", 4);
                assert_eq!(partitions(Some(b"k")), [of_key], "{kind}");
            } else {
                assert_eq!(partitions(None), [home], "{kind}");
                assert_eq!(partitions(Some(b"k")), [home], "{kind}");
            }
        }
    }

    #[test]
    fn in_a_store_of_one_partition_everything_goes_there_as_it_is() {
        let kinds = Kinds::with_test_kind();
        for kind in kinds.names() {
            for method in kinds.methods(kind) {
                let plan = kinds.plan(&operation(kind, "it", method.name, 0, &()), 1);
                let is_there = matches!(plan, Ok(Plan::One(PartitionId(1))));
                assert!(is_there, "{kind} {}", method.name);
            }
        }
    }

    #[test]
    fn a_kind_has_the_streams_of_its_services() {
        let kinds = Kinds::standard();
        for kind in atomix_proto::kinds::KINDS {
            for method in kind.streams {
                let stream = kinds.streaming(&operation(kind.name, "it", method, 0, &()));
                assert!(stream.is_ok(), "{} {method}", kind.name);
            }
            for method in kind.methods {
                let stream = kinds.streaming(&operation(kind.name, "it", method, 0, &()));
                assert!(stream.is_err(), "{} {method}", kind.name);
            }
        }
    }

    #[test]
    fn a_stream_that_a_kind_does_not_have_is_refused_by_its_name() {
        let kinds = Kinds::with_test_kind();
        for (kind, method) in [("counter", "Events"), ("map", "Elements"), ("probe", "Put")] {
            let refused = kinds
                .streaming(&operation(kind, "it", method, 0, &()))
                .err();
            let message = format!("{kind} has no method {method:?}");
            assert_eq!(refused, Some(OperationError::unimplemented(message)));
        }
    }
}
