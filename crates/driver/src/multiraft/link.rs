//! The connection to one storage node: one Exchange stream that carries the requests of all
//! partitions, many in flight, in batches. It re-connects by itself until it is dropped.
//!
//! Not for retries: a request goes to this node once, and its sender learns what became of it.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use atomix_proto::multiraft::v1::partitions_client::PartitionsClient;
use atomix_proto::multiraft::v1::{
    DriverHello, DriverMessage, KeepAlive, KeepAliveResponse, NodeHello, NodeMessage, Request,
    Response, request, response,
};
use parking_lot::Mutex;
use prost::Message as _;
use rand::Rng as _;
use thiserror::Error;
use tokio::sync::{mpsc, oneshot, watch};
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::{CancellationToken, DropGuard};
use tonic::Streaming;
use tonic::transport::{Channel, Endpoint};

use super::config::Timeouts;

const PROTOCOL_VERSION: u32 = 1;
const QUEUE: usize = 1_024;
const MAX_BATCH: usize = 256;
const MAX_BATCH_BYTES: usize = 1024 * 1024;
const MAX_NODE_MESSAGE_BYTES: usize = 64 * 1024 * 1024;
const WINDOW_BYTES: u32 = 4 * 1024 * 1024;
const PING_INTERVAL: Duration = Duration::from_secs(5);
const MIN_RECONNECT_DELAY: Duration = Duration::from_millis(50);
const MAX_RECONNECT_DELAY: Duration = Duration::from_secs(1);

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
    /// Refuses a node with a reason.
    fn greet(&self, hello: &NodeHello) -> Result<(), String>;
    /// The state of a link changed.
    fn link_changed(&self);
}

enum Outgoing {
    Request(
        Request,
        oneshot::Sender<Result<response::Outcome, LinkError>>,
    ),
    KeepAlives(
        Vec<(
            KeepAlive,
            oneshot::Sender<Result<KeepAliveResponse, LinkError>>,
        )>,
    ),
}

impl Outgoing {
    fn fail(self, error: &LinkError) {
        match self {
            Self::Request(_, reply) => {
                let _ = reply.send(Err(error.clone()));
            }
            Self::KeepAlives(keep_alives) => {
                for (_, reply) in keep_alives {
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
        greeter: Arc<dyn Greeter>,
    ) -> Self {
        let (queue, outgoing) = mpsc::channel(QUEUE);
        let (state_sender, state) = watch::channel(LinkState::Down("connecting".to_owned()));
        let stop = CancellationToken::new();
        let task = LinkTask {
            address,
            timeouts,
            greeter,
            outgoing,
            state: state_sender,
        };
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

    /// Sends a request and waits for its answer. Dropping the future forgets the request.
    pub(crate) async fn request(
        &self,
        partition_id: u32,
        body: request::Body,
    ) -> Result<response::Outcome, LinkError> {
        let request = Request {
            id: self.next_id.fetch_add(1, Ordering::Relaxed),
            partition_id,
            body: Some(body),
        };
        let (reply, answer) = oneshot::channel();
        if self
            .queue
            .send(Outgoing::Request(request, reply))
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

    /// Sends keep-alives in one message; the answers come one by one.
    pub(crate) async fn keep_alives(
        &self,
        keep_alives: Vec<KeepAlive>,
    ) -> Vec<oneshot::Receiver<Result<KeepAliveResponse, LinkError>>> {
        let mut answers = Vec::with_capacity(keep_alives.len());
        let mut message = Vec::with_capacity(keep_alives.len());
        for keep_alive in keep_alives {
            let (reply, answer) = oneshot::channel();
            message.push((keep_alive, reply));
            answers.push(answer);
        }
        // When the link is closed, the senders are dropped and every receiver says so.
        let _ = self.queue.send(Outgoing::KeepAlives(message)).await;
        answers
    }
}

struct LinkTask {
    address: SocketAddr,
    timeouts: Timeouts,
    greeter: Arc<dyn Greeter>,
    outgoing: mpsc::Receiver<Outgoing>,
    state: watch::Sender<LinkState>,
}

struct Stream {
    to_node: mpsc::Sender<DriverMessage>,
    from_node: Streaming<NodeMessage>,
}

impl LinkTask {
    async fn run(mut self) {
        let mut delay = MIN_RECONNECT_DELAY;
        loop {
            let reason = match tokio::time::timeout(self.timeouts.connect, self.connect()).await {
                Ok(Ok(stream)) => {
                    delay = MIN_RECONNECT_DELAY;
                    tracing::info!(node = %self.address, "connected to the storage node");
                    self.set_state(LinkState::Up);
                    self.exchange(stream).await
                }
                Ok(Err(reason)) => reason,
                Err(_) => format!("no answer within {:?}", self.timeouts.connect),
            };
            let reason = format!("node {}: {reason}", self.address);
            tracing::debug!(reason, "the storage node is not connected");
            self.set_state(LinkState::Down(reason.clone()));
            if !self.refuse_for(jittered(delay), &reason).await {
                return;
            }
            delay = (delay * 2).min(MAX_RECONNECT_DELAY);
        }
    }

    fn set_state(&self, state: LinkState) {
        let changed = self.state.send_if_modified(|current| {
            let changed = *current != state;
            *current = state;
            changed
        });
        if changed {
            self.greeter.link_changed();
        }
    }

    /// Fails what is asked for while the link waits to connect again. False = the handle is gone.
    async fn refuse_for(&mut self, delay: Duration, reason: &str) -> bool {
        let error = LinkError::NotSent(reason.to_owned());
        let wake = tokio::time::sleep(delay);
        tokio::pin!(wake);
        loop {
            tokio::select! {
                () = &mut wake => return true,
                outgoing = self.outgoing.recv() => match outgoing {
                    Some(outgoing) => outgoing.fail(&error),
                    None => return false,
                },
            }
        }
    }

    async fn connect(&self) -> Result<Stream, String> {
        let channel = self.channel().await?;
        let (to_node, messages) = mpsc::channel(16);
        let hello = DriverMessage {
            hello: Some(DriverHello {
                min_version: PROTOCOL_VERSION,
                max_version: PROTOCOL_VERSION,
                store_uid: self.greeter.store_uid(),
                driver_version: env!("CARGO_PKG_VERSION").to_owned(),
            }),
            ..DriverMessage::default()
        };
        if to_node.send(hello).await.is_err() {
            return Err("the stream closed at once".to_owned());
        }
        let mut client = PartitionsClient::new(channel)
            .max_decoding_message_size(MAX_NODE_MESSAGE_BYTES)
            .max_encoding_message_size(MAX_NODE_MESSAGE_BYTES);
        let answer = client.exchange(ReceiverStream::new(messages)).await;
        let mut from_node = answer.map_err(|status| describe(&status))?.into_inner();
        let first = from_node
            .message()
            .await
            .map_err(|status| describe(&status))?;
        let hello = first
            .and_then(|message| message.hello)
            .ok_or_else(|| "the node did not greet".to_owned())?;
        if hello.version != PROTOCOL_VERSION {
            return Err(format!(
                "the node speaks protocol version {}, this driver {PROTOCOL_VERSION}",
                hello.version
            ));
        }
        self.greeter.greet(&hello)?;
        Ok(Stream { to_node, from_node })
    }

    async fn channel(&self) -> Result<Channel, String> {
        let endpoint = Endpoint::from_shared(format!("http://{}", self.address))
            .map_err(|error| error.to_string())?
            .connect_timeout(self.timeouts.connect)
            .tcp_nodelay(true)
            .initial_stream_window_size(WINDOW_BYTES)
            .initial_connection_window_size(WINDOW_BYTES)
            .http2_keep_alive_interval(PING_INTERVAL)
            .keep_alive_timeout(PING_INTERVAL)
            .keep_alive_while_idle(true);
        endpoint.connect().await.map_err(|error| {
            let cause = std::error::Error::source(&error).map(ToString::to_string);
            cause.unwrap_or_else(|| error.to_string())
        })
    }

    /// Carries requests and answers until the stream breaks; returns why. Everything that was sent
    /// and not answered fails as broken.
    async fn exchange(&mut self, stream: Stream) -> String {
        let in_flight = Mutex::new(InFlight::default());
        let reason = tokio::select! {
            reason = write(&mut self.outgoing, stream.to_node, &in_flight) => reason,
            reason = read(stream.from_node, &in_flight) => reason,
        };
        let error = LinkError::Broken(format!("node {}: {reason}", self.address));
        in_flight.into_inner().fail(&error);
        reason
    }
}

/// What was sent and waits for its answer.
#[derive(Default)]
struct InFlight {
    requests: HashMap<u64, oneshot::Sender<Result<response::Outcome, LinkError>>>,
    keep_alives: HashMap<(u32, u64), oneshot::Sender<Result<KeepAliveResponse, LinkError>>>,
    prune_at: usize,
}

impl InFlight {
    fn add(&mut self, id: u64, reply: oneshot::Sender<Result<response::Outcome, LinkError>>) {
        if self.requests.len() >= self.prune_at.max(QUEUE) {
            // A node that never answers must not make the map grow with what nobody waits for.
            self.requests.retain(|_, reply| !reply.is_closed());
            self.prune_at = self.requests.len() * 2;
        }
        self.requests.insert(id, reply);
    }

    fn answer(&mut self, message: NodeMessage) {
        for Response { id, outcome } in message.responses {
            let (Some(reply), Some(outcome)) = (self.requests.remove(&id), outcome) else {
                continue;
            };
            let _ = reply.send(Ok(outcome));
        }
        for answer in message.keep_alives {
            let key = (answer.partition_id, answer.session);
            if let Some(reply) = self.keep_alives.remove(&key) {
                let _ = reply.send(Ok(answer));
            }
        }
    }

    fn fail(self, error: &LinkError) {
        for reply in self.requests.into_values() {
            let _ = reply.send(Err(error.clone()));
        }
        for reply in self.keep_alives.into_values() {
            let _ = reply.send(Err(error.clone()));
        }
    }
}

async fn write(
    outgoing: &mut mpsc::Receiver<Outgoing>,
    to_node: mpsc::Sender<DriverMessage>,
    in_flight: &Mutex<InFlight>,
) -> String {
    let mut queued = Vec::with_capacity(MAX_BATCH);
    loop {
        if outgoing.recv_many(&mut queued, MAX_BATCH).await == 0 {
            return "the link is closed".to_owned();
        }
        let mut message = DriverMessage::default();
        let mut bytes = 0;
        for item in queued.drain(..) {
            match item {
                Outgoing::Request(request, reply) => {
                    if reply.is_closed() {
                        continue;
                    }
                    if bytes > MAX_BATCH_BYTES {
                        let full = std::mem::take(&mut message);
                        bytes = 0;
                        if to_node.send(full).await.is_err() {
                            let error = LinkError::NotSent("the stream ended".to_owned());
                            let _ = reply.send(Err(error));
                            continue;
                        }
                    }
                    bytes += request.encoded_len();
                    in_flight.lock().add(request.id, reply);
                    message.requests.push(request);
                }
                Outgoing::KeepAlives(keep_alives) => {
                    let mut in_flight = in_flight.lock();
                    for (keep_alive, reply) in keep_alives {
                        let key = (keep_alive.partition_id, keep_alive.session);
                        in_flight.keep_alives.insert(key, reply);
                        message.keep_alives.push(keep_alive);
                    }
                }
            }
        }
        let nothing_left = message.requests.is_empty() && message.keep_alives.is_empty();
        if !nothing_left && to_node.send(message).await.is_err() {
            // The reading side learns why; it ends this future.
            std::future::pending::<()>().await;
        }
    }
}

async fn read(mut from_node: Streaming<NodeMessage>, in_flight: &Mutex<InFlight>) -> String {
    loop {
        match from_node.message().await {
            Ok(Some(message)) => in_flight.lock().answer(message),
            Ok(None) => return "the node ended the stream".to_owned(),
            Err(status) => return describe(&status),
        }
    }
}

fn describe(status: &tonic::Status) -> String {
    format!("{}: {}", status.code(), status.message())
}

/// Between half of the delay and all of it, so that drivers do not come back in step.
pub(crate) fn jittered(delay: Duration) -> Duration {
    delay.mul_f64(rand::rng().random_range(0.5..=1.0))
}
