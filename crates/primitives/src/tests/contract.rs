//! What the frame does with kinds that break their contract or change their section.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use atomix_proto::multiraft::v1::{RaiseVersion, command};
use bytes::Bytes;

use super::support::*;
use crate::spread::Spread;
use crate::{
    Answer, Context, ErrorCode, Kinds, Method, OperationError, Outcome, Primitive, Progress,
    SectionReader, SectionWriter, SnapshotError, StateMachine, TimerId, View,
};

/// Does what a kind must not do, or need not: each method once.
#[derive(Clone, Default)]
struct Rude {
    rings: u64,
}

impl Primitive for Rude {
    type Request = String;

    const KIND: &'static str = "rude";
    const METHODS: &'static [Method] = &[
        Method::write("WaitForFreeKey"),
        Method::write("AnswerItself"),
        Method::write("AnswerOthers"),
        Method::write("ClearOthersTimer"),
        Method::write("RingForEver"),
    ];
    const OWNS: bool = true;

    fn parse(method: &str, _request: &Bytes) -> Result<String, OperationError> {
        Ok(method.to_owned())
    }

    fn execute(
        &mut self,
        method: String,
        context: &mut Context<'_>,
    ) -> Result<Progress, OperationError> {
        let caller = context.caller().expect("it runs for an operation");
        match method.as_str() {
            "WaitForFreeKey" => Ok(Progress::WaitsForKey("k".into())),
            "AnswerItself" => {
                context.complete(caller.operation, Ok("at once".into()));
                Ok(Progress::Pending)
            }
            "AnswerOthers" => {
                let mut other = caller.operation;
                other.sequence.0 -= 1;
                context.complete(other, Ok("forged".into()));
                Ok(Progress::Done(Bytes::new()))
            }
            "ClearOthersTimer" => {
                for number in 0..100 {
                    context.clear_timer(TimerId {
                        deadline: Duration::from_secs(1),
                        number,
                    });
                }
                Ok(Progress::Done(Bytes::new()))
            }
            _ => {
                context.set_timer(Duration::ZERO, Bytes::new());
                Ok(Progress::Done(Bytes::new()))
            }
        }
    }

    fn query(&self, _method: String, _view: &View<'_>) -> Result<Answer, OperationError> {
        Err(OperationError::invalid("there is nothing to read"))
    }

    fn timer(&mut self, _timer: TimerId, tag: &Bytes, context: &mut Context<'_>) {
        self.rings += 1;
        context.emit(Bytes::new(), self.rings.to_be_bytes().to_vec().into());
        context.set_timer(Duration::ZERO, tag.clone());
    }

    fn is_empty(&self) -> bool {
        self.rings == 0
    }

    fn bytes(&self) -> u64 {
        8
    }

    fn write(&self, _version: u32, section: &mut SectionWriter<'_>) -> io::Result<()> {
        section.record(&self.rings)
    }

    fn read(_version: u32, section: &mut SectionReader<'_>) -> Result<Self, SnapshotError> {
        let rings = section.required()?;
        Ok(Self { rings })
    }
}

impl Spread for Rude {}

fn partition(kinds: Kinds) -> Partition {
    Partition {
        machine: StateMachine::new(Arc::new(kinds)),
        ..Partition::new()
    }
}

fn rude(method: &str) -> atomix_proto::multiraft::v1::Operation {
    operation("rude", "r", method, 0, &())
}

#[test]
fn waiting_for_a_free_key_is_an_error_instead_of_a_wait_without_end() {
    let mut partition = partition(Kinds::with_test_kind().with::<Rude>());
    let session = partition.open();
    let reply = partition.run(session, rude("WaitForFreeKey"));
    assert_eq!(code(&reply), Some(ErrorCode::Internal));
    assert_eq!(partition.machine.primitives().count(), 0);
}

#[test]
fn an_operation_may_be_completed_by_its_own_call() {
    let mut partition = partition(Kinds::with_test_kind().with::<Rude>());
    let session = partition.open();
    let reply = partition.run(session, rude("AnswerItself"));
    assert_eq!(reply, Ok("at once".into()));
}

#[test]
fn an_operation_that_is_done_or_waits_for_a_key_cannot_be_completed() {
    let mut partition = partition(Kinds::with_test_kind().with::<Rude>());
    let session = partition.open();
    let done = partition.one(operate(session, 1, 0, increment("c", 1)));
    partition.one(operate(session, 2, 0, rude("AnswerOthers")));
    assert_eq!(
        partition.one(operate(session, 1, 0, increment("c", 1))),
        done
    );

    partition.run(session, prepare(1, &["k"], "v")).unwrap();
    partition.one(operate(session, 3, 0, put("k", "w")));
    let applied = partition.apply(vec![operate(session, 4, 0, rude("AnswerOthers"))]);
    assert_eq!(applied.completed, vec![]);
    let still = partition.one(operate(session, 3, 0, put("k", "w")));
    assert_eq!(still, Outcome::Pending);
}

#[test]
fn a_primitive_cannot_clear_the_timers_of_another() {
    let mut partition = partition(Kinds::with_test_kind().with::<Rude>());
    let session = partition.open();
    let second = Duration::from_secs(1);
    partition
        .run(session, put_with_ttl("k", "v", second))
        .unwrap();
    partition.run(session, rude("ClearOthersTimer")).unwrap();
    assert_eq!(partition.machine.next_timer(), Some(second));
}

#[test]
fn a_timer_that_sets_a_due_timer_fires_once_per_entry() {
    let mut partition = partition(Kinds::with_test_kind().with::<Rude>());
    let session = partition.open();
    partition.run(session, rude("RingForEver")).unwrap();
    for _ in 0..3 {
        assert_eq!(partition.tick(Duration::ZERO).events.len(), 1);
    }
}

/// A kind whose section changes with active version 2; `NEWEST` is what the program knows.
#[derive(Clone, Default)]
struct Evolving<const NEWEST: u32>(u64);

impl<const NEWEST: u32> Primitive for Evolving<NEWEST> {
    type Request = ();

    const KIND: &'static str = "evolving";
    const METHODS: &'static [Method] = &[Method::write("Grow")];
    const OWNS: bool = false;
    const NEWEST_SECTION: u32 = NEWEST;

    fn parse(_method: &str, _request: &Bytes) -> Result<(), OperationError> {
        Ok(())
    }

    fn execute(
        &mut self,
        _request: (),
        _context: &mut Context<'_>,
    ) -> Result<Progress, OperationError> {
        self.0 += 1;
        Ok(Progress::Done(Bytes::new()))
    }

    fn query(&self, _request: (), _view: &View<'_>) -> Result<Answer, OperationError> {
        Err(OperationError::invalid("there is nothing to read"))
    }

    fn is_empty(&self) -> bool {
        self.0 == 0
    }

    fn bytes(&self) -> u64 {
        8
    }

    fn section_version(active_version: u32) -> u32 {
        active_version.min(2)
    }

    fn write(&self, version: u32, section: &mut SectionWriter<'_>) -> io::Result<()> {
        section.record(&(self.0 * u64::from(version)))
    }

    fn read(version: u32, section: &mut SectionReader<'_>) -> Result<Self, SnapshotError> {
        let stored: u64 = section.required()?;
        Ok(Self(stored / u64::from(version)))
    }
}

impl<const NEWEST: u32> Spread for Evolving<NEWEST> {}

#[test]
fn a_section_is_written_as_all_replicas_can_read_it_and_a_newer_one_is_refused() {
    let old = || Arc::new(Kinds::empty().with::<Evolving<1>>().supporting(2));
    let new = || Arc::new(Kinds::empty().with::<Evolving<2>>().supporting(2));
    let mut partition = partition(Kinds::empty().with::<Evolving<2>>().supporting(2));
    let session = partition.open();
    let grow = operation("evolving", "e", "Grow", 0, &());
    partition.run(session, grow).unwrap();
    let bytes = partition.bytes();
    for kinds in [old(), new()] {
        let restored = StateMachine::restore(kinds, &mut bytes.as_slice()).unwrap();
        assert_eq!(snapshot_bytes(&restored), bytes);
    }

    partition.one(command::Command::RaiseVersion(RaiseVersion {
        active_version: 2,
    }));
    let bytes = partition.bytes();
    let restored = StateMachine::restore(new(), &mut bytes.as_slice()).unwrap();
    assert_eq!(snapshot_bytes(&restored), bytes);
    let refused = StateMachine::restore(old(), &mut bytes.as_slice()).err();
    assert!(matches!(refused, Some(SnapshotError::Unsupported(_))));
}

#[test]
fn a_state_machine_and_its_snapshot_can_change_threads() {
    fn can_change_threads<T: Send + Sync + 'static>() {}
    can_change_threads::<StateMachine>();
    can_change_threads::<crate::Snapshot>();
}
