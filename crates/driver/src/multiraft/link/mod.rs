//! The connection to one storage node: one Exchange stream that carries the requests of all
//! partitions, many in flight, in batches. It re-connects by itself until it is dropped.
//!
//! Not for retries: a request goes to this node once, and its sender learns what became of it.

mod exchange;
mod task;

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use atomix_proto::multiraft::v1::{
    KeepAlive, KeepAliveResponse, NodeHello, Request, request, response,
};
use rand::Rng as _;
use thiserror::Error;
use tokio::sync::{mpsc, oneshot, watch};
use tokio_util::sync::{CancellationToken, DropGuard};

use self::task::LinkTask;
use super::Security;
use super::config::Timeouts;

/// Requests that wait for the stream.
const QUEUE: usize = 1_024;

type ReplySender = oneshot::Sender<Result<Answered, LinkError>>;
type KeepAliveSender = oneshot::Sender<Result<KeepAliveResponse, LinkError>>;

/// Why a request has no answer.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub(crate) enum LinkError {
    /// It never left this process.
    #[error("{0}")]
    NotSent(String),
    /// The stream broke before the answer came: it may have been carried out.
    #[error("{0}")]
    Broken(String),
}

/// A node's answer.
#[derive(Debug)]
pub(crate) struct Answered {
    pub(crate) outcome: response::Outcome,
    /// The incarnation of the data that answered; 0 = the node does not say.
    pub(crate) incarnation: u64,
}

/// Whether the node is reached.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum LinkState {
    Down(String),
    Up,
}

/// Decides whether a node that greets is one of ours.
pub(crate) trait Greeter: Send + Sync + 'static {
    /// What to send as the hello's store uid.
    fn store_uid(&self) -> String;
    /// What to send as the hello's incarnation.
    fn incarnation(&self) -> u64;
    /// Refuses a node with a reason.
    fn greet(&self, address: SocketAddr, hello: &NodeHello) -> Result<(), String>;
    /// The state of a link changed.
    fn link_changed(&self);
}

enum Outgoing {
    Request(Request, Incarnation, ReplySender),
    KeepAlives(Vec<(KeepAlive, Incarnation, KeepAliveSender)>),
}

/// Of which data the session is that a request belongs to; 0 = of none, or it is not known. Session
/// ids come again in another incarnation, so such a request never goes out on its stream.
type Incarnation = u64;

impl Outgoing {
    fn fail(self, error: &LinkError) {
        match self {
            Self::Request(_, _, reply) => {
                let _ = reply.send(Err(error.clone()));
            }
            Self::KeepAlives(keep_alives) => {
                for (_, _, reply) in keep_alives {
                    let _ = reply.send(Err(error.clone()));
                }
            }
        }
    }
}

/// A handle of the link to one node. The link ends when the handle is dropped.
#[derive(Debug)]
pub(crate) struct Link {
    queue: mpsc::Sender<Outgoing>,
    next_id: AtomicU64,
    state: watch::Receiver<LinkState>,
    _stop: DropGuard,
}

impl Link {
    pub(crate) fn start(
        address: SocketAddr,
        timeouts: Timeouts,
        security: Option<Security>,
        greeter: Arc<dyn Greeter>,
    ) -> Self {
        let (queue, outgoing) = mpsc::channel(QUEUE);
        let (state_sender, state) = watch::channel(LinkState::Down("connecting".to_owned()));
        let stop = CancellationToken::new();
        let task = LinkTask::new(address, timeouts, security, greeter, outgoing, state_sender);
        let stopped = stop.clone();
        tokio::spawn(async move {
            tokio::select! {
                () = stopped.cancelled() => {}
                () = task.run() => {}
            }
        });
        Self {
            queue,
            next_id: AtomicU64::new(1),
            state,
            _stop: stop.drop_guard(),
        }
    }

    pub(crate) fn state(&self) -> LinkState {
        self.state.borrow().clone()
    }

    pub(crate) fn is_up(&self) -> bool {
        *self.state.borrow() == LinkState::Up
    }

    /// Sends a request and waits for its answer. `incarnation` is that of the request's session, 0
    /// without one. Dropping the future forgets the request.
    pub(crate) async fn request(
        &self,
        partition_id: u32,
        body: request::Body,
        incarnation: u64,
    ) -> Result<Answered, LinkError> {
        let request = Request {
            id: self.next_id.fetch_add(1, Ordering::Relaxed),
            partition_id,
            body: Some(body),
        };
        let (reply, answer) = oneshot::channel();
        if self
            .queue
            .send(Outgoing::Request(request, incarnation, reply))
            .await
            .is_err()
        {
            return Err(LinkError::NotSent("the link is closed".to_owned()));
        }
        match answer.await {
            Ok(result) => result,
            Err(_) => Err(LinkError::Broken("the link was closed".to_owned())),
        }
    }

    /// Sends keep-alives in one message, each with its session's incarnation; the answers come one
    /// by one.
    pub(crate) async fn keep_alives(
        &self,
        keep_alives: Vec<(KeepAlive, u64)>,
    ) -> Vec<oneshot::Receiver<Result<KeepAliveResponse, LinkError>>> {
        let mut answers = Vec::with_capacity(keep_alives.len());
        let mut message = Vec::with_capacity(keep_alives.len());
        for (keep_alive, incarnation) in keep_alives {
            let (reply, answer) = oneshot::channel();
            message.push((keep_alive, incarnation, reply));
            answers.push(answer);
        }
        // When the link is closed, the senders are dropped and every receiver says so.
        let _ = self.queue.send(Outgoing::KeepAlives(message)).await;
        answers
    }
}

/// Between half of the delay and all of it, so that drivers do not come back in step.
pub(crate) fn jittered(delay: Duration) -> Duration {
    delay.mul_f64(rand::rng().random_range(0.5..=1.0))
}
