//! The operator's service `Stores` tells where the partitions of a Store are.

use anyhow::{Context as _, Result, ensure};
use atomix_operator_tests::resources;
use atomix_operator_tests::samples::{self, StoreSize};
use atomix_operator_tests::supervised::Supervised;
use atomix_operator_tests::test_bed::TestBed;
use atomix_operator_tests::workload::{self, LIMIT};
use atomix_proto::operator::v1::member::Role;
use atomix_proto::operator::v1::stores_client::StoresClient;
use atomix_proto::operator::v1::{
    GetPartitionsRequest, GetPartitionsResponse, TransferLeaderRequest,
};
use atomix_proto::runtime::v1::StoreId;
use kube::api::DeleteParams;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Status};

const SIZE: StoreSize = StoreSize {
    replicas: 3,
    partitions: 2,
};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_replica_tells_where_the_partitions_of_a_store_are() -> Result<()> {
    workload::run("partitions", None, live).await?;
    Ok(())
}

async fn live(bed: &TestBed, operator: &mut Supervised<'_>) -> Result<()> {
    workload::bootstrap(bed, operator, "tulip", SIZE).await?;
    resources::create(&bed.stores(), samples::store_of_driver("rose", "memory")).await?;
    let endpoint = Endpoint::from_shared(format!("http://{}", operator.api()))?;
    let service = StoresClient::new(endpoint.connect().await?);
    // One that does not have the lease knows as much.
    let standby = bed.operator(None);
    let endpoint = Endpoint::from_shared(format!("http://{}", standby.api()))?;
    let standby_service = StoresClient::new(endpoint.connect().await?);

    operator
        .until(
            "both to tell of leaders of both partitions",
            LIMIT,
            async || {
                told(&standby_service, bed.namespace()).await?;
                told(&service, bed.namespace()).await
            },
        )
        .await?;
    standby.terminate()?;

    // The answer is of the operator's view, which learns of a new Store by its watch.
    operator
        .until("the new Store to be known", LIMIT, async || {
            let refused = ask(&service, bed.namespace(), "rose").await;
            let status = refused.err().context("it was not refused")?;
            ensure!(status.code() == Code::FailedPrecondition, "{status}");
            Ok(())
        })
        .await?;
    for (namespace, store, code) in [
        (bed.namespace(), "lily", Code::NotFound),
        ("elsewhere", "tulip", Code::NotFound),
        ("", "tulip", Code::InvalidArgument),
        (bed.namespace(), "", Code::InvalidArgument),
    ] {
        let refused = ask(&service, namespace, store).await;
        let status = refused.err().context("it was not refused")?;
        ensure!(status.code() == code, "{namespace}/{store}: {status}");
    }

    refuse_transfers(bed, &service).await?;

    // A node that goes is named, and the others still tell of its members.
    bed.pods()
        .delete("tulip-0", &DeleteParams::default())
        .await?;
    operator
        .until(
            "a node not to answer or to be a new process",
            LIMIT,
            async || {
                let found = ask(&service, bed.namespace(), "tulip").await?;
                let mut members = found
                    .partitions
                    .iter()
                    .flat_map(|partition| &partition.members);
                ensure!(members.clone().count() == 6, "{found:?}");
                ensure!(members.any(|member| member.pod != "tulip-0"), "{found:?}");
                Ok(())
            },
        )
        .await
}

/// Checks that each partition of the Store has three voters, one of which leads.
async fn told(service: &StoresClient<Channel>, namespace: &str) -> Result<()> {
    let found = ask(service, namespace, "tulip").await?;
    ensure!(
        found.partitions.len() == 2 && found.nodes.len() == 3,
        "{found:?}"
    );
    for partition in &found.partitions {
        let voters = partition
            .members
            .iter()
            .filter(|member| member.role() == Role::Voter && member.pod.starts_with("tulip-"));
        ensure!(voters.count() == 3, "{partition:?}");
        let mut members = partition.members.iter();
        ensure!(
            members.any(|member| member.member_id == partition.leader),
            "{partition:?}"
        );
    }
    Ok(())
}

async fn refuse_transfers(bed: &TestBed, service: &StoresClient<Channel>) -> Result<()> {
    let here = bed.namespace();
    let endless = "x".repeat(5 << 20);
    for (namespace, store, partition, pod, code) in [
        ("", "tulip", 1, "tulip-1", Code::InvalidArgument),
        (here, "", 1, "tulip-1", Code::InvalidArgument),
        (here, "tulip", 0, "tulip-1", Code::InvalidArgument),
        (here, "tulip", 1, "", Code::InvalidArgument),
        (here, "lily", 1, "tulip-1", Code::NotFound),
        (here, "tulip", 1, "rose-1", Code::NotFound),
        (here, "tulip", 9, "tulip-1", Code::FailedPrecondition),
        (here, "tulip", 1, &endless, Code::ResourceExhausted),
    ] {
        let request = TransferLeaderRequest {
            store_id: Some(StoreId {
                namespace: namespace.to_owned(),
                name: store.to_owned(),
            }),
            partition_id: partition,
            pod: pod.to_owned(),
        };
        let refused = service.clone().transfer_leader(request).await;
        let status = refused.err().context("it was not refused")?;
        let pod = pod.get(..10).unwrap_or(pod);
        ensure!(
            status.code() == code,
            "{namespace}/{store} {partition} {pod}: {status}"
        );
    }
    Ok(())
}

async fn ask(
    service: &StoresClient<Channel>,
    namespace: &str,
    store: &str,
) -> Result<GetPartitionsResponse, Status> {
    let request = GetPartitionsRequest {
        store_id: Some(StoreId {
            namespace: namespace.to_owned(),
            name: store.to_owned(),
        }),
    };
    let answer = service.clone().get_partitions(request).await?;
    Ok(answer.into_inner())
}
