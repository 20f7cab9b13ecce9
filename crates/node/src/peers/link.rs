//! One stream to one node: connects on demand, again and again, and pairs replies with messages.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use atomix_proto::multiraft::v1::peers_client::PeersClient;
use atomix_proto::multiraft::v1::{PeerFrame, PeerMessage, PeerReply, peer_frame::Body};
use atomix_raft::{Class, NodeId};
use rand::Rng as _;
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::Streaming;
use tonic::transport::Endpoint;

use super::Greeting;
use crate::grpc;
use crate::resolver::Resolver;

/// Frames that wait for the connection.
const FRAMES: usize = 256;
const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);
const MIN_BACKOFF: Duration = Duration::from_millis(20);
const MAX_BACKOFF: Duration = Duration::from_secs(1);
/// A node that is gone without a word, its address perhaps moved, is noticed by its silence.
const PING_INTERVAL: Duration = Duration::from_secs(1);
const PING_TIMEOUT: Duration = Duration::from_secs(3);
/// A link that carried nothing for so long ends.
const IDLE: Duration = Duration::from_secs(300);

/// A message that waits for its reply.
pub(super) struct Outgoing {
    pub(super) message: PeerMessage,
    pub(super) reply: oneshot::Sender<Result<PeerReply, Lost>>,
}

/// Why a message has no reply.
#[derive(Debug)]
pub(super) enum Lost {
    /// It certainly was not sent.
    NotSent(String),
    /// Perhaps it arrived.
    NoReply(String),
}

type Pending = HashMap<u64, oneshot::Sender<Result<PeerReply, Lost>>>;

/// The stream of one class to one node.
pub(super) struct Link {
    pub(super) node_id: NodeId,
    pub(super) address: String,
    pub(super) class: Class,
    pub(super) greeting: Arc<Greeting>,
    pub(super) resolver: Arc<dyn Resolver>,
}

/// An open stream after both hellos.
struct Open {
    to_node: mpsc::Sender<PeerFrame>,
    from_node: Streaming<PeerFrame>,
}

impl Link {
    /// Carries messages until the node shuts down or nothing uses the link.
    pub(super) async fn run(self, queue: mpsc::Receiver<Outgoing>, shutdown: CancellationToken) {
        tokio::select! {
            () = self.carry(queue) => {}
            () = shutdown.cancelled() => {}
        }
    }

    async fn carry(&self, mut queue: mpsc::Receiver<Outgoing>) {
        let mut backoff = MIN_BACKOFF;
        // A first message that waits for the connection.
        while let Ok(Some(first)) = tokio::time::timeout(IDLE, queue.recv()).await {
            let opened = tokio::time::timeout(CONNECT_TIMEOUT, self.open(&first.message)).await;
            let opened = opened.unwrap_or_else(|_| Err("no connection in time".to_owned()));
            let reason = match opened {
                Ok(open) => {
                    backoff = MIN_BACKOFF;
                    tracing::debug!(node = format!("{:016x}", self.node_id.0), address = self.address, class = ?self.class, "connected");
                    let reason = exchange(open, first, &mut queue).await;
                    tracing::info!(address = self.address, class = ?self.class, reason, "a stream to a node ended");
                    continue;
                }
                Err(reason) => reason,
            };
            tracing::debug!(address = self.address, reason, "cannot reach a node");
            // Jitter, so that nodes do not meet in step.
            let until = Instant::now() + backoff.mul_f64(rand::rng().random_range(0.5..1.0));
            backoff = (backoff * 2).min(MAX_BACKOFF);
            fail(first.reply, &reason);
            refuse_until(until, &mut queue, &reason).await;
        }
    }

    async fn open(&self, first: &PeerMessage) -> Result<Open, String> {
        let resolved = self.resolver.resolve(&self.address).await;
        let resolved = resolved.map_err(|error| error.to_string())?;
        let channel = Endpoint::from_shared(format!("http://{resolved}"))
            .map_err(|error| error.to_string())?
            .tcp_nodelay(true)
            .initial_stream_window_size(grpc::STREAM_WINDOW)
            .initial_connection_window_size(grpc::CONNECTION_WINDOW)
            .http2_keep_alive_interval(PING_INTERVAL)
            .keep_alive_timeout(PING_TIMEOUT)
            .keep_alive_while_idle(true)
            .connect()
            .await
            .map_err(|error| with_sources(&error))?;
        let mut client = PeersClient::new(channel)
            .max_decoding_message_size(grpc::MAX_PEER_MESSAGE)
            .max_encoding_message_size(grpc::MAX_PEER_MESSAGE);

        let (to_node, frames) = mpsc::channel(FRAMES);
        // A new queue has room.
        let _ = to_node.try_send(self.greeting.frame(&first.store_uid));
        let frames = ReceiverStream::new(frames);
        let answer = match self.class {
            Class::Raft => client.raft(frames).await,
            Class::Snapshot => client.snapshot(frames).await,
        };
        let mut from_node = answer.map_err(|status| status.to_string())?.into_inner();
        let hello = grpc::next(&mut from_node)
            .await
            .map_err(|status| status.to_string())?;
        let hello = self.greeting.check(hello)?;
        if hello.node_id != self.node_id.0 {
            return Err(format!(
                "node {:016x} answers there now, not {:016x}",
                hello.node_id, self.node_id.0
            ));
        }
        Ok(Open { to_node, from_node })
    }
}

/// Sends messages and takes replies until the stream ends; tells why it did.
async fn exchange(open: Open, first: Outgoing, queue: &mut mpsc::Receiver<Outgoing>) -> String {
    let Open {
        to_node,
        mut from_node,
    } = open;
    let mut pending = Pending::new();
    let mut next_id = 1_u64;
    let mut prune_at = 1024;
    let mut next = Some(first);
    let reason = loop {
        if let Some(Outgoing { message, reply }) = next.take() {
            let frame = PeerFrame {
                correlation_id: next_id,
                body: Some(Body::Message(message)),
            };
            pending.insert(next_id, reply);
            next_id += 1;
            if pending.len() >= prune_at {
                // Whoever timed out does not wait any more.
                pending.retain(|_, reply| !reply.is_closed());
                prune_at = (pending.len() * 2).max(1024);
            }
            // Replies are taken meanwhile, or two full streams would wait for each other.
            let sending = to_node.send(frame);
            tokio::pin!(sending);
            let ended = loop {
                tokio::select! {
                    sent = &mut sending => break sent.err().map(|_| "the stream was closed".to_owned()),
                    frame = grpc::next(&mut from_node) => match frame {
                        Ok(Some(frame)) => complete(&mut pending, frame),
                        Ok(None) => break Some("the node ended it".to_owned()),
                        Err(status) => break Some(status.to_string()),
                    },
                }
            };
            if let Some(reason) = ended {
                break reason;
            }
        }
        tokio::select! {
            outgoing = queue.recv() => match outgoing {
                Some(outgoing) => next = Some(outgoing),
                None => return "nothing uses it".to_owned(),
            },
            frame = grpc::next(&mut from_node) => match frame {
                Ok(Some(frame)) => complete(&mut pending, frame),
                Ok(None) => break "the node ended it".to_owned(),
                Err(status) => break status.to_string(),
            },
        }
    };
    for (_, reply) in pending {
        // Whoever waited may have given up.
        let _ = reply.send(Err(Lost::NoReply(reason.clone())));
    }
    reason
}

fn complete(pending: &mut Pending, frame: PeerFrame) {
    let Some(Body::Reply(reply)) = frame.body else {
        return;
    };
    if let Some(waiter) = pending.remove(&frame.correlation_id) {
        // Whoever waited may have given up.
        let _ = waiter.send(Ok(reply));
    }
}

fn fail(reply: oneshot::Sender<Result<PeerReply, Lost>>, reason: &str) {
    // Whoever waited may have given up.
    let _ = reply.send(Err(Lost::NotSent(reason.to_owned())));
}

async fn refuse_until(until: Instant, queue: &mut mpsc::Receiver<Outgoing>, reason: &str) {
    while let Ok(Some(outgoing)) = tokio::time::timeout_at(until, queue.recv()).await {
        fail(outgoing.reply, reason);
    }
}

/// tonic's transport errors say what happened in their sources only.
fn with_sources(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        text = format!("{text}: {error}");
        source = error.source();
    }
    text
}
