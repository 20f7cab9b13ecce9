//! Groups whose quorum is lost for good, and which a person wants to go on from one member: an
//! annotation of the Store for each says which pod's. It is written by `kubectl atomix store
//! recover`, after it has asked.
//!
//! The member's id in it makes the wish a compare-and-set: the node gives its member a new id when
//! it recovers the group, so the same wish is never carried out twice. Not for judging whether a
//! quorum is lost: that is `health`, and the node refuses while its group has a leader.

use std::time::Duration;

use atomix_proto::multiraft::v1::RecoverRequest;
use atomix_proto::multiraft::v1::node_client::NodeClient;
use kube::ResourceExt as _;
use tonic::Status;

use crate::context::Context;
use crate::store::bootstrap::carry_out::Announcement;
use crate::store::dereference::Inputs;
use crate::store::members::change::ChangeRefused;
use crate::store::names;
use crate::store::objects::build::Owner;
use atomix_resources::Store;
use atomix_resources::labels::RECOVER_PREFIX;

/// How long a node may take.
const TIMEOUT: Duration = Duration::from_secs(15);

/// A group to recover, and from where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wish {
    /// The partition.
    pub partition: u32,
    /// The pod.
    pub ordinal: u32,
    /// The member that the pod has before.
    pub member_id: u64,
}

/// The wishes in the Store's annotations; what does not read as one is left out.
#[must_use]
pub fn wishes(store: &Store) -> Vec<Wish> {
    let name = store.name_any();
    let annotations = store.annotations().iter();
    let wishes = annotations.filter_map(|(key, value)| {
        let partition = key.strip_prefix(RECOVER_PREFIX)?.parse().ok()?;
        let (pod, member) = value.split_once(' ')?;
        Some(Wish {
            partition,
            ordinal: names::ordinal(&name, pod)?,
            member_id: u64::from_str_radix(member, 16).ok()?,
        })
    });
    wishes.collect()
}

/// The wishes that are still to be carried out: the pod has that member, and no other node leads.
#[must_use]
pub fn due(wishes: Vec<Wish>, inputs: &Inputs) -> Vec<Wish> {
    if wishes.is_empty() {
        return wishes;
    }
    let views = inputs.views();
    let is_due = |wish: &Wish| {
        let group = views
            .get(&wish.ordinal)
            .and_then(|view| view.groups.get(&wish.partition));
        let leads = |view: &crate::store::NodeView| {
            let group = view.groups.get(&wish.partition);
            group.is_some_and(|group| group.leads)
        };
        group.is_some_and(|group| group.member_id == wish.member_id) && !views.values().any(leads)
    };
    wishes.into_iter().filter(is_due).collect()
}

/// Carries one wish out.
///
/// # Errors
/// The node's refusal.
pub async fn carry_out(
    context: &Context,
    owner: &Owner,
    inputs: &Inputs,
    wish: &Wish,
) -> Result<Option<Announcement>, ChangeRefused> {
    let pod = names::pod(&owner.name, wish.ordinal);
    let Some(control) = inputs.pods.get(&wish.ordinal).and_then(|pod| pod.control()) else {
        return Ok(None);
    };
    let mut client = NodeClient::new(context.channels.get(&control));
    let request = RecoverRequest {
        partition_id: wish.partition,
        member_id: wish.member_id,
    };
    let answer = tokio::time::timeout(TIMEOUT, client.recover(request)).await;
    let answer = answer.unwrap_or_else(|_| Err(Status::deadline_exceeded("no answer")));
    match answer {
        Ok(_) => Ok(Some(Announcement {
            reason: "PartitionRecovered",
            action: "Recover",
            note: format!(
                "partition {} goes on from the one copy on {pod}, by the annotation \
                 {RECOVER_PREFIX}{}",
                wish.partition, wish.partition
            ),
        })),
        Err(status) => Err(ChangeRefused {
            change: format!("recover partition {} from {pod}", wish.partition),
            pod,
            status,
        }),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use serde_json::json;

    use super::*;

    #[test]
    fn only_what_reads_as_a_wish_is_one() {
        let store = json!({
            "apiVersion": "atomix.io/v1beta1",
            "kind": "Store",
            "metadata": {"name": "tulip", "annotations": {
                "recover.atomix.io/partition-3": "tulip-1 00000000000000ab",
                "recover.atomix.io/partition-4": "rose-1 00000000000000ab",
                "recover.atomix.io/partition-x": "tulip-1 00000000000000ab",
                "recover.atomix.io/partition-5": "tulip-1",
                "recover.atomix.io/partition-6": "tulip-1 none",
            }},
            "spec": {"driver": {"name": "multi-raft"}},
        });
        let store: Store = serde_json::from_value(store).unwrap();
        let expected = Wish {
            partition: 3,
            ordinal: 1,
            member_id: 0xab,
        };
        assert_eq!(wishes(&store), [expected]);
    }
}
