//! `store replace-node`.
//!
//! The deletion of the PersistentVolumeClaim is the declaration: the API server keeps it, the pod's
//! next disk has another id, and the operator replaces what was on the old one. So it does not
//! matter where this command is interrupted; it can be run again.

use anyhow::{Context as _, Result, bail};
use atomix_proto::operator::v1::GetPartitionsResponse;
use atomix_resources::{MultiRaft, Store};
use clap::Args;
use k8s_openapi::api::core::v1::{PersistentVolumeClaim, Pod};
use kube::api::{DeleteParams, Preconditions};
use kube::{Api, Resource};

use super::safety::{Loss, losses};
use super::{Target, confirm, operator, partitions, with_nodes};
use crate::cluster::Cluster;

/// The volume of a storage pod.
const VOLUME: &str = "data";

#[derive(Debug, Args)]
pub(crate) struct Options {
    #[command(flatten)]
    target: Target,
    /// The pod, or its ordinal.
    node: String,
    /// Gives the disk up also where partitions lose their last majority, or where it is not known
    /// whether they do because pods do not answer: they stop until `store recover`, and what only
    /// this disk has is lost for ever.
    #[arg(long)]
    give_up: bool,
}

pub(super) async fn run(cluster: &Cluster, options: &Options) -> Result<()> {
    let name = &options.target.store;
    let (_, store) = with_nodes(cluster, name).await?;
    let pod = pod_name(name, &options.node)?;
    let total = total_of(&store);
    let storage = store.spec.multi_raft.map(|multi_raft| multi_raft.storage);
    if storage.is_some_and(|storage| storage.ephemeral.is_some()) {
        bail!("the storage of {name} is ephemeral: delete the pod {pod}, its disk goes with it");
    }
    let mut operator = operator(cluster).await?;
    let found = partitions(cluster, &mut operator, name).await?;
    explain(&found, &pod, total, options.give_up)?;
    confirm(options.target.yes)?;

    let claims: Api<PersistentVolumeClaim> =
        Api::namespaced(cluster.client.clone(), &cluster.namespace);
    let claim = format!("{VOLUME}-{pod}");
    delete(&claims, &claim).await?;
    let pods: Api<Pod> = cluster.pods(&cluster.namespace);
    delete(&pods, &pod).await?;
    println!(
        "{pod} gets an empty disk; the operator makes its copies again: see `kubectl atomix status \
         {name}`. A pod on a machine that is gone stays Terminating until that machine is removed \
         from the cluster, or somebody who knows that it is off deletes the pod by force"
    );
    Ok(())
}

/// How many partitions the Store has, as the operator counts them, or as it was asked for.
fn total_of(store: &Store) -> u32 {
    let status = store.status.as_ref();
    let counted = status.and_then(|status| status.partitions.as_ref());
    let counted = counted.map_or(0, |counts| counts.total);
    let asked = store.spec.multi_raft.as_ref();
    counted.max(asked.map_or(0, MultiRaft::partition_count))
}

/// Says what is going to happen.
///
/// # Errors
/// When partitions would stop, or might, and the caller has not accepted that.
fn explain(found: &GetPartitionsResponse, pod: &str, total: u32, give_up: bool) -> Result<()> {
    let losses = losses(found, pod, total);
    let copies = losses.iter();
    let copies = copies.filter(|loss| matches!(loss, Loss::Copy { .. }));
    println!(
        "the disk of {pod} is given up for ever, with its copies of {} partitions",
        copies.count()
    );
    let fatal = losses.iter().filter(|loss| loss.is_fatal());
    let fatal: Vec<String> = fatal.map(ToString::to_string).collect();
    if fatal.is_empty() {
        println!("every partition keeps a majority without it");
        return Ok(());
    }
    println!(
        "without it these partitions stop, or nothing shows that they go on:\n  {}",
        fatal.join("\n  ")
    );
    if !give_up {
        bail!(
            "nothing was done: get the other pods running first, so that they answer for every \
             partition. If their disks are gone too, give --give-up: what only this disk has is lost \
             then; afterwards run `kubectl atomix store recover` for these partitions"
        );
    }
    Ok(())
}

fn pod_name(store: &str, node: &str) -> Result<String> {
    if node.parse::<u32>().is_ok() {
        return Ok(format!("{store}-{node}"));
    }
    let ordinal = node
        .strip_prefix(store)
        .and_then(|rest| rest.strip_prefix('-'));
    if ordinal.is_some_and(|ordinal| ordinal.parse::<u32>().is_ok()) {
        return Ok(node.to_owned());
    }
    bail!("{node} is no storage pod of {store}: give {store}-N, or N")
}

/// Deletes the object that is there now, and no later one of its name.
async fn delete<K>(api: &Api<K>, name: &str) -> Result<()>
where
    K: Resource<DynamicType = ()> + Clone + std::fmt::Debug + serde::de::DeserializeOwned,
{
    let kind = K::kind(&()).into_owned();
    let Some(found) = api.get_opt(name).await? else {
        println!("{kind} {name} is gone already");
        return Ok(());
    };
    let parameters = DeleteParams::default().preconditions(Preconditions {
        uid: found.meta().uid.clone(),
        resource_version: None,
    });
    match api.delete(name, &parameters).await {
        Ok(_) => {
            println!("{kind} {name} is deleted");
            Ok(())
        }
        Err(kube::Error::Api(status)) if status.code == 404 || status.code == 409 => {
            println!("{kind} {name} is gone already");
            Ok(())
        }
        Err(error) => Err(error).with_context(|| format!("cannot delete {kind} {name}")),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use serde_json::json;

    use super::*;

    #[test]
    fn a_node_is_named_by_its_pod_or_its_ordinal() {
        for node in ["2", "tulip-2"] {
            assert_eq!(pod_name("tulip", node).unwrap(), "tulip-2");
        }
        for wrong in ["rose-2", "tulip", "tulip-x", "tulip-", "-1"] {
            assert!(pod_name("tulip", wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_disk_is_not_given_up_by_default_where_partitions_are_not_told_of() {
        let nothing = GetPartitionsResponse::default();
        let refused = explain(&nothing, "tulip-0", 1, false).unwrap_err();
        assert!(refused.to_string().contains("--give-up"), "{refused}");
        assert!(explain(&nothing, "tulip-0", 1, true).is_ok());
    }

    #[test]
    fn the_partitions_are_counted_by_the_status_or_else_by_the_specification() {
        let store = |status| -> Store {
            serde_json::from_value(json!({
                "apiVersion": "atomix.io/v1beta1",
                "kind": "Store",
                "metadata": {"name": "tulip"},
                "spec": {
                    "driver": {"name": "multi-raft"},
                    "multiRaft": {"partitions": 5, "storage": {"ephemeral": {}}},
                },
                "status": status,
            }))
            .unwrap()
        };
        assert_eq!(total_of(&store(json!(null))), 5);
        let counted = json!({"partitions": {"total": 8, "ready": 1}});
        assert_eq!(total_of(&store(counted)), 8);
    }
}
