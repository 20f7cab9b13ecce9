//! Messages that wait for one stream, bounded in number and in bytes: a slow node must not make this
//! one hold its whole log in memory. What has no room is refused at once.

use std::sync::Arc;

use atomix_raft::{PeerMessage, PeerReply};
use prost::Message as _;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot};

const MESSAGES: usize = 4096;
/// More than the largest message, so that each has room in an empty queue.
const BYTES: u32 = 32 << 20;

/// Why a message has no reply.
#[derive(Debug)]
pub(super) enum Lost {
    /// It certainly was not sent.
    NotSent(String),
    /// Perhaps it arrived.
    NoReply(String),
}

pub(super) type ReplySender = oneshot::Sender<Result<PeerReply, Lost>>;
pub(super) type ReplyReceiver = oneshot::Receiver<Result<PeerReply, Lost>>;

/// A message that waits for its stream and then for its reply.
#[derive(Debug)]
pub(super) struct Outgoing {
    pub(super) message: PeerMessage,
    pub(super) reply: ReplySender,
    /// Given back when the message has left this process's queues.
    pub(super) room: Room,
}

impl Outgoing {
    pub(super) fn fail(self, reason: &str) {
        // Whoever waited may have given up.
        let _ = self.reply.send(Err(Lost::NotSent(reason.to_owned())));
    }
}

/// The bytes of a message that is queued.
#[derive(Debug)]
pub(super) struct Room {
    _bytes: OwnedSemaphorePermit,
}

/// Why a message was not queued.
#[derive(Debug)]
pub(super) enum NotQueued {
    Full,
    /// The link has ended; it needs another.
    Ended(Box<PeerMessage>),
}

/// The sending end.
#[derive(Debug)]
pub(super) struct Queue {
    sender: mpsc::Sender<Outgoing>,
    bytes: Arc<Semaphore>,
}

impl Queue {
    pub(super) fn new() -> (Self, mpsc::Receiver<Outgoing>) {
        let (sender, receiver) = mpsc::channel(MESSAGES);
        let bytes = Arc::new(Semaphore::new(BYTES as usize));
        (Self { sender, bytes }, receiver)
    }

    pub(super) fn push(&self, message: PeerMessage) -> Result<ReplyReceiver, NotQueued> {
        if self.has_ended() {
            return Err(NotQueued::Ended(Box::new(message)));
        }
        let size = u32::try_from(message.encoded_len()).unwrap_or(BYTES);
        let room = Arc::clone(&self.bytes).try_acquire_many_owned(size.min(BYTES));
        let Ok(room) = room else {
            return Err(NotQueued::Full);
        };
        let (reply, receiver) = oneshot::channel();
        let outgoing = Outgoing {
            message,
            reply,
            room: Room { _bytes: room },
        };
        match self.sender.try_send(outgoing) {
            Ok(()) => Ok(receiver),
            Err(mpsc::error::TrySendError::Full(_)) => Err(NotQueued::Full),
            Err(mpsc::error::TrySendError::Closed(outgoing)) => {
                Err(NotQueued::Ended(Box::new(outgoing.message)))
            }
        }
    }

    pub(super) fn has_ended(&self) -> bool {
        self.sender.is_closed()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use atomix_proto::multiraft::v1::{AppendEntries, LogEntry, log_entry, peer_message::Body};

    use super::*;

    fn append(bytes: usize) -> PeerMessage {
        let entry = LogEntry {
            payload: Some(log_entry::Payload::Command(vec![7; bytes].into())),
            ..LogEntry::default()
        };
        PeerMessage {
            body: Some(Body::AppendEntries(AppendEntries {
                entries: vec![entry],
                ..AppendEntries::default()
            })),
            ..PeerMessage::default()
        }
    }

    #[tokio::test]
    async fn what_has_no_room_is_refused_at_once_and_room_comes_back() {
        let (queue, mut receiver) = Queue::new();
        let mut queued = 0;
        while queue.push(append(8 << 20)).is_ok() {
            queued += 1;
        }
        assert_eq!(queued, 3, "32 MiB hold no four messages of more than 8 MiB");
        let taken = receiver.recv().await.unwrap();
        assert!(matches!(queue.push(append(8 << 20)), Err(NotQueued::Full)));
        drop(taken.room);
        assert!(queue.push(append(8 << 20)).is_ok());
    }

    #[tokio::test]
    async fn a_message_larger_than_everything_has_room_in_an_empty_queue_only() {
        let (queue, mut receiver) = Queue::new();
        assert!(queue.push(append(40 << 20)).is_ok());
        assert!(matches!(queue.push(append(1)), Err(NotQueued::Full)));
        drop(receiver.recv().await.unwrap());
        assert!(queue.push(append(1)).is_ok());
    }

    #[test]
    fn small_messages_are_bounded_in_number() {
        let (queue, _receiver) = Queue::new();
        let queued = (0..MESSAGES * 2)
            .filter(|_| queue.push(append(1)).is_ok())
            .count();
        assert_eq!(queued, MESSAGES);
    }
}
