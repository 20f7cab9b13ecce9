//! From findings to conditions: the first cause is named, with the pod and what to do.

#![allow(clippy::unwrap_used, reason = "tests")]

use std::time::Duration;

use serde_json::json;

use super::super::rolling::{Step, Wait as RollWait, Why};
use super::*;
use crate::store::bootstrap::plan_record::{HexId, PlannedNode, PlannedPartition};
use crate::store::members::placement::{Action, Join, Potential, Purpose, Wait};
use crate::store::nodes::node_view::{GroupView, NodeView};
use crate::store::spec::config_from::{SourceKind, SourceObject};
use crate::store::spec::validate::{ClusterStorage, Timings};
use atomix_controller::ApiError;

fn cluster() -> Cluster {
    Cluster {
        replicas: 3,
        partitions: 2,
        replication_factor: 3,
        timings: Timings {
            election_timeout: Duration::from_secs(1),
            snapshot_entry_threshold: 0,
        },
        storage: ClusterStorage::Ephemeral,
        pod: Default::default(),
        allow_data_loss: false,
        driver_timeouts: Default::default(),
    }
}

fn plan() -> Plan {
    let partition = |partition: u32| PlannedPartition {
        partition,
        members: (0..3)
            .map(|ordinal| (ordinal, HexId(u64::from(partition * 10 + ordinal))))
            .collect(),
        initializer: 0,
    };
    Plan {
        store_uid: "u".to_owned(),
        incarnation: 1,
        election_timeout_millis: 1000,
        snapshot_entry_threshold: 0,
        nodes: (1..=3)
            .map(|id| PlannedNode {
                node_id: HexId(id),
                address: format!("a{id}"),
            })
            .collect(),
        partitions: vec![partition(1), partition(2)],
    }
}

/// A node with its members; `leads` are the partitions that it leads.
fn node(ordinal: u32, leads: &[u32]) -> NodeState {
    let groups = [1_u32, 2].map(|partition| {
        let view = GroupView {
            member_id: u64::from(partition * 10 + ordinal),
            leads: leads.contains(&partition),
            has_committed: true,
            ..GroupView::default()
        };
        (partition, view)
    });
    NodeState::Up(NodeView {
        node_id: u64::from(ordinal + 1),
        store_uid: "u".to_owned(),
        incarnation: 1,
        version: "0.1.0".to_owned(),
        operator: String::new(),
        groups: groups.into(),
    })
}

/// A node on a new disk.
fn replaced(ordinal: u32) -> NodeState {
    NodeState::Up(NodeView {
        node_id: u64::from(ordinal + 100),
        store_uid: String::new(),
        incarnation: 0,
        version: "0.1.0".to_owned(),
        operator: String::new(),
        groups: BTreeMap::new(),
    })
}

fn silent() -> NodeState {
    NodeState::Silent("connection refused".to_owned())
}

fn pod(name: &str, status: serde_json::Value) -> Arc<StoragePodView> {
    let pod = json!({
        "metadata": {"name": name, "labels": {"controller-revision-hash": "r1"}},
        "spec": {"containers": [{"name": "node", "image": "garden/node:9"}]},
        "status": status,
    });
    Arc::new(serde_json::from_value(pod).unwrap())
}

fn ready_pods() -> BTreeMap<u32, Arc<StoragePodView>> {
    let status = json!({"conditions": [{"type": "Ready", "status": "True"}]});
    (0..3)
        .map(|ordinal| (ordinal, pod(&format!("tulip-{ordinal}"), status.clone())))
        .collect()
}

struct Case {
    phase: Phase,
    bootstrapped: bool,
    pods: BTreeMap<u32, Arc<StoragePodView>>,
    nodes: [NodeState; 3],
    placement: Option<Decision>,
    error: Option<StoreError>,
    missing_driver: Option<UnknownDriver>,
    paused: bool,
    incarnation: u64,
    roll: Option<Roll>,
    eviction_refused: bool,
}

impl Case {
    fn healthy() -> Self {
        Self {
            phase: Phase::Done,
            bootstrapped: true,
            pods: ready_pods(),
            nodes: [node(0, &[1]), node(1, &[2]), node(2, &[])],
            placement: None,
            error: None,
            missing_driver: None,
            paused: false,
            incarnation: 1,
            roll: None,
            eviction_refused: false,
        }
    }

    /// Before the mark, with one node that does not answer.
    fn starting() -> Self {
        let mut case = Self::healthy();
        case.bootstrapped = false;
        case.phase = Phase::WaitingForNodes(vec![1]);
        case.nodes[1] = silent();
        case
    }

    fn status(&self, previous: &StoreStatus) -> StoreStatus {
        let config = DriverConfig {
            json: "{}".to_owned(),
            digest: "d".to_owned(),
        };
        let stored = StoredPlan::Ours {
            plan: Box::new(Plan {
                incarnation: self.incarnation,
                ..plan()
            }),
            bootstrapped: self.bootstrapped,
        };
        let nodes = (0..).zip(self.nodes.iter().cloned()).collect();
        let cluster = cluster();
        let findings = Findings {
            name: "tulip",
            cluster: &cluster,
            config: Ok(&config),
            missing_driver: self.missing_driver.as_ref(),
            paused: self.paused,
            plan: &stored,
            phase: &self.phase,
            pods: &self.pods,
            nodes: &nodes,
            placement: self.placement.as_ref(),
            roll: self.roll.as_ref(),
            eviction_refused: self.eviction_refused,
            error: self.error.as_ref(),
        };
        of_cluster(&findings, previous, 4, Timestamp::UNIX_EPOCH)
    }
}

/// `Type=Status/Reason` of a condition, and its message.
fn told(status: &StoreStatus, type_: &str) -> (String, String) {
    let mut conditions = status.conditions.iter();
    let condition = conditions
        .find(|condition| condition.type_ == type_)
        .unwrap();
    assert_eq!(condition.observed_generation, Some(4));
    assert!(!condition.reason.is_empty());
    (
        format!("{}/{}", condition.status, condition.reason),
        condition.message.clone(),
    )
}

#[test]
fn a_healthy_store_is_ready_and_nothing_else() {
    let status = Case::healthy().status(&StoreStatus::default());
    assert_eq!(told(&status, "Ready").0, "True/AllPartitionsReady");
    assert_eq!(told(&status, "Progressing").0, "False/AsSpecified");
    assert_eq!(told(&status, "Degraded").0, "False/FullStrength");
    assert_eq!(told(&status, "Stalled").0, "False/NotStalled");
    assert_eq!(
        status.partitions.unwrap(),
        PartitionCounts { total: 2, ready: 2 }
    );
    assert_eq!((status.replicas, status.ready_replicas), (Some(3), Some(3)));
    assert_eq!(
        (status.incarnation, status.bootstrapped),
        (Some(1), Some(true))
    );
    assert_eq!(status.store_uid.as_deref(), Some("u"));
    assert_eq!(status.version.as_deref(), Some("0.1.0"));
    // The same findings give the same status: nothing is written at rest.
    assert_eq!(Case::healthy().status(&status), status);
}

#[test]
fn one_silent_node_degrades_and_a_lost_majority_is_not_ready() {
    let mut case = Case::healthy();
    case.nodes[2] = silent();
    let status = case.status(&StoreStatus::default());
    assert_eq!(told(&status, "Ready").0, "True/AllPartitionsReady");
    let (degraded, message) = told(&status, "Degraded");
    assert_eq!(degraded, "True/NodesUnreachable");
    assert!(message.contains("tulip-2"), "{message}");

    case.nodes = [node(0, &[]), silent(), silent()];
    let status = case.status(&StoreStatus::default());
    let (ready, message) = told(&status, "Ready");
    assert_eq!(ready, "False/PartitionsNotReady");
    assert!(message.contains("tulip-1, tulip-2"), "{message}");
    assert_eq!(status.unhealthy_partitions.len(), 2);
    assert_eq!(status.unhealthy_partitions[0].reason, "QuorumUnavailable");
    // Nodes that are silent may come back by themselves.
    assert_eq!(told(&status, "Progressing").0, "True/PartitionsNotReady");
    assert_eq!(told(&status, "Stalled").0, "False/NotStalled");

    // Disks that are gone do not.
    case.nodes = [node(0, &[]), replaced(1), replaced(2)];
    let status = case.status(&StoreStatus::default());
    assert_eq!(told(&status, "Ready").0, "False/QuorumLost");
    assert_eq!(told(&status, "Progressing").0, "False/QuorumLost");
    let (stalled, message) = told(&status, "Stalled");
    assert_eq!(stalled, "True/QuorumLost");
    assert!(message.contains("store recover tulip"), "{message}");
    // Before the mark the plan is replaced.
    case.phase = Phase::Bootstrapping {
        uncommitted: vec![1, 2],
    };
    let status = case.status(&StoreStatus::default());
    assert_eq!(told(&status, "Stalled").0, "False/NotStalled");
}

#[test]
fn a_driver_that_no_runtime_has_is_told_though_the_nodes_go_on() {
    let mut case = Case::healthy();
    case.missing_driver = Some(UnknownDriver::Version {
        name: "multi-raft".to_owned(),
        version: "v0".to_owned(),
        known: "v1",
    });
    let status = case.status(&StoreStatus::default());
    assert_eq!(told(&status, "Ready").0, "False/DriverNotFound");
    let (stalled, message) = told(&status, "Stalled");
    assert_eq!(stalled, "True/DriverNotFound");
    assert!(message.contains("to v1"), "{message}");
    assert_eq!(told(&status, "Degraded").0, "False/FullStrength");
    assert_eq!(status.partitions.unwrap().ready, 2);
    // Also before the nodes have begun; what is nearer is told first.
    case.phase = Phase::WaitingForNodes(vec![1]);
    let status = case.status(&StoreStatus::default());
    assert_eq!(told(&status, "Stalled").0, "True/DriverNotFound");
    case.phase = Phase::PlanMissing;
    let status = case.status(&StoreStatus::default());
    assert_eq!(told(&status, "Stalled").0, "True/BootstrapPlanMissing");
}

#[test]
fn an_image_that_does_not_exist_is_named_with_its_pod() {
    let mut case = Case::healthy();
    case.bootstrapped = false;
    case.phase = Phase::WaitingForNodes(vec![1]);
    case.nodes[1] = silent();
    let waiting = json!({"containerStatuses": [
        {"name": "node", "state": {"waiting": {"reason": "ErrImagePull", "message": "no such host"}}}
    ]});
    case.pods.insert(1, pod("tulip-1", waiting));
    let status = case.status(&StoreStatus::default());
    let (ready, message) = told(&status, "Ready");
    assert_eq!(ready, "False/ImagePullFailed");
    assert!(
        message.contains("tulip-1") && message.contains("garden/node:9"),
        "{message}"
    );
    assert_eq!(told(&status, "Progressing").0, "True/WaitingForNodes");
    assert_eq!(told(&status, "Stalled").0, "False/NotStalled");
}

#[test]
fn what_only_a_person_can_solve_is_stalled_with_what_to_do() {
    let existing = Phase::ExistingData(BTreeMap::from([(1, "old-uid".to_owned())]));
    for (phase, reason, part) in [
        (
            existing,
            "ExistingData",
            "PersistentVolumeClaims `data-tulip-",
        ),
        (
            Phase::Unadoptable("they hold 4 partitions".to_owned()),
            "ExistingData",
            "they hold 4 partitions",
        ),
        (
            Phase::PlanMissing,
            "BootstrapPlanMissing",
            "tulip-bootstrap",
        ),
        (
            Phase::PlanDamaged("x".to_owned()),
            "BootstrapPlanDamaged",
            "tulip-bootstrap",
        ),
        (
            Phase::NameTaken("belongs to nobody".to_owned()),
            "NameTaken",
            "ConfigMap tulip-bootstrap exists and belongs to nobody: delete",
        ),
    ] {
        let mut case = Case::healthy();
        case.phase = phase;
        let status = case.status(&StoreStatus::default());
        let (stalled, message) = told(&status, "Stalled");
        assert_eq!(stalled, format!("True/{reason}"));
        assert!(message.contains(part), "{message}");
        assert_eq!(told(&status, "Ready").0, format!("False/{reason}"));
        assert_eq!(told(&status, "Progressing").0, format!("False/{reason}"));
    }
}

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

fn rolling(step: Step) -> Option<Roll> {
    Some(Roll {
        updated: 1,
        total: 3,
        step,
    })
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
fn a_refused_plan_is_told_with_the_pod() {
    let mut case = Case::healthy();
    case.bootstrapped = false;
    case.phase = Phase::Bootstrapping {
        uncommitted: vec![1],
    };
    case.error = Some(StoreError::Node {
        pod: "tulip-1".to_owned(),
        status: tonic::Status::failed_precondition("has a group of another plan"),
    });
    let status = case.status(&StoreStatus::default());
    let (ready, message) = told(&status, "Ready");
    assert_eq!(ready, "False/PeerRefused");
    assert!(
        message.contains("tulip-1") && message.contains("another plan"),
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
fn a_new_incarnation_after_the_mark_is_a_loss_whoever_sees_it_first() {
    let before = Case::healthy().status(&StoreStatus::default());
    assert!(!conditions::holds(&before.conditions, "DataLost"));

    // The plan was replaced; the operator that did it wrote no status.
    let mut case = Case::healthy();
    case.incarnation = 2;
    case.bootstrapped = false;
    case.phase = Phase::Bootstrapping {
        uncommitted: vec![1, 2],
    };
    let lost = case.status(&before);
    let (data_lost, message) = told(&lost, "DataLost");
    assert_eq!(data_lost, "True/EphemeralDisksEmpty");
    assert!(
        message.contains("data of incarnation 1") && message.contains("until the Store is deleted"),
        "{message}"
    );
    assert_eq!(lost.incarnation, Some(2));

    // It stays, also through passes that could not look, and a pass that sees nothing new writes
    // nothing.
    assert_eq!(case.status(&lost), lost);
    let halted = of_halted(
        Reason::InvalidSpec,
        "correct it",
        &lost,
        4,
        Timestamp::UNIX_EPOCH,
    );
    assert_eq!(told(&halted, "DataLost").1, message);
    assert_eq!(told(&halted, "Degraded").0, "False/FullStrength");
    case.bootstrapped = true;
    case.phase = Phase::Done;
    let ready = case.status(&halted);
    assert_eq!(told(&ready, "DataLost").1, message);

    // A second loss is told as such.
    case.incarnation = 3;
    let again = case.status(&ready);
    assert!(
        told(&again, "DataLost").1.contains("data of incarnation 2"),
        "{:?}",
        told(&again, "DataLost")
    );

    // A plan that was replaced before the mark lost nothing.
    let mut unmarked = before;
    unmarked.bootstrapped = Some(false);
    let status = case.status(&unmarked);
    assert!(!conditions::holds(&status.conditions, "DataLost"));
}

/// All members lie where they should.
fn settled() -> Decision {
    Decision {
        replicas: 3,
        holding: [0, 1, 2].into(),
        ..Decision::default()
    }
}

/// A member changes its place.
fn moving(purpose: Purpose) -> Decision {
    let join = Join {
        partition: 2,
        ordinal: 0,
        node_id: 1,
        member_id: 5,
        replaces: Some(6),
        from: Some(4),
        expected: (1, 2),
        purpose,
    };
    Decision {
        actions: vec![Action::Join(join)],
        replicas: 5,
        potential: Potential {
            displaced: 7,
            ..Potential::default()
        },
        ..settled()
    }
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

/// One case for each reason that a pass over storage nodes can find.
fn troubled_cases() -> Vec<Case> {
    let healthy = |change: &dyn Fn(&mut Case)| {
        let mut case = Case::healthy();
        change(&mut case);
        case
    };
    let starting = |change: &dyn Fn(&mut Case)| {
        let mut case = Case::starting();
        change(&mut case);
        case
    };
    let waiting = |reason: &str| json!({"containerStatuses": [{"name": "node", "state": {"waiting": {"reason": reason}}}]});
    let mut cases = vec![
        healthy(&|case| case.nodes[1] = silent()),
        healthy(&|case| case.nodes = [node(0, &[]), node(1, &[]), node(2, &[])]),
        healthy(&|case| {
            case.placement = Some(Decision {
                lost: [(1, Some(1))].into(),
                ..moving(Purpose::Repair)
            });
        }),
        healthy(&|case| case.placement = Some(moving(Purpose::Drain))),
        healthy(&|case| case.roll = rolling(Step::Replace(vec![1], Why::FullStrength))),
        healthy(&|case| case.roll = rolling(Step::Refused { ordinal: 1 })),
        healthy(&|case| {
            let other = |node: NodeState| match node {
                NodeState::Up(view) => NodeState::Up(NodeView {
                    node_id: 99 + view.node_id,
                    groups: BTreeMap::new(),
                    ..view
                }),
                silent @ (NodeState::Silent(_) | NodeState::Unheard) => silent,
            };
            case.nodes = [node(0, &[]), other(node(1, &[])), other(node(2, &[]))];
        }),
        healthy(&|case| case.incarnation = 2),
        starting(&|_| {}),
        starting(&|case| case.paused = true),
    ];
    for wait in [
        RollWait::Template,
        RollWait::Pod { ordinal: 1 },
        RollWait::NoLeader { partition: 1 },
        RollWait::Copy {
            partition: 1,
            ordinal: Some(1),
        },
    ] {
        cases.push(healthy(&|case| {
            let waiting = waiting("CrashLoopBackOff");
            case.pods.insert(1, pod("tulip-1", waiting));
            case.roll = rolling(Step::Wait(wait));
        }));
    }
    for wait in [
        Wait::Unreachable {
            partition: 1,
            ordinal: Some(2),
        },
        Wait::NoTarget { partition: 1 },
        Wait::Joint { partition: 1 },
        Wait::NoMajority { partition: 1 },
        Wait::ForeignDisk { ordinal: 2 },
    ] {
        cases.push(healthy(&|case| {
            case.placement = Some(Decision {
                waiting: [wait].into(),
                ..settled()
            });
        }));
    }
    for phase in [
        Phase::WaitingForEarlierPlan,
        Phase::NameTaken("belongs to nobody".to_owned()),
        Phase::Bootstrapping {
            uncommitted: vec![1],
        },
        Phase::ExistingData(BTreeMap::from([(1, "old-uid".to_owned())])),
        Phase::Unadoptable("they hold 4 partitions".to_owned()),
        Phase::PlanMissing,
        Phase::PlanDamaged("it names no store".to_owned()),
    ] {
        cases.push(starting(&|case| case.phase = phase.clone()));
    }
    for status in [
        waiting("ErrImagePull"),
        waiting("CrashLoopBackOff"),
        waiting("CreateContainerError"),
        json!({"phase": "Failed"}),
        json!({"conditions": [{"type": "PodScheduled", "status": "False", "message": "0/1"}]}),
        json!({"conditions": [{"type": "PodScheduled", "status": "False",
            "message": "pod has unbound immediate PersistentVolumeClaims"}]}),
    ] {
        cases.push(starting(&|case| {
            case.pods.insert(1, pod("tulip-1", status.clone()));
        }));
    }
    for code in [403, 422] {
        let answer = kube::core::Status {
            code,
            message: "as it is".to_owned(),
            ..kube::core::Status::default()
        };
        cases.push(healthy(&|case| {
            case.error = Some(StoreError::Growth(ApiError::Call {
                action: "grow a PersistentVolumeClaim",
                source: kube::Error::Api(Box::new(answer.clone())),
            }));
        }));
        cases.push(starting(&|case| {
            case.error = Some(StoreError::Plan(ApiError::Call {
                action: "write the bootstrap plan",
                source: kube::Error::Api(Box::new(answer.clone())),
            }));
        }));
    }
    cases.push(starting(&|case| {
        case.error = Some(StoreError::Node {
            pod: "tulip-1".to_owned(),
            status: tonic::Status::failed_precondition("has a group of another plan"),
        });
    }));
    cases
}

/// Words with which a sentence says what to do, or that nothing is to be done.
const ACTIONS: [&str; 18] = [
    "no action",
    "delete",
    "restore it",
    "remove it",
    "correct",
    "look at",
    "add a machine",
    "grant",
    "create",
    "keep the other pods",
    "fill it again",
    "get these pods running",
    "add it to the chart",
    "Set the old settings again",
    "set allowVolumeExpansion",
    "store recover",
    "store take-over",
    "see that the StorageClass",
];

#[test]
fn every_reason_comes_with_what_to_do() {
    let before = Case::healthy().status(&StoreStatus::default());
    let mut told: Vec<_> = troubled_cases()
        .into_iter()
        .flat_map(|case| case.status(&before).conditions)
        .collect();
    // What is found before a pass looks at nodes.
    let now = Timestamp::UNIX_EPOCH;
    let driver = DriverConfig {
        json: String::new(),
        digest: String::new(),
    };
    let reference = atomix_resources::DriverReference {
        name: "etcd".to_owned(),
        version: None,
    };
    let missing = crate::driver::builtin::resolve(&reference).unwrap_err();
    let driver_only = of_driver_only(&driver, Some(missing.to_string()), false, &before, 4, now);
    told.extend(driver_only.conditions);
    let sessions = super::super::deletion::waiting_message(&["bees".to_owned()]);
    told.extend(of_halted(Reason::InUse, &sessions, &before, 4, now).conditions);
    for trouble in [
        ConfigTrouble::NotGranted {
            namespace: "meadow".to_owned(),
        },
        ConfigTrouble::NotFound(SourceObject {
            kind: SourceKind::Secret,
            name: "bees".to_owned(),
        }),
        ConfigTrouble::KeyNotFound {
            object: SourceObject {
                kind: SourceKind::ConfigMap,
                name: "bees".to_owned(),
            },
            key: "honey".to_owned(),
        },
        ConfigTrouble::NotRead,
    ] {
        told.extend(of_halted(trouble.reason(), &trouble.to_string(), &before, 4, now).conditions);
    }
    let other = super::super::ownership::message("tulip", "a/b", "c/d");
    told.extend(of_halted(Reason::ManagedByOther, &other, &before, 4, now).conditions);
    let invalid = "correct the specification: …";
    told.extend(of_halted(Reason::InvalidSpec, invalid, &before, 4, now).conditions);

    for reason in Reason::all().filter(|reason| !reason.is_fine()) {
        let with_reason = told.iter().filter(|condition| {
            condition.reason == reason.as_str() && !condition.message.is_empty()
        });
        let messages: Vec<&str> = with_reason
            .map(|condition| condition.message.as_str())
            .collect();
        assert!(!messages.is_empty(), "no case for {reason:?}");
        for message in messages {
            assert!(
                ACTIONS.iter().any(|action| message.contains(action)),
                "{reason:?} does not say what to do: {message}"
            );
        }
    }
}

#[test]
fn the_oldest_version_is_told_and_ten_is_not_older_than_nine() {
    for (versions, oldest) in [
        (["0.10.0", "0.9.0", "0.9.1"], Some("0.9.0")),
        (["1.0.0", "1.0.0-rc.1", "1.0.1"], Some("1.0.0-rc.1")),
        (["", "2.0.0", ""], Some("2.0.0")),
        (["1.0.0", "of yesterday", "2.0.0"], Some("of yesterday")),
        (["", "", ""], None),
    ] {
        let nodes = versions.iter().enumerate().map(|(at, version)| {
            let ordinal = u32::try_from(at).unwrap();
            let NodeState::Up(view) = node(ordinal, &[]) else {
                unreachable!("it is up");
            };
            let version = (*version).to_owned();
            (ordinal, NodeState::Up(NodeView { version, ..view }))
        });
        let nodes: BTreeMap<u32, NodeState> = nodes.collect();
        assert_eq!(version(&nodes).as_deref(), oldest, "{versions:?}");
    }
}
