//! What is told of a Store by how it serves, and of what keeps it from that.

use super::*;

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
