//! What a node is told, and which answers are failures.

#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;

use super::*;
use crate::store::members::placement::{Group, Place, Purpose};

fn plan() -> Plan {
    Plan {
        store_uid: "uid-of-the-data".to_owned(),
        incarnation: 4,
        election_timeout_millis: 2500,
        snapshot_entry_threshold: 7,
        nodes: Vec::new(),
        partitions: Vec::new(),
    }
}

#[test]
fn a_joining_node_is_told_of_itself_and_of_every_member() {
    let owner = Owner {
        name: "tulip".to_owned(),
        namespace: "meadow".to_owned(),
        reference: OwnerReference::default(),
    };
    let mut group = Group {
        voters: [11, 12].into(),
        learners: [13].into(),
        ..Group::default()
    };
    for member in [11, 12, 13] {
        let place = Place {
            node_id: member * 10,
            ordinal: None,
            address: format!("node-of-{member}:1"),
        };
        group.places.insert(member, place);
    }
    let observed = Observed {
        groups: [(3, Some(group))].into(),
        ..Observed::default()
    };
    let join = Join {
        partition: 3,
        ordinal: 4,
        node_id: 140,
        member_id: 14,
        replaces: Some(12),
        from: Some(1),
        expected: (5, 50),
        purpose: Purpose::Drain,
    };
    let request = join_request(&join, &owner, &plan(), &observed);
    assert_eq!(
        request.expected_membership,
        Some(ExpectedMembership { term: 5, index: 50 })
    );
    let partition = request.partition.unwrap();
    assert_eq!(partition.partition_id, 3);
    assert_eq!((partition.member_id, partition.node_id), (14, 140));
    assert_eq!((partition.replaces, partition.initializer), (12, 0));
    assert_eq!(partition.store_uid, "uid-of-the-data");
    assert_eq!(partition.incarnation, 4);
    assert_eq!(
        partition.members.get(&14).unwrap(),
        "tulip-4.tulip.meadow.svc:5681"
    );
    assert_eq!(partition.members.get(&13).unwrap(), "node-of-13:1");
    let ids: BTreeMap<u64, u64> = partition.node_ids.into_iter().collect();
    assert_eq!(
        ids,
        BTreeMap::from([(11, 110), (12, 120), (13, 130), (14, 140)])
    );
    let raft = partition.raft.unwrap();
    assert_eq!(raft.snapshot_entry_threshold, 7);
    assert_eq!(raft.election_timeout.unwrap().nanos, 500_000_000);
}

#[test]
fn late_and_overtaken_answers_are_no_failures() {
    let told = |answer: Result<Response<()>, Status>| {
        let done = Announcement {
            reason: "MemberJoined",
            action: "Join",
            note: String::new(),
        };
        match judge(answer, done, "move it".to_owned(), "tulip-1".to_owned()) {
            Answer::Done(_) => "done",
            Answer::Unfinished => "unfinished",
            Answer::Overtaken => "overtaken",
            Answer::Refused(_) => "refused",
        }
    };
    assert_eq!(told(Ok(Response::new(()))), "done");
    for (code, expected) in [
        (Code::DeadlineExceeded, "unfinished"),
        (Code::Cancelled, "unfinished"),
        (Code::Aborted, "overtaken"),
        (Code::AlreadyExists, "overtaken"),
        (Code::NotFound, "overtaken"),
        (Code::Unavailable, "refused"),
        (Code::FailedPrecondition, "refused"),
        (Code::Unimplemented, "refused"),
    ] {
        assert_eq!(told(Err(Status::new(code, "x"))), expected, "{code:?}");
    }
}
