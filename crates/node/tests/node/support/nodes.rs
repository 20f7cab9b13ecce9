//! `atomix-node` processes.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::ops::Deref;
use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use atomix_proto::multiraft::v1::group_status::Role;
use atomix_proto::multiraft::v1::{
    BootstrapRequest, GetStatusResponse, GroupStatus, JoinRequest, PartitionConfig, RaftTimings,
};
use tokio::process::{Child, Command};

use super::addresses::Addresses;
use super::driver::Stream;
use super::eventually;

pub const PATIENCE: Duration = Duration::from_secs(20);

/// One node: its addresses and data outlive its process.
pub struct NodeProcess {
    addresses: Addresses,
    data_dir: PathBuf,
    arguments: Vec<&'static str>,
    child: Option<Child>,
}

impl NodeProcess {
    /// A node that is not started yet, on an address of its own.
    pub fn new(data_dir: PathBuf) -> Self {
        Self {
            addresses: Addresses::new(),
            data_dir,
            arguments: Vec::new(),
            child: None,
        }
    }

    /// With one more argument.
    pub fn with(mut self, argument: &'static str) -> Self {
        self.arguments.push(argument);
        self
    }

    /// Starts the process and does not wait until it serves.
    pub fn spawn(&mut self) {
        assert!(self.child.is_none(), "the node runs already");
        let log = std::fs::File::options()
            .create(true)
            .append(true)
            .open(self.log_file())
            .unwrap();
        let child = Command::new(env!("CARGO_BIN_EXE_atomix-node"))
            .arg("--data-dir")
            .arg(&self.data_dir)
            .args(["--control-addr", &self.control.to_string()])
            .args(["--peer-addr", &self.peer.to_string()])
            .args(["--admin-addr", &self.admin.to_string()])
            .args(&self.arguments)
            .env("RUST_LOG", "info,atomix_node=debug")
            .stdout(Stdio::null())
            .stderr(log)
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        self.child = Some(child);
    }

    /// Starts the process and waits until it answers. A disk that is busy with somebody else's data
    /// may let the first sync of a node wait for long.
    ///
    /// # Panics
    /// When it does not, with what it logged.
    pub async fn start(&mut self) -> GetStatusResponse {
        self.spawn();
        let deadline = tokio::time::Instant::now() + 3 * PATIENCE;
        let mut pause = tokio::time::interval(Duration::from_millis(10));
        loop {
            let failed = match self.status().await {
                Ok(status) => return status,
                Err(failed) => failed,
            };
            let ended = self.child.as_mut().unwrap().try_wait().unwrap();
            if ended.is_some() || tokio::time::Instant::now() > deadline {
                let log = std::fs::read_to_string(self.log_file()).unwrap_or_default();
                panic!("the node does not serve ({failed}; ended: {ended:?}); its log:\n{log}");
            }
            pause.tick().await;
        }
    }

    /// Ends the process with SIGKILL.
    pub async fn kill(&mut self) {
        let mut child = self.child.take().expect("the node runs");
        child.kill().await.unwrap();
    }

    /// Ends the process with SIGTERM and waits for it.
    pub async fn terminate(&mut self) -> std::process::ExitStatus {
        let mut child = self.child.take().expect("the node runs");
        let pid = child.id().expect("it was not waited for").to_string();
        let sent = Command::new("kill").args(["-TERM", &pid]).status().await;
        assert!(sent.unwrap().success());
        tokio::time::timeout(PATIENCE, child.wait())
            .await
            .expect("the node ends after SIGTERM")
            .unwrap()
    }

    /// Stops the process in its tracks: it neither answers nor notices. Until [`Self::resume`].
    pub async fn pause(&self) {
        self.signal("-STOP").await;
    }

    pub async fn resume(&self) {
        self.signal("-CONT").await;
    }

    async fn signal(&self, signal: &str) {
        let child = self.child.as_ref().expect("the node runs");
        let pid = child.id().expect("it was not waited for").to_string();
        let sent = Command::new("kill").args([signal, &pid]).status().await;
        assert!(sent.unwrap().success());
    }

    /// Waits until the process has ended by itself.
    pub async fn ended(&mut self) -> std::process::ExitStatus {
        let mut child = self.child.take().expect("the node was started");
        tokio::time::timeout(PATIENCE, child.wait())
            .await
            .expect("the node ends")
            .unwrap()
    }

    pub fn is_running(&self) -> bool {
        self.child.is_some()
    }

    pub fn data_dir(&self) -> &std::path::Path {
        &self.data_dir
    }

    pub fn log_file(&self) -> PathBuf {
        self.data_dir.with_extension("log")
    }
}

impl Deref for NodeProcess {
    type Target = Addresses;

    fn deref(&self) -> &Addresses {
        &self.addresses
    }
}

/// Three nodes, on which each partition has a member.
pub struct Cluster {
    pub nodes: Vec<NodeProcess>,
    pub node_ids: Vec<u64>,
    folder: Option<tempfile::TempDir>,
}

impl Cluster {
    /// Starts three fresh nodes.
    pub async fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let mut nodes = Vec::new();
        let mut node_ids = Vec::new();
        for number in 0..3 {
            let mut node = NodeProcess::new(folder.path().join(format!("node-{number}")));
            node_ids.push(node.start().await.node_id);
            nodes.push(node);
        }
        Self {
            nodes,
            node_ids,
            folder: Some(folder),
        }
    }

    /// Starts three nodes with so many partitions and waits until each has a leader.
    pub async fn bootstrapped(partitions: u32) -> Self {
        let cluster = Self::start().await;
        for node in 0..3 {
            let plan = cluster.plan(node, partitions, 1);
            cluster.nodes[node].bootstrap(plan).await.unwrap();
        }
        for partition in 1..=partitions {
            cluster.leader(partition).await;
        }
        cluster
    }

    /// What one node is told to bootstrap.
    pub fn plan(&self, node: usize, partitions: u32, incarnation: u64) -> BootstrapRequest {
        let timings = RaftTimings {
            election_timeout: Some(Duration::from_millis(500).try_into().unwrap()),
            snapshot_entry_threshold: 1000,
        };
        let plan = Plan {
            peers: &self.peers(),
            node_ids: &self.node_ids,
            partitions,
            incarnation,
            timings,
        };
        plan.of(node)
    }

    /// The node that leads the partition, as soon as there is one.
    pub async fn leader(&self, partition: u32) -> usize {
        let what = format!("partition {partition} has a leader");
        eventually(&what, PATIENCE, || async {
            for (number, node) in self.nodes.iter().enumerate() {
                if node.is_running() && leads(node, partition).await {
                    return Some(number);
                }
            }
            None
        })
        .await
    }

    /// Starts one more node, which holds nothing yet.
    pub async fn add_node(&mut self) -> usize {
        let number = self.nodes.len();
        let folder = self.folder.as_ref().expect("not dropped").path();
        let mut node = NodeProcess::new(folder.join(format!("node-{number}")));
        self.node_ids.push(node.start().await.node_id);
        self.nodes.push(node);
        number
    }

    /// What a node is told to join a partition, in whose members' list is everybody who is one now.
    pub async fn join_request(&self, partition: u32, node: usize, member: u64) -> JoinRequest {
        let leader = self.leader(partition).await;
        let group = self.nodes[leader].group(partition).await;
        let present = group.expect("the leader has the group").members;
        let mut members: HashMap<u64, String> = HashMap::new();
        let mut node_ids = HashMap::new();
        for known in present {
            members.insert(known.member_id, known.address);
            node_ids.insert(known.member_id, known.node_id);
        }
        members.insert(member, self.nodes[node].peer.to_string());
        node_ids.insert(member, self.node_ids[node]);
        let planned = self.plan(0, partition, 1).partitions;
        let planned = planned.last().expect("at least one partition");
        JoinRequest {
            partition: Some(PartitionConfig {
                partition_id: partition,
                members,
                store_uid: planned.store_uid.clone(),
                member_id: member,
                raft: planned.raft,
                node_id: self.node_ids[node],
                incarnation: planned.incarnation,
                node_ids,
                ..PartitionConfig::default()
            }),
            expected_membership: None,
        }
    }

    /// The members of a partition by its leader, when no change is going on.
    pub async fn settled_group(&self, partition: u32) -> Option<GroupStatus> {
        for node in self.nodes.iter().filter(|node| node.is_running()) {
            if let Some(group) = node.group(partition).await
                && group.role() == Role::Leader
            {
                return group.outgoing_voters.is_empty().then_some(group);
            }
        }
        None
    }

    /// What a counter is at one node, which leads for that: it answers from what it has applied
    /// itself.
    pub async fn read_at(&self, node: usize, partition: u32, counter: &str) -> i64 {
        let member = member_id(partition, 1, node);
        let what = format!("node {node} leads partition {partition} and reads");
        eventually(&what, 3 * PATIENCE, || async {
            let stream = Stream::open(self.nodes[node].peer, "").await.ok()?;
            if let Ok(value) = stream.get(partition, counter).await {
                return Some(value);
            }
            let leader = self.leader(partition).await;
            // It may be too far behind yet.
            let _ = self.nodes[leader].transfer(partition, member).await;
            None
        })
        .await
    }

    pub fn peers(&self) -> Vec<SocketAddr> {
        self.nodes.iter().map(|node| node.peer).collect()
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            return;
        }
        if let Some(folder) = self.folder.take() {
            eprintln!(
                "logs and data of the nodes stay in {}",
                folder.keep().display()
            );
        }
    }
}

/// Partitions, each of them on the first three nodes.
pub struct Plan<'a> {
    pub peers: &'a [SocketAddr],
    pub node_ids: &'a [u64],
    pub partitions: u32,
    pub incarnation: u64,
    pub timings: RaftTimings,
}

impl Plan<'_> {
    /// What one node is told to bootstrap.
    pub fn of(&self, node: usize) -> BootstrapRequest {
        let config = |partition: u32| {
            let member = |node: usize| member_id(partition, self.incarnation, node);
            PartitionConfig {
                partition_id: partition,
                members: (0..3)
                    .map(|node| (member(node), self.peers[node].to_string()))
                    .collect(),
                store_uid: "a-store".to_owned(),
                member_id: member(node),
                raft: Some(self.timings),
                node_id: self.node_ids[node],
                incarnation: self.incarnation,
                initializer: member(partition as usize % 3),
                node_ids: (0..3)
                    .map(|node| (member(node), self.node_ids[node]))
                    .collect(),
                ..PartitionConfig::default()
            }
        };
        BootstrapRequest {
            partitions: (1..=self.partitions).map(config).collect(),
        }
    }
}

pub fn member_id(partition: u32, incarnation: u64, node: usize) -> u64 {
    incarnation * 1000 + u64::from(partition) * 10 + u64::try_from(node).unwrap() + 1
}

async fn leads(node: &NodeProcess, partition: u32) -> bool {
    let Ok(status) = node.status().await else {
        return false;
    };
    status
        .groups
        .iter()
        .any(|group| group.partition_id == partition && group.role() == Role::Leader)
}
