//! What a Join means for a node, by what it holds. Pure.

use std::collections::BTreeSet;

use atomix_raft::{GroupRecord, MemberId, NodeId, PartitionId};
use thiserror::Error;
use tonic::Code;

/// What is to be done here before the leader is asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Work {
    /// Delete these groups of older incarnations, then store and start the group.
    Create { delete: Vec<PartitionId> },
    /// The group is here. Its record as it is to be from now on.
    Attach(GroupRecord),
}

/// Why a Join is refused.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub(crate) enum Refusal {
    #[error("this is node {found:016x}, not {planned:016x}; read the node ids again")]
    WrongNode { planned: u64, found: u64 },
    #[error("this node holds partition {partition} of store {found:?}, not of {planned:?}")]
    OtherStore {
        partition: PartitionId,
        planned: String,
        found: String,
    },
    #[error("this node holds partition {partition} of incarnation {found}, newer than {planned}")]
    NewerIncarnation {
        partition: PartitionId,
        planned: u64,
        found: u64,
    },
    #[error("this node holds member {found} of partition {partition}; go on with that one")]
    OtherMember {
        partition: PartitionId,
        found: MemberId,
    },
    #[error("member {0} left this node before; mint a new member id")]
    Departed(MemberId),
}

impl Refusal {
    pub(crate) fn code(&self) -> Code {
        match self {
            Self::OtherMember { .. } => Code::AlreadyExists,
            Self::WrongNode { .. }
            | Self::OtherStore { .. }
            | Self::NewerIncarnation { .. }
            | Self::Departed(_) => Code::FailedPrecondition,
        }
    }
}

/// Judges a Join, `wanted` by a caller who takes this node for `named`, by what this node holds and
/// which members of the partition have left it.
///
/// # Errors
/// The first objection.
pub(crate) fn judge(
    wanted: &GroupRecord,
    named: NodeId,
    node_id: NodeId,
    held: &[GroupRecord],
    departed: &BTreeSet<MemberId>,
) -> Result<Work, Refusal> {
    if named != node_id {
        return Err(Refusal::WrongNode {
            planned: named.0,
            found: node_id.0,
        });
    }
    let mut delete = Vec::new();
    for group in held {
        let partition = group.partition_id;
        if group.store_uid != wanted.store_uid {
            return Err(Refusal::OtherStore {
                partition,
                planned: wanted.store_uid.clone(),
                found: group.store_uid.clone(),
            });
        }
        if group.incarnation > wanted.incarnation {
            return Err(Refusal::NewerIncarnation {
                partition,
                planned: wanted.incarnation,
                found: group.incarnation,
            });
        }
        if group.incarnation < wanted.incarnation {
            delete.push(partition);
        } else if partition == wanted.partition_id {
            return attach(wanted, group);
        }
    }
    if departed.contains(&wanted.member_id) {
        return Err(Refusal::Departed(wanted.member_id));
    }
    Ok(Work::Create { delete })
}

fn attach(wanted: &GroupRecord, held: &GroupRecord) -> Result<Work, Refusal> {
    if held.member_id != wanted.member_id {
        return Err(Refusal::OtherMember {
            partition: held.partition_id,
            found: held.member_id,
        });
    }
    // A member since the bootstrap: there is nothing to ask for.
    if held.initializer.is_some() {
        return Ok(Work::Attach(held.clone()));
    }
    Ok(Work::Attach(GroupRecord {
        members: wanted.members.clone(),
        plan_digest: wanted.plan_digest.clone(),
        observer: wanted.observer,
        replaces: wanted.replaces,
        expected_membership: wanted.expected_membership,
        ..held.clone()
    }))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use std::collections::BTreeMap;

    use atomix_raft::{LogPosition, MemberAddress, Timings};
    use bytes::Bytes;

    use super::*;

    const ME: NodeId = NodeId(70);

    fn record(partition: u32, member: u64) -> GroupRecord {
        let address = MemberAddress {
            node_id: ME,
            address: "node-7:5681".to_owned(),
        };
        GroupRecord {
            partition_id: PartitionId(partition),
            member_id: MemberId(member),
            store_uid: "store".to_owned(),
            incarnation: 2,
            initializer: None,
            members: BTreeMap::from([(MemberId(member), address)]),
            plan_digest: Bytes::from_static(b"a join"),
            timings: Timings::default(),
            observer: false,
            replaces: None,
            expected_membership: None,
            admitted: false,
        }
    }

    #[test]
    fn a_join_creates_attaches_or_is_refused_by_what_is_held() {
        let wanted = record(1, 7);
        let older = GroupRecord {
            incarnation: 1,
            ..record(1, 3)
        };
        let newer = GroupRecord {
            incarnation: 3,
            ..record(9, 3)
        };
        let foreign = GroupRecord {
            store_uid: "other".to_owned(),
            ..record(9, 3)
        };
        let bootstrapped = GroupRecord {
            initializer: Some(MemberId(1)),
            ..record(1, 7)
        };
        let create = |delete: &[u32]| {
            let delete = delete.iter().copied().map(PartitionId).collect();
            Ok(Work::Create { delete })
        };
        let cases = [
            (vec![], create(&[])),
            (vec![record(2, 5)], create(&[])),
            (vec![older], create(&[1])),
            (vec![newer], Err(Code::FailedPrecondition)),
            (vec![foreign], Err(Code::FailedPrecondition)),
            (vec![record(2, 5), record(1, 6)], Err(Code::AlreadyExists)),
            (vec![wanted.clone()], Ok(Work::Attach(wanted.clone()))),
            (vec![bootstrapped.clone()], Ok(Work::Attach(bootstrapped))),
        ];
        for (held, expected) in cases {
            let judged = judge(&wanted, ME, ME, &held, &BTreeSet::new());
            assert_eq!(
                judged.map_err(|refusal| refusal.code()),
                expected,
                "{held:?}"
            );
        }
        let elsewhere = judge(&wanted, NodeId(71), ME, &[], &BTreeSet::new());
        assert_eq!(elsewhere.unwrap_err().code(), Code::FailedPrecondition);
        let again = judge(&wanted, ME, ME, &[], &BTreeSet::from([MemberId(7)]));
        assert_eq!(again, Err(Refusal::Departed(MemberId(7))));
    }

    #[test]
    fn a_repeated_join_changes_what_is_asked_for_and_not_who_it_is() {
        let held = GroupRecord {
            admitted: true,
            ..record(1, 7)
        };
        let wanted = GroupRecord {
            observer: true,
            replaces: Some(MemberId(3)),
            expected_membership: Some(LogPosition { term: 1, index: 2 }),
            ..record(1, 7)
        };
        let Work::Attach(attached) = judge(&wanted, ME, ME, &[held], &BTreeSet::new()).unwrap()
        else {
            panic!("it is here");
        };
        assert!(attached.admitted && attached.observer);
        assert_eq!(attached.replaces, wanted.replaces);
        assert_eq!(attached.expected_membership, wanted.expected_membership);
    }
}
