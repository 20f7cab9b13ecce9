//! The readiness gate `atomix.io/replicated` of storage pods: when it opens and shuts, and who
//! writes it.
//!
//! It opens when every partition that has a copy on the pod's disk counts that copy as a voter that
//! has caught up, and every partition of the Store has a leader that says which copies it counts. A
//! pod that is made anew begins without it, so nobody drains the next machine before this one counts.
//! It shuts when the node is away for longer than a moment; that a node is merely a little behind
//! shuts nothing, since every one is at times.

use std::collections::HashMap;
use std::time::Duration;

use k8s_openapi::jiff::Timestamp;
use kube::api::{Patch, PatchParams};
use kube::{Api, Client};
use parking_lot::Mutex;
use serde_json::{Value, json};

use crate::store::nodes::node_view::NodeView;
use crate::store::nodes::strength::{Standing, Strength};
use crate::store::nodes::watches::STATUS_TIMEOUT;
use crate::store::objects::pods::StoragePodView;
use crate::store::rolling::lasting::Lasting;
use atomix_controller::apply::is_older;
use atomix_controller::{ApiError, FIELD_MANAGER, call};
use atomix_resources::labels::REPLICATED;

/// For how long a node may seem away before its gate shuts. A leader that was elected just now has
/// not heard every follower, a stream may break and an answer be late while the node serves; a pod
/// that stops counting for that holds up drains, or is the second one that does not count while
/// another is replaced. A container that does not run at all the kubelet reports itself.
const ABSENCE: Duration = Duration::from_secs(2);

/// After how long without being found away again an absence is forgotten. Each look that finds the
/// node up ends it; this is for a Store that nobody has looked at. Much longer than the longest look,
/// which waits twice for a node that hangs.
const LAPSE: Duration = Duration::from_secs(30);
const _: () = assert!(LAPSE.as_secs() > 3 * STATUS_TIMEOUT.as_secs());

/// What the gate should become; `None` = it stays. `view` is the node's last answer, `strength` what
/// was judged of the groups, if anything was.
#[must_use]
pub fn wanted(
    is_open: bool,
    ordinal: u32,
    view: Option<&NodeView>,
    strength: Option<&Strength>,
) -> Option<bool> {
    if view.is_none() {
        return is_open.then_some(false);
    }
    let strength = strength?;
    let known = strength.groups.values().flatten();
    let standings = known.filter_map(|group| group.voter_at(ordinal));
    let worst = standings.map(|(_, voter)| voter.standing).max();
    // A group that nobody leads may count on a disk that is here no more, so that its node does not
    // even tell of the group.
    let is_any_unknown = strength.groups.values().any(Option::is_none);
    match (is_open, worst) {
        (false, None | Some(Standing::CaughtUp)) => (!is_any_unknown).then_some(true),
        (true, Some(Standing::Away)) => Some(false),
        (false, Some(Standing::Behind | Standing::Away))
        | (true, None | Some(Standing::CaughtUp | Standing::Behind)) => None,
    }
}

/// What becomes of a gate now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Settled {
    /// It stays.
    Keep,
    /// It opens or shuts.
    Write(bool),
    /// Its node seems away, not for long yet: to be looked at again soon.
    Unsure,
}

/// Writes the gates, and remembers what it wrote until the cache shows it.
#[derive(Debug)]
pub struct Gates {
    /// By the pod's uid: resource version and what was written.
    written: Mutex<HashMap<String, (Option<String>, bool)>>,
    /// Whose node seems away.
    away: Lasting,
}

impl Default for Gates {
    fn default() -> Self {
        Self {
            written: Mutex::default(),
            away: Lasting::new(LAPSE),
        }
    }
}

impl Gates {
    /// Whether the gate of a pod is open, as far as is known; a pod without a gate counts as open.
    #[must_use]
    pub fn is_open(&self, pod: &StoragePodView) -> bool {
        if !pod.has_gate() {
            return true;
        }
        let uid = pod.metadata.uid.as_deref().unwrap_or_default();
        let seen = pod.metadata.resource_version.as_deref();
        let written = self.written.lock();
        match written.get(uid) {
            Some((version, is_open)) if is_older(seen, version.as_deref()) => *is_open,
            Some(_) | None => pod
                .condition(REPLICATED)
                .is_some_and(|condition| condition.status == "True"),
        }
    }

    /// What becomes of a pod's gate after a look that [`wanted`] this.
    #[must_use]
    pub fn settle(&self, pod_uid: &str, becomes: Option<bool>) -> Settled {
        match becomes {
            Some(false) => {
                self.away.note(pod_uid);
                if self.away.lasts(pod_uid, ABSENCE) {
                    Settled::Write(false)
                } else {
                    Settled::Unsure
                }
            }
            Some(true) | None => {
                self.away.forget(pod_uid);
                becomes.map_or(Settled::Keep, Settled::Write)
            }
        }
    }

    /// To be called when a pod is gone.
    pub fn forget(&self, pod_uid: &str) {
        self.written.lock().remove(pod_uid);
        self.away.forget(pod_uid);
    }

    /// Writes the gate of one pod.
    ///
    /// # Errors
    /// When the API server refuses or does not answer; a pod that is gone is no failure.
    pub async fn write(
        &self,
        client: &Client,
        namespace: &str,
        pod: &StoragePodView,
        open: bool,
    ) -> Result<(), ApiError> {
        let pods: Api<StoragePodView> = Api::namespaced(client.clone(), namespace);
        let params = PatchParams {
            field_manager: Some(FIELD_MANAGER.to_owned()),
            ..PatchParams::default()
        };
        let patch = Patch::Strategic(patch(pod, open));
        let uid = pod.metadata.uid.clone().unwrap_or_default();
        let request = pods.patch_status(pod.name(), &params, &patch);
        match call("write the readiness gate of a storage pod", request).await {
            Ok(after) => {
                let written = (after.metadata.resource_version, open);
                self.written.lock().insert(uid, written);
                Ok(())
            }
            Err(error) if error.is_not_found() => Ok(()),
            // Its own event comes.
            Err(error) if error.is_of_another_object() => {
                tracing::debug!(pod = pod.name(), %error, "the pod is another one by now");
                Ok(())
            }
            Err(error) => {
                // The effect is unknown: the cache decides.
                self.written.lock().remove(&uid);
                Err(error)
            }
        }
    }
}

fn patch(pod: &StoragePodView, open: bool) -> Value {
    let (status, reason, message) = if open {
        ("True", "CaughtUp", "every partition counts on this disk")
    } else {
        (
            "False",
            "NodeAway",
            "a partition that has a copy on this disk cannot count on it",
        )
    };
    let now = Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
    let condition = json!({
        "type": REPLICATED,
        "status": status,
        "reason": reason,
        "message": message,
        "lastTransitionTime": now,
    });
    json!({"metadata": {"uid": pod.metadata.uid}, "status": {"conditions": [condition]}})
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use super::*;
    use crate::store::nodes::strength::{GroupStrength, Voter};

    fn view(partitions: &[u32]) -> NodeView {
        NodeView {
            node_id: 1,
            store_uid: "u".to_owned(),
            incarnation: 1,
            version: String::new(),
            operator: String::new(),
            groups: partitions
                .iter()
                .map(|partition| (*partition, Default::default()))
                .collect(),
        }
    }

    /// Partition 1 with a voter on pod 0 that does so, or without a leader; partition 2 on other pods.
    fn strength(standing: Option<Standing>) -> Strength {
        let group = |ordinal: u32, standing: Standing| {
            let voter = Voter {
                ordinal: Some(ordinal),
                standing,
            };
            Some(GroupStrength {
                leader: 7,
                voters: [(7, voter)].into(),
                is_changing: false,
            })
        };
        Strength {
            groups: [
                (1, standing.and_then(|standing| group(0, standing))),
                (2, group(1, Standing::Away)),
            ]
            .into(),
        }
    }

    #[test]
    fn the_gate_opens_when_all_copies_count_and_shuts_when_the_node_is_away() {
        use Standing::{Away, Behind, CaughtUp};
        let holds = view(&[1]);
        let empty = view(&[]);
        let mut elsewhere = strength(None);
        elsewhere.groups.remove(&1);
        let cases = [
            (
                false,
                Some(&holds),
                Some(strength(Some(CaughtUp))),
                Some(true),
            ),
            (false, Some(&holds), Some(strength(Some(Behind))), None),
            (false, Some(&holds), Some(strength(Some(Away))), None),
            (false, Some(&holds), Some(strength(None)), None),
            (false, Some(&holds), None, None),
            (false, None, None, None),
            (true, Some(&holds), Some(strength(Some(CaughtUp))), None),
            (true, Some(&holds), Some(strength(Some(Behind))), None),
            (true, Some(&holds), Some(strength(Some(Away))), Some(false)),
            (true, Some(&holds), Some(strength(None)), None),
            (true, Some(&holds), None, None),
            (true, None, None, Some(false)),
            // A new disk in the place of one that a partition still counts on.
            (false, Some(&empty), Some(strength(Some(Away))), None),
            // Nobody knows whether one does.
            (false, Some(&empty), Some(strength(None)), None),
            // A disk that holds nothing loses nothing.
            (false, Some(&empty), Some(elsewhere), Some(true)),
        ];
        for (is_open, view, strength, expected) in cases {
            let found = wanted(is_open, 0, view, strength.as_ref());
            assert_eq!(found, expected, "{is_open} {view:?} {strength:?}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn the_gate_shuts_only_when_the_node_stays_away() {
        const LOOK: Duration = Duration::from_millis(500);
        let gates = Gates::default();
        assert_eq!(gates.settle("1", None), Settled::Keep);
        assert_eq!(gates.settle("1", Some(true)), Settled::Write(true));
        for _ in 0..3 {
            // Away for a moment, again and again.
            assert_eq!(gates.settle("1", Some(false)), Settled::Unsure);
            tokio::time::advance(ABSENCE).await;
            assert_eq!(gates.settle("1", Some(false)), Settled::Unsure);
            tokio::time::advance(LOOK).await;
            assert_eq!(gates.settle("1", None), Settled::Keep);
        }
        assert_eq!(gates.settle("1", Some(false)), Settled::Unsure);
        tokio::time::advance(ABSENCE).await;
        assert_eq!(gates.settle("1", Some(false)), Settled::Unsure);
        tokio::time::advance(LOOK).await;
        assert_eq!(gates.settle("1", Some(false)), Settled::Write(false));
        // Until the cache shows it shut, and also where each look waits for nodes that hang.
        tokio::time::advance(STATUS_TIMEOUT * 2 + LOOK).await;
        assert_eq!(gates.settle("1", Some(false)), Settled::Write(false));
        assert_eq!(gates.settle("2", Some(false)), Settled::Unsure);
    }

    #[test]
    fn what_was_written_counts_until_the_cache_shows_something_newer() {
        let pod = |version: &str, status: &str| -> StoragePodView {
            serde_json::from_value(json!({
                "metadata": {"name": "tulip-0", "uid": "1", "resourceVersion": version},
                "spec": {"readinessGates": [{"conditionType": "atomix.io/replicated"}]},
                "status": {"conditions": [{"type": "atomix.io/replicated", "status": status}]},
            }))
            .unwrap()
        };
        let gates = Gates::default();
        assert!(!gates.is_open(&pod("10", "False")));
        let written = (Some("20".to_owned()), true);
        gates.written.lock().insert("1".to_owned(), written);
        assert!(gates.is_open(&pod("10", "False")));
        assert!(!gates.is_open(&pod("30", "False")));
        assert!(gates.is_open(&pod("30", "True")));
        gates.forget("1");
        assert!(!gates.is_open(&pod("10", "False")));
        let mut ungated = pod("10", "False");
        ungated.spec.readiness_gates.clear();
        assert!(gates.is_open(&ungated));
    }
}
