//! A primitive under test in a real state machine, and what must hold for every kind.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test that cannot go on fails"
)]

use std::sync::Arc;
use std::time::Duration;

use atomix_proto::multiraft::v1::{
    Cancel, CloseSession, Command, CommandBatch, OpenSession, Operate, Operation, Page,
    PageRequest, ReleaseOwner, Tick, command,
};
use bytes::Bytes;
use proptest::prelude::*;
use proptest::sample::select;
use prost::Message;

use crate::tests::rules::Edit;
pub(crate) use crate::tests::rules::edits;

use crate::{
    Admission, Applied, ErrorCode, Kinds, OperationId, Outcome, PrimitiveKey, Query, Reply,
    Sequence, SessionId, StateMachine, Transaction,
};

const NAME: &str = "p";

/// One primitive of a kind in a partition with one session.
pub(crate) struct Fixture {
    pub(crate) kind: &'static str,
    pub(crate) machine: StateMachine,
    pub(crate) session: SessionId,
    /// What every entry so far has produced.
    pub(crate) applied: Vec<Applied>,
    time: Duration,
    index: u64,
}

impl Fixture {
    pub(crate) fn new(kind: &'static str) -> Self {
        let mut fixture = Self {
            kind,
            machine: machine(),
            session: SessionId(0),
            applied: Vec::new(),
            time: Duration::ZERO,
            index: 0,
        };
        fixture.session = fixture.open();
        fixture
    }

    pub(crate) fn open(&mut self) -> SessionId {
        match self.apply(open()) {
            Outcome::Session(session) => session,
            other => panic!("opening a session came out as {other:?}"),
        }
    }

    pub(crate) fn apply(&mut self, command: command::Command) -> Outcome {
        self.index += 1;
        let applied = self.machine.apply(self.index, &entry(self.time, command));
        assert_eq!(applied.stop, None);
        let outcome = applied.outcomes[0].clone();
        self.applied.push(applied);
        outcome
    }

    /// Runs an operation that is answered at once.
    pub(crate) fn run<R: Message + Default>(
        &mut self,
        method: &str,
        request: &impl Message,
    ) -> Result<R, ErrorCode> {
        self.run_for(1, method, request)
    }

    /// The same for an owner.
    pub(crate) fn run_for<R: Message + Default>(
        &mut self,
        owner: u64,
        method: &str,
        request: &impl Message,
    ) -> Result<R, ErrorCode> {
        match self.start(owner, method, request).1 {
            Outcome::Reply(reply) => decoded(&reply),
            other => panic!("{method} came out as {other:?}"),
        }
    }

    /// Proposes an operation after the leader's checks; its sequence and what came out.
    pub(crate) fn start(
        &mut self,
        owner: u64,
        method: &str,
        request: &impl Message,
    ) -> (u64, Outcome) {
        let sequence = self.index + 1;
        let operate = Operate {
            session: self.session.0,
            sequence,
            acknowledged: 0,
            operation: Some(operation(self.kind, method, owner, request)),
            open: Vec::new(),
        };
        assert_eq!(self.machine.admit(&operate), Ok(Admission::Propose));
        let outcome = self.apply(command::Command::Operate(operate));
        (sequence, outcome)
    }

    /// What a waiting operation has been answered with by now.
    pub(crate) fn completed(&self, sequence: u64) -> Option<Result<(), ErrorCode>> {
        let completed = self.applied.iter().flat_map(|applied| &applied.completed);
        let found = completed
            .filter(|completed| completed.session == self.session)
            .find(|completed| completed.sequence.0 == sequence)?;
        Some(found.result.clone().map(|_| ()).map_err(|error| error.code))
    }

    pub(crate) fn ask<R: Message + Default>(
        &self,
        method: &str,
        request: &impl Message,
    ) -> Result<R, ErrorCode> {
        let operation = operation(self.kind, method, 0, request);
        decoded(&self.machine.query(&operation))
    }

    pub(crate) fn waits_for(&self, method: &str, request: &impl Message) -> Option<Bytes> {
        match self
            .machine
            .try_query(&operation(self.kind, method, 0, request))
        {
            Query::WaitsForKey(_, key) => Some(key),
            Query::Answered(_) => None,
        }
    }

    /// How validation answers before anything is proposed.
    pub(crate) fn refused(&self, method: &str, request: &impl Message) -> (ErrorCode, String) {
        let operation = operation(self.kind, method, 1, request);
        let error = self.machine.validate(&operation).unwrap_err();
        (error.code, error.message)
    }

    pub(crate) fn tick(&mut self, later: Duration) {
        self.time += later;
        self.apply(command::Command::Tick(Tick {}));
    }

    pub(crate) fn cancel(&mut self, sequence: u64) {
        self.apply(command::Command::Cancel(Cancel {
            session: self.session.0,
            sequence,
        }));
    }

    pub(crate) fn release(&mut self, owner: u64) {
        self.apply(command::Command::ReleaseOwner(ReleaseOwner {
            session: self.session.0,
            owner,
            ..ReleaseOwner::default()
        }));
    }

    pub(crate) fn close(&mut self, session: SessionId) {
        self.apply(command::Command::CloseSession(CloseSession {
            session: session.0,
        }));
    }

    /// The events since the last call, decoded.
    pub(crate) fn events<E: Message + Default>(&mut self) -> Vec<E> {
        let applied = std::mem::take(&mut self.applied);
        let events = applied.iter().flat_map(|applied| &applied.events);
        events
            .map(|event| E::decode(event.payload.clone()).unwrap())
            .collect()
    }

    /// All entries, page by page.
    pub(crate) fn pages<E: Message + Default>(&self, method: &str, max_bytes: u32) -> Vec<Vec<E>> {
        let mut pages = Vec::new();
        let mut after = None;
        loop {
            let page: Page = self.ask(method, &PageRequest { after, max_bytes }).unwrap();
            assert!(page.operation > 0);
            let entries = page.entries.into_iter();
            pages.push(entries.map(|entry| E::decode(entry).unwrap()).collect());
            after = page.next;
            if after.is_none() {
                return pages;
            }
        }
    }

    pub(crate) fn all<E: Message + Default>(&self, method: &str) -> Vec<E> {
        self.pages(method, 0).into_iter().flatten().collect()
    }

    /// Goes on with what its own snapshot restores.
    pub(crate) fn restore(&mut self) {
        let bytes = snapshot(&self.machine);
        self.machine = StateMachine::restore(kinds(), &mut bytes.as_slice()).unwrap();
        assert_eq!(snapshot(&self.machine), bytes);
    }

    pub(crate) fn exists(&self) -> bool {
        self.machine.primitives().count() > 0
    }

    /// Places a transaction's intent on a key of the primitive, which must exist.
    pub(crate) fn place_intent(&mut self, key: &'static str) {
        let transaction = Transaction {
            coordinator: 1,
            operation: OperationId {
                session: self.session,
                sequence: Sequence(u64::MAX),
            },
        };
        let primitive = PrimitiveKey {
            kind: self.kind,
            name: NAME.into(),
        };
        let instance = self.machine.state.primitives.get_mut(&primitive).unwrap();
        let placed = instance
            .intents
            .place(key.into(), transaction, Bytes::new(), self.time);
        assert_eq!(placed, Ok(()));
    }
}

fn kinds() -> Arc<Kinds> {
    Arc::new(Kinds::standard())
}

fn machine() -> StateMachine {
    StateMachine::new(kinds())
}

pub(crate) fn snapshot(machine: &StateMachine) -> Vec<u8> {
    let mut bytes = Vec::new();
    machine.snapshot().write(&mut bytes).unwrap();
    bytes
}

fn decoded<R: Message + Default>(reply: &Reply) -> Result<R, ErrorCode> {
    match reply {
        Ok(reply) => Ok(R::decode(reply.clone()).unwrap()),
        Err(error) => Err(error.code),
    }
}

pub(crate) fn operation(kind: &str, method: &str, owner: u64, request: &impl Message) -> Operation {
    Operation {
        kind: kind.to_owned(),
        primitive: NAME.to_owned(),
        method: method.to_owned(),
        request: request.encode_to_vec().into(),
        owner,
    }
}

fn entry(time: Duration, command: command::Command) -> CommandBatch {
    CommandBatch {
        time_nanos: u64::try_from(time.as_nanos()).unwrap(),
        wall_time_millis: 0,
        commands: vec![Command {
            command: Some(command),
        }],
    }
}

fn open() -> command::Command {
    command::Command::OpenSession(OpenSession {
        timeout_nanos: 30_000_000_000,
        client: "a test".to_owned(),
    })
}

pub(crate) fn seconds(seconds: i64) -> prost_types::Duration {
    prost_types::Duration { seconds, nanos: 0 }
}

/// One step of a random run: how much later it is, in milliseconds, and what happens.
pub(crate) type Step = (u64, command::Command);

/// Random entries of three sessions and three owners with these operations of a kind: now and then a
/// request is garbage.
pub(crate) fn steps(
    kind: &'static str,
    requests: impl Strategy<Value = (&'static str, Vec<u8>)> + 'static,
) -> impl Strategy<Value = Vec<Step>> {
    let session = || 1_u64..4;
    let sequence = || 0_u64..60;
    let garbage = proptest::collection::vec(any::<u8>(), 0..20);
    let operate = (
        session(),
        sequence(),
        0_u64..4,
        requests,
        proptest::option::weighted(0.05, garbage),
    )
        .prop_map(
            move |(session, sequence, owner, (method, request), garbage)| {
                let operation = Operation {
                    kind: kind.to_owned(),
                    primitive: NAME.to_owned(),
                    method: method.to_owned(),
                    request: garbage.unwrap_or(request).into(),
                    owner,
                };
                command::Command::Operate(Operate {
                    session,
                    sequence,
                    acknowledged: 0,
                    operation: Some(operation),
                    open: Vec::new(),
                })
            },
        );
    let command = prop_oneof![
        30 => operate,
        2 => (session(), sequence()).prop_map(|(session, sequence)| {
            command::Command::Cancel(Cancel { session, sequence })
        }),
        1 => (session(), 1_u64..4).prop_map(|(session, owner)| {
            command::Command::ReleaseOwner(ReleaseOwner {
                session,
                owner,
                ..ReleaseOwner::default()
            })
        }),
        1 => Just(open()),
        1 => session().prop_map(|session| {
            command::Command::CloseSession(CloseSession { session })
        }),
    ];
    let later = select(vec![0_u64, 1, 400, 2_000]);
    proptest::collection::vec((later, command), 1..80).prop_map(|mut steps| {
        // Sessions are numbers of the operation counter, so these are 1, 2 and 3.
        for _ in 0..3 {
            steps.insert(0, (0, open()));
        }
        steps
    })
}

/// Two replicas answer alike and their snapshots are equal after each entry; a third one that was
/// restored half-way ends in the same state; nothing panics; an empty primitive does not exist.
pub(crate) fn replicas_agree(steps: &[Step]) {
    let (mut one, mut two) = (machine(), machine());
    let mut restored = None;
    let mut time = Duration::ZERO;
    for (place, (later, command)) in steps.iter().enumerate() {
        if place == steps.len() / 2 {
            let bytes = snapshot(&one);
            restored = Some(StateMachine::restore(kinds(), &mut bytes.as_slice()).unwrap());
        }
        time += Duration::from_millis(*later);
        let batch = entry(time, command.clone());
        let index = place as u64 + 1;
        let applied = one.apply(index, &batch);
        assert_eq!(applied.stop, None);
        assert_eq!(two.apply(index, &batch), applied);
        if let Some(restored) = &mut restored {
            assert_eq!(restored.apply(index, &batch), applied);
        }
        assert_eq!(snapshot(&one), snapshot(&two));
        crate::tests::check_consistency(&one);
    }
    if let Some(restored) = restored {
        assert_eq!(snapshot(&restored), snapshot(&one));
        assert_eq!(restored.usage(), one.usage());
    }
}

/// Damaged snapshots of a random run with right checksums: whatever they hold, nothing panics.
pub(crate) fn forged_snapshots_never_panic(
    steps: &[Step],
    edits: &[Edit],
) -> Result<(), TestCaseError> {
    let mut time = Duration::ZERO;
    let log: Vec<CommandBatch> = steps
        .iter()
        .map(|(later, command)| {
            time += Duration::from_millis(*later);
            entry(time, command.clone())
        })
        .collect();
    crate::tests::rules::forged_snapshots_never_panic(&log, edits)
}
