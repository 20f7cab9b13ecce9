#![allow(clippy::unwrap_used, reason = "tests")]

use atomix_proto::multiraft::v1::{BootstrapRequest, PartitionConfig, RaftTimings};
use atomix_raft::{NodeId, PartitionId};
use bytes::Bytes;
use proptest::prelude::*;

use super::decision::{HeldPlan, PeerReport, Refusal, Work, judge_own, judge_peers};
use super::plan::{BootstrapPlan, plan_digest};

const NODE: u64 = 900;

fn config(partition: u32, incarnation: u64) -> PartitionConfig {
    PartitionConfig {
        partition_id: partition,
        members: [(1, "a:1"), (2, "b:1"), (3, "c:1")]
            .map(|(member, address)| (member, address.to_owned()))
            .into(),
        store_uid: "store".to_owned(),
        member_id: 1,
        raft: None,
        node_id: NODE,
        incarnation,
        initializer: 2,
        node_ids: [(1, NODE), (2, 901), (3, 902)].into(),
        ..PartitionConfig::default()
    }
}

fn request(incarnation: u64) -> BootstrapRequest {
    BootstrapRequest {
        partitions: vec![config(1, incarnation), config(2, incarnation)],
    }
}

fn plan(incarnation: u64) -> BootstrapPlan {
    BootstrapPlan::parse(&request(incarnation)).unwrap()
}

fn held(partition: u32, incarnation: u64) -> HeldPlan {
    HeldPlan {
        partition: PartitionId(partition),
        store_uid: "store".to_owned(),
        incarnation,
        digest: plan_digest(&config(partition, incarnation)),
        joined: false,
    }
}

fn work(delete: &[u32], create: &[u32]) -> Result<Work, Refusal> {
    let ids = |ids: &[u32]| ids.iter().map(|id| PartitionId(*id)).collect();
    Ok(Work {
        delete: ids(delete),
        create: ids(create),
    })
}

#[test]
fn what_this_node_holds_decides() {
    let other_plan = HeldPlan {
        digest: Bytes::from_static(b"another"),
        ..held(1, 5)
    };
    let other_store = HeldPlan {
        store_uid: "elsewhere".to_owned(),
        ..held(7, 1)
    };
    let joined = HeldPlan {
        joined: true,
        digest: Bytes::new(),
        ..held(2, 5)
    };
    let newer = Refusal::NewerIncarnation {
        holder: "this node".to_owned(),
        partition: PartitionId(1),
        planned: 5,
        found: 6,
    };
    let cases = [
        ("fresh", vec![], work(&[], &[1, 2])),
        ("repeated", vec![held(1, 5), held(2, 5)], work(&[], &[])),
        ("interrupted", vec![held(1, 5)], work(&[], &[2])),
        (
            "an older incarnation goes first, all of it",
            vec![held(1, 4), held(3, 2)],
            work(&[1, 3], &[1, 2]),
        ),
        ("a newer incarnation", vec![held(1, 6)], Err(newer)),
        (
            "another plan of the same incarnation",
            vec![other_plan],
            Err(Refusal::OtherPlan {
                holder: "this node".to_owned(),
                partition: PartitionId(1),
                incarnation: 5,
            }),
        ),
        (
            "a partition that the plan does not know",
            vec![held(1, 5), held(3, 5)],
            Err(Refusal::OtherPlan {
                holder: "this node".to_owned(),
                partition: PartitionId(3),
                incarnation: 5,
            }),
        ),
        (
            "joined a partition that the plan does not know",
            vec![HeldPlan {
                joined: true,
                ..held(3, 5)
            }],
            work(&[], &[1, 2]),
        ),
        (
            "another store, even an old one",
            vec![other_store],
            Err(Refusal::OtherStore {
                holder: "this node".to_owned(),
                partition: PartitionId(7),
                planned: "store".to_owned(),
                found: "elsewhere".to_owned(),
            }),
        ),
        (
            "joined",
            vec![joined],
            Err(Refusal::Joined {
                partition: PartitionId(2),
            }),
        ),
    ];
    for (name, held, expected) in cases {
        assert_eq!(judge_own(&plan(5), NodeId(NODE), &held), expected, "{name}");
    }
}

#[test]
fn a_plan_for_another_node_is_refused() {
    assert_eq!(
        judge_own(&plan(1), NodeId(1), &[]),
        Err(Refusal::WrongNode {
            planned: NODE,
            found: 1
        })
    );
}

#[test]
fn what_peers_hold_decides_too() {
    let report = |held| {
        [PeerReport {
            address: "b:1".to_owned(),
            held,
        }]
    };
    let other_plan = HeldPlan {
        digest: Bytes::from_static(b"another"),
        ..held(2, 5)
    };
    let other_store = HeldPlan {
        store_uid: "elsewhere".to_owned(),
        ..held(2, 1)
    };
    let joined = HeldPlan {
        joined: true,
        digest: Bytes::new(),
        ..held(2, 5)
    };
    let accepted = [vec![], vec![held(1, 5)], vec![held(1, 4)], vec![joined]];
    for held in accepted {
        assert_eq!(
            judge_peers(&plan(5), &report(held.clone())),
            Ok(()),
            "{held:?}"
        );
    }
    for held in [vec![held(1, 6)], vec![other_plan], vec![other_store]] {
        assert!(
            judge_peers(&plan(5), &report(held.clone())).is_err(),
            "{held:?}"
        );
    }
}

#[test]
fn the_digest_covers_what_all_members_share_and_nothing_else() {
    let base = config(1, 5);
    let mut for_another_member = base.clone();
    for_another_member.member_id = 3;
    for_another_member.node_id = 902;
    assert_eq!(plan_digest(&base), plan_digest(&for_another_member));

    let changes: [fn(&mut PartitionConfig); 9] = [
        |config| config.partition_id = 2,
        |config| config.store_uid.push('x'),
        |config| config.incarnation += 1,
        |config| config.initializer = 3,
        |config| config.observer = true,
        |config| config.replaces = 4,
        |config| {
            config.members.insert(3, "d:1".to_owned());
        },
        |config| {
            config.node_ids.insert(3, 903);
        },
        |config| {
            config.raft = Some(RaftTimings {
                election_timeout: None,
                snapshot_entry_threshold: 7,
            });
        },
    ];
    for (number, change) in changes.iter().enumerate() {
        let mut changed = base.clone();
        change(&mut changed);
        assert_ne!(plan_digest(&base), plan_digest(&changed), "change {number}");
    }
}

#[test]
fn a_request_that_can_never_succeed_names_the_field() {
    type Change = fn(&mut PartitionConfig);
    let changes: [(&str, Change); 15] = [
        ("partition_id", |config| config.partition_id = 0),
        ("partition_id", |config| config.partition_id = 1),
        ("members", |config| config.members.clear()),
        ("members[3]", |config| {
            config.members.insert(3, "no port".to_owned());
        }),
        ("store_uid", |config| config.store_uid.clear()),
        ("store_uid", |config| config.store_uid.push('x')),
        ("member_id", |config| config.member_id = 0),
        ("member_id", |config| config.member_id = 4),
        ("node_id", |config| config.node_id = 901),
        ("incarnation", |config| config.incarnation = 0),
        ("initializer", |config| config.initializer = 0),
        ("observer", |config| config.observer = true),
        ("replaces", |config| config.replaces = 3),
        ("node_ids[2]", |config| {
            config.node_ids.remove(&2);
        }),
        ("raft.election_timeout", |config| {
            config.raft = Some(RaftTimings {
                election_timeout: Some(std::time::Duration::from_millis(1).try_into().unwrap()),
                snapshot_entry_threshold: 0,
            });
        }),
    ];
    for (field, change) in changes {
        let mut request = request(5);
        change(request.partitions.last_mut().unwrap());
        let error = BootstrapPlan::parse(&request).unwrap_err().to_string();
        let expected = format!("partitions[1].{field}: ");
        assert!(error.starts_with(&expected), "{error} should name {field}");
    }
    let empty = BootstrapPlan::parse(&BootstrapRequest::default()).unwrap_err();
    assert!(empty.to_string().starts_with("partitions: "), "{empty}");
}

proptest! {
    #[test]
    fn a_plan_never_deletes_the_same_or_a_newer_incarnation(
        incarnations in proptest::collection::vec((1u32..6, 1u64..8), 0..6),
    ) {
        let held: Vec<_> = incarnations
            .iter()
            .map(|(partition, incarnation)| held(*partition, *incarnation))
            .collect();
        if let Ok(work) = judge_own(&plan(5), NodeId(NODE), &held) {
            for group in &held {
                prop_assert!(group.incarnation <= 5);
                prop_assert_eq!(work.delete.contains(&group.partition) , held.iter().any(|other| other.partition == group.partition && other.incarnation < 5));
            }
        }
    }
}
