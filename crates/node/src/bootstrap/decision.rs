//! Whether this node may carry out a Bootstrap. Pure; the table is in `tests.rs`.

use atomix_raft::{GroupRecord, NodeId, PartitionId};
use bytes::Bytes;
use thiserror::Error;

use super::plan::BootstrapPlan;

/// The plan of a group that some node holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct HeldPlan {
    pub(crate) partition: PartitionId,
    pub(crate) store_uid: String,
    pub(crate) incarnation: u64,
    pub(crate) digest: Bytes,
    pub(crate) joined: bool,
}

impl From<&GroupRecord> for HeldPlan {
    fn from(record: &GroupRecord) -> Self {
        Self {
            partition: record.partition_id,
            store_uid: record.store_uid.clone(),
            incarnation: record.incarnation,
            digest: record.plan_digest.clone(),
            joined: record.initializer.is_none(),
        }
    }
}

/// What another member's node answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct PeerReport {
    pub(crate) address: String,
    pub(crate) held: Vec<HeldPlan>,
}

/// What is left to do here.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Work {
    /// Groups of an older incarnation, to be deleted first.
    pub(crate) delete: Vec<PartitionId>,
    /// Groups to store and start.
    pub(crate) create: Vec<PartitionId>,
}

/// Why a Bootstrap is refused.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub(crate) enum Refusal {
    #[error(
        "this is node {found:016x}, the plan is for node {planned:016x}; read the node ids again"
    )]
    WrongNode { planned: u64, found: u64 },
    #[error(
        "{holder} holds partition {partition} of store {found:?}, the plan is for store {planned:?}; \
         delete the old store's volumes first"
    )]
    OtherStore {
        holder: String,
        partition: PartitionId,
        planned: String,
        found: String,
    },
    #[error(
        "{holder} holds partition {partition} of incarnation {found}, the plan is for the older \
         incarnation {planned}"
    )]
    NewerIncarnation {
        holder: String,
        partition: PartitionId,
        planned: u64,
        found: u64,
    },
    #[error("{holder} holds partition {partition} of another plan of incarnation {incarnation}")]
    OtherPlan {
        holder: String,
        partition: PartitionId,
        incarnation: u64,
    },
    #[error("this node joined partition {partition} already")]
    Joined { partition: PartitionId },
}

/// Judges a plan by what this node holds.
///
/// # Errors
/// The first objection.
pub(crate) fn judge_own(
    plan: &BootstrapPlan,
    node_id: NodeId,
    held: &[HeldPlan],
) -> Result<Work, Refusal> {
    if plan.node_id != node_id {
        return Err(Refusal::WrongNode {
            planned: plan.node_id.0,
            found: node_id.0,
        });
    }
    let mut work = Work::default();
    for group in held {
        object(plan, "this node", group)?;
        if group.incarnation < plan.incarnation {
            work.delete.push(group.partition);
            continue;
        }
        // A plan names all of a node's partitions; what a peer holds beside them is its own affair.
        match (group.joined, plan.partitions.contains_key(&group.partition)) {
            (true, true) => {
                return Err(Refusal::Joined {
                    partition: group.partition,
                });
            }
            (false, false) => {
                return Err(Refusal::OtherPlan {
                    holder: "this node".to_owned(),
                    partition: group.partition,
                    incarnation: group.incarnation,
                });
            }
            (true, false) | (false, true) => {}
        }
    }
    let current: Vec<PartitionId> = held
        .iter()
        .filter(|group| group.incarnation == plan.incarnation)
        .map(|group| group.partition)
        .collect();
    for partition in plan.partitions.keys() {
        if !current.contains(partition) {
            work.create.push(*partition);
        }
    }
    Ok(work)
}

/// Judges a plan by what the other members' nodes answered.
///
/// # Errors
/// The first objection.
pub(crate) fn judge_peers(plan: &BootstrapPlan, peers: &[PeerReport]) -> Result<(), Refusal> {
    for peer in peers {
        for group in &peer.held {
            object(plan, &peer.address, group)?;
        }
    }
    Ok(())
}

/// The objections that count wherever the group is held.
fn object(plan: &BootstrapPlan, holder: &str, group: &HeldPlan) -> Result<(), Refusal> {
    if group.store_uid != plan.store_uid {
        return Err(Refusal::OtherStore {
            holder: holder.to_owned(),
            partition: group.partition,
            planned: plan.store_uid.clone(),
            found: group.store_uid.clone(),
        });
    }
    if group.incarnation > plan.incarnation {
        return Err(Refusal::NewerIncarnation {
            holder: holder.to_owned(),
            partition: group.partition,
            planned: plan.incarnation,
            found: group.incarnation,
        });
    }
    let is_other_plan = group.incarnation == plan.incarnation
        && !group.joined
        && plan
            .partitions
            .get(&group.partition)
            .is_some_and(|planned| planned.plan_digest != group.digest);
    if is_other_plan {
        return Err(Refusal::OtherPlan {
            holder: holder.to_owned(),
            partition: group.partition,
            incarnation: group.incarnation,
        });
    }
    Ok(())
}
