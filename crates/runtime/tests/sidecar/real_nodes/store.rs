//! A store of real `atomix-node` processes, each on a loopback address of its own.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU8, Ordering};

use atomix_proto::multiraft::v1::group_status::Role;
use atomix_proto::multiraft::v1::node_client::NodeClient;
use atomix_proto::multiraft::v1::{
    BootstrapRequest, GetStatusRequest, GetStatusResponse, PartitionConfig, RaftTimings,
};
use atomix_proto::runtime::v1::{ConnectRequest, DriverId};
use tempfile::TempDir;
use tonic::transport::{Channel, Endpoint};

use crate::harness::{store, until};

const NODE_CONTROL: u16 = 5680;
const NODE_PEER: u16 = 5681;
const ADMIN: u16 = 9090;
const RUNTIME_ADMIN: u16 = 5677;
const RUNTIME_APPLICATION: u16 = 5678;
const RUNTIME_CONTROL: u16 = 5679;

/// An address that no other test, of this process or another, uses.
fn own_address() -> IpAddr {
    static NEXT: AtomicU8 = AtomicU8::new(64);
    let [.., high, low] = std::process::id().to_be_bytes();
    IpAddr::V4(Ipv4Addr::new(
        127,
        NEXT.fetch_add(1, Ordering::Relaxed),
        high,
        low,
    ))
}

/// A process that is killed when this is dropped.
struct Process(Child);

impl Process {
    fn spawn(command: &mut Command) -> Self {
        if std::env::var_os("RUST_LOG").is_none() {
            command.env("RUST_LOG", "error");
        }
        let child = command.stdin(Stdio::null()).stdout(Stdio::null()).spawn();
        Self(child.unwrap_or_else(|error| panic!("cannot start {command:?}: {error}")))
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // SIGKILL; then it is reaped.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

pub struct TestStore {
    uid: &'static str,
    nodes: Vec<Node>,
    partitions: u32,
    /// How often its data has begun.
    incarnation: u64,
}

struct Node {
    ip: IpAddr,
    data: TempDir,
    process: Option<Process>,
}

impl Node {
    fn start(&mut self) {
        let at = |port| SocketAddr::new(self.ip, port).to_string();
        let process = Process::spawn(
            Command::new(node_program())
                .arg("--data-dir")
                .arg(self.data.path())
                .args(["--control-addr", &at(NODE_CONTROL)])
                .args(["--peer-addr", &at(NODE_PEER)])
                .args(["--admin-addr", &at(ADMIN)]),
        );
        self.process = Some(process);
    }

    fn peer(&self) -> String {
        SocketAddr::new(self.ip, NODE_PEER).to_string()
    }

    async fn status(&self) -> Option<GetStatusResponse> {
        let mut client = NodeClient::new(connect(SocketAddr::new(self.ip, NODE_CONTROL)).await?);
        let status = client.get_status(GetStatusRequest {}).await;
        status.ok().map(tonic::Response::into_inner)
    }
}

/// Next to this test's own program: `target/debug/deps/..` → `target/debug/atomix-node`.
fn node_program() -> PathBuf {
    let own = std::env::current_exe().unwrap();
    let folder = own.parent().and_then(Path::parent).unwrap();
    let program = folder.join("atomix-node");
    assert!(
        program.exists(),
        "{} does not exist: build it first with `cargo build -p atomix-node`",
        program.display()
    );
    program
}

async fn connect(address: SocketAddr) -> Option<Channel> {
    let endpoint = Endpoint::from_shared(format!("http://{address}")).unwrap();
    endpoint.connect().await.ok()
}

impl TestStore {
    /// Starts nodes and bootstraps the partitions with a replica on each node.
    pub async fn start(nodes: usize, partitions: u32) -> Self {
        Self::start_as("test-store", nodes, partitions).await
    }

    /// As [`TestStore::start`], with a uid of its own.
    pub async fn start_as(uid: &'static str, nodes: usize, partitions: u32) -> Self {
        let mut nodes: Vec<Node> = (0..nodes)
            .map(|_| Node {
                ip: own_address(),
                data: tempfile::tempdir().unwrap(),
                process: None,
            })
            .collect();
        for node in &mut nodes {
            node.start();
        }
        let mut store = Self {
            uid,
            nodes,
            partitions,
            incarnation: 0,
        };
        store.begin().await;
        store
    }

    /// Bootstraps the partitions, which are empty then, whatever they held.
    pub async fn begin(&mut self) {
        self.incarnation += 1;
        self.bootstrap().await;
        for partition in 1..=self.partitions {
            let this = &*self;
            until("a leader", || async {
                this.leader(partition).await.is_some()
            })
            .await;
        }
    }

    async fn bootstrap(&self) {
        let mut node_ids = Vec::new();
        for node in &self.nodes {
            until("the node to serve", || async {
                node.status().await.is_some()
            })
            .await;
            node_ids.push(node.status().await.unwrap().node_id);
        }
        for (index, node) in self.nodes.iter().enumerate() {
            let partitions = (1..=self.partitions)
                .map(|partition| self.partition_config(partition, index, &node_ids))
                .collect();
            let address = SocketAddr::new(node.ip, NODE_CONTROL);
            let mut client = NodeClient::new(connect(address).await.unwrap());
            client
                .bootstrap(BootstrapRequest { partitions })
                .await
                .unwrap();
        }
    }

    fn partition_config(&self, partition: u32, own: usize, node_ids: &[u64]) -> PartitionConfig {
        let of_partition = self.incarnation * 1_000_000 + u64::from(partition) * 1_000;
        let member = |index: usize| of_partition + index as u64 + 1;
        let indexes = || 0..self.nodes.len();
        PartitionConfig {
            partition_id: partition,
            members: indexes()
                .map(|index| (member(index), self.nodes[index].peer()))
                .collect(),
            store_uid: self.uid.into(),
            member_id: member(own),
            raft: Some(RaftTimings::default()),
            node_id: node_ids[own],
            incarnation: self.incarnation,
            initializer: member(partition as usize % self.nodes.len()),
            node_ids: indexes()
                .map(|index| (member(index), node_ids[index]))
                .collect::<HashMap<_, _>>(),
            ..PartitionConfig::default()
        }
    }

    /// The node that leads a partition.
    async fn leader(&self, partition: u32) -> Option<usize> {
        for (index, node) in self.nodes.iter().enumerate() {
            let Some(status) = node.status().await else {
                continue;
            };
            let leads = status
                .groups
                .iter()
                .any(|group| group.partition_id == partition && group.role() == Role::Leader);
            if leads {
                return Some(index);
            }
        }
        None
    }

    /// Kills the node that leads a partition, and says which it was.
    pub async fn kill_leader(&mut self, partition: u32) -> usize {
        let this = &*self;
        until("a leader", || async {
            this.leader(partition).await.is_some()
        })
        .await;
        let leader = self.leader(partition).await.unwrap();
        self.kill_node(leader);
        leader
    }

    pub fn kill_node(&mut self, index: usize) {
        self.nodes[index].process = None;
    }

    pub fn start_node(&mut self, index: usize) {
        self.nodes[index].start();
    }

    pub fn connect_request(&self, name: &str) -> ConnectRequest {
        self.connect_request_with(name, self.partitions, "{}")
    }

    /// As if it had so many partitions, with these time-outs.
    pub fn connect_request_with(
        &self,
        name: &str,
        partitions: u32,
        timeouts: &str,
    ) -> ConnectRequest {
        let nodes: Vec<String> = self.nodes.iter().map(Node::peer).collect();
        let config = format!(
            r#"{{"nodes": {nodes:?}, "partitions": {partitions}, "timeouts": {timeouts}}}"#
        );
        ConnectRequest {
            store_id: store(name),
            driver_id: Some(DriverId {
                name: "multi-raft".into(),
                version: "v1".into(),
            }),
            config: config.into(),
        }
    }
}

/// A sidecar as a process of its own.
pub struct SidecarProcess {
    ip: IpAddr,
    state_dir: PathBuf,
    process: Option<Process>,
}

impl SidecarProcess {
    pub fn start(state_dir: &Path) -> Self {
        let mut sidecar = Self {
            ip: own_address(),
            state_dir: state_dir.to_owned(),
            process: None,
        };
        sidecar.spawn();
        sidecar
    }

    fn spawn(&mut self) {
        let at = |port| SocketAddr::new(self.ip, port).to_string();
        let process = Process::spawn(
            Command::new(env!("CARGO_BIN_EXE_atomix-runtime"))
                .args(["--control-addr", &at(RUNTIME_CONTROL)])
                .args(["--app-addr", &at(RUNTIME_APPLICATION)])
                .args(["--admin-addr", &at(RUNTIME_ADMIN)])
                .arg("--state-dir")
                .arg(&self.state_dir),
        );
        self.process = Some(process);
    }

    /// SIGKILL, then the same again.
    /// Sends it a signal: `STOP`, `CONT`.
    pub fn signal(&self, name: &str) {
        let process = self.process.as_ref().expect("it runs");
        let pid = process.0.id().to_string();
        let sent = Command::new("kill").args(["-s", name, &pid]).status();
        assert!(sent.unwrap().success(), "{name}");
    }

    pub fn kill_and_start_again(&mut self) {
        self.process = None;
        self.spawn();
    }

    pub async fn control(&self) -> Channel {
        self.channel(RUNTIME_CONTROL).await
    }

    pub async fn application(&self) -> Channel {
        self.channel(RUNTIME_APPLICATION).await
    }

    async fn channel(&self, port: u16) -> Channel {
        let address = SocketAddr::new(self.ip, port);
        until("the sidecar to listen", || async {
            connect(address).await.is_some()
        })
        .await;
        connect(address).await.unwrap()
    }

    pub fn admin_address(&self) -> SocketAddr {
        SocketAddr::new(self.ip, RUNTIME_ADMIN)
    }
}
