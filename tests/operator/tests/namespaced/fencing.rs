//! Two operators at the same nodes: one of them is refused, says so, and takes over when a person
//! says so; a lost Lease object does not shut the operator out.

use std::net::Ipv4Addr;

use anyhow::{Context as _, Result, ensure};
use atomix_operator_tests::groups;
use atomix_operator_tests::load::Pace;
use atomix_operator_tests::matrix::disturb_sampled_calls;
use atomix_operator_tests::resources::{self, expect_condition};
use atomix_operator_tests::samples::StoreSize;
use atomix_operator_tests::supervised::Supervised;
use atomix_operator_tests::test_bed::TestBed;
use atomix_operator_tests::workload::{self, LIMIT};
use atomix_proto::multiraft::v1::BootstrapRequest;
use atomix_proto::multiraft::v1::node_client::NodeClient;
use k8s_openapi::api::coordination::v1::Lease;
use kube::Api;
use serde_json::json;
use tonic::transport::Endpoint;
use tonic::{Code, Request};

const STORE: &str = "tulip";
/// Its two members lie on one node, so that a second one makes a member move.
const ONE: StoreSize = StoreSize {
    replicas: 1,
    partitions: 2,
};
const TWO: StoreSize = StoreSize {
    replicas: 2,
    partitions: 2,
};

/// Makes the nodes of all pods listen to this operator.
async fn claim(bed: &TestBed, size: StoreSize, operator: &str, term: u64) -> Result<()> {
    for ordinal in 0..size.replicas {
        let pod = format!("{STORE}-{ordinal}");
        let address = bed.runner().address(&pod).context("it runs")?;
        claim_node(address, operator, term).await?;
    }
    Ok(())
}

async fn claim_node(address: Ipv4Addr, operator: &str, term: u64) -> Result<()> {
    let endpoint = Endpoint::from_shared(format!("http://{address}:5680"))?;
    let mut client = NodeClient::new(endpoint.connect().await?);
    // It asks for nothing: only who sends it counts.
    let mut request = Request::new(BootstrapRequest::default());
    let metadata = request.metadata_mut();
    metadata.insert("atomix-operator-id", operator.parse()?);
    metadata.insert("atomix-operator-term", term.into());
    metadata.insert("atomix-operator-take-over", "true".parse()?);
    let refused = client
        .bootstrap(request)
        .await
        .err()
        .context("it is empty")?;
    ensure!(refused.code() == Code::InvalidArgument, "{refused}");
    let status = groups::status(address).await?;
    ensure!(status.operator_id == operator, "{}", status.operator_id);
    ensure!(status.operator_term == term, "{}", status.operator_term);
    Ok(())
}

fn own_id(bed: &TestBed) -> String {
    format!("{}/atomix-operator", bed.namespace())
}

async fn scale(bed: &TestBed, replicas: u32) -> Result<()> {
    let change = json!({"spec": {"multiRaft": {"replicas": replicas}}});
    resources::change(&bed.stores(), STORE, change).await?;
    Ok(())
}

async fn settle(bed: &TestBed, operator: &mut Supervised<'_>, size: StoreSize) -> Result<()> {
    operator
        .until_settled("the members to lie as wanted", LIMIT * 2, async || {
            let store = workload::store_is_ready(bed, STORE).await?;
            expect_condition(&store, "Progressing", "False")?;
            workload::groups_are_whole(bed, STORE, size).await?;
            for ordinal in 0..size.replicas {
                let pod = format!("{STORE}-{ordinal}");
                let address = bed.runner().address(&pod).context("it runs")?;
                groups::status(address).await?;
            }
            Ok(())
        })
        .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nodes_of_another_operator_are_left_alone_until_a_person_says_otherwise() -> Result<()> {
    workload::run("fenced", None, refused_then_declared).await?;
    Ok(())
}

async fn refused_then_declared(bed: &TestBed, operator: &mut Supervised<'_>) -> Result<()> {
    workload::bootstrap(bed, operator, STORE, ONE).await?;
    let address = bed.runner().address("tulip-0").context("it runs")?;
    let status = groups::status(address).await?;
    ensure!(status.operator_id == own_id(bed), "{}", status.operator_id);

    claim(bed, ONE, "elsewhere/atomix", 9).await?;
    scale(bed, 2).await?;
    managed_by_other(bed, operator).await?;

    // An operator with an empty memory sees it before it does anything.
    let other = json!({"metadata": {"annotations": {"atomix.io/operator": "elsewhere/atomix"}}});
    resources::change(&bed.stores(), STORE, other).await?;
    operator
        .until("the Store to be left alone", LIMIT, async || {
            let store = bed.stores().get(STORE).await?;
            let ready = expect_condition(&store, "Ready", "False")?;
            ensure!(ready.reason == "ManagedByOther", "{ready:?}");
            Ok(())
        })
        .await?;

    take_over(bed, operator).await?;
    let address = bed.runner().address("tulip-1").context("it runs")?;
    let status = groups::status(address).await?;
    ensure!(status.operator_id == own_id(bed), "{}", status.operator_id);
    Ok(())
}

/// Waits until the Store says who manages its nodes, and what a person can do.
async fn managed_by_other(bed: &TestBed, operator: &mut Supervised<'_>) -> Result<()> {
    operator
        .until("the Store to say who manages it", LIMIT, async || {
            let store = bed.stores().get(STORE).await?;
            let stalled = expect_condition(&store, "Stalled", "True")?;
            ensure!(stalled.reason == "ManagedByOther", "{stalled:?}");
            for part in ["elsewhere/atomix", "take-over"] {
                ensure!(stalled.message.contains(part), "{stalled:?}");
            }
            Ok(())
        })
        .await
}

/// As `kubectl atomix store take-over` does.
async fn take_over(bed: &TestBed, operator: &mut Supervised<'_>) -> Result<()> {
    let own = json!({"metadata": {"annotations": {"atomix.io/operator": own_id(bed)}}});
    resources::change(&bed.stores(), STORE, own).await?;
    settle(bed, operator, TWO).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_take_over_survives_crash_and_trouble() -> Result<()> {
    disturb_sampled_calls("a_take_over_survives_crash_and_trouble", |disturbance| {
        workload::run("taken-over", None, async move |bed, operator| {
            workload::bootstrap(bed, operator, STORE, ONE).await?;
            let load = workload::start_load(bed, operator, STORE, Pace::Calm).await?;
            claim(bed, ONE, "elsewhere/atomix", 9).await?;
            scale(bed, 2).await?;
            managed_by_other(bed, operator).await?;
            operator.arm(disturbance.clone())?;
            take_over(bed, operator).await?;
            workload::check_load(bed, operator, load).await
        })
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_operator_whose_lease_counts_anew_raises_its_term_and_goes_on() -> Result<()> {
    workload::run("lease-lost", None, raised).await?;
    Ok(())
}

async fn raised(bed: &TestBed, operator: &mut Supervised<'_>) -> Result<()> {
    workload::bootstrap(bed, operator, STORE, TWO).await?;
    claim(bed, TWO, &own_id(bed), 50).await?;
    // The node that stays must be told to take the other's members.
    scale(bed, 1).await?;
    settle(bed, operator, ONE).await?;
    let leases: Api<Lease> = Api::namespaced(bed.client().clone(), bed.namespace());
    let lease = leases.get("atomix-operator").await?;
    let transitions = lease.spec.and_then(|spec| spec.lease_transitions);
    ensure!(transitions >= Some(51), "{transitions:?}");
    Ok(())
}
