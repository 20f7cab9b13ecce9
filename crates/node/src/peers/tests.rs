//! Links against a peer whose faults are placed exactly: real streams on loopback.

#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use atomix_proto::multiraft::v1::peers_server::{Peers, PeersServer};
use atomix_proto::multiraft::v1::{PeerFrame, peer_frame::Body};
use atomix_raft::{
    Class, MemberId, NodeId, PartitionId, PeerMessage, PeerReply, PeerTarget, Transport as _,
    TransportError,
};
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_stream::wrappers::{ReceiverStream, TcpListenerStream};
use tokio_util::sync::{CancellationToken, DropGuard};
use tonic::transport::Server;
use tonic::{Request, Response, Status, Streaming};

use super::{Greeting, PeerTransport};
use crate::reach::Reach;
use crate::resolver::DnsResolver;

const PEER: NodeId = NodeId(7);
const LONG: Duration = Duration::from_secs(20);

/// What a peer does after the hellos.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Manner {
    Replies,
    Silent,
    Breaks,
}

#[derive(Clone)]
struct Peer {
    manner: Manner,
    streams: Arc<AtomicUsize>,
    /// Cancelled to end the first stream.
    end_first: CancellationToken,
}

impl Peer {
    fn new(manner: Manner) -> Self {
        Self {
            manner,
            streams: Arc::default(),
            end_first: CancellationToken::new(),
        }
    }

    fn streams(&self) -> usize {
        self.streams.load(Ordering::SeqCst)
    }

    /// Serves on this address, which must be free.
    async fn serve(&self, address: SocketAddr) -> DropGuard {
        let listener = TcpListener::bind(address).await.unwrap();
        let stop = CancellationToken::new();
        let server = Server::builder()
            .add_service(PeersServer::new(self.clone()))
            .serve_with_incoming(TcpListenerStream::new(listener));
        let stopped = stop.clone();
        tokio::spawn(async move { stopped.run_until_cancelled(server).await });
        stop.drop_guard()
    }

    async fn answer(
        self,
        mut incoming: Streaming<PeerFrame>,
        outgoing: mpsc::Sender<Result<PeerFrame, Status>>,
    ) {
        let is_first = self.streams.fetch_add(1, Ordering::SeqCst) == 0;
        incoming.message().await.unwrap().unwrap();
        let hello = Greeting::new(PEER, 3, Arc::default()).frame("a-store");
        outgoing.send(Ok(hello)).await.unwrap();
        if self.manner == Manner::Breaks {
            return;
        }
        loop {
            let frame = tokio::select! {
                frame = incoming.message() => frame,
                () = self.end_first.cancelled(), if is_first => return,
            };
            let Ok(Some(frame)) = frame else { return };
            let reply = PeerFrame {
                correlation_id: frame.correlation_id,
                body: Some(Body::Reply(PeerReply::default())),
            };
            if self.manner == Manner::Replies && outgoing.send(Ok(reply)).await.is_err() {
                return;
            }
        }
    }
}

#[tonic::async_trait]
impl Peers for Peer {
    type RaftStream = ReceiverStream<Result<PeerFrame, Status>>;

    async fn raft(
        &self,
        request: Request<Streaming<PeerFrame>>,
    ) -> Result<Response<Self::RaftStream>, Status> {
        let (outgoing, stream) = mpsc::channel(16);
        tokio::spawn(self.clone().answer(request.into_inner(), outgoing));
        Ok(Response::new(ReceiverStream::new(stream)))
    }

    type SnapshotStream = Self::RaftStream;

    async fn snapshot(
        &self,
        request: Request<Streaming<PeerFrame>>,
    ) -> Result<Response<Self::SnapshotStream>, Status> {
        self.raft(request).await
    }
}

/// This node, and the address of its one peer.
struct Node {
    greeting: Arc<Greeting>,
    transport: PeerTransport,
    target: PeerTarget,
    _shutdown: DropGuard,
}

impl Node {
    fn new(peer: SocketAddr) -> Self {
        let shutdown = CancellationToken::new();
        let greeting = Arc::new(Greeting::new(NodeId(1), 1, Arc::default()));
        let transport = PeerTransport::new(
            Arc::clone(&greeting),
            Reach::new(Arc::new(DnsResolver), None),
            shutdown.clone(),
        );
        Self {
            greeting,
            transport,
            target: PeerTarget {
                partition: PartitionId(1),
                from_member: MemberId(1),
                to_member: MemberId(2),
                to_node: PEER,
                address: peer.to_string(),
            },
            _shutdown: shutdown.drop_guard(),
        }
    }

    async fn send(&self) -> Result<PeerReply, TransportError> {
        self.send_for(PartitionId(1), Class::Raft).await
    }

    async fn send_for(
        &self,
        partition: PartitionId,
        class: Class,
    ) -> Result<PeerReply, TransportError> {
        let target = PeerTarget {
            partition,
            ..self.target.clone()
        };
        let message = PeerMessage::default();
        self.transport.send(&target, message, class, LONG).await
    }

    /// Sends until there is a reply; how long that took.
    async fn reach(&self) -> Duration {
        self.reach_for(PartitionId(1), Class::Raft).await
    }

    async fn reach_for(&self, partition: PartitionId, class: Class) -> Duration {
        let began = Instant::now();
        let mut pause = tokio::time::interval(Duration::from_millis(5));
        while self.send_for(partition, class).await.is_err() {
            assert!(began.elapsed() < LONG, "the peer is not reached");
            pause.tick().await;
        }
        began.elapsed()
    }
}

async fn free_address() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    listener.local_addr().unwrap()
}

#[tokio::test]
async fn all_groups_share_one_stream_of_each_class() {
    let address = free_address().await;
    let peer = Peer::new(Manner::Replies);
    let _serving = peer.serve(address).await;
    let node = Node::new(address);
    for partition in 1..=8 {
        for class in [Class::Raft, Class::Snapshot] {
            node.reach_for(PartitionId(partition), class).await;
        }
    }
    assert_eq!(peer.streams(), 2);
}

#[tokio::test]
async fn a_peer_that_came_back_is_reached_within_the_longest_pause() {
    let address = free_address().await;
    let node = Node::new(address);
    // The pauses have grown to their limit.
    let began = Instant::now();
    let mut pause = tokio::time::interval(Duration::from_millis(20));
    while began.elapsed() < Duration::from_secs(1) {
        let error = node.send().await.unwrap_err();
        assert!(
            matches!(error, TransportError::Unreachable { .. }),
            "{error}"
        );
        pause.tick().await;
    }
    let _serving = Peer::new(Manner::Replies).serve(address).await;
    let took = node.reach().await;
    assert!(took < Duration::from_millis(500), "{took:?}");
}

#[tokio::test]
async fn a_lost_stream_is_opened_again_though_nobody_sends() {
    let address = free_address().await;
    let peer = Peer::new(Manner::Replies);
    let _serving = peer.serve(address).await;
    let node = Node::new(address);
    node.reach().await;
    assert_eq!(peer.streams(), 1);
    peer.end_first.cancel();
    let began = Instant::now();
    let mut pause = tokio::time::interval(Duration::from_millis(5));
    while peer.streams() < 2 {
        assert!(began.elapsed() < LONG, "no stream without a message");
        pause.tick().await;
    }
}

#[tokio::test]
async fn a_stream_that_breaks_after_the_hello_is_not_opened_again_without_a_pause() {
    let address = free_address().await;
    let peer = Peer::new(Manner::Breaks);
    let _serving = peer.serve(address).await;
    let node = Node::new(address);
    let began = Instant::now();
    while began.elapsed() < Duration::from_secs(1) {
        node.send().await.unwrap_err();
        // The peer comes itself all the time, which makes no hot loop either.
        node.greeting.processes.arrived(PEER);
        tokio::task::yield_now().await;
    }
    let streams = peer.streams();
    assert!((3..100).contains(&streams), "{streams} streams in a second");
}

#[tokio::test]
async fn a_newer_process_seen_elsewhere_ends_the_stream_to_the_older() {
    let address = free_address().await;
    let peer = Peer::new(Manner::Silent);
    let _serving = peer.serve(address).await;
    let node = Node::new(address);
    let waiting = node
        .transport
        .send(&node.target, PeerMessage::default(), Class::Raft, LONG);
    let waiting = tokio::spawn(waiting);
    let began = Instant::now();
    let mut pause = tokio::time::interval(Duration::from_millis(5));
    // The peer greets with boot counter 3.
    while node.greeting.processes.admit(PEER, 2).is_ok() {
        assert!(began.elapsed() < LONG);
        pause.tick().await;
    }
    node.greeting.processes.admit(PEER, 4).unwrap();
    let error = waiting.await.unwrap().unwrap_err();
    assert!(error.to_string().contains("boot counter 3"), "{error}");
    // And the older process is not talked to again.
    let error = node.send().await.unwrap_err();
    assert!(
        matches!(error, TransportError::Unreachable { .. }),
        "{error}"
    );
}

#[tokio::test]
async fn a_message_to_a_silent_peer_ends_with_its_time_and_its_stream_stays() {
    let address = free_address().await;
    let peer = Peer::new(Manner::Silent);
    let _serving = peer.serve(address).await;
    let node = Node::new(address);
    let time = Duration::from_millis(100);
    let began = Instant::now();
    let mut timed_out = 0;
    while timed_out < 3 {
        let message = PeerMessage::default();
        let sent = node
            .transport
            .send(&node.target, message, Class::Raft, time);
        match sent.await.unwrap_err() {
            TransportError::TimedOut { timeout, .. } => {
                assert_eq!(timeout, time);
                timed_out += 1;
            }
            // There is no stream yet.
            TransportError::Unreachable { .. } if timed_out == 0 => {
                assert!(began.elapsed() < LONG, "the peer is not reached");
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            error => panic!("{error}"),
        }
    }
    assert_eq!(peer.streams(), 1);
}
