//! Streams between real nodes and their ends: which process may speak, how long a greeting may take,
//! and that SIGTERM ends a node whatever is open.

use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use atomix_proto::multiraft::v1::partitions_client::PartitionsClient;
use atomix_proto::multiraft::v1::peers_client::PeersClient;
use atomix_proto::multiraft::v1::{
    AppendEntries, DriverMessage, PeerFrame, PeerHello, PeerMessage, RaftTimings, Vote,
    WatchRequest, peer_frame, peer_message, peer_refusal, peer_reply,
};
use atomix_raft::{DiskFaults, EngineOptions};
use parking_lot::{Condvar, Mutex};
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Status, Streaming};
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;
use tonic_reflection::pb::v1::ServerReflectionRequest;
use tonic_reflection::pb::v1::server_reflection_client::ServerReflectionClient;
use tonic_reflection::pb::v1::server_reflection_request::MessageRequest;
use tonic_reflection::pb::v1::server_reflection_response::MessageResponse;

use crate::support::driver::Stream;
use crate::support::eventually;
use crate::support::nodes::{Cluster, NodeProcess, PATIENCE, Plan, member_id};
use crate::support::services::NodeService;

async fn channel(address: SocketAddr) -> Channel {
    let endpoint = Endpoint::from_shared(format!("http://{address}")).unwrap();
    endpoint.connect().await.unwrap()
}

/// A stream of somebody who says to be another node.
struct PeerStream {
    sender: mpsc::Sender<PeerFrame>,
    incoming: Streaming<PeerFrame>,
}

impl PeerStream {
    async fn open(node: SocketAddr, node_id: u64, boot_counter: u64) -> Result<Self, Status> {
        let (sender, frames) = mpsc::channel(16);
        let hello = PeerHello {
            version: 1,
            node_id,
            boot_counter,
            store_uid: "a-store".to_owned(),
        };
        let frame = PeerFrame {
            correlation_id: 0,
            body: Some(peer_frame::Body::Hello(hello)),
        };
        sender.send(frame).await.unwrap();
        let answer = PeersClient::new(channel(node).await)
            .raft(ReceiverStream::new(frames))
            .await?;
        let mut incoming = answer.into_inner();
        let first = incoming.message().await?;
        assert!(first.is_some(), "the node greets");
        Ok(Self { sender, incoming })
    }

    /// Sends an append to a member that does not exist, and waits for what comes of it.
    async fn ask(&mut self, correlation_id: u64) -> Result<PeerFrame, Status> {
        self.send(correlation_id, to_nobody()).await
    }

    async fn send(
        &mut self,
        correlation_id: u64,
        message: PeerMessage,
    ) -> Result<PeerFrame, Status> {
        // The stream may have ended; then the answer says so.
        let _ = self.post(correlation_id, message).await;
        self.next().await
    }

    /// Sends a message and does not wait for what comes of it.
    async fn post(
        &self,
        correlation_id: u64,
        message: PeerMessage,
    ) -> Result<(), mpsc::error::SendError<PeerFrame>> {
        let frame = PeerFrame {
            correlation_id,
            body: Some(peer_frame::Body::Message(message)),
        };
        self.sender.send(frame).await
    }

    async fn next(&mut self) -> Result<PeerFrame, Status> {
        self.incoming
            .message()
            .await?
            .ok_or_else(|| Status::unknown("ended without a reason"))
    }
}

/// A message that waits for so long is not taken any more.
const STALLED: Duration = Duration::from_secs(5);

/// An append to a member that does not exist.
fn to_nobody() -> PeerMessage {
    PeerMessage {
        store_uid: "a-store".to_owned(),
        incarnation: 1,
        partition_id: 99,
        from_member: 1,
        to_member: 2,
        body: Some(peer_message::Body::AppendEntries(AppendEntries::default())),
    }
}

#[tokio::test]
async fn a_newer_process_of_a_node_ends_the_streams_of_the_older_for_good() {
    let folder = tempfile::tempdir().unwrap();
    let mut node = NodeProcess::new(folder.path().join("node"));
    node.start().await;

    let mut old = PeerStream::open(node.peer, 77, 3).await.unwrap();
    let mut other = PeerStream::open(node.peer, 78, 1).await.unwrap();
    assert_eq!(old.ask(1).await.unwrap().correlation_id, 1);
    let mut new = PeerStream::open(node.peer, 77, 4).await.unwrap();

    let ended = old.ask(2).await.unwrap_err();
    assert_eq!(ended.code(), Code::FailedPrecondition, "{ended}");
    assert!(
        ended.message().contains("boot counter 3 after 4"),
        "{ended}"
    );
    assert_eq!(new.ask(1).await.unwrap().correlation_id, 1);
    assert_eq!(other.ask(1).await.unwrap().correlation_id, 1);
    let refused = PeerStream::open(node.peer, 77, 3).await.err().unwrap();
    assert_eq!(refused.code(), Code::FailedPrecondition, "{refused}");
}

#[tokio::test]
async fn a_stream_without_a_hello_is_ended() {
    let folder = tempfile::tempdir().unwrap();
    let mut node = NodeProcess::new(folder.path().join("node"));
    node.start().await;
    let channel = channel(node.peer).await;

    let (_peer, frames) = mpsc::channel::<PeerFrame>(1);
    let (_driver, messages) = mpsc::channel::<DriverMessage>(1);
    let mut peers = PeersClient::new(channel.clone());
    let mut partitions = PartitionsClient::new(channel);
    let peer = async {
        let answer = peers.raft(ReceiverStream::new(frames)).await.unwrap();
        answer.into_inner().message().await.unwrap_err()
    };
    let driver = async {
        let answer = partitions.exchange(ReceiverStream::new(messages)).await;
        answer.unwrap().into_inner().message().await.unwrap_err()
    };
    let ended = tokio::time::timeout(PATIENCE, async { tokio::join!(peer, driver) }).await;
    let (peer, driver) = ended.expect("both are ended");
    assert_eq!(peer.code(), Code::DeadlineExceeded, "{peer}");
    assert_eq!(driver.code(), Code::DeadlineExceeded, "{driver}");
}

#[tokio::test]
async fn sigterm_ends_a_node_in_order_whatever_is_open() {
    let mut cluster = Cluster::bootstrapped(1).await;
    let leader = cluster.leader(1).await;
    let node = &cluster.nodes[leader];

    let mut control = node.control().await.unwrap();
    let mut watch = control.watch(WatchRequest {}).await.unwrap().into_inner();
    watch.message().await.unwrap().unwrap();
    let mut health = Vec::new();
    for port in [node.control, node.peer] {
        let request = HealthCheckRequest::default();
        let watch = HealthClient::new(channel(port).await).watch(request).await;
        let mut watch = watch.unwrap().into_inner();
        watch.message().await.unwrap().unwrap();
        health.push(watch);
    }
    let (reflect, requests) = mpsc::channel(1);
    let request = ServerReflectionRequest {
        message_request: Some(MessageRequest::ListServices(String::new())),
        ..ServerReflectionRequest::default()
    };
    reflect.send(request).await.unwrap();
    let reflection = ServerReflectionClient::new(channel(node.control).await)
        .server_reflection_info(ReceiverStream::new(requests))
        .await;
    let mut reflection = reflection.unwrap().into_inner();
    reflection.message().await.unwrap().unwrap();
    let driver = Stream::open(node.peer, "").await.unwrap();
    let mut peer = PeerStream::open(node.peer, 77, 1).await.unwrap();
    // Connections on which nobody says anything, or only half of something.
    let mut half = Vec::new();
    for port in [node.control, node.peer, node.admin] {
        half.push(TcpStream::connect(port).await.unwrap());
        let mut begun = TcpStream::connect(port).await.unwrap();
        begun.write_all(b"GET /livez HT").await.unwrap();
        half.push(begun);
    }

    let began = Instant::now();
    let ended = cluster.nodes[leader].terminate().await;
    let took = began.elapsed();
    let log = std::fs::read_to_string(cluster.nodes[leader].log_file()).unwrap();
    assert_eq!(ended.code(), Some(0), "{ended} after {took:?}:\n{log}");
    assert!(took < Duration::from_secs(10), "{took:?}");

    let ended = watch_end(&mut watch).await;
    assert_eq!(ended.code(), Code::Unavailable, "{ended}");
    for watch in &mut health {
        let ended = watch_end(watch).await;
        assert_eq!(ended.code(), Code::Unavailable, "{ended}");
    }
    let ended = watch_end(&mut reflection).await;
    assert_eq!(ended.code(), Code::Unavailable, "{ended}");
    let ended = peer.ask(1).await.unwrap_err();
    assert_eq!(ended.code(), Code::Unavailable, "{ended}");
    let ended = eventually("the driver's stream ended", PATIENCE, || async {
        driver.ended()
    })
    .await;
    assert_eq!(ended.code(), Code::Unavailable, "{ended}");
}

/// The status with which a stream ends, after what was sent before.
async fn watch_end<T>(stream: &mut Streaming<T>) -> Status {
    loop {
        match stream.message().await {
            Ok(Some(_)) => {}
            Ok(None) => return Status::ok("ended"),
            Err(status) => return status,
        }
    }
}

#[tokio::test]
async fn a_lost_peer_is_one_line_in_the_log_and_its_return_another() {
    let mut cluster = Cluster::bootstrapped(1).await;
    let leader = cluster.leader(1).await;
    let follower = (leader + 1) % 3;
    let follower_name = format!("node=\"{:016x}\"", cluster.node_ids[follower]);
    let address = cluster.nodes[follower].peer.to_string();
    let log_file = cluster.nodes[leader].log_file();
    let lines = |what: &str| {
        let log = std::fs::read_to_string(&log_file).unwrap();
        log.lines()
            .filter(|line| line.contains(what) && line.contains(&follower_name))
            .inspect(|line| assert!(line.contains(&address), "{line}"))
            .count()
    };
    let (lost, back) = (lines("a peer is lost"), lines("a peer is back"));
    cluster.nodes[follower].kill().await;
    eventually("the loss is logged", PATIENCE, || async {
        (lines("a peer is lost") > lost).then_some(())
    })
    .await;
    cluster.nodes[follower].start().await;
    eventually("the return is logged", PATIENCE, || async {
        (lines("a peer is back") > back).then_some(())
    })
    .await;
    assert_eq!(lines("a peer is lost"), lost + 1);
    assert_eq!(lines("a peer is back"), back + 1);
}

#[tokio::test]
async fn another_node_at_a_members_address_does_not_count_as_that_member() {
    let mut cluster = Cluster::start().await;
    cluster.nodes[1]
        .bootstrap(cluster.plan(1, 1, 1))
        .await
        .unwrap();
    // Another plan than the one that node 1 holds.
    let mut plan = cluster.plan(0, 1, 1);
    plan.partitions[0].initializer = plan.partitions[0].member_id;
    let refused = cluster.nodes[0].bootstrap(plan.clone()).await.unwrap_err();
    assert_eq!(refused.code(), Code::FailedPrecondition, "{refused}");

    // The same, where the plan means a node that is gone and whose address node 1 has now.
    let real = std::mem::replace(&mut cluster.node_ids[1], 4711);
    let mut plan = cluster.plan(0, 1, 1);
    plan.partitions[0].initializer = plan.partitions[0].member_id;
    cluster.nodes[0].bootstrap(plan).await.unwrap();
    let log = std::fs::read_to_string(cluster.nodes[0].log_file()).unwrap();
    let expected = format!("node {real:016x} answers there now, not {:016x}", 4711);
    assert!(log.contains(&expected), "{log}");
}

#[tokio::test]
async fn a_node_that_speaks_for_a_member_of_another_node_is_refused() {
    let cluster = Cluster::bootstrapped(1).await;
    let leader = cluster.leader(1).await;
    let before = cluster.nodes[leader].group(1).await.unwrap();
    let mut stranger = PeerStream::open(cluster.nodes[leader].peer, 0x4711, 1)
        .await
        .unwrap();
    // As the leader of a term far above.
    let from_member = member_id(1, 1, (leader + 1) % 3);
    let append = AppendEntries {
        vote: Some(Vote {
            term: before.term + 1000,
            member_id: from_member,
            committed: true,
        }),
        ..AppendEntries::default()
    };
    let message = PeerMessage {
        store_uid: "a-store".to_owned(),
        incarnation: 1,
        partition_id: 1,
        from_member,
        to_member: member_id(1, 1, leader),
        body: Some(peer_message::Body::AppendEntries(append)),
    };
    let answer = stranger.send(1, message).await.unwrap();
    let Some(peer_frame::Body::Reply(reply)) = answer.body else {
        panic!("{answer:?}");
    };
    let Some(peer_reply::Body::Refusal(refusal)) = reply.body else {
        panic!("{reply:?}");
    };
    assert_eq!(refusal.reason(), peer_refusal::Reason::WrongMember);
    let expected = format!(
        "member {from_member:016x} does not live on node {:016x}",
        0x4711
    );
    assert_eq!(refusal.message, expected);
    let after = cluster.nodes[leader].group(1).await.unwrap();
    assert_eq!((after.term, after.leader), (before.term, before.leader));
}

/// A disk that stands still for a while.
#[derive(Default)]
struct Standstill {
    stands: Mutex<bool>,
    moves: Condvar,
}

impl Standstill {
    fn set(&self, stands: bool) {
        *self.stands.lock() = stands;
        self.moves.notify_all();
    }
}

impl DiskFaults for Standstill {
    fn sync(&self, _path: &Path) -> io::Result<()> {
        let mut stands = self.stands.lock();
        // A test that failed must not hang.
        self.moves
            .wait_while_for(&mut stands, |stands| *stands, PATIENCE * 2);
        Ok(())
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_group_that_waits_for_its_disk_holds_up_no_other_message_of_the_stream() {
    const LEADER: usize = 1;
    let folder = tempfile::tempdir().unwrap();
    let disk = Arc::new(Standstill::default());
    let faults = Arc::clone(&disk);
    let mut node = NodeService::new(folder.path().join("node"));
    let node_id = node
        .start(move |options| EngineOptions {
            faults: Some(faults.clone()),
            ..options
        })
        .await;
    // The test speaks for the others.
    let nowhere: SocketAddr = "127.0.0.1:1".parse().unwrap();
    let node_ids = [node_id, 77, 78];
    let plan = Plan {
        peers: &[node.addresses.peer, nowhere, nowhere],
        node_ids: &node_ids,
        partitions: 1,
        incarnation: 1,
        timings: RaftTimings {
            election_timeout: Some(PATIENCE.try_into().unwrap()),
            snapshot_entry_threshold: 0,
        },
    };
    let mut plan = plan.of(0);
    plan.partitions[0].initializer = member_id(1, 1, LEADER);
    node.addresses.bootstrap(plan).await.unwrap();
    let mut leader = PeerStream::open(node.addresses.peer, node_ids[LEADER], 1)
        .await
        .unwrap();

    disk.set(true);
    let append = AppendEntries {
        vote: Some(Vote {
            term: 5,
            member_id: member_id(1, 1, LEADER),
            committed: true,
        }),
        ..AppendEntries::default()
    };
    let message = PeerMessage {
        store_uid: "a-store".to_owned(),
        incarnation: 1,
        partition_id: 1,
        from_member: member_id(1, 1, LEADER),
        to_member: member_id(1, 1, 0),
        body: Some(peer_message::Body::AppendEntries(append)),
    };
    leader.post(1, message).await.unwrap();
    let answers = tokio::time::timeout(PATIENCE, async {
        let refused = leader.ask(2).await.unwrap();
        disk.set(false);
        [refused, leader.next().await.unwrap()]
    });
    let [refused, appended] = answers.await.expect("one does not wait for the other");
    assert_eq!(refused.correlation_id, 2, "{refused:?}");
    assert_eq!(appended.correlation_id, 1, "{appended:?}");
    let Some(peer_frame::Body::Reply(reply)) = appended.body else {
        panic!("{appended:?}");
    };
    let taken = matches!(reply.body, Some(peer_reply::Body::AppendEntries(_)));
    assert!(taken, "{reply:?}");
    node.stop().await;
}

#[tokio::test]
async fn a_node_that_takes_no_replies_is_cut_off_and_told_why() {
    let folder = tempfile::tempdir().unwrap();
    let mut node = NodeProcess::new(folder.path().join("node"));
    node.start().await;
    let mut lazy = PeerStream::open(node.peer, 77, 1).await.unwrap();
    let mut other = PeerStream::open(node.peer, 78, 1).await.unwrap();
    // Until the stream ends or, where the reason of its end waits behind replies that are not taken, until
    // the node takes no more.
    let mut sent = 0;
    while let Ok(Ok(())) = tokio::time::timeout(STALLED, lazy.post(sent, to_nobody())).await {
        sent += 1;
        assert!(sent < 1_000_000, "replies have no bound");
    }
    let ending = async {
        loop {
            if let Err(status) = lazy.next().await {
                break status;
            }
        }
    };
    let ended = tokio::time::timeout(PATIENCE, ending).await;
    let ended = ended.expect("the stream is ended");
    assert_eq!(ended.code(), Code::ResourceExhausted, "{ended}");
    assert_eq!(other.ask(1).await.unwrap().correlation_id, 1);
}

/// The services that a port names.
async fn reflected(port: SocketAddr) -> Vec<String> {
    let (reflect, requests) = mpsc::channel(1);
    let request = ServerReflectionRequest {
        message_request: Some(MessageRequest::ListServices(String::new())),
        ..ServerReflectionRequest::default()
    };
    reflect.send(request).await.unwrap();
    let answers = ServerReflectionClient::new(channel(port).await)
        .server_reflection_info(ReceiverStream::new(requests))
        .await;
    let answer = answers.unwrap().into_inner().message().await.unwrap();
    let Some(MessageResponse::ListServicesResponse(list)) = answer.unwrap().message_response else {
        panic!("it is no list");
    };
    let mut names: Vec<String> = list.service.into_iter().map(|one| one.name).collect();
    names.sort();
    names
}

#[tokio::test]
async fn each_port_names_the_services_that_it_has_and_says_that_they_serve() {
    let folder = tempfile::tempdir().unwrap();
    let mut node = NodeProcess::new(folder.path().join("node"));
    node.start().await;
    let control = ["Node"].as_slice();
    let peer = ["Members", "Partitions", "Peers", "Plans"].as_slice();
    for (port, services) in [(node.control, control), (node.peer, peer)] {
        let names = services
            .iter()
            .map(|service| format!("atomix.multiraft.v1.{service}"));
        let names: Vec<String> = names.collect();
        let health = "grpc.health.v1.Health".to_owned();
        let listed: Vec<String> = names.iter().cloned().chain([health]).collect();
        assert_eq!(reflected(port).await, listed);
        for service in names {
            let request = HealthCheckRequest { service };
            let named = request.service.clone();
            let answer = HealthClient::new(channel(port).await).check(request).await;
            let status = answer.expect(&named).into_inner().status();
            assert_eq!(status, ServingStatus::Serving, "{named}");
        }
    }
}
