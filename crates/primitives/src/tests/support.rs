//! A partition under test: builds entries, hands out their outcomes.

use std::sync::Arc;
use std::time::Duration;

use atomix_proto::multiraft::v1::{
    Cancel, CloseSession, Command, CommandBatch, ExpireSessions, OpenSession, Operate, Operation,
    ReleaseOwner, SetLimits, Tick, command,
};
use atomix_proto::runtime::counter::v1::{GetRequest, GetResponse, IncrementRequest};
use prost::Message;

use crate::probe::{
    AcquireReply, AcquireRequest, Item, KeyRequest, PutRequest, TransactionRequest, UnlockRequest,
};
use crate::{
    Applied, Completed, ErrorCode, Kinds, OperationError, Outcome, Reply, Sequence, SessionId,
    StateMachine,
};

pub(crate) struct Partition {
    pub(crate) machine: StateMachine,
    pub(crate) index: u64,
    pub(crate) time: Duration,
    pub(crate) next_sequence: u64,
}

pub(crate) fn kinds() -> Arc<Kinds> {
    Arc::new(Kinds::with_test_kind())
}

impl Partition {
    pub(crate) fn new() -> Self {
        Self {
            machine: StateMachine::new(kinds()),
            index: 0,
            time: Duration::ZERO,
            next_sequence: 1_000,
        }
    }

    /// The same partition, restored from its own snapshot.
    pub(crate) fn restored(&self) -> Self {
        Self {
            machine: StateMachine::restore(kinds(), &mut self.bytes().as_slice()).unwrap(),
            ..*self
        }
    }

    pub(crate) fn bytes(&self) -> Vec<u8> {
        snapshot_bytes(&self.machine)
    }

    pub(crate) fn apply(&mut self, commands: Vec<command::Command>) -> Applied {
        self.index += 1;
        self.machine.apply(self.index, &batch(self.time, commands))
    }

    pub(crate) fn one(&mut self, command: command::Command) -> Outcome {
        let mut applied = self.apply(vec![command]);
        assert_eq!(applied.stop, None);
        assert_eq!(applied.outcomes.len(), 1);
        applied.outcomes.remove(0)
    }

    pub(crate) fn open(&mut self) -> SessionId {
        match self.one(open_session()) {
            Outcome::Session(session) => session,
            other => panic!("opening a session came out as {other:?}"),
        }
    }

    /// Runs an operation under a sequence that nobody else uses.
    pub(crate) fn run(&mut self, session: SessionId, operation: Operation) -> Reply {
        match self.try_run(session, operation) {
            Outcome::Reply(reply) => reply,
            other => panic!("the operation came out as {other:?}"),
        }
    }

    pub(crate) fn try_run(&mut self, session: SessionId, operation: Operation) -> Outcome {
        self.next_sequence += 1;
        let sequence = self.next_sequence;
        self.one(operate(session, sequence, 0, operation))
    }

    pub(crate) fn tick(&mut self, after: Duration) -> Applied {
        self.time += after;
        self.apply(vec![command::Command::Tick(Tick {})])
    }
}

pub(crate) fn snapshot_bytes(machine: &StateMachine) -> Vec<u8> {
    let mut bytes = Vec::new();
    machine.snapshot().write(&mut bytes).unwrap();
    bytes
}

pub(crate) fn batch(time: Duration, commands: Vec<command::Command>) -> CommandBatch {
    CommandBatch {
        time_nanos: time.as_nanos() as u64,
        wall_time_millis: 1_700_000_000_000,
        commands: commands
            .into_iter()
            .map(|command| Command {
                command: Some(command),
            })
            .collect(),
    }
}

pub(crate) fn open_session() -> command::Command {
    command::Command::OpenSession(OpenSession {
        timeout_nanos: 30_000_000_000,
        client: "a test".to_owned(),
    })
}

pub(crate) fn close(session: SessionId) -> command::Command {
    command::Command::CloseSession(CloseSession { session: session.0 })
}

pub(crate) fn expire(sessions: &[SessionId]) -> command::Command {
    let sessions = sessions.iter().map(|session| session.0).collect();
    command::Command::ExpireSessions(ExpireSessions { sessions })
}

pub(crate) fn operate(
    session: SessionId,
    sequence: u64,
    acknowledged: u64,
    operation: Operation,
) -> command::Command {
    operate_with_open(session, sequence, acknowledged, &[], operation)
}

pub(crate) fn operate_with_open(
    session: SessionId,
    sequence: u64,
    acknowledged: u64,
    open: &[u64],
    operation: Operation,
) -> command::Command {
    command::Command::Operate(Operate {
        session: session.0,
        sequence,
        acknowledged,
        operation: Some(operation),
        open: open.to_vec(),
    })
}

pub(crate) fn cancel(session: SessionId, sequence: u64) -> command::Command {
    command::Command::Cancel(Cancel {
        session: session.0,
        sequence,
    })
}

pub(crate) fn release_owner(session: SessionId, owner: u64) -> command::Command {
    command::Command::ReleaseOwner(ReleaseOwner {
        session: session.0,
        owner,
        ..ReleaseOwner::default()
    })
}

/// Only what it owns in this primitive.
pub(crate) fn release_owner_in(
    session: SessionId,
    owner: u64,
    kind: &str,
    primitive: &str,
) -> command::Command {
    command::Command::ReleaseOwner(ReleaseOwner {
        session: session.0,
        owner,
        kind: kind.to_owned(),
        primitive: primitive.to_owned(),
        ..ReleaseOwner::default()
    })
}

/// Only what it took by operations up to this one.
pub(crate) fn release_owner_through(
    session: SessionId,
    owner: u64,
    through: u64,
) -> command::Command {
    command::Command::ReleaseOwner(ReleaseOwner {
        session: session.0,
        owner,
        through,
        ..ReleaseOwner::default()
    })
}

pub(crate) fn set_limits(limits: SetLimits) -> command::Command {
    command::Command::SetLimits(limits)
}

pub(crate) fn operation(
    kind: &str,
    primitive: &str,
    method: &str,
    owner: u64,
    request: &impl Message,
) -> Operation {
    Operation {
        kind: kind.to_owned(),
        primitive: primitive.to_owned(),
        method: method.to_owned(),
        request: request.encode_to_vec().into(),
        owner,
    }
}

pub(crate) fn increment(name: &str, delta: i64) -> Operation {
    let request = IncrementRequest { id: None, delta };
    operation("counter", name, "Increment", 0, &request)
}

pub(crate) fn counter_value(machine: &StateMachine, name: &str) -> i64 {
    let get = operation("counter", name, "Get", 0, &GetRequest { id: None });
    GetResponse::decode(machine.query(&get).unwrap())
        .unwrap()
        .value
}

pub(crate) fn put(key: &str, value: &str) -> Operation {
    put_with_ttl(key, value, Duration::ZERO)
}

pub(crate) fn put_with_ttl(key: &str, value: &str, ttl: Duration) -> Operation {
    let request = PutRequest {
        key: key.to_owned().into(),
        value: value.to_owned().into(),
        ttl_nanos: ttl.as_nanos() as u64,
    };
    operation("probe", "p", "Put", 0, &request)
}

pub(crate) fn get(key: &str) -> Operation {
    let key = key.to_owned().into();
    operation("probe", "p", "Get", 0, &KeyRequest { key })
}

pub(crate) fn remove(key: &str) -> Operation {
    let key = key.to_owned().into();
    operation("probe", "p", "Remove", 0, &KeyRequest { key })
}

pub(crate) fn acquire(owner: u64) -> Operation {
    acquire_within(owner, Duration::ZERO)
}

pub(crate) fn acquire_within(owner: u64, timeout: Duration) -> Operation {
    let timeout_nanos = timeout.as_nanos() as u64;
    operation(
        "probe",
        "p",
        "Acquire",
        owner,
        &AcquireRequest { timeout_nanos },
    )
}

pub(crate) fn unlock(owner: u64) -> Operation {
    operation("probe", "p", "Unlock", owner, &UnlockRequest {})
}

pub(crate) fn prepare(transaction: u64, keys: &[&str], value: &str) -> Operation {
    transaction_step("Prepare", transaction, keys, value, false)
}

pub(crate) fn finish(transaction: u64, keys: &[&str], commit: bool) -> Operation {
    transaction_step("Finish", transaction, keys, "", commit)
}

fn transaction_step(
    method: &str,
    sequence: u64,
    keys: &[&str],
    value: &str,
    commit: bool,
) -> Operation {
    let request = TransactionRequest {
        coordinator: 1,
        session: 1,
        sequence,
        keys: keys.iter().map(|key| (*key).to_owned().into()).collect(),
        value: value.to_owned().into(),
        commit,
    };
    operation("probe", "p", method, 0, &request)
}

pub(crate) fn item(reply: Reply) -> Item {
    Item::decode(reply.unwrap()).unwrap()
}

pub(crate) fn token(reply: Reply) -> u64 {
    AcquireReply::decode(reply.unwrap()).unwrap().token
}

pub(crate) fn code(reply: &Reply) -> Option<ErrorCode> {
    reply
        .as_ref()
        .err()
        .map(|error: &OperationError| error.code)
}

pub(crate) fn completed(applied: &Applied, session: SessionId, sequence: u64) -> Option<Reply> {
    applied
        .completed
        .iter()
        .find(|one| one.session == session && one.sequence == Sequence(sequence))
        .map(|one: &Completed| one.result.clone())
}
