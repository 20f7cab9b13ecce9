//! Turns the commands that arrive at a leader into log entries.
//!
//! Batching is opportunistic: whatever has arrived when an entry can be sent goes into it; nothing
//! ever waits for company.

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use atomix_primitives::{Admission, ErrorCode, Reply};
use atomix_proto::multiraft::v1::{Command, CommandBatch, command};
use atomix_raft::ProposeError;
use bytes::Bytes;
use futures::future::BoxFuture;
use futures::stream::FuturesUnordered;
use futures::{FutureExt as _, StreamExt as _};
use prost::Message as _;
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;

use super::Inner;
use super::answers::{self, Asker};
use super::machine::{CommandOutcome, Output};
use super::queues::{Proposal, Queued};

/// Entries of one partition that are under way at once.
const ENTRIES_UNDER_WAY: usize = 8;
/// An entry ends at this many bytes of commands, or with one command.
const ENTRY_BYTES: usize = 1 << 20;
const ENTRY_COMMANDS: usize = 4096;

/// An entry that was handed to Raft.
struct Sent {
    commands: Vec<Waiting>,
    proposed: Instant,
    result: Result<Output, ProposeError>,
}

struct Waiting {
    asker: Asker,
    /// The timeout of the session that the command opens.
    opens: Option<Duration>,
}

/// Proposes until all senders of proposals are gone.
pub(super) async fn run(inner: Arc<Inner>, mut proposals: mpsc::Receiver<Queued<Proposal>>) {
    let mut under_way: FuturesUnordered<BoxFuture<'static, Sent>> = FuturesUnordered::new();
    loop {
        tokio::select! {
            biased;
            Some(sent) = under_way.next(), if !under_way.is_empty() => settle(&inner, sent),
            first = proposals.recv(), if under_way.len() < ENTRIES_UNDER_WAY => {
                let Some(first) = first else { return };
                let batch = collect(first, &mut proposals);
                if let Some(sent) = send(&inner, batch) {
                    under_way.push(sent);
                }
            }
        }
    }
}

fn collect(
    first: Queued<Proposal>,
    proposals: &mut mpsc::Receiver<Queued<Proposal>>,
) -> Vec<Proposal> {
    let mut bytes = first.item.size();
    let mut batch = vec![first.item];
    while bytes < ENTRY_BYTES && batch.len() < ENTRY_COMMANDS {
        let Ok(next) = proposals.try_recv() else {
            break;
        };
        bytes += next.item.size();
        batch.push(next.item);
    }
    batch
}

/// Answers what needs no entry and hands the rest to Raft.
fn send(inner: &Arc<Inner>, batch: Vec<Proposal>) -> Option<BoxFuture<'static, Sent>> {
    let time = match inner.leadership.serve(&inner.group) {
        Ok(time) => time,
        Err(failure) => {
            for proposal in batch {
                proposal.asker.fail(failure.clone());
            }
            return None;
        }
    };
    let admitted = inner.group.with_machine(|machine| {
        let mut admitted = Vec::with_capacity(batch.len());
        for proposal in batch {
            let command::Command::Operate(operate) = &proposal.command else {
                admitted.push(proposal);
                continue;
            };
            match machine.state().admit(operate) {
                // Only the log knows for sure that a session is lost: this leader may have been
                // replaced by one that opened it.
                Ok(Admission::Propose | Admission::SessionLost) => admitted.push(proposal),
                // Another entry would change nothing.
                Ok(Admission::Pending) => {
                    wait(inner, proposal.asker, machine.wait_for(operate));
                }
                Ok(Admission::Answered(reply)) => proposal.asker.answer(answers::reply(reply)),
                // Nothing remembers this refusal, and an earlier attempt, whose answer was lost, may
                // be in the log: it is no final answer. There may be room soon.
                Err(error) if error.code == ErrorCode::ResourceExhausted => {
                    proposal.asker.fail(answers::unavailable(error.message));
                }
                Err(error) => proposal.asker.fail(answers::operation(&error)),
            }
        }
        admitted
    });
    if admitted.is_empty() {
        return None;
    }
    inner.metrics.count_proposal(admitted.len());

    let mut commands = Vec::with_capacity(admitted.len());
    let mut waiting = Vec::with_capacity(admitted.len());
    for Proposal { command, asker } in admitted {
        let opens = match &command {
            command::Command::OpenSession(open) => Some(Duration::from_nanos(open.timeout_nanos)),
            _ => None,
        };
        waiting.push(Waiting { asker, opens });
        commands.push(Command {
            command: Some(command),
        });
    }
    let payload = CommandBatch {
        time_nanos: u64::try_from(time.as_nanos()).unwrap_or(u64::MAX),
        wall_time_millis: wall_time_millis(),
        commands,
    };
    let payload = Bytes::from(payload.encode_to_vec());
    let proposed = Instant::now();
    let deadline = proposed + inner.propose_timeout();
    let group = inner.group.clone();
    let mut sent = async move {
        let result = group.propose(payload, deadline).await;
        Sent {
            commands: waiting,
            proposed,
            result,
        }
    }
    .boxed();
    // The first poll queues the entry, so entries keep their order.
    match (&mut sent).now_or_never() {
        Some(sent) => {
            settle(inner, sent);
            None
        }
        None => Some(sent),
    }
}

fn wall_time_millis() -> u64 {
    let since_epoch = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    u64::try_from(since_epoch.as_millis()).unwrap_or(u64::MAX)
}

/// Answers the askers of an entry.
fn settle(inner: &Arc<Inner>, sent: Sent) {
    let output = match sent.result {
        Ok(output) => output,
        Err(error) => {
            let status = inner.group.status();
            let failure = answers::from_propose(status.partition_id, status.term, error);
            for waiting in sent.commands {
                waiting.asker.fail(failure.clone());
            }
            return;
        }
    };
    inner.metrics.observe_commit(sent.proposed.elapsed());
    inner.leadership.with(|term, _| {
        for session in &output.ended_sessions {
            term.deadlines.remove(*session);
        }
    });
    let mut outcomes = output.outcomes.into_iter();
    for waiting in sent.commands {
        match outcomes.next() {
            Some(outcome) => answer(inner, waiting, outcome),
            // The entry was refused by the state machine, and this node stops.
            None => waiting
                .asker
                .fail(answers::unknown_outcome("the replica stops")),
        }
    }
}

fn answer(inner: &Arc<Inner>, waiting: Waiting, outcome: CommandOutcome) {
    match outcome {
        CommandOutcome::Session(session) => {
            let timeout = waiting.opens.unwrap_or_default();
            inner
                .leadership
                .with(|term, now| term.deadlines.insert(session, timeout, now));
            waiting
                .asker
                .answer(atomix_proto::multiraft::v1::response::Outcome::Session(
                    session.0,
                ));
        }
        CommandOutcome::Reply(reply) => waiting.asker.answer(answers::reply(reply)),
        CommandOutcome::SessionLost => waiting.asker.fail(answers::session_lost()),
        CommandOutcome::Done => waiting.asker.answer(answers::done()),
        CommandOutcome::Pending(reply) => wait(inner, waiting.asker, reply),
    }
}

/// Answers when a later entry completes the operation.
fn wait(inner: &Inner, asker: Asker, reply: oneshot::Receiver<Reply>) {
    let over = inner.leadership.over();
    tokio::spawn(async move {
        tokio::select! {
            reply = reply => match reply {
                Ok(reply) => asker.answer(answers::reply(reply)),
                Err(_) => asker.fail(answers::unknown_outcome(
                    "the session ended, the replica lost track of the operation, or it was asked again",
                )),
            },
            () = over.cancelled() => asker.fail(answers::unknown_outcome(
                "the leadership was lost while the operation waited",
            )),
        }
    });
}
