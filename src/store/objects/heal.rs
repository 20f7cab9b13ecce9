//! Which pods of an old revision are deleted before the Store is bootstrapped, so that a corrected
//! spec takes effect. Pure. Not for afterwards: that is a rolling change (`rolling`).

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::store::bootstrap::StoredPlan;
use crate::store::nodes::node_view::NodeView;
use crate::store::objects::pods::StoragePodView;

/// Whether the mark cannot have been written yet, so that all pods may go at once. A plan that is
/// gone or damaged says nothing: then neither the status, which `was_bootstrapped` is from, nor any
/// node that answers may tell of data. (An unmarked plan of a Store that was bootstrapped once is
/// that of its next incarnation, which begins without data.)
pub fn is_before_the_mark<'a>(
    stored: &StoredPlan,
    was_bootstrapped: bool,
    mut nodes: impl Iterator<Item = &'a NodeView>,
) -> bool {
    match stored {
        StoredPlan::Ours { bootstrapped, .. } => !bootstrapped,
        StoredPlan::Absent
        | StoredPlan::OfEarlierStore
        | StoredPlan::NameTaken(_)
        | StoredPlan::Damaged(_) => !was_bootstrapped && nodes.all(|node| node.groups.is_empty()),
    }
}

/// The pods to delete. `newest_revision` must come from a read that is newer than `pods`, else a
/// new pod could be taken for an old one.
#[must_use]
pub fn pods_to_replace(
    pods: &BTreeMap<u32, Arc<StoragePodView>>,
    newest_revision: Option<&str>,
) -> Vec<Arc<StoragePodView>> {
    let Some(newest) = newest_revision else {
        return Vec::new();
    };
    let replaceable = pods.values().filter(|pod| {
        let is_old = pod.revision().is_some_and(|revision| revision != newest);
        is_old && !pod.is_terminating()
    });
    replaceable.cloned().collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use serde_json::json;

    use super::*;
    use crate::store::bootstrap::plan_record::Plan;
    use crate::store::nodes::node_view::GroupView;

    fn pod(name: &str, revision: &str, running: bool, terminating: bool) -> Arc<StoragePodView> {
        let state = if running {
            json!({"running": {}})
        } else {
            json!({"waiting": {"reason": "ImagePullBackOff"}})
        };
        let mut pod = json!({
            "metadata": {"name": name, "labels": {"controller-revision-hash": revision}},
            "status": {"containerStatuses": [{"name": "node", "state": state}]},
        });
        if terminating {
            pod["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:00Z");
        }
        Arc::new(serde_json::from_value(pod).unwrap())
    }

    #[test]
    fn old_pods_that_are_not_going_are_replaced() {
        let pods = BTreeMap::from([
            (0, pod("new", "b", false, false)),
            (1, pod("old-stuck", "a", false, false)),
            (2, pod("old-running", "a", true, false)),
            (3, pod("old-going", "a", false, true)),
        ]);
        let names = |newest: Option<&str>| -> Vec<String> {
            let pods = pods_to_replace(&pods, newest);
            pods.iter().map(|pod| pod.name().to_owned()).collect()
        };
        assert_eq!(names(Some("b")), ["old-stuck", "old-running"]);
        assert!(names(None).is_empty());
        assert!(names(Some("a")).contains(&"new".to_owned()));
    }

    fn node(partitions: &[u32]) -> NodeView {
        let groups = partitions.iter();
        NodeView {
            node_id: 7,
            store_uid: "uid-of-tulip".to_owned(),
            incarnation: 1,
            version: String::new(),
            operator: String::new(),
            groups: groups
                .map(|partition| (*partition, GroupView::default()))
                .collect(),
        }
    }

    fn ours(bootstrapped: bool) -> StoredPlan {
        StoredPlan::Ours {
            plan: Box::new(Plan {
                store_uid: "uid-of-tulip".to_owned(),
                incarnation: 1,
                election_timeout_millis: 1000,
                snapshot_entry_threshold: 0,
                nodes: Vec::new(),
                partitions: Vec::new(),
            }),
            bootstrapped,
        }
    }

    #[test]
    fn without_a_plan_to_read_pods_stay_where_anything_tells_of_data() {
        let unreadable = || {
            [
                StoredPlan::Absent,
                StoredPlan::OfEarlierStore,
                StoredPlan::NameTaken("someone".to_owned()),
                StoredPlan::Damaged("it is no JSON".to_owned()),
            ]
        };
        let (empty, holding) = ([node(&[]), node(&[])], [node(&[]), node(&[3])]);
        for stored in unreadable() {
            for (was_bootstrapped, nodes, expected) in [
                (false, [].as_slice(), true),
                (false, empty.as_slice(), true),
                (false, holding.as_slice(), false),
                (true, [].as_slice(), false),
                (true, empty.as_slice(), false),
                (true, holding.as_slice(), false),
            ] {
                let is_before = is_before_the_mark(&stored, was_bootstrapped, nodes.iter());
                assert_eq!(
                    is_before, expected,
                    "{stored:?} {was_bootstrapped} {nodes:?}"
                );
            }
        }
        // A plan that can be read says it itself.
        for was_bootstrapped in [false, true] {
            for nodes in [empty.iter(), holding.iter()] {
                let is_before =
                    |marked| is_before_the_mark(&ours(marked), was_bootstrapped, nodes.clone());
                assert!(is_before(false) && !is_before(true));
            }
        }
    }
}
