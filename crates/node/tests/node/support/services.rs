//! Nodes in the process of the test: for what no option of the program reaches, such as a disk that
//! fails, snapshots after a few writes, and the kind of primitive that exists for tests.

use std::path::{Path, PathBuf};
use std::time::Duration;

use atomix_node::{Handle, NodeError, Options, Service};
use atomix_primitives::Kinds;
use atomix_process::logging::LogFormat;
use atomix_process::tasks::TaskError;
use atomix_proto::multiraft::v1::{Operation, PartitionConfig, RaftTimings};
use atomix_raft::{EngineOptions, OpenError};
use prost::Message;
use tokio_util::sync::CancellationToken;

use super::addresses::Addresses;
use super::eventually;
use super::nodes::{PATIENCE, member_id};

/// The options of a node of a test.
fn options(data_dir: PathBuf, addresses: &Addresses) -> Options {
    Options {
        data_dir,
        control_addr: addresses.control,
        peer_addr: addresses.peer,
        admin_addr: addresses.admin,
        tls_directory: None,
        allowed_namespaces: None,
        require_operator: false,
        hosts_file: None,
        election_timeout_millis: None,
        snapshot_entry_threshold: None,
        log_filter: None,
        log_format: LogFormat::Text,
    }
}

/// An operation of the primitive "p" of the kind that exists for tests.
pub fn probe(method: &str, owner: u64, request: &impl Message) -> Operation {
    Operation {
        kind: "probe".to_owned(),
        primitive: "p".to_owned(),
        method: method.to_owned(),
        request: request.encode_to_vec().into(),
        owner,
    }
}

/// One node: its addresses and data outlive its run.
pub struct NodeService {
    pub addresses: Addresses,
    /// The kinds of primitive that it serves.
    pub kinds: fn() -> Kinds,
    data_dir: PathBuf,
    running: Option<(Handle, CancellationToken)>,
}

impl NodeService {
    /// A node that is not started yet. It serves the kind that exists for tests, too.
    pub fn new(data_dir: PathBuf) -> Self {
        Self {
            addresses: Addresses::new(),
            kinds: Kinds::with_test_kind,
            data_dir,
            running: None,
        }
    }

    /// Starts it and waits until it serves; answers its id.
    ///
    /// # Errors
    /// Why it does not.
    pub async fn try_start(
        &mut self,
        adjust: impl Fn(EngineOptions) -> EngineOptions + Clone + Send + 'static,
    ) -> Result<u64, NodeError> {
        assert!(self.running.is_none(), "the node runs already");
        let shutdown = CancellationToken::new();
        // Its last run was in this process, which may hold its ports and its lock for a moment.
        let started = eventually("ports and data are free", PATIENCE, || async {
            let service = Service::new(options(self.data_dir.clone(), &self.addresses))
                .with_kinds((self.kinds)())
                .with_engine_options(adjust.clone());
            match Box::pin(service.start(shutdown.clone())).await {
                Err(NodeError::Listen { .. } | NodeError::Open(OpenError::Locked(_))) => None,
                started => Some(started),
            }
        })
        .await;
        let node = started?;
        let node_id = node.node_id;
        self.running = Some((node, shutdown));
        Ok(node_id)
    }

    /// The same, of a node that starts.
    pub async fn start(
        &mut self,
        adjust: impl Fn(EngineOptions) -> EngineOptions + Clone + Send + 'static,
    ) -> u64 {
        self.try_start(adjust).await.unwrap()
    }

    /// What makes it the only member of a partition.
    pub fn alone(&self, partition: u32, node_id: u64, incarnation: u64) -> PartitionConfig {
        let member = member_id(partition, incarnation, 0);
        PartitionConfig {
            partition_id: partition,
            members: [(member, self.addresses.peer.to_string())].into(),
            store_uid: "a-store".to_owned(),
            member_id: member,
            // Long, because the time that a starved process misses does not count.
            raft: Some(RaftTimings {
                election_timeout: Some(Duration::from_secs(2).try_into().unwrap()),
                snapshot_entry_threshold: 0,
            }),
            node_id,
            incarnation,
            initializer: member,
            node_ids: [(member, node_id)].into(),
            ..PartitionConfig::default()
        }
    }

    pub fn is_running(&self) -> bool {
        self.running.is_some()
    }

    /// Stops it in order.
    pub async fn stop(&mut self) {
        let (node, shutdown) = self.running.take().expect("the node runs");
        shutdown.cancel();
        node.join().await.unwrap();
    }

    /// Goes on with a copy of its data: what a process that ended by itself leaves behind. This
    /// process holds the lock of the original still.
    pub fn continue_on_copy(&mut self) {
        let copy = self.data_dir.with_extension("copy");
        copy_directory(&self.data_dir, &copy);
        self.data_dir = copy;
    }

    /// Waits until it has ended by itself.
    pub async fn ended(&mut self) -> Result<(), TaskError> {
        let (node, _shutdown) = self.running.take().expect("the node runs");
        node.join().await
    }
}

fn copy_directory(from: &Path, to: &Path) {
    std::fs::create_dir(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy_directory(&entry.path(), &target);
        } else {
            std::fs::copy(entry.path(), target).unwrap();
        }
    }
}
