//! Members come, take the place of others, hand the leadership over, and go.

use std::collections::BTreeSet;
use std::time::Duration;

use atomix_raft::{
    ChangeError, LogPosition, MemberChange, MemberId, Membership, Role, TransferError,
};
use tokio::time::Instant;

use crate::support::{Cluster, eventually, open, options, soon};

fn ids(members: &BTreeSet<MemberId>) -> Vec<u64> {
    members.iter().map(|member| member.0).collect()
}

/// Changes the members by way of whoever leads, until that is done.
async fn change(cluster: &Cluster, change: &MemberChange) -> Membership {
    let deadline = soon();
    loop {
        let leader = cluster.leader().await;
        let group = cluster.group(leader);
        let expected = group.membership().position;
        match group.change_members(change, expected, soon()).await {
            Ok(membership) => return membership,
            Err(error) => assert!(Instant::now() < deadline, "cannot {change:?}: {error}"),
        }
    }
}

async fn caught_up(cluster: &Cluster, member: u64) {
    let leader = cluster.leader().await;
    let caught_up = cluster.group(leader).caught_up(MemberId(member), soon());
    caught_up.await.expect("caught up");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_member_joins_takes_the_place_of_another_and_leaves() {
    let mut cluster = Cluster::start(3).await;
    cluster.write("one").await;
    let address = cluster.prepare_member(4).await;
    let leader = cluster.leader().await;
    let replaced = (1..=3).find(|id| *id != leader).unwrap();

    let learn = MemberChange::AddLearner {
        member: MemberId(4),
        address: address.clone(),
    };
    let membership = change(&cluster, &learn).await;
    assert_eq!(ids(&membership.learners), [4]);
    assert_eq!(membership.addresses[&MemberId(4)], address);
    caught_up(&cluster, 4).await;
    assert_eq!(
        cluster
            .group(4)
            .with_machine(|journal| journal.lines.clone()),
        ["one"]
    );

    let vote = MemberChange::AddVoter {
        member: MemberId(4),
        replaces: Some(MemberId(replaced)),
    };
    let membership = change(&cluster, &vote).await;
    assert!(!membership.is_joint() && !membership.contains(MemberId(replaced)));
    assert_eq!(membership.voters.len(), 3);
    assert!(membership.voters.contains(&MemberId(4)));

    // Nothing is written for what is so already.
    let leader = cluster.leader().await;
    let group = cluster.group(leader);
    let before = group.status().last_log;
    for repeated in [
        &learn,
        &vote,
        &MemberChange::RemoveVoter(MemberId(replaced)),
    ] {
        let position = group.membership().position;
        let unchanged = group.change_members(repeated, position, soon()).await;
        assert_eq!(unchanged.unwrap().position, position, "{repeated:?}");
    }
    assert_eq!(group.status().last_log, before);

    // The replaced one is gone for good, and the new one counts.
    cluster.stop(replaced).await;
    cluster.write("two").await;
    let another = (1..=3).find(|id| ![leader, replaced].contains(id)).unwrap();
    cluster.network.isolate(another);
    cluster.write("three").await;
    cluster.network.heal();
    assert_eq!(cluster.converged().await, ["one", "two", "three"]);

    let membership = change(&cluster, &MemberChange::RemoveVoter(MemberId(another))).await;
    assert_eq!(membership.voters.len(), 2);
    cluster.stop(another).await;
    cluster.write("four").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_change_planned_on_another_membership_changes_nothing() {
    let mut cluster = Cluster::start(3).await;
    cluster.write("one").await;
    let address = cluster.prepare_member(4).await;
    let leader = cluster.leader().await;
    let group = cluster.group(leader);
    let learn = MemberChange::AddLearner {
        member: MemberId(4),
        address,
    };
    let other = Some(LogPosition { term: 9, index: 9 });
    let refused = group.change_members(&learn, other, soon()).await;
    assert!(
        matches!(refused, Err(ChangeError::Conflict(_))),
        "{refused:?}"
    );
    assert!(!group.membership().contains(MemberId(4)));

    // Of two that were planned on the same membership one is carried out.
    let position = group.membership().position;
    let remove = MemberChange::RemoveVoter(MemberId(leader % 3 + 1));
    let (left, right) = tokio::join!(
        group.change_members(&learn, position, soon()),
        group.change_members(&remove, position, soon())
    );
    assert!(left.is_ok() != right.is_ok(), "{left:?} {right:?}");

    let follower = (1..=3)
        .find(|id| *id != leader && group.membership().voters.contains(&MemberId(*id)))
        .unwrap();
    let group = cluster.group(follower);
    let forwarded = eventually_forwarded(group, &remove).await;
    assert_eq!(forwarded, Some(MemberId(leader)));
}

async fn eventually_forwarded(
    group: &atomix_raft::Group<crate::support::machine::Journal>,
    change: &MemberChange,
) -> Option<MemberId> {
    let deadline = soon();
    loop {
        let position = group.membership().position;
        let address = group.membership().addresses[&MemberId(1)].clone();
        let learn = MemberChange::AddLearner {
            member: MemberId(77),
            address,
        };
        match group.change_members(&learn, position, soon()).await {
            Err(ChangeError::NotLeader(hint)) => return hint.map(|hint| hint.member_id),
            other => assert!(Instant::now() < deadline, "{change:?}: {other:?}"),
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn only_a_member_that_answers_itself_is_caught_up() {
    let mut cluster = Cluster::start(3).await;
    cluster.write("one").await;
    let address = cluster.prepare_member(4).await;
    let learn = MemberChange::AddLearner {
        member: MemberId(4),
        address,
    };
    change(&cluster, &learn).await;
    caught_up(&cluster, 4).await;

    // Its log is level with the leader's, but it is gone.
    cluster.network.isolate(4);
    let leader = cluster.leader().await;
    let group = cluster.group(leader);
    let deadline = Instant::now() + Duration::from_millis(500);
    let failed = group.caught_up(MemberId(4), deadline).await.unwrap_err();
    assert!(failed.contains("does not answer"), "{failed}");
    let all: BTreeSet<MemberId> = (1..=4).map(MemberId).collect();
    let level = group.level_members(&BTreeSet::from([MemberId(4)])).await;
    assert!(level.is_empty(), "{level:?}");
    let level = group.level_members(&all).await;
    assert_eq!(level.len(), 3, "a majority: {level:?}");
    cluster.network.heal();
    caught_up(&cluster, 4).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_leadership_goes_only_to_a_voter_that_answers_and_is_close_behind() {
    let mut cluster = Cluster::start(3).await;
    cluster.write("one").await;
    let address = cluster.prepare_member(4).await;
    let learn = MemberChange::AddLearner {
        member: MemberId(4),
        address,
    };
    change(&cluster, &learn).await;
    caught_up(&cluster, 4).await;
    let leader = cluster.leader().await;
    let group = cluster.group(leader);
    let followers: Vec<u64> = (1..=3).filter(|id| *id != leader).collect();

    cluster.network.isolate(followers[0]);
    for (to, why) in [
        (4, "no voter"),
        (99, "no voter"),
        (followers[0], "did not answer"),
    ] {
        let refused = group.transfer_leadership(MemberId(to), soon()).await;
        let Err(TransferError::Refused(reason)) = refused else {
            panic!("{refused:?}");
        };
        assert!(reason.contains(why), "{reason}");
    }
    // It answers again, but what it lacks is too much.
    cluster.network.heal();
    cluster.network.starve(followers[0]);
    for number in 0..150 {
        cluster.write(&format!("line {number}")).await;
    }
    let deadline = soon();
    loop {
        let refused = group
            .transfer_leadership(MemberId(followers[0]), soon())
            .await;
        match refused {
            Err(TransferError::Refused(reason)) if reason.contains("entries behind") => break,
            // On a busy machine it may miss a heartbeat.
            Err(TransferError::Refused(reason)) if reason.contains("did not answer") => {
                assert!(Instant::now() < deadline, "{reason}");
            }
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(group.status().role, Role::Leader, "nothing was transferred");
    let itself = group.transfer_leadership(MemberId(leader), soon()).await;
    assert_eq!(itself, Ok(()), "it leads already");

    // Retried as callers do: on a busy machine a member may miss a heartbeat.
    let to = MemberId(followers[1]);
    let deadline = soon();
    let mut was_busy = false;
    loop {
        let (one, other) = tokio::join!(
            group.transfer_leadership(to, soon()),
            group.transfer_leadership(to, soon())
        );
        was_busy |= [&one, &other].contains(&&Err(TransferError::Busy));
        match one {
            Ok(()) => break,
            Err(error) => assert!(Instant::now() < deadline, "{error}"),
        }
    }
    assert!(was_busy, "two at a time");
    eventually("the other leads", || {
        (cluster.leader_now() == Some(to.0)).then_some(())
    })
    .await;
    let refused = group.transfer_leadership(MemberId(leader), soon()).await;
    assert!(
        matches!(refused, Err(TransferError::NotLeader(_))),
        "{refused:?}"
    );
    cluster.network.heal();
    cluster.write("after").await;
    assert_eq!(cluster.converged().await.len(), 152);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_that_removes_itself_is_followed_by_another() {
    let cluster = Cluster::start(3).await;
    cluster.write("one").await;
    let removed = cluster.leader().await;
    let membership = change(&cluster, &MemberChange::RemoveVoter(MemberId(removed))).await;
    assert_eq!(membership.voters.len(), 2);
    let next = eventually("another leader", || {
        cluster.leader_now().filter(|leader| *leader != removed)
    })
    .await;
    cluster.write("two").await;
    let group = cluster.group(next);
    assert!(!group.applied_membership().contains(MemberId(removed)));
    assert_ne!(cluster.group(removed).status().role, Role::Leader);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_last_voter_is_replaced_by_another_and_never_removed() {
    let mut cluster = Cluster::start(1).await;
    cluster.write("one").await;
    let last = MemberChange::RemoveVoter(MemberId(1));
    let group = cluster.group(1);
    let refused = group
        .change_members(&last, group.membership().position, soon())
        .await;
    assert!(
        matches!(refused, Err(ChangeError::Refused(_))),
        "{refused:?}"
    );

    let address = cluster.prepare_member(2).await;
    let learn = MemberChange::AddLearner {
        member: MemberId(2),
        address,
    };
    change(&cluster, &learn).await;
    caught_up(&cluster, 2).await;
    let group = cluster.group(1);
    let vote = MemberChange::AddVoter {
        member: MemberId(2),
        replaces: Some(MemberId(1)),
    };
    let position = group.membership().position;
    // The reply may be lost with the leadership.
    let _ = group.change_members(&vote, position, soon()).await;
    eventually("the new member leads", || {
        (cluster.leader_now() == Some(2)).then_some(())
    })
    .await;
    assert_eq!(ids(&cluster.group(2).membership().voters), [2]);
    cluster.stop(1).await;
    cluster.write("two").await;
    assert_eq!(cluster.converged().await, ["one", "two"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_departed_member_and_a_changed_intent_are_on_disk() {
    let directory = tempfile::tempdir().unwrap();
    let partition = crate::support::PARTITION;
    let engine = open(options(directory.path())).await;
    let record = crate::support::follower_record();
    engine.create_group(&record).await.unwrap();
    let changed = atomix_raft::GroupRecord {
        observer: true,
        replaces: Some(MemberId(3)),
        expected_membership: Some(LogPosition { term: 0, index: 0 }),
        admitted: true,
        ..record.clone()
    };
    engine.update_group(&changed).await.unwrap();
    let another = atomix_raft::GroupRecord {
        member_id: MemberId(2),
        ..changed.clone()
    };
    assert!(engine.update_group(&another).await.is_err(), "another stay");
    drop(engine);

    let engine = open(options(directory.path())).await;
    assert_eq!(engine.groups(), [changed]);
    assert!(engine.departed(partition).is_empty());
    engine.delete_departed(partition).await.unwrap();
    engine
        .delete_departed(partition)
        .await
        .expect("gone already");
    drop(engine);

    let engine = open(options(directory.path())).await;
    assert!(engine.groups().is_empty());
    assert_eq!(ids(&engine.departed(partition)), [1]);
    // The next stay has another id, and is remembered beside the first.
    let next = atomix_raft::GroupRecord {
        member_id: MemberId(8),
        ..record
    };
    engine.create_group(&next).await.unwrap();
    engine.delete_departed(partition).await.unwrap();
    drop(engine);
    let engine = open(options(directory.path())).await;
    assert_eq!(ids(&engine.departed(partition)), [1, 8]);
}
