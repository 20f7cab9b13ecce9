//! Which pods of an old revision are deleted before the Store is bootstrapped, so that a corrected
//! spec takes effect. Pure. Not for afterwards: that is a rolling change (`rolling`).

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::store::objects::pods::StoragePodView;

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
}
