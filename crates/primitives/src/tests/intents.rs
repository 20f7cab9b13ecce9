//! Key intents and waiting for keys.

use super::support::*;
use crate::{ErrorCode, Outcome, Query};

#[test]
fn who_meets_a_key_with_an_intent_waits_for_its_end_in_order() {
    let mut partition = Partition::new();
    let session = partition.open();
    partition
        .run(session, prepare(1, &["k"], "decided"))
        .unwrap();
    assert_eq!(
        partition.one(operate(session, 1, 0, put("k", "one"))),
        Outcome::Pending
    );
    assert_eq!(
        partition.one(operate(session, 2, 0, put("k", "two"))),
        Outcome::Pending
    );
    assert!(partition.run(session, put("other", "free")).is_ok());

    let applied = partition.apply(vec![operate(session, 3, 0, finish(1, &["k"], true))]);
    assert_eq!(applied.freed_keys.len(), 1);
    let one = item(completed(&applied, session, 1).unwrap());
    let two = item(completed(&applied, session, 2).unwrap());
    assert!(one.version < two.version);
    let values: Vec<&[u8]> = applied.events.iter().map(|event| &*event.key).collect();
    assert_eq!(values.len(), 3);
    assert_eq!(item(partition.machine.query(&get("k"))).value, "two");
    assert_eq!(
        partition.one(operate(session, 1, 0, put("k", "one"))),
        Outcome::Reply(completed(&applied, session, 1).unwrap())
    );
}

#[test]
fn a_read_never_reads_around_an_intent() {
    let mut partition = Partition::new();
    let session = partition.open();
    partition.run(session, put("k", "before")).unwrap();
    partition.run(session, prepare(1, &["k"], "after")).unwrap();
    let Query::WaitsForKey(primitive, key) = partition.machine.try_query(&get("k")) else {
        panic!("the read did not wait");
    };
    assert_eq!(
        code(&partition.machine.query(&get("k"))),
        Some(ErrorCode::Unavailable)
    );
    let applied = partition.apply(vec![operate(session, 1, 0, finish(1, &["k"], false))]);
    assert_eq!(applied.freed_keys, vec![(primitive, key)]);
    assert_eq!(item(partition.machine.query(&get("k"))).value, "before");
}

#[test]
fn a_read_in_the_log_waits_too() {
    let mut partition = Partition::new();
    let session = partition.open();
    partition
        .run(session, prepare(1, &["k"], "decided"))
        .unwrap();
    assert_eq!(
        partition.one(operate(session, 1, 0, get("k"))),
        Outcome::Pending
    );
    let applied = partition.apply(vec![operate(session, 2, 0, finish(1, &["k"], true))]);
    assert_eq!(
        item(completed(&applied, session, 1).unwrap()).value,
        "decided"
    );
}

#[test]
fn a_read_that_waited_in_the_log_leaves_no_empty_primitive_behind() {
    let mut partition = Partition::new();
    let session = partition.open();
    partition
        .run(session, prepare(1, &["k"], "dropped"))
        .unwrap();
    partition.one(operate(session, 1, 0, get("k")));
    let applied = partition.apply(vec![operate(session, 2, 0, finish(1, &["k"], false))]);
    let missing = completed(&applied, session, 1).unwrap();
    assert_eq!(code(&missing), Some(ErrorCode::NotFound));
    assert_eq!(partition.machine.primitives().count(), 0);
    assert_eq!(partition.machine.usage().primitives, 0);
}

#[test]
fn a_transaction_never_waits_for_another_and_changes_nothing_when_it_is_busy() {
    let mut partition = Partition::new();
    let session = partition.open();
    partition.run(session, prepare(1, &["b"], "one")).unwrap();
    let busy = partition.run(session, prepare(2, &["a", "b"], "two"));
    assert_eq!(code(&busy), Some(ErrorCode::Aborted));
    assert_eq!(partition.machine.intents().count(), 1);
    // Only its own transaction ends an intent.
    partition.run(session, finish(2, &["b"], true)).unwrap();
    assert_eq!(partition.machine.intents().count(), 1);
    partition.run(session, finish(1, &["b"], true)).unwrap();
    assert_eq!(partition.machine.intents().count(), 0);
    assert_eq!(item(partition.machine.query(&get("b"))).value, "one");
}

#[test]
fn an_intent_keeps_an_empty_primitive_and_the_time_when_it_was_placed() {
    let mut partition = Partition::new();
    let session = partition.open();
    let second = std::time::Duration::from_secs(1);
    partition.tick(second);
    partition.run(session, prepare(1, &["k"], "v")).unwrap();
    partition.tick(second);
    partition.run(session, prepare(1, &["k"], "w")).unwrap();
    let restored = partition.restored();
    let (_, key, intent) = restored.machine.intents().next().unwrap();
    assert_eq!((&**key, intent.placed_at), (&b"k"[..], second));
    assert_eq!(intent.payload, "w");
    partition.run(session, finish(1, &["k"], false)).unwrap();
    assert_eq!(partition.machine.primitives().count(), 0);
}

#[test]
fn an_operation_that_waits_for_a_key_can_be_cancelled_released_and_lost() {
    let mut partition = Partition::new();
    let (one, two) = (partition.open(), partition.open());
    partition.run(one, prepare(1, &["k"], "decided")).unwrap();
    partition.one(operate(one, 1, 0, put("k", "cancelled")));
    let mut owned = put("k", "released");
    owned.owner = 7;
    partition.one(operate(one, 2, 0, owned));
    partition.one(operate(two, 1, 0, put("k", "lost")));
    partition.one(operate(one, 3, 0, put("k", "kept")));

    let applied = partition.apply(vec![cancel(one, 1), release_owner(one, 7), close(two)]);
    let codes: Vec<_> = applied
        .completed
        .iter()
        .map(|one| code(&one.result))
        .collect();
    assert_eq!(
        codes,
        [
            Some(ErrorCode::Cancelled),
            Some(ErrorCode::Cancelled),
            Some(ErrorCode::Unknown)
        ]
    );
    let mut restored = partition.restored();
    let end = operate(one, 4, 0, finish(1, &["k"], false));
    let applied = partition.apply(vec![end.clone()]);
    assert_eq!(applied.completed.len(), 1);
    assert_eq!(applied.events.len(), 1);
    assert_eq!(restored.apply(vec![end]), applied);
    assert_eq!(item(partition.machine.query(&get("k"))).value, "kept");
}

#[test]
fn an_operation_may_wait_for_several_keys_one_after_the_other() {
    let mut partition = Partition::new();
    let session = partition.open();
    partition.run(session, prepare(1, &["k"], "one")).unwrap();
    partition.one(operate(session, 1, 0, put("k", "mine")));
    // The second intent is placed in the very entry that ends the first, before the waiter runs.
    let applied = partition.apply(vec![
        operate(session, 2, 0, finish(1, &["k"], true)),
        operate(session, 3, 0, prepare(2, &["k"], "two")),
        operate(session, 4, 0, put("k", "later")),
    ]);
    assert!(completed(&applied, session, 1).is_some());
    assert_eq!(applied.outcomes[2], Outcome::Pending);
    let applied = partition.apply(vec![operate(session, 5, 0, finish(2, &["k"], true))]);
    assert!(completed(&applied, session, 4).is_some());
    assert_eq!(item(partition.machine.query(&get("k"))).value, "later");
}
