//! What is wrong with a storage pod, and what to do. Pure.
//!
//! The kubelet's own sentences are not repeated: they alternate while nothing changes, and each
//! change of a condition is a write.

use crate::store::objects::pods::{ContainerStatusView, ReasonView, StoragePodView};
use crate::store::reason::Reason;

/// What keeps a pod from running.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Trouble {
    /// A condition's reason.
    pub reason: Reason,
    /// Sentence that names the pod and says what to do.
    pub message: String,
}

/// What keeps the pod from running, if Kubernetes said so.
#[must_use]
pub fn of(pod: &StoragePodView) -> Option<Trouble> {
    unschedulable(pod)
        .or_else(|| failed(pod))
        .or_else(|| of_container(pod))
}

fn unschedulable(pod: &StoragePodView) -> Option<Trouble> {
    let scheduled = pod
        .condition("PodScheduled")
        .filter(|scheduled| scheduled.status == "False")?;
    let why = scheduled.message.as_deref().unwrap_or("no machine fits");
    let name = pod.name();
    if waits_for_volume(why) {
        return Some(Trouble {
            reason: Reason::VolumeNotBound,
            message: format!(
                "pod {name} waits for a volume: see that the StorageClass of \
                 spec.multiRaft.storage exists (without storageClassName: that the cluster has a \
                 default) and makes volumes of this size, or make one by hand; `kubectl describe \
                 pvc` says more: {why}"
            ),
        });
    }
    let (what, advice) = if is_where_its_volume_is_not(why) {
        (
            "cannot be placed where its volume is",
            "add a machine there, or give the volume up by `kubectl atomix store replace-node`",
        )
    } else {
        (
            "cannot be placed",
            "add a machine that fits, or make room on one",
        )
    };
    let also = bound_at_once(pod)
        .map(|also| format!("; {also}"))
        .unwrap_or_default();
    Some(Trouble {
        reason: Reason::PodUnschedulable,
        message: format!("pod {name} {what}: {advice}{also}: {why}"),
    })
}

/// What a person must know of a pod with a volume that no machine takes: elsewhere a claim that has
/// no volume yet shows that the disk before it was given up (`claims::never_bound`).
pub(super) fn bound_at_once(pod: &StoragePodView) -> Option<&'static str> {
    (pod.is_unschedulable() && pod.has_volume()).then_some(
        "if its StorageClass binds at once (volumeBindingMode: Immediate), members of a disk that \
         was given up wait until the pod runs",
    )
}

/// The words of newer and older schedulers.
fn is_where_its_volume_is_not(why: &str) -> bool {
    let why = why.to_ascii_lowercase();
    [
        "didn't match persistentvolume's node affinity",
        "volume node affinity conflict",
        "no available volume zone",
    ]
    .iter()
    .any(|words| why.contains(words))
}

/// The scheduler names the claim or its class when no machine would help.
fn waits_for_volume(why: &str) -> bool {
    let why = why.to_ascii_lowercase();
    why.contains("unbound immediate persistentvolumeclaim")
        || why.contains("storageclass") && why.contains("not found")
}

fn failed(pod: &StoragePodView) -> Option<Trouble> {
    let status = &pod.status;
    if status.phase.as_deref() != Some("Failed") {
        return None;
    }
    let why = status.reason.as_deref().or(status.message.as_deref());
    let name = pod.name();
    Some(Trouble {
        reason: Reason::PodFailed,
        message: format!(
            "pod {name} failed ({}) and is made anew; if it fails again, look at \
             `kubectl describe pod {name}`",
            why.unwrap_or("unknown cause")
        ),
    })
}

fn of_container(pod: &StoragePodView) -> Option<Trouble> {
    let container = pod.container()?;
    match (&container.state.waiting, &container.state.terminated) {
        (Some(waiting), _) => of_waiting(pod, container, waiting),
        (None, Some(ended)) => Some(crashed(pod, Some(ended))),
        (None, None) => None,
    }
}

fn of_waiting(
    pod: &StoragePodView,
    container: &ContainerStatusView,
    waiting: &ReasonView,
) -> Option<Trouble> {
    let name = pod.name();
    match waiting.reason.as_deref().unwrap_or_default() {
        "" | "ContainerCreating" | "PodInitializing" => None,
        "ErrImagePull"
        | "ImagePullBackOff"
        | "InvalidImageName"
        | "ErrImageNeverPull"
        | "RegistryUnavailable"
        | "ImageInspectError" => Some(Trouble {
            reason: Reason::ImagePullFailed,
            message: format!(
                "pod {name} cannot pull image {}: correct spec.multiRaft.pod.image or make the \
                 image available; the pod's events say why",
                pod.image()
            ),
        }),
        "CrashLoopBackOff" => Some(crashed(pod, container.last_state.terminated.as_ref())),
        reason => Some(Trouble {
            reason: Reason::ContainerNotStarted,
            message: format!(
                "pod {name} cannot start its container ({reason}): look at \
                 `kubectl describe pod {name}` and correct what it names"
            ),
        }),
    }
}

/// The same sentence before and during the pause that follows.
fn crashed(pod: &StoragePodView, ended: Option<&ReasonView>) -> Trouble {
    let name = pod.name();
    let code = ended.and_then(|ended| ended.exit_code);
    let code = code.map(|code| format!(" with exit code {code}"));
    let reason = ended.and_then(|ended| ended.reason.as_deref());
    let reason = reason.map(|reason| format!(" ({reason})"));
    Trouble {
        reason: Reason::NodeCrashed,
        message: format!(
            "pod {name}: its container ended{}{} and is started again; look at \
             `kubectl logs --previous {name}`",
            code.unwrap_or_default(),
            reason.unwrap_or_default()
        ),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use serde_json::{Value, json};

    use super::*;

    fn pod(status: Value) -> StoragePodView {
        serde_json::from_value(json!({
            "metadata": {"name": "tulip-1"},
            "spec": {"containers": [{"name": "node", "image": "garden/node:9"}]},
            "status": status,
        }))
        .unwrap()
    }

    fn container(state: Value, last_state: Value) -> Value {
        json!({"phase": "Pending", "containerStatuses": [
            {"name": "other", "restartCount": 7, "state": {"running": {}}},
            {"name": "node", "state": state, "lastState": last_state},
        ]})
    }

    fn waiting(reason: &str, message: &str) -> Value {
        container(
            json!({"waiting": {"reason": reason, "message": message}}),
            json!({}),
        )
    }

    #[test]
    fn trouble_is_named_with_its_pod_and_what_to_do() {
        let scheduled = |status: &str, why: &str| json!({"conditions": [{"type": "PodScheduled", "status": status, "message": why}]});
        let crashed = json!({"terminated": {"exitCode": 101, "reason": "Error"}});
        for (status, expected) in [
            (json!({}), None),
            (waiting("ContainerCreating", ""), None),
            (container(json!({"running": {}}), json!({})), None),
            (scheduled("True", ""), None),
            (
                waiting("ImagePullBackOff", ""),
                Some((Reason::ImagePullFailed, "garden/node:9: correct spec")),
            ),
            (
                waiting("CreateContainerConfigError", ""),
                Some((Reason::ContainerNotStarted, "correct what it names")),
            ),
            (
                container(crashed, json!({})),
                Some((Reason::NodeCrashed, "code 101 (Error)")),
            ),
            (
                scheduled("False", "0/1 nodes are available: 1 Insufficient cpu."),
                Some((Reason::PodUnschedulable, "add a machine that fits")),
            ),
            (
                scheduled(
                    "False",
                    "0/1: pod has unbound immediate PersistentVolumeClaims.",
                ),
                Some((Reason::VolumeNotBound, "StorageClass")),
            ),
            (
                scheduled("False", "storageclass.storage.k8s.io \"x\" not found"),
                Some((Reason::VolumeNotBound, "StorageClass")),
            ),
            (
                json!({"phase": "Failed", "reason": "Evicted"}),
                Some((Reason::PodFailed, "(Evicted) and is made anew")),
            ),
        ] {
            let trouble = of(&pod(status.clone()));
            let reason = trouble.as_ref().map(|trouble| trouble.reason);
            assert_eq!(reason, expected.map(|(reason, _)| reason), "{status}");
            if let (Some(trouble), Some((_, part))) = (trouble, expected) {
                assert!(trouble.message.contains("tulip-1"), "{}", trouble.message);
                assert!(trouble.message.contains(part), "{}", trouble.message);
            }
        }
    }

    #[test]
    fn a_pod_that_no_machine_takes_is_told_what_its_volume_means() {
        for (why, advice) in [
            (
                "0/3 nodes are available: 3 Insufficient cpu.",
                "add a machine that fits",
            ),
            (
                "0/3: 3 node(s) didn't match PersistentVolume's node affinity.",
                "store replace-node",
            ),
            (
                "0/3: 3 node(s) had volume node affinity conflict.",
                "store replace-node",
            ),
        ] {
            let mut waiting = pod(json!({"conditions": [
                {"type": "PodScheduled", "status": "False", "message": why}]}));
            let told = of(&waiting).unwrap();
            assert_eq!(told.reason, Reason::PodUnschedulable);
            assert!(told.message.contains(advice), "{}", told.message);
            assert!(!told.message.contains("Immediate"), "{}", told.message);

            let volume = json!([{"name": "data", "persistentVolumeClaim": {"claimName": "c"}}]);
            waiting.spec.volumes = serde_json::from_value(volume).unwrap();
            let told = of(&waiting).unwrap().message;
            assert!(told.contains(advice), "{told}");
            assert!(told.contains("(volumeBindingMode: Immediate)"), "{told}");
            assert!(told.ends_with(why), "{told}");
        }
    }

    #[test]
    fn what_the_kubelet_alternates_between_is_one_message() {
        let crashed = json!({"terminated": {"exitCode": 1, "reason": "Error"}});
        let pause = json!({"waiting": {"reason": "CrashLoopBackOff", "message": "back-off 10s"}});
        for (one, other) in [
            (
                waiting("ErrImagePull", "no such host"),
                waiting("ImagePullBackOff", "Back-off pulling"),
            ),
            (
                waiting("CreateContainerError", "context deadline exceeded"),
                waiting("CreateContainerError", "name is reserved"),
            ),
            (
                container(crashed.clone(), json!({})),
                container(pause, crashed),
            ),
        ] {
            assert_eq!(of(&pod(one.clone())), of(&pod(other)), "{one}");
        }
    }
}
