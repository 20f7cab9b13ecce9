//! What is told of a Store whose members, pods or disks change, or that is paused.

use super::*;
use crate::store::members::placement::Wait;
use crate::store::rolling::{Wait as RollWait, Why};

#[test]
fn a_lost_disk_is_named_and_old_pods_are_progress() {
    let mut case = Case::healthy();
    case.placement = Some(Decision {
        lost: [(1, Some(2)), (2, Some(2))].into(),
        replicas: 3,
        holding: [0, 1, 2].into(),
        ..Decision::default()
    });
    let status = case.status(&StoreStatus::default());
    let (degraded, message) = told(&status, "Degraded");
    assert_eq!(degraded, "True/DiskLost");
    assert!(message.contains("tulip-2"), "{message}");
}

#[test]
fn a_rolling_change_tells_how_far_it_is_and_what_has_stopped_it() {
    let mut case = Case::healthy();
    case.roll = rolling(Step::Replace(vec![1], Why::FullStrength));
    let status = case.status(&StoreStatus::default());
    assert_eq!(status.updated_replicas, Some(1));
    assert_eq!(told(&status, "Ready").0, "True/AllPartitionsReady");
    let (progressing, message) = told(&status, "Progressing");
    assert_eq!(progressing, "True/ReplacingPods");
    assert!(
        message.starts_with("1 of 3 pods have the newest settings; replaces tulip-1:"),
        "{message}"
    );

    // Somebody else's budget, or a pod that is not ready, stands against it.
    case.eviction_refused = true;
    let status = case.status(&status);
    let (progressing, message) = told(&status, "Progressing");
    assert_eq!(progressing, "True/RollStopped");
    assert!(
        message.contains("eviction of tulip-1: look at"),
        "{message}"
    );
    case.eviction_refused = false;

    // It starts.
    case.roll = rolling(Step::Wait(RollWait::Pod { ordinal: 2 }));
    case.nodes[2] = silent();
    let status = case.status(&status);
    let (progressing, message) = told(&status, "Progressing");
    assert_eq!(progressing, "True/ReplacingPods");
    assert!(
        message.contains("waits for tulip-2 (connection"),
        "{message}"
    );

    // It does not come back.
    let waiting = json!({"containerStatuses": [
        {"name": "node", "state": {"waiting": {"reason": "ErrImagePull"}}}
    ]});
    case.pods.insert(2, pod("tulip-2", waiting));
    let status = case.status(&status);
    let (progressing, message) = told(&status, "Progressing");
    assert_eq!(progressing, "True/RollStopped");
    assert!(
        message.contains("the change has stopped: pod tulip-2 cannot pull image garden/node:9"),
        "{message}"
    );
    assert_eq!(told(&status, "Degraded").0, "True/ImagePullFailed");

    // All members move first.
    let mut case = Case::healthy();
    case.placement = Some(moving(Purpose::Drain));
    case.roll = rolling(Step::Wait(RollWait::Moves));
    let status = case.status(&StoreStatus::default());
    assert_eq!(told(&status, "Progressing").0, "True/MovingMembers");
}

#[test]
fn a_change_that_would_lose_data_stalls_and_leaves_what_serves_alone() {
    let mut case = Case::healthy();
    case.roll = rolling(Step::Refused { ordinal: 2 });
    let status = case.status(&StoreStatus::default());
    assert_eq!(told(&status, "Ready").0, "True/AllPartitionsReady");
    assert_eq!(told(&status, "Degraded").0, "False/FullStrength");
    let (stalled, message) = told(&status, "Stalled");
    assert_eq!(stalled, "True/DataLossNotAllowed");
    assert!(
        message.contains("tulip-2") && message.contains("spec.updateStrategy.allowDataLoss"),
        "{message}"
    );
}

#[test]
fn a_paused_store_says_so_and_whether_it_serves() {
    let mut case = Case::healthy();
    case.paused = true;
    let status = case.status(&StoreStatus::default());
    assert_eq!(told(&status, "Ready").0, "True/AllPartitionsReady");
    let (progressing, message) = told(&status, "Progressing");
    assert_eq!(progressing, "False/Paused");
    assert!(message.contains("remove it"), "{message}");
    assert_eq!(told(&status, "Stalled").0, "False/NotStalled");

    case.nodes = [node(0, &[]), silent(), silent()];
    let status = case.status(&StoreStatus::default());
    assert_eq!(told(&status, "Ready").0, "False/PartitionsNotReady");
    assert_eq!(told(&status, "Progressing").0, "False/Paused");

    let mut case = Case::starting();
    case.paused = true;
    let status = case.status(&StoreStatus::default());
    assert_eq!(told(&status, "Ready").0, "False/Paused");
    assert_eq!(told(&status, "Progressing").0, "False/Paused");

    let config = DriverConfig {
        json: "{}".to_owned(),
        digest: "d".to_owned(),
    };
    let driver_only = |missing: Option<String>| {
        let now = Timestamp::UNIX_EPOCH;
        of_driver_only(&config, missing, true, &StoreStatus::default(), 4, now)
    };
    let status = driver_only(None);
    assert_eq!(told(&status, "Ready").0, "True/DriverAvailable");
    assert_eq!(told(&status, "Progressing").0, "False/Paused");
    let status = driver_only(Some("no etcd: delete".to_owned()));
    assert_eq!(told(&status, "Stalled").0, "True/DriverNotFound");
    assert_eq!(told(&status, "Progressing").0, "False/DriverNotFound");
}

#[test]
fn members_that_wait_for_a_pod_with_a_volume_are_told_of_classes_that_bind_at_once() {
    let status = json!({"conditions": [
        {"type": "PodScheduled", "status": "False", "message": "0/3"}]});
    let mut waiting = Arc::unwrap_or_clone(pod("tulip-2", status));
    let mut case = Case::healthy();
    case.nodes[2] = silent();
    case.placement = Some(Decision {
        waiting: [Wait::Unreachable {
            partition: 1,
            ordinal: Some(2),
        }]
        .into(),
        ..settled()
    });
    for volumes in [
        json!([]),
        json!([{"name": "data", "persistentVolumeClaim": {"claimName": "data-tulip-2"}}]),
    ] {
        waiting.spec.volumes = serde_json::from_value(volumes).unwrap();
        let has_volume = waiting.has_volume();
        case.pods.insert(2, Arc::new(waiting.clone()));
        let status = case.status(&StoreStatus::default());
        for (type_, expected) in [
            ("Degraded", "True/PodUnschedulable"),
            ("Progressing", "True/PlacementWaits"),
        ] {
            let (told, message) = told(&status, type_);
            assert_eq!(told, expected);
            let is_told = message.contains("(volumeBindingMode: Immediate)");
            assert_eq!(is_told, has_volume, "{message}");
        }
    }
}

#[test]
fn members_that_move_are_told_with_where_from_and_where_to() {
    let mut case = Case::healthy();
    case.placement = Some(moving(Purpose::Drain));
    let status = case.status(&StoreStatus::default());
    assert_eq!(told(&status, "Ready").0, "True/AllPartitionsReady");
    let (progressing, message) = told(&status, "Progressing");
    assert_eq!(progressing, "True/MovingMembers");
    assert!(
        message.starts_with("partition 2 moves from tulip-4 to tulip-0 (7 changes are left)"),
        "{message}"
    );

    // All members have moved, but a pod has not said that it holds nothing.
    case.placement = Some(Decision {
        replicas: 5,
        ..settled()
    });
    let status = case.status(&StoreStatus::default());
    let (progressing, message) = told(&status, "Progressing");
    assert_eq!(progressing, "True/PlacementWaits");
    assert!(message.starts_with("tulip-3, tulip-4 stay"), "{message}");

    // A new pod that has not answered takes nothing from the Store's strength.
    let mut case = Case::healthy();
    case.nodes[2] = silent();
    case.placement = Some(Decision {
        holding: [0, 1].into(),
        ..settled()
    });
    let status = case.status(&StoreStatus::default());
    assert_eq!(told(&status, "Degraded").0, "False/FullStrength");
    assert_eq!(told(&status, "Progressing").0, "True/WaitingForNodes");
    case.placement = Some(settled());
    let status = case.status(&StoreStatus::default());
    assert_eq!(told(&status, "Degraded").0, "True/NodesUnreachable");
    assert_eq!(told(&status, "Progressing").0, "False/AsSpecified");
}
