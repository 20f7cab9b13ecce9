//! The stream of one class to one node, opened again and again while it is of use.

use std::sync::Arc;
use std::time::Duration;

use atomix_process::grpc::next_message;
use atomix_proto::multiraft::v1::PeerFrame;
use atomix_proto::multiraft::v1::peers_client::PeersClient;
use atomix_raft::{Class, NodeId};
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_stream::StreamExt as _;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::transport::{Channel, Endpoint};

use super::Greeting;
use super::backoff::{Backoff, MIN_PAUSE};
use super::exchange::{Ended, Exchange, FRAMES, Leaving, describe};
use super::processes::Arrivals;
use super::queue::Outgoing;
use crate::grpc;
use crate::reach::Reach;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);
/// A node that is gone without a word, its address perhaps moved, is noticed by its silence.
const PING_INTERVAL: Duration = Duration::from_secs(1);
const PING_TIMEOUT: Duration = Duration::from_secs(3);
/// A link that carried nothing for so long ends.
const IDLE: Duration = Duration::from_secs(300);

/// The stream of one class to one node.
pub(super) struct Link {
    pub(super) node_id: NodeId,
    pub(super) address: String,
    pub(super) class: Class,
    pub(super) greeting: Arc<Greeting>,
    pub(super) reach: Reach,
}

/// What was last said about the node, so that each change is one line in the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Told {
    Nothing,
    Reached,
    Lost,
}

/// What a pause ended with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Paused {
    Over { used: bool },
    NobodyCanUseIt,
}

impl Link {
    /// Carries messages until the node shuts down or nothing used the link for long.
    pub(super) async fn run(
        self,
        mut queue: mpsc::Receiver<Outgoing>,
        shutdown: CancellationToken,
    ) {
        let ended = tokio::select! {
            () = self.carry(&mut queue) => "nothing used the stream",
            () = shutdown.cancelled() => "this node shuts down",
        };
        queue.close();
        while let Ok(unsent) = queue.try_recv() {
            unsent.fail(ended);
        }
    }

    async fn carry(&self, queue: &mut mpsc::Receiver<Outgoing>) {
        // Made for its first message.
        let Some(first) = queue.recv().await else {
            return;
        };
        let store_uid = first.message.store_uid.clone();
        let mut first = Some(first);
        let mut backoff = Backoff::new();
        let mut told = Told::Nothing;
        let mut used = Instant::now();
        // Also without a message: whoever needs the node next finds it connected.
        while used.elapsed() < IDLE {
            let mut arrivals = self.greeting.processes.arrivals(self.node_id);
            let opened = tokio::time::timeout(CONNECT_TIMEOUT, self.open(&store_uid)).await;
            let reason = match opened {
                Ok(Ok(exchange)) => {
                    let opened = Instant::now();
                    let replied = || self.tell_reached(&mut told);
                    let ended = exchange.run(first.take(), queue, IDLE, replied).await;
                    used = Instant::now();
                    backoff.stream_lived(opened.elapsed());
                    match ended {
                        Ended::Unused => return,
                        Ended::Broken(reason) => reason,
                    }
                }
                Ok(Err(reason)) => reason,
                Err(_) => format!("no connection within {CONNECT_TIMEOUT:?}"),
            };
            self.tell_lost(&mut told, &reason);
            if let Some(first) = first.take() {
                first.fail(&reason);
            }
            match refuse(queue, &reason, backoff.pause(), &mut arrivals).await {
                Paused::Over { used: true } => used = Instant::now(),
                Paused::Over { used: false } => {}
                Paused::NobodyCanUseIt => return,
            }
        }
    }

    async fn open(&self, store_uid: &str) -> Result<Exchange, String> {
        let channel = self.connect().await?;
        let mut client = PeersClient::new(channel)
            .max_decoding_message_size(grpc::MAX_PEER_MESSAGE)
            .max_encoding_message_size(grpc::MAX_PEER_MESSAGE);

        let (to_node, frames) = mpsc::channel::<Leaving>(FRAMES);
        // A new queue has room.
        let _ = to_node.try_send((self.greeting.frame(store_uid), None));
        let frames =
            ReceiverStream::new(frames).map(|(frame, _room): Leaving| -> PeerFrame { frame });
        let answer = match self.class {
            Class::Raft => client.raft(frames).await,
            Class::Snapshot => client.snapshot(frames).await,
        };
        let mut from_node = answer.map_err(|status| describe(&status))?.into_inner();
        let hello = next_message(&mut from_node).await;
        let hello = hello.map_err(|status| describe(&status))?;
        let process = self.greeting.check(hello)?;
        if process.node_id != self.node_id {
            return Err(format!(
                "node {:016x} answers there now, not {}",
                process.node_id.0,
                self.name()
            ));
        }
        Ok(Exchange::new(to_node, from_node, process))
    }

    async fn connect(&self) -> Result<Channel, String> {
        let settings = |endpoint: Endpoint| {
            endpoint
                .tcp_nodelay(true)
                .initial_stream_window_size(grpc::STREAM_WINDOW)
                .initial_connection_window_size(grpc::CONNECTION_WINDOW)
                .http2_keep_alive_interval(PING_INTERVAL)
                .keep_alive_timeout(PING_TIMEOUT)
                .keep_alive_while_idle(true)
        };
        self.reach.connect(&self.address, settings).await
    }

    /// The node's id as people know it.
    fn name(&self) -> String {
        format!("{:016x}", self.node_id.0)
    }

    fn tell_reached(&self, told: &mut Told) {
        let was_lost = std::mem::replace(told, Told::Reached) == Told::Lost;
        // Snapshots travel rarely; the stream of the heartbeats tells.
        if was_lost && self.class == Class::Raft {
            tracing::info!(node = self.name(), address = self.address, "a peer is back");
        } else {
            tracing::debug!(node = self.name(), address = self.address, class = ?self.class, "connected");
        }
    }

    fn tell_lost(&self, told: &mut Told, reason: &str) {
        let is_news = std::mem::replace(told, Told::Lost) != Told::Lost;
        if is_news && self.class == Class::Raft {
            tracing::warn!(
                node = self.name(),
                address = self.address,
                reason,
                "a peer is lost"
            );
        } else {
            tracing::debug!(node = self.name(), address = self.address, class = ?self.class, reason, "cannot reach a peer");
        }
    }
}

/// Fails what is sent during a pause. It is over early when the node comes by itself.
async fn refuse(
    queue: &mut mpsc::Receiver<Outgoing>,
    reason: &str,
    pause: Duration,
    arrivals: &mut Arrivals,
) -> Paused {
    let began = Instant::now();
    let over = async {
        let arrived = tokio::time::timeout(pause, arrivals.next()).await.is_ok();
        if arrived {
            tokio::time::sleep_until(began + pause.min(MIN_PAUSE)).await;
        }
    };
    tokio::pin!(over);
    let mut used = false;
    loop {
        tokio::select! {
            () = &mut over => return Paused::Over { used },
            outgoing = queue.recv() => match outgoing {
                Some(outgoing) => {
                    used = true;
                    outgoing.fail(reason);
                }
                None => return Paused::NobodyCanUseIt,
            },
        }
    }
}
