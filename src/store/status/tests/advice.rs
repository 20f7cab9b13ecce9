//! Every reason comes with what to do about it.

use atomix_controller::ApiError;

use super::*;
use crate::store::members::placement::Wait;
use crate::store::rolling::{Wait as RollWait, Why};
use crate::store::spec::config_from::{SourceKind, SourceObject};

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
    let sessions = crate::store::deletion::waiting_message(&["bees".to_owned()]);
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
    let other = crate::store::ownership::message("tulip", "a/b", "c/d");
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
