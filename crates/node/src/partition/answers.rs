//! Who asked, and the failures that they are answered with.

use atomix_primitives::{ErrorCode, OperationError, Reply};
use atomix_proto::multiraft::v1::failure::Reason;
use atomix_proto::multiraft::v1::{Done, Failure, PartitionLeader, response};
use atomix_raft::{LeaderHint, PartitionId, ProposeError, ReadError};
use tokio::sync::oneshot;

use crate::exchange::Ticket;

/// Who waits for what comes out of a command.
#[derive(Debug)]
pub(crate) enum Asker {
    /// A driver.
    Driver(Ticket),
    /// This node itself.
    Node(oneshot::Sender<Result<(), Failure>>),
}

impl Asker {
    pub(crate) fn answer(self, outcome: response::Outcome) {
        match self {
            Self::Driver(ticket) => ticket.answer(outcome),
            Self::Node(sender) => {
                let result = match outcome {
                    response::Outcome::Failure(failure) => Err(failure),
                    _ => Ok(()),
                };
                // The node may have given up.
                let _ = sender.send(result);
            }
        }
    }

    pub(crate) fn fail(self, failure: Failure) {
        self.answer(response::Outcome::Failure(failure));
    }
}

/// The answer to an operation or a query.
pub(crate) fn reply(reply: Reply) -> response::Outcome {
    match reply {
        Ok(bytes) => response::Outcome::Reply(bytes),
        Err(error) => response::Outcome::Failure(operation(&error)),
    }
}

pub(crate) fn done() -> response::Outcome {
    response::Outcome::Done(Done {})
}

/// The operation's own, final failure.
pub(crate) fn operation(error: &OperationError) -> Failure {
    Failure {
        reason: Reason::Operation.into(),
        code: error.code.to_i32(),
        message: error.message.clone(),
        leader: None,
    }
}

/// A limit that the request exceeds.
pub(crate) fn exhausted(message: impl Into<String>) -> Failure {
    operation(&OperationError::new(ErrorCode::ResourceExhausted, message))
}

pub(crate) fn unavailable(message: impl Into<String>) -> Failure {
    failure(Reason::Unavailable, ErrorCode::Unavailable, message)
}

pub(crate) fn unknown_outcome(message: impl Into<String>) -> Failure {
    failure(Reason::OutcomeUnknown, ErrorCode::Unavailable, message)
}

pub(crate) fn session_lost() -> Failure {
    failure(
        Reason::SessionLost,
        ErrorCode::NotFound,
        "the session does not exist any more; open a new one",
    )
}

pub(crate) fn unknown_partition(partition: u32, highest: u32) -> Failure {
    // A node that hosts nothing may be about to; one that hosts others tells something.
    let (code, known) = match highest {
        0 => (ErrorCode::Unavailable, "it hosts none yet".to_owned()),
        highest => (
            ErrorCode::NotFound,
            format!("the highest that it hosts is {highest}"),
        ),
    };
    failure(
        Reason::UnknownPartition,
        code,
        format!("this node does not host partition {partition}; {known}"),
    )
}

pub(crate) fn wrong_store(found: &str) -> Failure {
    failure(
        Reason::WrongStore,
        ErrorCode::FailedPrecondition,
        format!("this node holds the data of store {found:?}"),
    )
}

pub(crate) fn protocol(message: impl Into<String>) -> Failure {
    failure(Reason::Protocol, ErrorCode::Unimplemented, message)
}

pub(crate) fn not_leader(leader: Option<PartitionLeader>) -> Failure {
    Failure {
        leader,
        ..failure(
            Reason::NotLeader,
            ErrorCode::Unavailable,
            "this node does not lead the partition",
        )
    }
}

pub(crate) fn from_propose(partition: PartitionId, term: u64, error: ProposeError) -> Failure {
    match error {
        ProposeError::NotLeader(hint) => not_leader(hint_leader(partition, term, hint)),
        ProposeError::Unavailable(reason) => unavailable(reason),
        ProposeError::Unknown(reason) => unknown_outcome(reason),
    }
}

pub(crate) fn from_read(partition: PartitionId, term: u64, error: ReadError) -> Failure {
    match error {
        ReadError::NotLeader(hint) => not_leader(hint_leader(partition, term, hint)),
        ReadError::Unavailable(reason) => unavailable(reason),
    }
}

fn hint_leader(
    partition: PartitionId,
    term: u64,
    hint: Option<LeaderHint>,
) -> Option<PartitionLeader> {
    hint.map(|hint| PartitionLeader {
        partition_id: partition.0,
        term,
        member_id: hint.member_id.0,
        address: hint.address,
    })
}

fn failure(reason: Reason, code: ErrorCode, message: impl Into<String>) -> Failure {
    Failure {
        reason: reason.into(),
        code: code.to_i32(),
        message: message.into(),
        leader: None,
    }
}
