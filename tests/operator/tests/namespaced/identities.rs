//! Mutual TLS between real nodes, runtimes and operators: whom each port serves, certificates and
//! authorities that are replaced, and permissions that change.

use std::net::Ipv4Addr;
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use atomix_operator::identities::{Lifetimes, NODES_SECRET, RUNTIME_SECRET};
use atomix_operator_tests::fault::Disturbance;
use atomix_operator_tests::load::{Load, Pace};
use atomix_operator_tests::matrix::{Outcome, disturb_sampled_calls};
use atomix_operator_tests::mounts::{Content, of_secret};
use atomix_operator_tests::resources::{self, expect_condition};
use atomix_operator_tests::samples::{self, StoreSize};
use atomix_operator_tests::supervised::Supervised;
use atomix_operator_tests::test_bed::TestBed;
use atomix_operator_tests::workload::{self, LIMIT};
use atomix_operator_tests::{identity, runtime_pods};
use atomix_proto::multiraft::v1::node_client::NodeClient;
use atomix_proto::multiraft::v1::partitions_client::PartitionsClient;
use atomix_proto::multiraft::v1::plans_client::PlansClient;
use atomix_proto::multiraft::v1::{
    DriverHello, DriverMessage, GetStatusRequest, ListPlansRequest, NodeMessage,
};
use atomix_proto::runtime::v1 as runtime;
use atomix_proto::runtime::v1::runtime_client::RuntimeClient;
use atomix_tls::{Credentials, Identity};
use k8s_openapi::api::core::v1::Secret;
use kube::Api;
use kube::api::{DeleteParams, Patch, PatchParams, PostParams};
use serde_json::json;
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Streaming};

const STORE: &str = "tulip";
const SESSION: &str = "bees";

/// Short, but long enough for a busy machine to bring what was renewed to the processes.
const SHORT: Lifetimes = Lifetimes {
    authority: Duration::from_secs(110),
    certificate: Duration::from_secs(36),
    settle: Duration::from_secs(10),
};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn certificates_and_authorities_are_replaced_under_load_without_a_failed_operation()
-> Result<()> {
    let bed = TestBed::create_secured("rotated", SHORT).await?;
    workload::run_in(bed, None, rotate).await?;
    Ok(())
}

async fn rotate(bed: &TestBed, operator: &mut Supervised<'_>) -> Result<()> {
    let size = StoreSize {
        replicas: 3,
        partitions: 2,
    };
    workload::bootstrap(bed, operator, STORE, size).await?;
    let first = content(bed, identity::AUTHORITY).await?;
    let first_nodes = content(bed, NODES_SECRET).await?;
    resources::create(&bed.sessions(), samples::session(SESSION, STORE, "hive")).await?;
    connect_another(bed, operator, 0).await?;
    let load = Load::start(address(bed, "hive-0")?, Pace::Busy);
    load.goes_on(10).await?;

    // New connections, between all of them, at every stage.
    let begin = Instant::now();
    let (mut pods, mut replaced) = (1, false);
    loop {
        connect_another(bed, operator, pods).await?;
        pods += 1;
        load.goes_on(10).await?;
        let now = content(bed, identity::AUTHORITY).await?;
        let signer_is_new = now.get("ca.key") != first.get("ca.key");
        if signer_is_new && !replaced {
            bed.pods()
                .delete("tulip-1", &DeleteParams::default())
                .await?;
            replaced = true;
            let ready = async || {
                workload::store_is_ready(bed, STORE).await?;
                workload::groups_are_whole(bed, STORE, size).await
            };
            operator.until("the node to be back", LIMIT, ready).await?;
        }
        if signer_is_new && !trusts(&now, &first) {
            break;
        }
        ensure!(
            begin.elapsed() < Duration::from_secs(300),
            "the first authority is still trusted"
        );
        tokio::time::sleep(Duration::from_secs(4)).await;
    }
    let nodes = content(bed, NODES_SECRET).await?;
    ensure!(nodes.get("tulip.crt") != first_nodes.get("tulip.crt"));
    for secret in [NODES_SECRET, RUNTIME_SECRET] {
        ensure!(
            !trusts(&content(bed, secret).await?, &first),
            "{secret} still names the first authority"
        );
    }
    let failure = load.first_failure();
    let (acknowledged, failed) = load.check().await?;
    println!("{acknowledged} increments over {pods} pods, {failed} failed");
    ensure!(
        failed == 0,
        "{failed} increments failed, the first {failure:?}"
    );
    Ok(())
}

/// Whether what a Secret trusts holds the first authority of another.
fn trusts(now: &Content, first: &Content) -> bool {
    let text = |content: &Content| {
        let bytes = content.get("ca.crt").cloned().unwrap_or_default();
        String::from_utf8(bytes).unwrap()
    };
    text(now).contains(text(first).trim())
}

pub(crate) async fn content(bed: &TestBed, name: &str) -> Result<Content> {
    let secrets: Api<Secret> = Api::namespaced(bed.client().clone(), bed.namespace());
    let secret = secrets.get(name).await;
    Ok(of_secret(
        &secret.with_context(|| format!("no Secret {name}"))?,
    ))
}

pub(crate) async fn connect_another(
    bed: &TestBed,
    operator: &mut Supervised<'_>,
    number: usize,
) -> Result<()> {
    let name = format!("hive-{number}");
    bed.create_pod(samples::secured_pod(&name, "hive")).await?;
    operator
        .until("a runtime to be connected", LIMIT, async || {
            let status = runtime_pods::status(address(bed, &name)?).await?;
            let states = status.connections.iter().map(runtime::Connection::state);
            let states: Vec<_> = states.collect();
            ensure!(
                states == [runtime::connection::State::Connected],
                "{states:?}"
            );
            Ok(())
        })
        .await
}

pub(crate) fn address(bed: &TestBed, pod: &str) -> Result<Ipv4Addr> {
    bed.runner()
        .address(pod)
        .with_context(|| format!("the pod {pod} does not run"))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn making_and_removing_identities_survives_crash_and_trouble() -> Result<()> {
    let test = "making_and_removing_identities_survives_crash_and_trouble";
    disturb_sampled_calls(test, identities_come_and_go).await
}

/// From an operator without an authority to a namespace without Secrets of ours.
async fn identities_come_and_go(disturbance: Option<Disturbance>) -> Result<Outcome> {
    let bed = TestBed::create_secured("made", Lifetimes::default()).await?;
    workload::run_in(bed, disturbance, async |bed, operator| {
        let size = StoreSize {
            replicas: 1,
            partitions: 1,
        };
        workload::bootstrap(bed, operator, STORE, size).await?;
        workload::delete_and_wait(operator, &bed.stores(), STORE).await?;
        operator
            .until_settled("the nodes' Secret to be gone", LIMIT, async || {
                let secrets: Api<Secret> = Api::namespaced(bed.client().clone(), bed.namespace());
                let left = secrets.get_opt(NODES_SECRET).await?;
                ensure!(left.is_none(), "it is there");
                Ok(())
            })
            .await
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_port_serves_whom_it_should_and_nobody_else() -> Result<()> {
    let bed = TestBed::create_secured("ports", Lifetimes::default()).await?;
    workload::run_in(bed, None, ask_every_port).await?;
    Ok(())
}

/// What is called: (port, RPC).
#[derive(Clone, Copy, Debug)]
enum Call {
    NodeStatus,
    Plans,
    Exchange,
    RuntimeStatus,
}

async fn ask_every_port(bed: &TestBed, operator: &mut Supervised<'_>) -> Result<()> {
    let size = StoreSize {
        replicas: 1,
        partitions: 1,
    };
    workload::bootstrap(bed, operator, STORE, size).await?;
    resources::create(&bed.sessions(), samples::session(SESSION, STORE, "hive")).await?;
    connect_another(bed, operator, 0).await?;
    let (node, pod) = (address(bed, "tulip-0")?, address(bed, "hive-0")?);

    let namespace = bed.namespace().to_owned();
    let of_store = |store: &str| Identity::Node {
        namespace: namespace.clone(),
        store: store.to_owned(),
    };
    let runtime_of = |namespace: &str| Identity::Runtime {
        namespace: namespace.to_owned(),
    };
    let callers = [
        Identity::Operator,
        Identity::Registry,
        of_store(STORE),
        of_store("rose"),
        runtime_of(&namespace),
        runtime_of("field"),
    ];
    let calls = [
        (Call::NodeStatus, vec![Identity::Operator]),
        (Call::Plans, vec![of_store(STORE)]),
        (Call::Exchange, vec![runtime_of(&namespace)]),
        (Call::RuntimeStatus, vec![Identity::Operator]),
    ];
    for caller in callers {
        let credentials = identity::credentials(&namespace, &caller).await?;
        for (call, served) in &calls {
            let answer = ask(*call, node, pod, &credentials).await;
            let context = || format!("{call:?} by {caller}");
            if served.contains(&caller) {
                answer.with_context(context)?;
                continue;
            }
            let Err(error) = answer else {
                bail!("{} was served", context());
            };
            let status = error.downcast_ref::<tonic::Status>();
            let status = status.with_context(|| format!("{}: {error:#}", context()))?;
            ensure!(
                status.code() == Code::PermissionDenied && status.message().contains("it serves"),
                "{}: {status}",
                context()
            );
        }
    }

    let expired = Credentials::default();
    let over = Duration::ZERO;
    expired.set(&identity::issue(&namespace, &Identity::Operator, over).await?)?;
    tokio::time::sleep(Duration::from_secs(1)).await;
    for call in [Call::NodeStatus, Call::RuntimeStatus] {
        ensure!(
            ask(call, node, pod, &expired).await.is_err(),
            "{call:?} with a certificate that has expired"
        );
    }
    for (address, port) in [(node, 5680), (node, 5681), (pod, 5679)] {
        let answer = match endpoint(address, port)?.connect().await {
            Ok(channel) => {
                let health = GetStatusRequest {};
                NodeClient::new(channel).get_status(health).await.is_ok()
            }
            Err(_) => false,
        };
        ensure!(!answer, "port {port} answers plain text");
    }
    Ok(())
}

fn endpoint(address: Ipv4Addr, port: u16) -> Result<Endpoint> {
    Ok(Endpoint::from_shared(format!("http://{address}:{port}"))?
        .connect_timeout(Duration::from_secs(5))
        .timeout(Duration::from_secs(20)))
}

async fn ask(call: Call, node: Ipv4Addr, pod: Ipv4Addr, credentials: &Credentials) -> Result<()> {
    let (address, port) = match call {
        Call::NodeStatus => (node, 5680),
        Call::Plans | Call::Exchange => (node, 5681),
        Call::RuntimeStatus => (pod, 5679),
    };
    let channel = identity::connect_as(endpoint(address, port)?, address, credentials).await?;
    match call {
        Call::NodeStatus => {
            NodeClient::new(channel)
                .get_status(GetStatusRequest {})
                .await?;
        }
        Call::Plans => {
            PlansClient::new(channel)
                .list_plans(ListPlansRequest {})
                .await?;
        }
        Call::Exchange => {
            let (mut stream, _hold) = exchange(channel).await?;
            stream.message().await?.context("no hello")?;
        }
        Call::RuntimeStatus => {
            RuntimeClient::new(channel)
                .get_status(runtime::GetStatusRequest {})
                .await?;
        }
    }
    Ok(())
}

/// Greets as a driver does; the stream lasts while the sender is kept.
async fn exchange(
    channel: Channel,
) -> Result<(Streaming<NodeMessage>, mpsc::Sender<DriverMessage>)> {
    let (sender, messages) = mpsc::channel(1);
    let hello = DriverHello {
        min_version: 1,
        max_version: 1,
        ..DriverHello::default()
    };
    let message = DriverMessage {
        hello: Some(hello),
        ..DriverMessage::default()
    };
    sender.send(message).await?;
    let answer = PartitionsClient::new(channel)
        .exchange(ReceiverStream::new(messages))
        .await?;
    Ok((answer.into_inner(), sender))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_permission_reaches_running_nodes_and_its_end_cuts_open_streams() -> Result<()> {
    let bed = TestBed::create_secured("allowed", Lifetimes::default()).await?;
    workload::run_in(bed, None, allow_and_revoke).await?;
    Ok(())
}

async fn allow_and_revoke(bed: &TestBed, operator: &mut Supervised<'_>) -> Result<()> {
    let size = StoreSize {
        replicas: 1,
        partitions: 1,
    };
    workload::bootstrap(bed, operator, STORE, size).await?;
    let container = container_id(bed).await?;
    let node = address(bed, "tulip-0")?;
    let stranger = Identity::Runtime {
        namespace: "field".to_owned(),
    };
    let credentials = identity::credentials(bed.namespace(), &stranger).await?;
    let open = async || {
        let channel = identity::connect_as(endpoint(node, 5681)?, node, &credentials).await?;
        let (mut stream, hold) = exchange(channel).await?;
        stream.message().await?.context("no hello")?;
        Ok((stream, hold))
    };
    let Err(refused) = open().await else {
        bail!("a namespace that is not allowed was served");
    };
    let refused = format!("{refused:#}");
    ensure!(refused.contains("spec.allowedNamespaces"), "{refused}");

    allow(bed, &["field"]).await?;
    let (mut stream, _hold) = operator
        .until("the permission to be obeyed", LIMIT, open)
        .await?;

    allow(bed, &["wood"]).await?;
    let ended = tokio::time::timeout(Duration::from_secs(30), async {
        while let Ok(Some(_)) = stream.message().await {}
    });
    ended
        .await
        .context("the open stream outlives its permission")?;
    ensure!(open().await.is_err(), "it was served once more");
    ensure!(
        container_id(bed).await? == container,
        "the node was started again"
    );
    Ok(())
}

async fn allow(bed: &TestBed, namespaces: &[&str]) -> Result<()> {
    let patch = Patch::Merge(json!({"spec": {"allowedNamespaces": namespaces}}));
    bed.stores()
        .patch(STORE, &PatchParams::default(), &patch)
        .await?;
    Ok(())
}

async fn container_id(bed: &TestBed) -> Result<Option<String>> {
    let pod = bed.pods().get("tulip-0").await?;
    let status = pod.status.context("no status")?;
    let containers = status.container_statuses.context("no container")?;
    Ok(containers.first().context("none")?.container_id.clone())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_namespace_has_certificates_while_somebody_needs_them() -> Result<()> {
    let bed = TestBed::create_secured("needed", Lifetimes::default()).await?;
    workload::run_in(bed, None, come_and_go).await?;
    Ok(())
}

async fn come_and_go(bed: &TestBed, operator: &mut Supervised<'_>) -> Result<()> {
    // A Secret of the same name that is somebody else's is left alone.
    let secrets: Api<Secret> = Api::namespaced(bed.client().clone(), bed.namespace());
    let foreign: Secret = serde_json::from_value(json!({
        "metadata": {"name": RUNTIME_SECRET}, "stringData": {"mine": "yes"},
    }))?;
    secrets.create(&Default::default(), &foreign).await?;
    bed.create_pod(samples::secured_pod("hive-0", "hive"))
        .await?;
    operator
        .until("an attempt", LIMIT, async || {
            let seen = operator_seen(bed).await?;
            ensure!(seen, "there is no authority yet");
            Ok(())
        })
        .await?;
    ensure!(content(bed, RUNTIME_SECRET).await?.contains_key("mine"));
    secrets.delete(RUNTIME_SECRET, &Default::default()).await?;
    operator
        .until("a certificate for the pod", LIMIT, async || {
            let found = content(bed, RUNTIME_SECRET).await?;
            ensure!(found.contains_key("tls.crt"), "another one");
            Ok(())
        })
        .await?;

    // The last to need it takes it along.
    bed.delete_pod("hive-0").await?;
    operator
        .until("the certificate to go", LIMIT, async || {
            let left = secrets.get_opt(RUNTIME_SECRET).await?;
            ensure!(left.is_none(), "it is there");
            Ok(())
        })
        .await?;

    resources::create(&bed.stores(), samples::store_of_driver("rose", "memory")).await?;
    resources::create(&bed.sessions(), samples::session(SESSION, "rose", "hive")).await?;
    operator
        .until("a certificate for the Session", LIMIT, async || {
            let session = bed.sessions().get(SESSION).await?;
            expect_condition(&session, "Ready", "True")?;
            content(bed, RUNTIME_SECRET).await?;
            // A Store without nodes needs none.
            let nodes = secrets.get_opt(NODES_SECRET).await?;
            ensure!(nodes.is_none(), "there are certificates for nodes");
            Ok(())
        })
        .await?;

    // Somebody takes it away: it is made anew.
    secrets.delete(RUNTIME_SECRET, &Default::default()).await?;
    operator
        .until("the certificate to be back", LIMIT, async || {
            content(bed, RUNTIME_SECRET).await.map(|_| ())
        })
        .await
}

async fn operator_seen(bed: &TestBed) -> Result<bool> {
    let secrets: Api<Secret> = Api::namespaced(bed.client().clone(), bed.namespace());
    Ok(secrets.get_opt(identity::AUTHORITY).await?.is_some())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_foreign_secret_of_the_nodes_name_is_told_of_and_keeps_only_the_nodes_waiting()
-> Result<()> {
    let bed = TestBed::create_secured("taken", Lifetimes::default()).await?;
    workload::run_in(bed, None, take_the_name).await?;
    Ok(())
}

async fn take_the_name(bed: &TestBed, operator: &mut Supervised<'_>) -> Result<()> {
    let size = StoreSize {
        replicas: 1,
        partitions: 1,
    };
    let secrets: Api<Secret> = Api::namespaced(bed.client().clone(), bed.namespace());
    let foreign = json!({"metadata": {"name": NODES_SECRET}, "stringData": {"mine": "yes"}});
    let foreign: Secret = serde_json::from_value(foreign)?;
    secrets.create(&PostParams::default(), &foreign).await?;
    resources::create(&bed.stores(), samples::store(STORE, size)).await?;
    resources::create(&bed.sessions(), samples::session(SESSION, STORE, "hive")).await?;
    operator
        .until("the Secret to be told of", LIMIT, async || {
            content(bed, RUNTIME_SECRET).await?;
            let warnings = resources::warnings(bed.client(), bed.namespace(), NODES_SECRET).await?;
            let told = warnings.get("NameTaken").context("no warning")?;
            let notes = told.iter().filter_map(|event| event.note.as_deref());
            ensure!(
                notes.clone().any(|note| note.contains("rename it")),
                "{told:?}"
            );
            Ok(())
        })
        .await?;
    let kept = content(bed, NODES_SECRET).await?;
    ensure!(kept.keys().eq(["mine"]), "the Secret was written to");

    secrets
        .delete(NODES_SECRET, &DeleteParams::default())
        .await?;
    operator
        .until_settled("the Store to be ready", LIMIT, async || {
            workload::store_is_ready(bed, STORE).await?;
            workload::groups_are_whole(bed, STORE, size).await
        })
        .await
}
