//! `store recover`: writes the wish into the Store's annotations, which the operator carries out.

use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use atomix_proto::operator::v1::{GetPartitionsResponse, Member, Partition};
use atomix_resources::Store;
use atomix_resources::labels::RECOVER_PREFIX;
use clap::Args;
use k8s_openapi::api::core::v1::PersistentVolumeClaim;
use kube::api::{Patch, PatchParams};
use kube::{Api, ResourceExt as _};
use serde_json::json;
use tokio::time::Instant;

use super::gone::remains;
use super::safety::{pod_of, votes};
use super::{Target, confirm, operator, partitions, with_nodes};
use crate::cluster::Cluster;

/// How long the group may take to lead again.
const PATIENCE: Duration = Duration::from_secs(120);
const PAUSE: Duration = Duration::from_secs(1);

#[derive(Debug, Args)]
pub(crate) struct Options {
    #[command(flatten)]
    target: Target,
    /// The partition.
    #[arg(long)]
    partition: u32,
    /// The pod whose copy goes on; default: that of a voter, with the longest log.
    #[arg(long)]
    from: Option<String>,
}

pub(super) async fn run(cluster: &Cluster, options: &Options) -> Result<()> {
    let name = &options.target.store;
    let (stores, store) = with_nodes(cluster, name).await?;
    if store.is_paused() {
        bail!("Store {name} is paused: remove spec.paused first");
    }
    let mut operator = operator(cluster).await?;
    let found = partitions(cluster, &mut operator, name).await?;
    if let Some(partition) = known(&found, options.partition)
        && let Some(pod) = end_earlier(&stores, &store, partition).await?
    {
        println!("partition {} goes on from {pod}", options.partition);
        return Ok(());
    }
    let partition = partition_of(&found, options.partition)?;
    let survivor = survivor(partition, options.from.as_deref())?;
    for member in &partition.members {
        expect_gone(cluster, &found, member, &store).await?;
    }
    explain(partition, survivor);
    confirm(options.target.yes)?;

    let key = wish_key(options.partition);
    let wish = format!("{} {:016x}", survivor.pod, survivor.member_id);
    annotate(&stores, name, &key, Some(&wish)).await?;
    println!(
        "asked the operator; waiting until partition {} leads",
        options.partition
    );
    let deadline = Instant::now() + PATIENCE;
    loop {
        let found = partitions(cluster, &mut operator, name).await?;
        if known(&found, options.partition).is_some_and(|partition| partition.leader != 0) {
            break;
        }
        if Instant::now() > deadline {
            bail!(
                "partition {} does not lead after {PATIENCE:?}: see the conditions and events of \
                 Store {name}; the annotation {key} asks for it until you remove it, or run this \
                 again once it leads",
                options.partition
            );
        }
        tokio::time::sleep(PAUSE).await;
    }
    annotate(&stores, name, &key, None).await?;
    println!(
        "partition {} goes on from {}; the operator makes the other copies again: see `kubectl \
         atomix status {name}`",
        options.partition, survivor.pod
    );
    Ok(())
}

fn wish_key(partition: u32) -> String {
    format!("{RECOVER_PREFIX}{partition}")
}

/// Removes the wish of an earlier run that was interrupted, or that gave up waiting, once the
/// partition leads: nobody else does. The pod from which the partition goes on, if that is what it had
/// asked for.
async fn end_earlier<'a>(
    stores: &Api<Store>,
    store: &'a Store,
    partition: &Partition,
) -> Result<Option<&'a str>> {
    let Some(left) = left_by_earlier(store, partition) else {
        return Ok(None);
    };
    let key = wish_key(partition.partition_id);
    annotate(stores, &store.name_any(), &key, None).await?;
    println!("removed the annotation {key}, which an earlier run had left");
    Ok(left.carried_out_by)
}

/// A wish that nothing is to become of any more.
#[derive(Debug, PartialEq, Eq)]
struct Left<'a> {
    /// The pod from which the partition goes on; `None` = its majority came back by itself.
    carried_out_by: Option<&'a str>,
}

fn left_by_earlier<'a>(store: &'a Store, partition: &Partition) -> Option<Left<'a>> {
    let wish = store.annotations().get(&wish_key(partition.partition_id))?;
    if partition.leader == 0 {
        return None;
    }
    // A member that goes on has a new id.
    let is_gone = |id: &str| {
        let mut members = partition.members.iter();
        members.all(|member| format!("{:016x}", member.member_id) != id)
    };
    let carried_out = wish.split_once(' ').filter(|(_, id)| is_gone(id));
    Some(Left {
        carried_out_by: carried_out.map(|(pod, _)| pod),
    })
}

fn known(found: &GetPartitionsResponse, wanted: u32) -> Option<&Partition> {
    let mut partitions = found.partitions.iter();
    partitions.find(|partition| partition.partition_id == wanted)
}

/// The partition, which must be without a leader.
fn partition_of(found: &GetPartitionsResponse, wanted: u32) -> Result<&Partition> {
    let partition = known(found, wanted)
        .with_context(|| format!("no storage pod that answers has a copy of partition {wanted}"))?;
    if partition.leader != 0 {
        bail!(
            "partition {wanted} has a leader, so its quorum is not lost: replace single disks by \
             `kubectl atomix store replace-node`"
        );
    }
    Ok(partition)
}

/// The copy to go on from.
fn survivor<'a>(partition: &'a Partition, from: Option<&str>) -> Result<&'a Member> {
    let answering = partition
        .members
        .iter()
        .filter(|member| !member.pod.is_empty());
    // A learner may have as long a log and lack what was committed before it had all of it.
    let newest = answering
        .clone()
        .max_by_key(|member| (votes(member), member.last_log));
    let newest = newest.context("no copy answers: get a storage pod running that has one")?;
    let Some(from) = from else {
        return Ok(newest);
    };
    let mut chosen = answering.filter(|member| member.pod == from);
    let chosen = chosen
        .next()
        .with_context(|| format!("{from} does not answer that it has a copy"))?;
    if chosen.last_log < newest.last_log {
        println!(
            "careful: the copy on {} has more, up to entry {} instead of {}",
            newest.pod, newest.last_log, chosen.last_log
        );
    }
    Ok(chosen)
}

/// A copy that does not answer must not be able to come back: its disk must be gone.
async fn expect_gone(
    cluster: &Cluster,
    found: &GetPartitionsResponse,
    member: &Member,
    store: &Store,
) -> Result<()> {
    let pod = pod_of(member);
    if !member.pod.is_empty() || pod.is_empty() {
        return Ok(());
    }
    let mut nodes = found.nodes.iter();
    if nodes.any(|node| node.pod == pod && node.trouble.is_empty()) {
        // It answers, with another disk.
        return Ok(());
    }
    let storage = store.spec.multi_raft.as_ref().map(|it| &it.storage);
    let is_ephemeral = storage.is_some_and(|storage| storage.ephemeral.is_some());
    let claims: Api<PersistentVolumeClaim> =
        Api::namespaced(cluster.client.clone(), &cluster.namespace);
    let claim = claims.get_opt(&format!("data-{pod}")).await;
    let claim = claim.with_context(|| format!("cannot read PersistentVolumeClaim data-{pod}"))?;
    // After the claim: the pod that used it may go in between, another one cannot get it.
    let shown = cluster.pods(&cluster.namespace).get_opt(pod).await;
    let shown = shown.with_context(|| format!("cannot read Pod {pod}"))?;
    match remains(shown.as_ref(), claim.as_ref(), is_ephemeral) {
        Some(remains) => bail!(remains.advice(&store.name_any(), pod)),
        None => Ok(()),
    }
}

fn explain(partition: &Partition, survivor: &Member) {
    println!(
        "partition {} goes on from the copy on {}, which has everything up to entry {}; what only \
         the others had is lost",
        partition.partition_id, survivor.pod, survivor.last_log
    );
    let others = partition.members.iter();
    for other in others.filter(|member| member.member_id != survivor.member_id) {
        let state = if other.pod.is_empty() {
            "gone"
        } else {
            "deleted, and made again from the one that goes on"
        };
        println!(
            "  member {:016x} on {}: {state}",
            other.member_id,
            pod_of(other)
        );
    }
}

async fn annotate(stores: &Api<Store>, name: &str, key: &str, value: Option<&str>) -> Result<()> {
    let patch = json!({"metadata": {"annotations": {key: value}}});
    let patched = stores
        .patch(name, &PatchParams::default(), &Patch::Merge(&patch))
        .await;
    patched.with_context(|| format!("cannot annotate Store {name}"))?;
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use std::collections::BTreeMap;

    use atomix_proto::operator::v1::member::Role;

    use super::*;

    fn member(pod: &str, last_log: u64) -> Member {
        Member {
            member_id: last_log + 1,
            pod: pod.to_owned(),
            placed_on: "tulip-9".to_owned(),
            role: Role::Voter.into(),
            last_log,
            ..Member::default()
        }
    }

    #[test]
    fn the_longest_log_goes_on_unless_a_person_says_otherwise() {
        let partition = Partition {
            partition_id: 3,
            members: vec![member("tulip-0", 7), member("", 99), member("tulip-2", 9)],
            ..Partition::default()
        };
        assert_eq!(survivor(&partition, None).unwrap().pod, "tulip-2");
        assert_eq!(survivor(&partition, Some("tulip-0")).unwrap().last_log, 7);
        assert!(survivor(&partition, Some("tulip-1")).is_err());
        let learner = Member {
            role: Role::Learner.into(),
            ..member("tulip-3", 12)
        };
        let joined = Partition {
            members: [partition.members.clone(), vec![learner.clone()]].concat(),
            ..Partition::default()
        };
        assert_eq!(survivor(&joined, None).unwrap().pod, "tulip-2");
        let alone = Partition {
            members: vec![learner],
            ..Partition::default()
        };
        assert_eq!(survivor(&alone, None).unwrap().pod, "tulip-3");
        let found = GetPartitionsResponse {
            partitions: vec![
                partition.clone(),
                Partition {
                    partition_id: 4,
                    leader: 8,
                    ..partition
                },
            ],
            nodes: Vec::new(),
        };
        assert!(partition_of(&found, 3).is_ok());
        for (wanted, says) in [(4, "has a leader"), (5, "no storage pod")] {
            let refused = partition_of(&found, wanted).unwrap_err().to_string();
            assert!(refused.contains(says), "{refused}");
        }
    }

    #[test]
    fn what_an_interrupted_run_left_is_known_once_the_partition_leads() {
        let led_by = |leader, member: &Member| Partition {
            partition_id: 3,
            leader,
            members: vec![member.clone()],
            ..Partition::default()
        };
        let left = |carried_out_by| Some(Left { carried_out_by });
        // Of member 8 became member 100.
        let (before, after) = (member("tulip-0", 7), member("tulip-0", 99));
        let wish = "tulip-0 0000000000000008";
        for (wish, partition, expected) in [
            (Some(wish), led_by(100, &after), left(Some("tulip-0"))),
            (Some(wish), led_by(8, &before), left(None)),
            (Some("rubbish"), led_by(100, &after), left(None)),
            (Some(wish), led_by(0, &before), None),
            (None, led_by(100, &after), None),
        ] {
            let wish = wish.map(|wish| (wish_key(3), wish.to_owned()));
            let annotations: BTreeMap<String, String> = wish.into_iter().collect();
            let store = json!({
                "apiVersion": "atomix.io/v1beta1",
                "kind": "Store",
                "metadata": {"name": "tulip", "annotations": annotations},
                "spec": {"driver": {"name": "multi-raft"}},
            });
            let store: Store = serde_json::from_value(store).unwrap();
            let found = left_by_earlier(&store, &partition);
            assert_eq!(found, expected, "{annotations:?} {partition:?}");
        }
    }
}
