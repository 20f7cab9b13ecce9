//! A Store of real storage nodes, and real sidecars that are connected with it.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, bail};
use atomix_proto::multiraft::v1::group_status::Role;
use atomix_proto::multiraft::v1::node_client::NodeClient;
use atomix_proto::multiraft::v1::{
    BootstrapRequest, GetStatusRequest, GetStatusResponse, PartitionConfig, RaftTimings,
};
use atomix_proto::runtime::v1::runtime_client::RuntimeClient;
use atomix_proto::runtime::v1::{
    ConnectRequest, DriverId, ProgramRequest, Route, Service, StoreId,
};
use tokio::time::Instant;
use tonic::transport::{Channel, Endpoint};

use crate::address::{Addresses, NODE_CONTROL, NODE_PEER, RUNTIME_APPLICATION, RUNTIME_CONTROL};
use crate::link::Passage;
use crate::party::{Member, Party, node_name};

/// So short that a run sees many elections, and long enough for a busy machine.
const ELECTION_TIMEOUT: Duration = Duration::from_millis(600);
/// How long a lock outlives the sidecar of its holder.
const SESSION_TIMEOUT: Duration = Duration::from_secs(8);
/// Few, so that members that were away are sent snapshots.
const SNAPSHOT_ENTRIES: u64 = 500;
const PATIENCE: Duration = Duration::from_secs(60);
const BETWEEN_LOOKS: Duration = Duration::from_millis(20);

/// How large it is.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Size {
    pub(crate) nodes: u8,
    pub(crate) sidecars: u8,
    pub(crate) partitions: u32,
}

/// All processes of a run.
#[derive(Debug)]
pub(crate) struct Cluster {
    pub(crate) size: Size,
    addresses: Addresses,
    pub(crate) nodes: Vec<Member>,
    pub(crate) sidecars: Vec<Member>,
}

impl Cluster {
    /// Starts everything, makes the Store, and connects the sidecars.
    pub(crate) async fn start(size: Size, folder: &Path) -> anyhow::Result<Self> {
        std::fs::create_dir_all(folder)?;
        let addresses = Addresses::take()?;
        let mut nodes = Vec::new();
        for number in 0..size.nodes {
            let party = Party::Node(number);
            nodes.push(Member::new(party, size.nodes, &addresses, folder).await?);
        }
        let mut sidecars = Vec::new();
        for number in 0..size.sidecars {
            let party = Party::Sidecar(number);
            sidecars.push(Member::new(party, size.nodes, &addresses, folder).await?);
        }
        for member in nodes.iter_mut().chain(&mut sidecars) {
            member.start()?;
        }
        let mut cluster = Self {
            size,
            addresses,
            nodes,
            sidecars,
        };
        cluster.bootstrap().await?;
        for partition in 1..=size.partitions {
            cluster.until_led(partition).await?;
        }
        for number in 0..size.sidecars {
            cluster.connect(number).await?;
        }
        Ok(cluster)
    }

    /// Where applications reach the sidecars.
    pub(crate) fn applications(&self) -> Vec<SocketAddr> {
        (0..self.size.sidecars)
            .map(|number| {
                self.addresses
                    .of(Party::Sidecar(number), RUNTIME_APPLICATION)
            })
            .collect()
    }

    /// The node that leads a partition now, as far as nodes tell.
    pub(crate) async fn leader(&self, partition: u32) -> Option<u8> {
        for node in 0..self.size.nodes {
            let Some(status) = self.status(node).await else {
                continue;
            };
            let mut groups = status.groups.iter();
            if groups.any(|group| group.partition_id == partition && group.role() == Role::Leader) {
                return Some(node);
            }
        }
        None
    }

    /// # Errors
    /// When a program has ended by itself.
    pub(crate) fn is_well(&mut self) -> anyhow::Result<()> {
        for member in self.nodes.iter_mut().chain(&mut self.sidecars) {
            member.is_well()?;
        }
        Ok(())
    }

    /// Everything runs and reaches everything afterwards.
    pub(crate) fn restore(&mut self) -> anyhow::Result<()> {
        for member in self.nodes.iter_mut().chain(&mut self.sidecars) {
            for node in 0..self.size.nodes {
                member.set_way_to(node, Passage::Open);
            }
            member.restore()?;
        }
        Ok(())
    }

    /// Waits until each partition is led again.
    pub(crate) async fn until_serving(&mut self) -> anyhow::Result<()> {
        for partition in 1..=self.size.partitions {
            self.until_led(partition).await?;
        }
        Ok(())
    }

    async fn until_led(&mut self, partition: u32) -> anyhow::Result<()> {
        let deadline = Instant::now() + PATIENCE;
        while self.leader(partition).await.is_none() {
            self.is_well()?;
            if Instant::now() > deadline {
                bail!("partition {partition} has no leader after {PATIENCE:?}");
            }
            tokio::time::sleep(BETWEEN_LOOKS).await;
        }
        Ok(())
    }

    /// What a node says of itself; `None` when it does not answer at once.
    async fn status(&self, node: u8) -> Option<GetStatusResponse> {
        let address = self.addresses.of(Party::Node(node), NODE_CONTROL);
        let asked = async {
            let channel = channel(address).await.ok()?;
            let mut client = NodeClient::new(channel);
            client.get_status(GetStatusRequest {}).await.ok()
        };
        let answered = tokio::time::timeout(ELECTION_TIMEOUT, asked).await;
        answered.ok().flatten().map(tonic::Response::into_inner)
    }

    async fn until_node_serves(&mut self, node: u8) -> anyhow::Result<u64> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(status) = self.status(node).await {
                return Ok(status.node_id);
            }
            self.is_well()?;
            if Instant::now() > deadline {
                bail!("node {node} does not serve after {PATIENCE:?}");
            }
            tokio::time::sleep(BETWEEN_LOOKS).await;
        }
    }

    async fn bootstrap(&mut self) -> anyhow::Result<()> {
        let mut node_ids = Vec::new();
        for node in 0..self.size.nodes {
            node_ids.push((node, self.until_node_serves(node).await?));
        }
        for (node, node_id) in &node_ids {
            let plan = (1..=self.size.partitions)
                .map(|partition| self.planned(partition, *node, *node_id, &node_ids))
                .collect();
            let address = self.addresses.of(Party::Node(*node), NODE_CONTROL);
            let mut client = NodeClient::new(channel(address).await?);
            let request = BootstrapRequest { partitions: plan };
            let answered = client.bootstrap(request).await;
            answered.with_context(|| format!("node {node} refuses its plan"))?;
        }
        Ok(())
    }

    /// What one node is told of a partition, which has a member on each node.
    fn planned(
        &self,
        partition: u32,
        node: u8,
        node_id: u64,
        node_ids: &[(u8, u64)],
    ) -> PartitionConfig {
        let member_of = |node: u8| u64::from(partition) * 1000 + u64::from(node) + 1;
        let members = (0..self.size.nodes)
            .map(|node| (member_of(node), format!("{}:{NODE_PEER}", node_name(node))));
        let ids = node_ids
            .iter()
            .map(|(node, node_id)| (member_of(*node), *node_id));
        let first = u8::try_from(partition % u32::from(self.size.nodes)).unwrap_or_default();
        PartitionConfig {
            partition_id: partition,
            members: members.collect::<HashMap<_, _>>(),
            store_uid: "histories".to_owned(),
            member_id: member_of(node),
            raft: Some(RaftTimings {
                election_timeout: ELECTION_TIMEOUT.try_into().ok(),
                snapshot_entry_threshold: SNAPSHOT_ENTRIES,
            }),
            node_id,
            incarnation: 1,
            initializer: member_of(first),
            node_ids: ids.collect::<HashMap<_, _>>(),
            ..PartitionConfig::default()
        }
    }

    async fn connect(&self, sidecar: u8) -> anyhow::Result<()> {
        let address = self.addresses.of(Party::Sidecar(sidecar), RUNTIME_CONTROL);
        let mut control = RuntimeClient::new(until_connected(address).await?);
        let store_id = StoreId {
            namespace: "histories".to_owned(),
            name: "store".to_owned(),
        };
        let nodes: Vec<String> = (0..self.size.nodes).map(node_name).collect();
        let config = serde_json::json!({
            "nodes": nodes,
            "partitions": self.size.partitions,
            "timeouts": {
                "election": format!("{}ms", ELECTION_TIMEOUT.as_millis()),
                "session": format!("{}ms", SESSION_TIMEOUT.as_millis()),
            },
        });
        let connect = ConnectRequest {
            store_id: Some(store_id.clone()),
            driver_id: Some(DriverId {
                name: "multi-raft".to_owned(),
                version: "v1".to_owned(),
            }),
            config: config.to_string().into(),
        };
        let connected = control.connect(connect).await;
        connected.with_context(|| format!("sidecar {sidecar} does not connect"))?;
        let everything = Service {
            name: "*".to_owned(),
            ..Service::default()
        };
        let routes = vec![Route {
            store_id: Some(store_id),
            services: vec![everything],
            ..Route::default()
        }];
        control.program(ProgramRequest { routes }).await?;
        Ok(())
    }
}

async fn channel(address: SocketAddr) -> anyhow::Result<Channel> {
    let endpoint = Endpoint::from_shared(format!("http://{address}"))?;
    Ok(endpoint.timeout(PATIENCE).connect().await?)
}

async fn until_connected(address: SocketAddr) -> anyhow::Result<Channel> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        match channel(address).await {
            Ok(channel) => return Ok(channel),
            Err(error) if Instant::now() > deadline => {
                return Err(error.context(format!("nothing listens on {address}")));
            }
            Err(_) => tokio::time::sleep(BETWEEN_LOOKS).await,
        }
    }
}
