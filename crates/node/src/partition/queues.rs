//! What waits for a partition's proposer and its reader, bounded in number and in bytes. What has no
//! room is refused at once: it certainly was not done.

use std::sync::Arc;

use atomix_primitives::SessionId;
use atomix_proto::multiraft::v1::{Operation, command};
use prost::Message as _;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};

use super::answers::{self, Asker};
use crate::exchange::{KeepAliveTicket, Ticket};

/// Items of one queue.
const ITEMS: usize = 16_384;
/// Bytes of one queue: several entries of the log, but not the memory of a node.
const BYTES: usize = 32 << 20;

/// A command on its way into the log.
pub(super) struct Proposal {
    pub(super) command: command::Command,
    pub(super) asker: Asker,
}

impl Proposal {
    pub(super) fn size(&self) -> usize {
        match &self.command {
            command::Command::Operate(operate) => operate.encoded_len(),
            _ => 64,
        }
    }
}

/// Something to answer once the leadership is confirmed.
pub(super) enum Read {
    Query {
        operation: Operation,
        ticket: Ticket,
    },
    KeepAlive {
        session: SessionId,
        ticket: KeepAliveTicket,
    },
    /// Where the events of the partition stand.
    Position { ticket: Ticket },
}

impl Read {
    fn size(&self) -> usize {
        match self {
            Self::Query { operation, .. } => operation.encoded_len(),
            Self::KeepAlive { .. } | Self::Position { .. } => 64,
        }
    }
}

/// Something that waits, and the room that it takes until it is dropped.
pub(super) struct Queued<T> {
    pub(super) item: T,
    _room: OwnedSemaphorePermit,
}

/// The sending end of a queue.
pub(super) struct Queue<T> {
    sender: mpsc::Sender<Queued<T>>,
    room: Arc<Semaphore>,
}

// Derived, it would ask for T: Clone.
impl<T> Clone for Queue<T> {
    fn clone(&self) -> Self {
        Self {
            sender: self.sender.clone(),
            room: Arc::clone(&self.room),
        }
    }
}

pub(super) type Proposals = Queue<Proposal>;
pub(super) type Reads = Queue<Read>;

impl<T> Queue<T> {
    pub(super) fn new() -> (Self, mpsc::Receiver<Queued<T>>) {
        let (sender, receiver) = mpsc::channel(ITEMS);
        let room = Arc::new(Semaphore::new(BYTES));
        (Self { sender, room }, receiver)
    }

    /// Gives the item back when there is no room for it, or nobody takes it any more.
    fn try_push(&self, item: T, size: usize) -> Result<(), T> {
        let size = u32::try_from(size.min(BYTES)).unwrap_or(u32::MAX);
        let Ok(room) = Arc::clone(&self.room).try_acquire_many_owned(size) else {
            return Err(item);
        };
        let queued = Queued { item, _room: room };
        self.sender.try_send(queued).map_err(|error| {
            let (mpsc::error::TrySendError::Full(unsent)
            | mpsc::error::TrySendError::Closed(unsent)) = error;
            unsent.item
        })
    }
}

impl Queue<Proposal> {
    pub(super) fn push(&self, proposal: Proposal) {
        let size = proposal.size();
        if let Err(proposal) = self.try_push(proposal, size) {
            proposal.asker.fail(no_room());
        }
    }
}

impl Queue<Read> {
    pub(super) fn push(&self, read: Read) {
        let size = read.size();
        match self.try_push(read, size) {
            Ok(()) => {}
            Err(Read::Query { ticket, .. } | Read::Position { ticket }) => ticket.fail(no_room()),
            Err(Read::KeepAlive { ticket, .. }) => ticket.answer(Some(no_room())),
        }
    }
}

fn no_room() -> atomix_proto::multiraft::v1::Failure {
    answers::unavailable("the partition's queue is full, or the partition stops")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_too_much_is_given_back_and_room_returns() {
        let (queue, mut receiver) = Queue::new();
        assert_eq!(queue.try_push(1, BYTES / 2), Ok(()));
        assert_eq!(queue.try_push(2, BYTES / 2), Ok(()));
        assert_eq!(queue.try_push(3, 1), Err(3));
        drop(receiver.try_recv());
        assert_eq!(queue.try_push(4, 1), Ok(()));
        assert_eq!(queue.try_push(5, BYTES), Err(5));
        drop(receiver);
        assert_eq!(queue.try_push(6, 1), Err(6));
    }

    #[test]
    fn an_item_larger_than_everything_has_room_in_an_empty_queue() {
        let (queue, _receiver) = Queue::new();
        assert_eq!(queue.try_push(1, BYTES * 2), Ok(()));
        assert_eq!(queue.try_push(2, 1), Err(2));
    }
}
