//! What the storage nodes themselves say about their groups.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;
use std::time::Duration;

use anyhow::{Result, ensure};
use atomix_proto::multiraft::v1::group_status::Role;
use atomix_proto::multiraft::v1::node_client::NodeClient;
use atomix_proto::multiraft::v1::{
    GetStatusRequest, GetStatusResponse, GroupStatus, RecoverRequest,
};
use tonic::transport::{Channel, Endpoint};

use crate::identity;

const CONTROL_PORT: u16 = 5680;

/// The status of a node.
///
/// # Errors
/// When it does not answer in time.
pub async fn status(address: Ipv4Addr) -> Result<GetStatusResponse> {
    let mut client = client(address).await?;
    Ok(client.get_status(GetStatusRequest {}).await?.into_inner())
}

/// Tells a node to recover a group from its member, and returns the member that it has then.
///
/// # Errors
/// When it refuses, or does not answer in time.
pub async fn recover(address: Ipv4Addr, partition_id: u32, member_id: u64) -> Result<u64> {
    let request = RecoverRequest {
        partition_id,
        member_id,
    };
    let mut client = client(address).await?;
    Ok(client.recover(request).await?.into_inner().member_id)
}

async fn client(address: Ipv4Addr) -> Result<NodeClient<Channel>> {
    let endpoint = Endpoint::from_shared(format!("http://{address}:{CONTROL_PORT}"))?
        .connect_timeout(Duration::from_secs(2))
        .timeout(Duration::from_secs(5));
    Ok(NodeClient::new(identity::connect(endpoint, address).await?))
}

/// Checks that the nodes hold one and the same store, with `partitions` groups of `members` voters
/// that each have one leader, known to all.
///
/// # Errors
/// What is not so.
pub async fn expect_bootstrapped(
    nodes: &[Ipv4Addr],
    partitions: usize,
    members: usize,
    incarnation: u64,
) -> Result<()> {
    let mut stores = BTreeSet::new();
    let mut groups: BTreeMap<u32, Vec<GroupStatus>> = BTreeMap::new();
    for address in nodes {
        let status = status(*address).await?;
        // There may be more nodes than copies, and one whose members have all left is as it was made.
        if status.groups.is_empty() && status.store_uid.is_empty() {
            continue;
        }
        ensure!(
            status.incarnation == incarnation,
            "{address} is of incarnation {}",
            status.incarnation
        );
        stores.insert(status.store_uid);
        for group in status.groups {
            groups.entry(group.partition_id).or_default().push(group);
        }
    }
    ensure!(
        stores.len() == 1,
        "the nodes hold several stores: {stores:?}"
    );
    let expected: Vec<u32> = (1..).take(partitions).collect();
    let found: Vec<u32> = groups.keys().copied().collect();
    ensure!(found == expected, "the nodes hold the partitions {found:?}");
    for (partition, replicas) in groups {
        expect_one_leader(partition, &replicas, members)?;
    }
    Ok(())
}

fn expect_one_leader(partition: u32, replicas: &[GroupStatus], members: usize) -> Result<()> {
    ensure!(
        replicas.len() == members,
        "partition {partition} has {} members",
        replicas.len()
    );
    let ids: BTreeSet<u64> = replicas.iter().map(|replica| replica.member_id).collect();
    let leaders: Vec<u64> = replicas
        .iter()
        .filter(|replica| replica.role() == Role::Leader)
        .map(|replica| replica.member_id)
        .collect();
    ensure!(
        leaders.len() == 1,
        "partition {partition} has the leaders {leaders:?}"
    );
    for replica in replicas {
        let voters: BTreeSet<u64> = replica.voters.iter().copied().collect();
        ensure!(
            voters == ids && replica.outgoing_voters.is_empty() && replica.learners.is_empty(),
            "partition {partition}: the members are {ids:?}, but {replica:?}"
        );
        ensure!(
            leaders.contains(&replica.leader),
            "partition {partition} is led by {leaders:?}, but {replica:?}"
        );
        ensure!(
            replica.applied > 0,
            "partition {partition} has applied nothing: {replica:?}"
        );
    }
    Ok(())
}
