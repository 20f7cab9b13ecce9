//! Active versions, and what a replica must stop at.

use std::sync::Arc;

use atomix_proto::multiraft::v1::{Command, CommandBatch, RaiseVersion, command};

use super::support::*;
use crate::probe::Empty;
use crate::{ErrorCode, Kinds, Outcome, SnapshotError, StateMachine, Stop};

fn raise(active_version: u32) -> command::Command {
    command::Command::RaiseVersion(RaiseVersion { active_version })
}

fn later() -> atomix_proto::multiraft::v1::Operation {
    operation("probe", "p", "Later", 0, &Empty {})
}

fn supporting(version: u32) -> Partition {
    let kinds = Arc::new(Kinds::with_test_kind().supporting(version));
    Partition {
        machine: StateMachine::new(kinds),
        ..Partition::new()
    }
}

#[test]
fn a_version_beyond_this_program_stops_it_before_anything_of_the_entry_is_applied() {
    let mut partition = Partition::new();
    let session = partition.open();
    let before = partition.bytes();
    let applied = partition.apply(vec![operate(session, 1, 0, increment("c", 1)), raise(2)]);
    let stop = Stop::Version {
        index: 2,
        version: 2,
        supported: 1,
    };
    assert_eq!(applied.stop, Some(stop.clone()));
    assert_eq!(applied.outcomes, vec![]);
    assert_eq!(partition.bytes(), before);
    assert_eq!(partition.machine.applied_index(), 1);

    let applied = partition.apply(vec![operate(session, 1, 0, increment("c", 1))]);
    assert_eq!(applied.stop.as_ref(), Some(&stop));
    assert_eq!(partition.machine.stopped(), Some(&stop));
    assert_eq!(partition.bytes(), before);
}

#[test]
fn an_unknown_command_kind_or_method_stops_it() {
    let unknown_command = CommandBatch {
        commands: vec![Command { command: None }],
        ..CommandBatch::default()
    };
    let mut partition = Partition::new();
    assert_eq!(
        partition.machine.apply(1, &unknown_command).stop,
        Some(Stop::UnknownCommand { index: 1 })
    );
    for unknown in [
        operation("sundial", "s", "Get", 0, &()),
        operation("counter", "c", "Square", 0, &()),
        later(),
    ] {
        let mut partition = Partition::new();
        let session = partition.open();
        let applied = partition.apply(vec![operate(session, 1, 0, unknown)]);
        assert!(matches!(
            applied.stop,
            Some(Stop::UnknownOperation { index: 2, .. })
        ));
    }
}

#[test]
fn an_operation_is_refused_until_its_version_is_active() {
    let mut partition = supporting(2);
    let session = partition.open();
    let early = partition.machine.validate(&later()).unwrap_err();
    assert_eq!(early.code, ErrorCode::Unimplemented);
    let refused = partition.run(session, later());
    assert_eq!(code(&refused), Some(ErrorCode::Unimplemented));
    assert_eq!(partition.one(raise(2)), Outcome::Done);
    assert_eq!(partition.machine.active_version(), 2);
    assert_eq!(partition.machine.validate(&later()), Ok(()));
    assert!(partition.run(session, later()).is_ok());
    // It never goes back.
    partition.one(raise(1));
    assert_eq!(partition.machine.active_version(), 2);
}

#[test]
fn a_snapshot_of_a_newer_version_is_refused() {
    let mut partition = supporting(2);
    partition.one(raise(2));
    let error = StateMachine::restore(kinds(), &mut partition.bytes().as_slice());
    assert!(matches!(error.err(), Some(SnapshotError::Unsupported(_))));
}

#[test]
fn a_snapshot_with_an_unknown_kind_is_refused() {
    let mut partition = Partition::new();
    let session = partition.open();
    partition.run(session, put("k", "v")).unwrap();
    let standard = Arc::new(Kinds::standard());
    let error = StateMachine::restore(standard, &mut partition.bytes().as_slice());
    assert!(matches!(error.err(), Some(SnapshotError::Unsupported(_))));
}

#[test]
fn an_entry_is_never_applied_twice() {
    let mut partition = Partition::new();
    let session = partition.open();
    partition.run(session, increment("c", 1)).unwrap();
    partition.index = 0;
    let applied = partition.apply(vec![operate(session, 5, 0, increment("c", 1))]);
    let stop = Stop::Repeated {
        index: 1,
        applied: 2,
    };
    assert_eq!(applied.stop, Some(stop));
    assert_eq!(counter_value(&partition.machine, "c"), 1);
}

#[test]
fn a_write_is_no_query_and_unknown_operations_are_unimplemented() {
    let machine = Partition::new().machine;
    let asked = |operation| code(&machine.query(&operation));
    assert_eq!(asked(increment("c", 1)), Some(ErrorCode::InvalidArgument));
    let unknown = operation("counter", "c", "Square", 0, &());
    assert_eq!(asked(unknown), Some(ErrorCode::Unimplemented));
    let unnamed = operation("counter", "", "Get", 0, &());
    assert_eq!(asked(unnamed), Some(ErrorCode::InvalidArgument));
    let long = operation("counter", &"c".repeat(1_025), "Get", 0, &());
    assert_eq!(asked(long), Some(ErrorCode::InvalidArgument));
}

#[test]
fn every_method_of_every_kind_is_parsed() {
    let kinds = kinds();
    for kind in kinds.names() {
        for method in kinds.methods(kind) {
            let operation = operation(kind, "p", method.name, 1, &());
            // An empty request lacks what some methods need; none may be unknown.
            let refused = kinds.validate(&operation).err().map(|error| error.code);
            let allowed = matches!(refused, None | Some(ErrorCode::InvalidArgument));
            assert!(allowed, "{kind} {}: {refused:?}", method.name);
        }
    }
}
