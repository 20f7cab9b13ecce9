//! `status`: Stores and Sessions, and of one Store its nodes and partitions.

use anyhow::{Context as _, Result};
use atomix_proto::operator::v1::member::Role;
use atomix_proto::operator::v1::stores_client::StoresClient;
use atomix_proto::operator::v1::{GetPartitionsRequest, GetPartitionsResponse, Member, Partition};
use atomix_proto::runtime::v1::StoreId;
use atomix_resources::{Session, Store};
use clap::Args;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::api::ListParams;
use kube::{Api, ResourceExt as _};

use crate::cluster::Cluster;
use crate::{table, tunnel};

/// Where the operator serves gRPC.
pub(crate) const OPERATOR_PORT: u16 = 5682;

#[derive(Debug, Args)]
pub(crate) struct Options {
    /// A Store, whose nodes and partitions are shown too.
    store: Option<String>,
    /// Shows all namespaces.
    #[arg(long, conflicts_with = "store")]
    all: bool,
}

/// # Errors
/// When something cannot be read.
pub(crate) async fn run(cluster: &Cluster, options: &Options) -> Result<()> {
    match &options.store {
        Some(store) => one_store(cluster, store).await,
        None => everything(cluster, options.all).await,
    }
}

async fn everything(cluster: &Cluster, all: bool) -> Result<()> {
    let client = cluster.client.clone();
    let (stores, sessions): (Api<Store>, Api<Session>) = if all {
        (Api::all(client.clone()), Api::all(client))
    } else {
        (
            Api::namespaced(client.clone(), &cluster.namespace),
            Api::namespaced(client, &cluster.namespace),
        )
    };
    let stores = stores
        .list(&ListParams::default())
        .await
        .context("cannot list Stores")?;
    let sessions = sessions
        .list(&ListParams::default())
        .await
        .context("cannot list Sessions")?;
    if stores.items.is_empty() && sessions.items.is_empty() {
        let place = if all {
            "the cluster"
        } else {
            &cluster.namespace
        };
        println!("no Stores and no Sessions in {place}");
        return Ok(());
    }
    let rows: Vec<Vec<String>> = stores.iter().map(store_row).collect();
    table::print(
        &["STORE", "DRIVER", "PARTITIONS", "READY", "MESSAGE"],
        &rows,
    );
    println!();
    let rows: Vec<Vec<String>> = sessions.iter().map(session_row).collect();
    table::print(
        &["SESSION", "STORE", "KIND", "PODS", "READY", "MESSAGE"],
        &rows,
    );
    Ok(())
}

fn full_name<K: kube::Resource>(object: &K) -> String {
    let meta = object.meta();
    let namespace = meta.namespace.as_deref().unwrap_or_default();
    format!("{namespace}/{}", meta.name.as_deref().unwrap_or_default())
}

fn store_row(store: &Store) -> Vec<String> {
    let status = store.status.as_ref();
    let partitions = status.and_then(|status| status.partitions.as_ref());
    let partitions = partitions.map_or_else(String::new, |partitions| {
        format!("{}/{}", partitions.ready, partitions.total)
    });
    let (ready, message) = ready(status.map(|status| status.conditions.as_slice()));
    vec![
        full_name(store),
        store.spec.driver.name.clone(),
        partitions,
        ready,
        message,
    ]
}

fn session_row(session: &Session) -> Vec<String> {
    let status = session.status.as_ref();
    let pods = status.and_then(|status| status.pods);
    let pods = pods.map_or_else(String::new, |pods| {
        format!("{}/{}", pods.connected, pods.matched)
    });
    let (ready, message) = ready(status.map(|status| status.conditions.as_slice()));
    let kind = session.spec.kind.unwrap_or_default();
    vec![
        full_name(session),
        session.spec.store.name.clone(),
        kind.as_str().to_owned(),
        pods,
        ready,
        message,
    ]
}

/// What the condition Ready says, and why.
fn ready(conditions: Option<&[Condition]>) -> (String, String) {
    let mut conditions = conditions.into_iter().flatten();
    match conditions.find(|condition| condition.type_ == "Ready") {
        Some(condition) => (condition.status.clone(), condition.message.clone()),
        None => (
            "Unknown".to_owned(),
            "the operator has not looked at it: is it running?".to_owned(),
        ),
    }
}

async fn one_store(cluster: &Cluster, name: &str) -> Result<()> {
    let stores: Api<Store> = Api::namespaced(cluster.client.clone(), &cluster.namespace);
    let store = stores
        .get(name)
        .await
        .with_context(|| format!("cannot read Store {}/{name}", cluster.namespace))?;
    println!(
        "Store {}, driver {}",
        full_name(&store),
        store.spec.driver.name
    );
    for condition in store.status.iter().flat_map(|status| &status.conditions) {
        let Condition {
            type_,
            status,
            reason,
            message,
            ..
        } = condition;
        println!("  {type_}={status} {reason}: {message}");
    }
    if store.spec.multi_raft.is_none() {
        return Ok(());
    }
    let (pods, operator) = cluster.operator().await?;
    let channel = tunnel::open(pods, &operator, OPERATOR_PORT).await?;
    let request = GetPartitionsRequest {
        store_id: Some(StoreId {
            namespace: cluster.namespace.clone(),
            name: store.name_any(),
        }),
    };
    let answer = StoresClient::new(channel).get_partitions(request).await;
    let found = answer.context("the operator does not tell of the partitions")?;
    show(&found.into_inner());
    Ok(())
}

fn show(found: &GetPartitionsResponse) {
    let nodes: Vec<Vec<String>> = found
        .nodes
        .iter()
        .map(|node| {
            let leads = found.partitions.iter().filter(|partition| {
                let mut members = partition.members.iter();
                members.any(|member| member.pod == node.pod && member.member_id == partition.leader)
            });
            let hosts = found.partitions.iter().filter(|partition| {
                partition
                    .members
                    .iter()
                    .any(|member| member.pod == node.pod)
            });
            let state = if node.trouble.is_empty() {
                "up".to_owned()
            } else {
                node.trouble.clone()
            };
            vec![
                node.pod.clone(),
                hex(node.node_id),
                node.version.clone(),
                hosts.count().to_string(),
                leads.count().to_string(),
                state,
            ]
        })
        .collect();
    println!();
    table::print(
        &["NODE", "ID", "VERSION", "PARTITIONS", "LEADS", "STATE"],
        &nodes,
    );
    println!();
    let partitions: Vec<Vec<String>> = found.partitions.iter().map(partition_row).collect();
    table::print(&["PARTITION", "LEADER", "TERM", "MEMBERS"], &partitions);
}

fn partition_row(partition: &Partition) -> Vec<String> {
    let mut members = partition.members.iter();
    let leader = members.find(|member| member.member_id == partition.leader);
    let leader = leader.map_or_else(|| "none".to_owned(), place);
    let members: Vec<String> = partition.members.iter().map(member_text).collect();
    vec![
        partition.partition_id.to_string(),
        leader,
        partition.term.to_string(),
        members.join(" "),
    ]
}

/// The pod of a member, or its id while no pod says that it has it.
fn place(member: &Member) -> String {
    if member.pod.is_empty() {
        hex(member.member_id)
    } else {
        member.pod.clone()
    }
}

fn member_text(member: &Member) -> String {
    let role = match member.role() {
        Role::Voter => "",
        Role::Learner => "(learner)",
        Role::OutgoingVoter => "(leaving)",
        Role::Unknown => "(?)",
    };
    let silent = if member.pod.is_empty() {
        "(no answer)"
    } else {
        ""
    };
    format!("{}{role}{silent}", place(member))
}

/// As everywhere: ids are 16 hex digits.
fn hex(id: u64) -> String {
    if id == 0 {
        return String::new();
    }
    format!("{id:016x}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_partition_names_pods_where_it_can_and_ids_elsewhere() {
        let member = |member_id, pod: &str, role: Role| Member {
            member_id,
            pod: pod.to_owned(),
            role: role.into(),
            applied: 1,
            ..Member::default()
        };
        let partition = Partition {
            partition_id: 3,
            term: 7,
            leader: 2,
            members: vec![
                member(10, "", Role::OutgoingVoter),
                member(1, "tulip-0", Role::Learner),
                member(2, "tulip-1", Role::Voter),
            ],
        };
        let expected = [
            "3",
            "tulip-1",
            "7",
            "000000000000000a(leaving)(no answer) tulip-0(learner) tulip-1",
        ];
        assert_eq!(partition_row(&partition), expected);
        let leaderless = Partition {
            leader: 0,
            ..partition
        };
        assert_eq!(
            partition_row(&leaderless).get(1).map(String::as_str),
            Some("none")
        );
    }
}
