//! Random entries over few names, so that they meet each other often.

use std::time::Duration;

use atomix_proto::multiraft::v1::{CommandBatch, Operate, Operation, SetLimits, Tick, command};
use proptest::prelude::*;
use proptest::sample::select;

use super::support::*;
use crate::SessionId;

pub(super) fn batches(count: usize) -> impl Strategy<Value = Vec<CommandBatch>> {
    batches_of(count, an_operation().boxed())
}

/// The same with other operations.
pub(super) fn batches_of(
    count: usize,
    operation: BoxedStrategy<Operation>,
) -> impl Strategy<Value = Vec<CommandBatch>> {
    proptest::collection::vec(entry(operation), 1..count).prop_map(|entries| {
        let mut time = Duration::ZERO;
        let mut batches = Vec::new();
        for (later, commands) in entries {
            time += Duration::from_millis(later);
            batches.push(batch(time, commands));
        }
        batches
    })
}

fn entry(
    operation: BoxedStrategy<Operation>,
) -> impl Strategy<Value = (u64, Vec<command::Command>)> {
    (
        0_u64..400,
        proptest::collection::vec(command(operation), 0..5),
    )
}

/// Ids of sessions are numbers of the operation counter: small ones are likely to have been given.
fn session() -> impl Strategy<Value = SessionId> {
    (0_u64..6).prop_map(SessionId)
}

fn command(operation: BoxedStrategy<Operation>) -> impl Strategy<Value = command::Command> {
    prop_oneof![
        3 => Just(open_session()),
        1 => session().prop_map(close),
        1 => proptest::collection::vec(session(), 0..3).prop_map(|ids| expire(&ids)),
        30 => operating(operation),
        3 => (session(), 0_u64..24).prop_map(|(id, sequence)| cancel(id, sequence)),
        2 => (session(), 0_u64..4).prop_map(|(id, owner)| release_owner(id, owner)),
        1 => (session(), 0_u64..4).prop_map(|(id, owner)| release_owner_in(id, owner, "probe", "p")),
        1 => Just(command::Command::Tick(Tick {})),
        1 => limits(),
    ]
}

fn operating(operation: BoxedStrategy<Operation>) -> impl Strategy<Value = command::Command> {
    let acknowledged = prop_oneof![4 => Just(0_u64), 1 => 0_u64..12, 1 => any::<u64>()];
    let open = proptest::collection::vec(0_u64..24, 0..4);
    let operation = proptest::option::weighted(0.98, owned_or_damaged(operation));
    (session(), 0_u64..24, acknowledged, open, operation).prop_map(
        |(session, sequence, acknowledged, open, operation)| {
            command::Command::Operate(Operate {
                session: session.0,
                sequence,
                acknowledged,
                operation,
                open,
            })
        },
    )
}

fn an_operation() -> impl Strategy<Value = Operation> {
    let key = || select(vec!["a", "b", "c"]);
    let keys = || proptest::collection::vec(key(), 0..3);
    let delta = prop_oneof![-3_i64..4, any::<i64>()];
    let ttl = prop_oneof![Just(0_u64), 1_u64..2_000, Just(u64::MAX / 1_000_000)];
    prop_oneof![
        (select(vec!["one", "two"]), delta).prop_map(|(name, delta)| increment(name, delta)),
        (key(), ttl).prop_map(|(key, ttl)| put_with_ttl(key, "v", Duration::from_millis(ttl))),
        key().prop_map(get),
        key().prop_map(remove),
        (0_u64..4, 0_u64..900)
            .prop_map(|(owner, wait)| acquire_within(owner, Duration::from_millis(wait))),
        (0_u64..4).prop_map(unlock),
        (1_u64..4, keys()).prop_map(|(transaction, keys)| prepare(transaction, &keys, "t")),
        (1_u64..4, keys(), any::<bool>()).prop_map(|(transaction, keys, commit)| finish(
            transaction,
            &keys,
            commit
        )),
    ]
}

/// Adds an owner to those that have none, and makes the request of a few arbitrary bytes.
fn owned_or_damaged(operation: BoxedStrategy<Operation>) -> impl Strategy<Value = Operation> {
    let garbage = proptest::collection::vec(any::<u8>(), 0..20);
    (
        operation,
        0_u64..4,
        proptest::option::weighted(0.05, garbage),
    )
        .prop_map(|(mut operation, owner, garbage)| {
            if operation.owner == 0 {
                operation.owner = owner;
            }
            if let Some(garbage) = garbage {
                operation.request = garbage.into();
            }
            operation
        })
}

fn limits() -> impl Strategy<Value = command::Command> {
    (0_u64..2_000, 0_u64..6, 0_u64..12, 0_u64..2_000).prop_map(
        |(event_ring_bytes, event_ring_count, operations, bytes)| {
            set_limits(SetLimits {
                event_ring_bytes,
                event_ring_count,
                session_window_operations: operations,
                session_window_reply_bytes: bytes,
            })
        },
    )
}
