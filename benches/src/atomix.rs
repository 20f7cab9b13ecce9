//! Three storage nodes and one runtime sidecar, connected as the operator connects them, and the
//! one call that is measured: Counter.Increment at the sidecar's application port.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, bail};
use atomix_proto::multiraft::v1 as multiraft;
use atomix_proto::runtime::counter::v1 as counter;
use atomix_proto::runtime::v1 as runtime;
use counter::counter_client::CounterClient;
use multiraft::node_client::NodeClient;
use runtime::runtime_client::RuntimeClient;
use tokio::time::Instant;
use tonic::transport::{Channel, Endpoint};

use crate::identities::{self, Identities, STORE};
use crate::load::Call;
use crate::servers::{Server, free_port, listening};

const STORE_UID: &str = "benchmark";

/// Three nodes and a sidecar.
#[derive(Debug)]
pub(crate) struct Atomix {
    nodes: Vec<StorageNode>,
    _runtime: Server,
    /// host:port of the sidecar's application port.
    pub(crate) application: String,
}

/// A storage node, and how it is started.
#[derive(Debug)]
struct StorageNode {
    program: PathBuf,
    arguments: Vec<String>,
    log: PathBuf,
    /// host:port of its control port.
    control: String,
    server: Option<Server>,
}

impl StorageNode {
    fn start(&mut self) -> anyhow::Result<()> {
        self.server = Some(Server::start(&self.program, &self.arguments, &self.log)?);
        Ok(())
    }
}

impl Atomix {
    pub(crate) async fn start(
        binaries: &Path,
        folder: &Path,
        partitions: u32,
        identities: Option<&Identities>,
    ) -> anyhow::Result<Self> {
        let mut nodes = Vec::new();
        let mut controls = Vec::new();
        let mut peers = Vec::new();
        for index in 0..3 {
            let (control, peer, admin) = (free_port()?, free_port()?, free_port()?);
            let mut arguments = vec![
                format!(
                    "--data-dir={}",
                    folder.join(format!("node{index}")).display()
                ),
                format!("--control-addr=127.0.0.1:{control}"),
                format!("--peer-addr=127.0.0.1:{peer}"),
                format!("--admin-addr=127.0.0.1:{admin}"),
            ];
            let tls = folder.join(format!("tls{index}"));
            arguments.extend(identities::argument(identities, &identities::node(), &tls)?);
            let mut node = StorageNode {
                program: binaries.join("atomix-node"),
                arguments,
                log: folder.join(format!("node{index}.log")),
                control: format!("127.0.0.1:{control}"),
                server: None,
            };
            node.start()?;
            controls.push(node.control.clone());
            nodes.push(node);
            peers.push(format!("127.0.0.1:{peer}"));
        }
        bootstrap(&controls, &peers, partitions, identities).await?;

        let (control, application, admin) = (free_port()?, free_port()?, free_port()?);
        let mut arguments = vec![
            format!("--control-addr=127.0.0.1:{control}"),
            format!("--app-addr=127.0.0.1:{application}"),
            format!("--admin-addr=127.0.0.1:{admin}"),
            format!("--state-dir={}", folder.join("runtime").display()),
        ];
        let tls = folder.join("tls-runtime");
        arguments.extend(identities::argument(
            identities,
            &identities::runtime(),
            &tls,
        )?);
        let log = folder.join("runtime.log");
        let runtime = Server::start(&binaries.join("atomix-runtime"), &arguments, &log)?;
        let control = format!("127.0.0.1:{control}");
        connect_runtime(&control, &peers, partitions, identities).await?;
        let application = format!("127.0.0.1:{application}");
        first_increment(&application).await?;
        Ok(Self {
            nodes,
            _runtime: runtime,
            application,
        })
    }

    /// How many storage nodes there are.
    pub(crate) fn size(&self) -> usize {
        self.nodes.len()
    }

    /// A client of a storage node that speaks plain text.
    pub(crate) async fn node(&self, index: usize) -> anyhow::Result<NodeClient<Channel>> {
        let node = self.nodes.get(index).context("no such node")?;
        let channel = identities::connect(&node.control, None, &identities::node()).await?;
        Ok(NodeClient::new(channel))
    }

    /// What a storage node says of the only partition.
    pub(crate) async fn group(&self, index: usize) -> anyhow::Result<multiraft::GroupStatus> {
        let mut node = self.node(index).await?;
        let answer = node.get_status(multiraft::GetStatusRequest {}).await?;
        let group = answer.into_inner().groups.into_iter().next();
        group.context("the node has no group")
    }

    /// Kills a storage node.
    pub(crate) async fn kill_node(&mut self, index: usize) -> anyhow::Result<()> {
        let node = self.nodes.get_mut(index).context("no such node")?;
        let server = node.server.take().context("the node does not run")?;
        server.kill().await
    }

    /// Starts a storage node again on its data.
    pub(crate) fn start_node(&mut self, index: usize) -> anyhow::Result<()> {
        self.nodes.get_mut(index).context("no such node")?.start()
    }
}

/// One increment: each client counts in counters of its own, spread over the partitions.
pub(crate) fn increment() -> &'static Call {
    &|channel, client, round| {
        Box::pin(async move {
            let request = counter::IncrementRequest {
                id: Some(runtime::PrimitiveId {
                    id: format!("counter-{client:04}-{:02}", round % 64),
                }),
                delta: 1,
            };
            CounterClient::new(channel).increment(request).await?;
            Ok(())
        })
    }
}

async fn bootstrap(
    controls: &[String],
    peers: &[String],
    partitions: u32,
    identities: Option<&Identities>,
) -> anyhow::Result<()> {
    let mut clients = Vec::new();
    let mut node_ids = Vec::new();
    for control in controls {
        listening(control).await?;
        let channel = identities::connect(control, identities, &identities::node()).await?;
        let mut client = NodeClient::new(channel);
        let status = client
            .get_status(multiraft::GetStatusRequest {})
            .await?
            .into_inner();
        node_ids.push(status.node_id);
        clients.push(client);
    }
    for (index, client) in clients.iter_mut().enumerate() {
        let configurations = (1..=partitions)
            .map(|partition| configuration(partition, index, peers, &node_ids))
            .collect();
        client
            .bootstrap(multiraft::BootstrapRequest {
                partitions: configurations,
            })
            .await
            .with_context(|| format!("node {index} refused its bootstrap"))?;
    }
    Ok(())
}

/// The part of the plan that one node gets: member ids are 1, 2, 3 within each partition.
fn configuration(
    partition: u32,
    receiver: usize,
    peers: &[String],
    node_ids: &[u64],
) -> multiraft::PartitionConfig {
    let member_ids = || (1_u64..).map(|member| member + u64::from(partition) * 1000);
    let members: HashMap<u64, String> = member_ids().zip(peers.iter().cloned()).collect();
    let nodes: HashMap<u64, u64> = member_ids().zip(node_ids.iter().copied()).collect();
    let member_of = |index: usize| member_ids().nth(index).unwrap_or_default();
    multiraft::PartitionConfig {
        partition_id: partition,
        members,
        store_uid: STORE_UID.to_owned(),
        member_id: member_of(receiver),
        node_id: node_ids.get(receiver).copied().unwrap_or_default(),
        incarnation: 1,
        initializer: member_of(partition as usize % peers.len()),
        node_ids: nodes,
        ..multiraft::PartitionConfig::default()
    }
}

async fn connect_runtime(
    control: &str,
    peers: &[String],
    partitions: u32,
    identities: Option<&Identities>,
) -> anyhow::Result<()> {
    listening(control).await?;
    let channel = identities::connect(control, identities, &identities::runtime()).await?;
    let mut client = RuntimeClient::new(channel);
    let store_id = runtime::StoreId {
        namespace: STORE.0.to_owned(),
        name: STORE.1.to_owned(),
    };
    let config = serde_json::json!({
        "nodes": peers, "partitions": partitions, "tls": identities.is_some(),
    });
    client
        .connect(runtime::ConnectRequest {
            store_id: Some(store_id.clone()),
            driver_id: Some(runtime::DriverId {
                name: "multi-raft".to_owned(),
                version: "v1".to_owned(),
            }),
            config: config.to_string().into(),
        })
        .await
        .context("the sidecar does not connect")?;
    let everything = runtime::Service {
        name: "*".to_owned(),
        ..runtime::Service::default()
    };
    client
        .program(runtime::ProgramRequest {
            routes: vec![runtime::Route {
                store_id: Some(store_id),
                services: vec![everything],
                ..runtime::Route::default()
            }],
        })
        .await
        .context("the sidecar does not take its routes")?;
    Ok(())
}

async fn first_increment(application: &str) -> anyhow::Result<()> {
    listening(application).await?;
    let channel = Endpoint::from_shared(format!("http://{application}"))?
        .connect()
        .await?;
    let deadline = Instant::now() + Duration::from_secs(30);
    loop {
        match increment()(channel.clone(), 0, 0).await {
            Ok(()) => return Ok(()),
            Err(status) if Instant::now() > deadline => bail!("no increment within 30 s: {status}"),
            Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
        }
    }
}
