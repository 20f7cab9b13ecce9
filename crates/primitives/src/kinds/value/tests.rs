#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test that cannot go on fails"
)]

mod model;
mod time;

use atomix_proto::multiraft::v1::Operation;
use proptest::prelude::*;
use proptest::sample::select;

use super::*;
use crate::tests::rules::{edits, forged_snapshots_never_panic, logs, replicas_agree};
use crate::tests::support::*;
use crate::{Access, Applied, Kinds, Outcome, Reply, SessionId};

fn ask(method: &str, request: &impl Message) -> Operation {
    operation("value", "v", method, 0, request)
}

fn set_with(value: &str, ttl: Option<prost_types::Duration>) -> Operation {
    let value = value.to_owned().into();
    ask(
        "Set",
        &SetRequest {
            id: None,
            value,
            ttl,
        },
    )
}

fn set(value: &str) -> Operation {
    set_with(value, None)
}

fn set_for(value: &str, ttl: Duration) -> Operation {
    set_with(value, Some(ttl.try_into().unwrap()))
}

fn insert_with(value: &str, ttl: Option<prost_types::Duration>) -> Operation {
    let value = value.to_owned().into();
    ask(
        "Insert",
        &InsertRequest {
            id: None,
            value,
            ttl,
        },
    )
}

fn insert(value: &str) -> Operation {
    insert_with(value, None)
}

fn update_with(value: &str, prev_version: u64, ttl: Option<prost_types::Duration>) -> Operation {
    let request = UpdateRequest {
        id: None,
        value: value.to_owned().into(),
        prev_version,
        ttl,
    };
    ask("Update", &request)
}

fn update(value: &str, prev_version: u64) -> Operation {
    update_with(value, prev_version, None)
}

fn delete(prev_version: u64) -> Operation {
    ask(
        "Delete",
        &DeleteRequest {
            id: None,
            prev_version,
        },
    )
}

fn get() -> Operation {
    ask("Get", &GetRequest { id: None })
}

fn present(partition: &Partition) -> Option<VersionedValue> {
    match partition.machine.query(&get()) {
        Ok(reply) => Some(GetResponse::decode(reply).unwrap().value.unwrap()),
        Err(error) => {
            assert_eq!(error.code, ErrorCode::NotFound);
            None
        }
    }
}

fn versioned(value: &str, version: u64) -> VersionedValue {
    VersionedValue {
        value: value.to_owned().into(),
        version,
    }
}

fn events(applied: &Applied) -> Vec<event::Event> {
    let events = applied.events.iter();
    events
        .map(|event| Event::decode(event.payload.clone()).unwrap().event.unwrap())
        .collect()
}

/// Applies one operation; its reply and what subscribers saw.
fn run(
    partition: &mut Partition,
    session: SessionId,
    operation: Operation,
) -> (Reply, Vec<event::Event>) {
    partition.next_sequence += 1;
    let command = operate(session, partition.next_sequence, 0, operation);
    let applied = partition.apply(vec![command]);
    let [Outcome::Reply(reply)] = &applied.outcomes[..] else {
        panic!("the operation was not answered");
    };
    (reply.clone(), events(&applied))
}

/// A partition with this value, and its version.
fn with_value(before: Option<&str>) -> (Partition, SessionId, u64) {
    let mut partition = Partition::new();
    let session = partition.open();
    if let Some(value) = before {
        partition.run(session, set(value)).unwrap();
    }
    let version = present(&partition).map_or(0, |value| value.version);
    (partition, session, version)
}

#[test]
fn each_method_does_what_it_says() {
    type Ask = fn(u64) -> Operation;
    type Expected = Result<Option<&'static str>, ErrorCode>;
    let exists = Err(ErrorCode::AlreadyExists);
    let missing = Err(ErrorCode::NotFound);
    let conflict = Err(ErrorCode::Aborted);
    let gone = Ok(None);
    // The value before, the operation by the version before, what is there afterwards or the error.
    let table: [(Option<&str>, Ask, Expected); 22] = [
        (None, |_| set("n"), Ok(Some("n"))),
        (Some("o"), |_| set("n"), Ok(Some("n"))),
        (Some("o"), |_| set("o"), Ok(Some("o"))),
        (Some("o"), |_| set(""), Ok(Some(""))),
        (None, |_| insert("n"), Ok(Some("n"))),
        (None, |_| insert(""), Ok(Some(""))),
        (Some("o"), |_| insert("n"), exists),
        (Some(""), |_| insert("n"), exists),
        (None, |_| update("n", 0), missing),
        (None, |_| update("n", 1), missing),
        (Some("o"), |_| update("n", 0), Ok(Some("n"))),
        (Some("o"), |version| update("n", version), Ok(Some("n"))),
        (Some("o"), |version| update("n", version + 1), conflict),
        (Some("o"), |version| update("n", version - 1), conflict),
        (Some("o"), |_| update("n", u64::MAX), conflict),
        (None, |_| delete(0), missing),
        (None, |_| delete(1), missing),
        (Some("o"), |_| delete(0), gone),
        (Some(""), |_| delete(0), gone),
        (Some("o"), delete, gone),
        (Some("o"), |version| delete(version + 1), conflict),
        (Some("o"), |_| delete(u64::MAX), conflict),
    ];
    for (case, (before, operation, expected)) in table.into_iter().enumerate() {
        let (mut partition, session, version) = with_value(before);
        let earlier = present(&partition);
        let operation = operation(version);
        let method = operation.method.clone();
        let (reply, told) = run(&mut partition, session, operation);
        let later = present(&partition);
        match expected {
            Err(error) => {
                assert_eq!(code(&reply), Some(error), "case {case}");
                assert_eq!(later, earlier, "case {case}");
                assert_eq!(told, vec![], "case {case}");
            }
            Ok(None) => {
                let reply = DeleteResponse::decode(reply.unwrap()).unwrap();
                assert_eq!((reply.value, later), (earlier.clone(), None), "case {case}");
                let deleted = event::Deleted {
                    value: earlier,
                    expired: false,
                };
                assert_eq!(told, vec![event::Event::Deleted(deleted)], "case {case}");
                assert_eq!(partition.machine.primitives().count(), 0, "case {case}");
            }
            Ok(Some(value)) => {
                // Set, Insert and Update answer alike on the wire.
                let reply = SetResponse::decode(reply.unwrap()).unwrap();
                assert!(reply.version > version, "case {case}");
                assert_eq!(later, Some(versioned(value, reply.version)), "case {case}");
                assert_eq!(reply.prev_value, earlier, "case {case} {method}");
                let expected = match earlier {
                    None => event::Event::Created(event::Created { value: later }),
                    Some(_) => event::Event::Updated(event::Updated {
                        value: later,
                        prev_value: earlier,
                    }),
                };
                assert_eq!(told, vec![expected], "case {case}");
            }
        }
        assert_eq!(
            partition.restored().bytes(),
            partition.bytes(),
            "case {case}"
        );
    }
}

#[test]
fn a_bad_ttl_is_invalid_before_and_after_the_proposal_and_changes_nothing() {
    let (mut partition, session, _) = with_value(Some("o"));
    let before = present(&partition);
    for (seconds, nanos) in [(-1, 0), (0, -1), (0, 1_000_000_000)] {
        let ttl = Some(prost_types::Duration { seconds, nanos });
        for operation in [
            set_with("n", ttl),
            insert_with("n", ttl),
            update_with("n", 0, ttl),
        ] {
            let early = Kinds::standard().validate(&operation).unwrap_err();
            assert_eq!(early.code, ErrorCode::InvalidArgument);
            assert!(early.message.starts_with("ttl: "), "{}", early.message);
            assert_eq!(partition.run(session, operation), Err(early));
        }
    }
    assert_eq!(present(&partition), before);
}

#[test]
fn only_get_is_a_read_and_garbage_is_invalid() {
    let kinds = Kinds::standard();
    for operation in [set("v"), insert("v"), update("v", 0), delete(0), get()] {
        let access = match operation.method.as_str() {
            "Get" => Access::Read,
            _ => Access::Write,
        };
        assert_eq!(kinds.access(&operation), Ok(access));
        let garbage = Operation {
            request: vec![0xff; 3].into(),
            ..operation
        };
        let error = kinds.validate(&garbage).unwrap_err();
        assert_eq!(error.code, ErrorCode::InvalidArgument);
    }
}

/// A defect of the original; its Delete had it too.
#[test]
fn a_wrong_version_changes_nothing() {
    let (mut partition, session, version) = with_value(Some("o"));
    for refused in [update("n", version + 1), delete(version + 1)] {
        let (reply, told) = run(&mut partition, session, refused);
        assert_eq!(code(&reply), Some(ErrorCode::Aborted));
        assert_eq!(told, vec![]);
        assert_eq!(present(&partition), Some(versioned("o", version)));
    }
}

#[test]
fn bytes_count_the_value_and_not_the_request_that_brought_it() {
    let (mut partition, session, _) = with_value(Some(""));
    let empty = partition.machine.usage().primitives;
    partition.run(session, set("0123456789")).unwrap();
    assert_eq!(partition.machine.usage().primitives, empty + 10);
    assert_eq!(
        partition.restored().machine.usage(),
        partition.machine.usage()
    );
    partition.run(session, set("01234")).unwrap();
    assert_eq!(partition.machine.usage().primitives, empty + 5);
    partition.run(session, delete(0)).unwrap();
    assert_eq!(partition.machine.usage().primitives, 0);
}

fn text() -> impl Strategy<Value = &'static str> {
    select(vec!["", "a", "b"])
}

fn ttl() -> impl Strategy<Value = Option<Duration>> {
    proptest::option::of((0_u64..900).prop_map(Duration::from_millis))
}

fn wire(ttl: Option<Duration>) -> Option<prost_types::Duration> {
    ttl.map(|ttl| ttl.try_into().unwrap())
}

fn random_operation() -> impl Strategy<Value = Operation> {
    let ttl = || {
        let any = (-1_i64..3, -1_i32..1_000_000_001)
            .prop_map(|(seconds, nanos)| Some(prost_types::Duration { seconds, nanos }));
        prop_oneof![9 => ttl().prop_map(wire), 1 => any]
    };
    // Versions are numbers of the operation counter: small ones are likely to be there.
    let version = || prop_oneof![1 => Just(0), 3 => 0_u64..40];
    prop_oneof![
        (text(), ttl()).prop_map(|(text, ttl)| set_with(text, ttl)),
        (text(), ttl()).prop_map(|(text, ttl)| insert_with(text, ttl)),
        (text(), version(), ttl()).prop_map(|(text, version, ttl)| update_with(text, version, ttl)),
        version().prop_map(delete),
        Just(get()),
    ]
}

proptest! {
    #[test]
    fn replicas_agree_over_any_log(log in logs(random_operation()), restore_at in 0_usize..60) {
        replicas_agree(&log, restore_at)?;
    }

    #[test]
    fn a_forged_section_never_panics(log in logs(random_operation()), edits in edits()) {
        forged_snapshots_never_panic(&log, &edits)?;
    }
}
