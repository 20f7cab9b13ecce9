//! Whether a copy that does not answer can come back: it must not, once its partition goes on without
//! it. Pure; told by the pod and the claim of its ordinal as the API server shows them now.
//!
//! Only what is seen counts. An object that is being deleted is still there: its process may run on a
//! machine that the API server does not reach. A pod that never had an address, and a claim that was
//! never bound, hold no copy: another pod, another claim did, and it is gone.

use k8s_openapi::api::core::v1::{ContainerState, ContainerStatus, PersistentVolumeClaim, Pod};

/// What is left of a pod's disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Remains {
    /// The pod is being deleted; its process may run as long as it is shown.
    PodGoing,
    /// The pod is there, and its data with it: the storage is ephemeral.
    Pod,
    /// The claim is being deleted; somebody uses it.
    ClaimGoing,
    /// The claim is there.
    Claim,
}

impl Remains {
    /// What a person can do.
    pub(super) fn advice(self, store: &str, pod: &str) -> String {
        match self {
            Self::PodGoing => format!(
                "{pod} does not answer and is Terminating: its node may still run where nobody \
                 reaches it, and serve its copy beside the one that goes on. Wait until it is gone; \
                 if its machine is off for good, remove the machine from the cluster, or delete the \
                 pod by force"
            ),
            Self::Pod => format!(
                "{pod} does not answer, but it is there and may come back with its copy: get it \
                 running, or give its data up first by deleting the pod"
            ),
            Self::ClaimGoing => format!(
                "{pod} does not answer, and its disk is being deleted but still in use: wait until \
                 PersistentVolumeClaim data-{pod} is gone; a pod that holds it on a machine that is \
                 off for good goes when the machine is removed from the cluster"
            ),
            Self::Claim => format!(
                "{pod} does not answer, but its disk is there and may come back with its copy: get it \
                 running, or give its disk up first by `kubectl atomix store replace-node {store} \
                 {pod} --give-up`"
            ),
        }
    }
}

/// What is left of the disk that the pods of an ordinal had; `None` = it is gone for ever.
pub(super) fn remains(
    pod: Option<&Pod>,
    claim: Option<&PersistentVolumeClaim>,
    is_ephemeral: bool,
) -> Option<Remains> {
    if pod.is_some_and(|pod| pod.metadata.deletion_timestamp.is_some()) {
        return Some(Remains::PodGoing);
    }
    if is_ephemeral {
        let is_held = pod.is_some_and(|pod| !was_never_reached(pod));
        return is_held.then_some(Remains::Pod);
    }
    let claim = claim.filter(|claim| !was_never_bound(claim))?;
    let is_going = claim.metadata.deletion_timestamp.is_some();
    Some(if is_going {
        Remains::ClaimGoing
    } else {
        Remains::Claim
    })
}

/// Its node has never run, nor had an address to be asked at: it never held a copy.
fn was_never_reached(pod: &Pod) -> bool {
    let Some(status) = &pod.status else {
        return true;
    };
    let has_run = |state: &ContainerState| state.running.is_some() || state.terminated.is_some();
    let has_started = |container: &ContainerStatus| {
        let mut states = container.state.iter().chain(&container.last_state);
        container.restart_count > 0 || states.any(has_run)
    };
    let mut containers = status.container_statuses.iter().flatten();
    // Of a pod that is over, a kubelet may have cleared the rest.
    let is_pending = status
        .phase
        .as_deref()
        .is_none_or(|phase| phase == "Pending");
    is_pending && status.pod_ip.is_none() && !containers.any(has_started)
}

fn was_never_bound(claim: &PersistentVolumeClaim) -> bool {
    let volume = claim
        .spec
        .as_ref()
        .and_then(|spec| spec.volume_name.as_ref());
    let phase = claim
        .status
        .as_ref()
        .and_then(|status| status.phase.as_deref());
    volume.is_none_or(String::is_empty) && phase.is_none_or(|phase| phase == "Pending")
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use serde_json::{Value, json};

    use super::*;

    fn object<T: serde::de::DeserializeOwned>(is_going: bool, spec: &Value, status: &Value) -> T {
        let mut object = json!({
            "metadata": {"name": "tulip-1"}, "spec": spec, "status": status,
        });
        if is_going {
            object["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:00Z");
        }
        serde_json::from_value(object).unwrap()
    }

    fn pod(is_going: bool, status: &Value) -> Pod {
        object(is_going, &json!({"containers": []}), status)
    }

    fn claim(is_going: bool, volume: &str) -> PersistentVolumeClaim {
        match volume {
            "" => object(is_going, &json!({}), &json!({"phase": "Pending"})),
            volume => object(
                is_going,
                &json!({"volumeName": volume}),
                &json!({"phase": "Bound"}),
            ),
        }
    }

    /// Pods that hold nothing, and such that may.
    fn waiting() -> Pod {
        let state = json!({"waiting": {"reason": "ContainerCreating"}});
        let container = json!({
            "name": "node", "image": "", "imageID": "", "ready": false, "restartCount": 0,
            "state": state,
        });
        pod(
            false,
            &json!({"phase": "Pending", "containerStatuses": [container]}),
        )
    }

    fn running() -> Value {
        json!({"phase": "Running", "podIP": "127.3.0.9"})
    }

    #[test]
    fn an_ephemeral_copy_is_gone_only_when_its_pod_is_gone() {
        let remains = |pod: Option<Pod>| super::remains(pod.as_ref(), None, true);
        assert_eq!(remains(None), None);
        assert_eq!(
            remains(Some(pod(false, &json!({"phase": "Pending"})))),
            None
        );
        assert_eq!(remains(Some(waiting())), None);
        for (what, status) in [
            ("on a machine that is cut off", running()),
            (
                "it had an address",
                json!({"phase": "Pending", "podIP": "127.3.0.9"}),
            ),
            (
                "it is over",
                json!({"phase": "Failed", "reason": "Evicted"}),
            ),
        ] {
            let found = remains(Some(pod(false, &status)));
            assert_eq!(found, Some(Remains::Pod), "{what}");
        }
        assert_eq!(
            remains(Some(pod(true, &running()))),
            Some(Remains::PodGoing)
        );
    }

    #[test]
    fn a_copy_on_a_volume_is_gone_only_when_its_claim_is_gone() {
        let pods = || [None, Some(waiting()), Some(pod(false, &running()))];
        for pod in pods() {
            let remains = |claim: Option<PersistentVolumeClaim>| {
                super::remains(pod.as_ref(), claim.as_ref(), false)
            };
            assert_eq!(remains(None), None);
            assert_eq!(remains(Some(claim(false, ""))), None, "a new one");
            assert_eq!(remains(Some(claim(false, "pv-7"))), Some(Remains::Claim));
            assert_eq!(
                remains(Some(claim(true, "pv-7"))),
                Some(Remains::ClaimGoing)
            );
        }
        // Its machine may be cut off, and the process go on with the volume that it has.
        let going = pod(true, &running());
        for claim in [None, Some(claim(true, "pv-7")), Some(claim(false, ""))] {
            let remains = super::remains(Some(&going), claim.as_ref(), false);
            assert_eq!(remains, Some(Remains::PodGoing));
        }
    }

    #[test]
    fn every_advice_names_the_pod() {
        for remains in [
            Remains::PodGoing,
            Remains::Pod,
            Remains::ClaimGoing,
            Remains::Claim,
        ] {
            assert!(
                remains
                    .advice("tulip", "tulip-1")
                    .starts_with("tulip-1 does not answer")
            );
        }
    }
}
