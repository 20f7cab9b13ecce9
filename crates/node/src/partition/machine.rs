//! The state machine of a partition as its Raft group sees it.

use std::collections::HashMap;
use std::io::{self, BufReader, Read, Write};
use std::sync::Arc;

use atomix_primitives::{
    Applied, EventFilter, EventPosition, EventsLost, EventsRead, FollowerId, Followers, Kinds,
    OperationId, Outcome, Reply, Sequence, SessionId, Snapshot, StateMachine,
};
use atomix_proto::multiraft::v1::{Command, CommandBatch, Operate, command};
use atomix_raft::{Machine, PartitionId};
use bytes::Bytes;
use parking_lot::Mutex;
use prost::Message as _;
use tokio::sync::oneshot;

use crate::faults::Faults;

/// What came out of one entry, for whoever proposed it.
#[derive(Debug, Default)]
pub(crate) struct Output {
    /// One per command, in the same order; empty when the entry was refused.
    pub(crate) outcomes: Vec<CommandOutcome>,
    /// The sessions that it ended.
    pub(crate) ended_sessions: Vec<SessionId>,
}

/// What came out of one command.
#[derive(Debug)]
pub(crate) enum CommandOutcome {
    Session(SessionId),
    Reply(Reply),
    /// Completed by a later entry. The sender is dropped when the session ends first.
    Pending(oneshot::Receiver<Reply>),
    SessionLost,
    Done,
}

/// What following events from a position comes to.
pub(crate) enum Following {
    /// Events, or none among as many as are looked at in one step.
    Read(EventsRead),
    /// There is none yet.
    Waits {
        /// To leave.
        id: FollowerId,
        /// There is none up to here.
        through: EventPosition,
        /// Gets a position before the first event; dropped when a snapshot takes the state's place.
        call: oneshot::Receiver<EventPosition>,
    },
}

/// The replicated state, and who on this node waits for deferred replies of it.
pub(crate) struct PartitionMachine {
    partition: PartitionId,
    kinds: Arc<Kinds>,
    state: StateMachine,
    /// Not replicated. A receiver is registered while its entry is applied, or while the state is
    /// read, so no completion can come before it. One for each operation: whoever asks again has
    /// given up on the answer before.
    waiting: Mutex<HashMap<OperationId, oneshot::Sender<Reply>>>,
    /// Not replicated. Locked while the state is read or changed, so nothing comes between the
    /// reading and the waiting.
    followers: Mutex<Followers<oneshot::Sender<EventPosition>>>,
    faults: Faults,
}

impl PartitionMachine {
    pub(crate) fn new(partition: PartitionId, kinds: Arc<Kinds>, faults: Faults) -> Self {
        Self {
            partition,
            state: StateMachine::new(Arc::clone(&kinds)),
            kinds,
            waiting: Mutex::default(),
            followers: Mutex::default(),
            faults,
        }
    }

    pub(crate) fn state(&self) -> &StateMachine {
        &self.state
    }

    /// Reads events after a position, or waits for the next when there is none.
    ///
    /// # Errors
    /// The ring no longer has all of them.
    pub(crate) fn follow(
        &self,
        filter: &EventFilter,
        after: EventPosition,
    ) -> Result<Following, EventsLost> {
        let read = self.state.read_events(filter, after)?;
        if !read.events.is_empty() || !read.is_all {
            return Ok(Following::Read(read));
        }
        let (caller, call) = oneshot::channel();
        let through = read.through;
        let id = self.followers.lock().add(filter.clone(), through, caller);
        Ok(Following::Waits { id, through, call })
    }

    /// Ends a wait for events. False = it was called before.
    pub(crate) fn leave(&self, follower: &FollowerId) -> bool {
        self.followers.lock().remove(follower)
    }

    fn output(&mut self, batch: &CommandBatch, applied: Applied) -> Output {
        let Applied {
            outcomes,
            completed,
            ended_sessions,
            events,
            freed_keys: _,
            stop: _,
        } = applied;
        let commands = batch
            .commands
            .iter()
            .filter_map(|command| command.command.as_ref());
        let outcomes = commands
            .zip(outcomes)
            .map(|(command, outcome)| match outcome {
                Outcome::Session(session) => CommandOutcome::Session(session),
                Outcome::Reply(reply) => CommandOutcome::Reply(reply),
                Outcome::Pending => CommandOutcome::Pending(self.waits(command)),
                Outcome::SessionLost => CommandOutcome::SessionLost,
                Outcome::Done => CommandOutcome::Done,
            })
            .collect();
        for (caller, before) in self.followers.get_mut().called_by(&events) {
            // It may have left.
            let _ = caller.send(before);
        }
        let waiting = self.waiting.get_mut();
        for done in completed {
            let id = OperationId {
                session: done.session,
                sequence: done.sequence,
            };
            if let Some(waiter) = waiting.remove(&id) {
                // The waiter may have given up.
                let _ = waiter.send(done.result);
            }
        }
        for ended in &ended_sessions {
            waiting.retain(|id, _| id.session != *ended);
        }
        Output {
            outcomes,
            ended_sessions,
        }
    }

    fn waits(&self, command: &command::Command) -> oneshot::Receiver<Reply> {
        match command {
            command::Command::Operate(operate) => self.wait_for(operate),
            // Nothing else is completed later. Its receiver tells at once that nobody sends.
            _ => oneshot::channel().1,
        }
    }

    /// What completes an operation that was applied and waits. Whoever waited for it before is told
    /// that nobody sends any more.
    pub(crate) fn wait_for(&self, operate: &Operate) -> oneshot::Receiver<Reply> {
        let id = OperationId {
            session: SessionId(operate.session),
            sequence: Sequence(operate.sequence),
        };
        let (sender, receiver) = oneshot::channel();
        self.waiting.lock().insert(id, sender);
        receiver
    }
}

impl Machine for PartitionMachine {
    type Output = Output;
    type Snapshot = Snapshot;

    fn apply(&mut self, index: u64, _term: u64, payload: &Bytes) -> Output {
        // Each request is copied out: a value that is kept would keep the whole entry otherwise.
        let batch = match CommandBatch::decode(&payload[..]) {
            Ok(batch) => batch,
            Err(error) => {
                // It decodes on no replica; a command that nobody knows makes this one stop.
                self.faults.report(format!(
                    "partition {}: entry {index} does not decode: {error}",
                    self.partition
                ));
                CommandBatch {
                    commands: vec![Command { command: None }],
                    ..CommandBatch::default()
                }
            }
        };
        let applied = self.state.apply(index, &batch);
        if let Some(stop) = &applied.stop {
            self.faults
                .report(format!("partition {}: {stop}", self.partition));
        }
        self.output(&batch, applied)
    }

    fn snapshot(&self) -> Snapshot {
        self.state.snapshot()
    }

    fn write_snapshot(snapshot: &Snapshot, writer: &mut dyn Write) -> io::Result<()> {
        snapshot.write(writer)
    }

    fn install(&mut self, reader: &mut dyn Read) -> io::Result<()> {
        let mut reader = BufReader::new(reader);
        self.state = StateMachine::restore(Arc::clone(&self.kinds), &mut reader)
            .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?;
        // Their completions may be among the entries that the snapshot stands for.
        self.waiting.get_mut().clear();
        self.followers.get_mut().clear();
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

    use atomix_primitives::PrimitiveKey;
    use atomix_primitives::probe::{AcquireRequest, Item, PutRequest};
    use atomix_proto::multiraft::v1::{OpenSession, Operation};
    use oneshot::error::TryRecvError;

    use super::*;

    const PRIMITIVE: &str = "p";

    fn machine() -> PartitionMachine {
        let (faults, _) = Faults::new();
        PartitionMachine::new(PartitionId(1), Arc::new(Kinds::with_test_kind()), faults)
    }

    fn apply(machine: &mut PartitionMachine, index: u64, command: command::Command) -> Output {
        let command = Command {
            command: Some(command),
        };
        let batch = CommandBatch {
            commands: vec![command],
            ..CommandBatch::default()
        };
        machine.apply(index, 1, &batch.encode_to_vec().into())
    }

    fn operate(sequence: u64, method: &str, request: &impl prost::Message) -> Operate {
        Operate {
            session: 1,
            sequence,
            operation: Some(Operation {
                kind: "probe".to_owned(),
                primitive: PRIMITIVE.to_owned(),
                method: method.to_owned(),
                request: request.encode_to_vec().into(),
                owner: sequence,
            }),
            ..Operate::default()
        }
    }

    /// A session that holds the lock, and queues for it once more.
    fn contended() -> (PartitionMachine, CommandOutcome) {
        let mut machine = machine();
        let open = OpenSession {
            timeout_nanos: u64::MAX,
            client: String::new(),
        };
        apply(&mut machine, 1, command::Command::OpenSession(open));
        let acquire = AcquireRequest::default();
        let mut last = None;
        for sequence in 1..=2 {
            let operate = operate(sequence, "Acquire", &acquire);
            let index = sequence + 1;
            let output = apply(&mut machine, index, command::Command::Operate(operate));
            last = output.outcomes.into_iter().next();
        }
        (machine, last.unwrap())
    }

    fn filter() -> EventFilter {
        EventFilter {
            primitive: PrimitiveKey {
                kind: "probe",
                name: PRIMITIVE.into(),
            },
            key: None,
        }
    }

    fn install(machine: &mut PartitionMachine, other: &PartitionMachine) {
        let mut written = Vec::new();
        PartitionMachine::write_snapshot(&other.snapshot(), &mut written).unwrap();
        machine.install(&mut written.as_slice()).unwrap();
    }

    #[test]
    fn who_waits_when_a_snapshot_takes_the_states_place_is_told_to_ask_again() {
        let (mut machine, waiting) = contended();
        let CommandOutcome::Pending(mut reply) = waiting else {
            panic!("{waiting:?}");
        };
        assert_eq!(reply.try_recv().unwrap_err(), TryRecvError::Empty);
        let following = machine.follow(&filter(), EventPosition::after_operation(0));
        let Ok(Following::Waits { id, mut call, .. }) = following else {
            panic!("nothing happened yet");
        };
        assert_eq!(call.try_recv().unwrap_err(), TryRecvError::Empty);

        // In the meantime the leader has gone on: what they wait for is in the snapshot.
        let (mut leader, _) = contended();
        let put = PutRequest {
            key: "k".into(),
            value: "v".into(),
            ttl_nanos: 0,
        };
        let put = operate(3, "Put", &put);
        apply(&mut leader, 4, command::Command::Operate(put));
        install(&mut machine, &leader);
        assert_eq!(reply.try_recv().unwrap_err(), TryRecvError::Closed);
        assert_eq!(call.try_recv().unwrap_err(), TryRecvError::Closed);
        assert!(!machine.leave(&id), "nobody is left to be called");

        let following = machine.follow(&filter(), EventPosition::after_operation(0));
        let Ok(Following::Read(read)) = following else {
            panic!("the event of the snapshot is read");
        };
        let [event] = read.events.as_slice() else {
            panic!("{:?}", read.events);
        };
        let item = Item::decode(event.payload.as_ref()).unwrap();
        assert_eq!(item.value, "v");
    }

    #[test]
    fn a_snapshot_that_cannot_be_read_changes_nothing() {
        let (mut machine, _) = contended();
        let mut written = Vec::new();
        PartitionMachine::write_snapshot(&machine.snapshot(), &mut written).unwrap();
        for length in 0..written.len() {
            let cut = machine.install(&mut &written[..length]).unwrap_err();
            assert!(
                matches!(
                    cut.kind(),
                    io::ErrorKind::InvalidData | io::ErrorKind::UnexpectedEof
                ),
                "{length} bytes: {cut}"
            );
        }
        let mut again = Vec::new();
        PartitionMachine::write_snapshot(&machine.snapshot(), &mut again).unwrap();
        assert!(written == again);
    }
}
