//! Linearizable reads: one confirmation round at a time, shared by all who came before it began.

use std::sync::Arc;

use openraft::ReadPolicy;
use openraft::errors::{LinearizableReadError, RaftError};
use parking_lot::Mutex;
use tokio::sync::oneshot;

use super::{Node, hint};
use crate::error::ReadError;
use crate::host::Host;
use crate::machine::Machine;

/// The log position that a linearizable read must see.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ReadIndex {
    /// The log index; the machine's state is at least as new.
    pub index: u64,
    /// The term of the leader that gave it out.
    pub term: u64,
}

type Waiter = oneshot::Sender<Result<ReadIndex, ReadError>>;

pub(super) struct Reads<M: Machine> {
    raft: Node<M>,
    host: Arc<Host<M>>,
    queue: Mutex<Queue>,
}

#[derive(Default)]
struct Queue {
    /// Who waits for the next round.
    waiting: Vec<Waiter>,
    running: bool,
}

impl<M: Machine> Reads<M> {
    pub(super) fn new(raft: Node<M>, host: Arc<Host<M>>) -> Self {
        Self {
            raft,
            host,
            queue: Mutex::default(),
        }
    }

    /// Waits for a round that begins after this call.
    pub(super) async fn confirm(self: &Arc<Self>) -> Result<ReadIndex, ReadError> {
        let (sender, receiver) = oneshot::channel();
        let begin = {
            let mut queue = self.queue.lock();
            queue.waiting.push(sender);
            !std::mem::replace(&mut queue.running, true)
        };
        if begin {
            // A task of its own: the caller may give up, the others that wait do not.
            tokio::spawn(self.clone().run());
        }
        receiver
            .await
            .unwrap_or_else(|_| Err(ReadError::Unavailable("the group stopped".to_owned())))
    }

    async fn run(self: Arc<Self>) {
        // No later read would begin a round.
        let _guard = self.host.panic_guard("a round of reads");
        loop {
            let waiting = {
                let mut queue = self.queue.lock();
                queue.running = !queue.waiting.is_empty();
                std::mem::take(&mut queue.waiting)
            };
            if waiting.is_empty() {
                return;
            }
            let outcome = self.round().await;
            for waiter in waiting {
                // Whoever waited may have given up.
                let _ = waiter.send(outcome.clone());
            }
        }
    }

    async fn round(&self) -> Result<ReadIndex, ReadError> {
        match self.raft.get_read_linearizer(ReadPolicy::ReadIndex).await {
            Ok(confirmed) => {
                let log_id = *confirmed.read_log_id().log_id();
                Ok(ReadIndex {
                    index: log_id.index,
                    term: log_id.leader_id.term,
                })
            }
            Err(RaftError::APIError(LinearizableReadError::ForwardToLeader(forward))) => {
                Err(ReadError::NotLeader(hint(&forward)))
            }
            Err(error) => Err(ReadError::Unavailable(error.to_string())),
        }
    }
}
