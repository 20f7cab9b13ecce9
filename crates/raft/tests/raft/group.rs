//! Three members in one process, on real disks.

use std::time::Duration;

use atomix_raft::{GroupEvent, InitializeError, ProposeError, ReadError, Role};
use tokio::time::Instant;

use crate::support::{Cluster, eventually, soon};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn writes_are_on_all_members_and_survive_a_restart_of_all() {
    let mut cluster = Cluster::start(3).await;
    let mut expected = Vec::new();
    for number in 0..50 {
        let line = format!("line {number}");
        cluster.write(&line).await;
        expected.push(line);
    }
    assert_eq!(cluster.converged().await, expected);

    for id in 1..=3 {
        cluster.crash(id).await;
    }
    for id in 1..=3 {
        cluster.restart(id).await;
    }
    cluster.write("after the restart").await;
    expected.push("after the restart".to_owned());
    assert_eq!(cluster.converged().await, expected);
    for member in cluster.members.values() {
        assert_eq!(member.engine.boot_counter(), 2);
        assert_eq!(member.engine.failure(), None);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn initializing_again_changes_nothing_and_only_the_initializer_may() {
    let cluster = Cluster::start(3).await;
    cluster.write("one").await;
    let before = cluster.group(1).status();
    assert_eq!(cluster.group(1).initialize().await, Ok(()));
    let refused = cluster.group(2).initialize().await;
    assert!(matches!(refused, Err(InitializeError::NotInitializer(_))));
    let after = cluster.group(1).status();
    assert_eq!(before.membership, after.membership);
    assert_eq!(after.voters.len(), 3);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_member_leads_when_the_leader_dies_and_followers_name_it() {
    let mut cluster = Cluster::start(3).await;
    cluster.write("one").await;
    let first = cluster.leader().await;
    let mut events = cluster.group(first % 3 + 1).subscribe();
    cluster.crash(first).await;
    let second = cluster.leader().await;
    assert_ne!(first, second);
    cluster.write("two").await;

    let follower = (1..=3).find(|id| *id != first && *id != second).unwrap();
    let refused = eventually("a hint", || cluster.group(follower).status().leader);
    assert_eq!(refused.await.0, second);
    match cluster.propose(follower, "three").await {
        Err(ProposeError::NotLeader(Some(hint))) => {
            assert_eq!(hint.member_id.0, second);
            assert_eq!(hint.address, format!("node-{second}:5681"));
        }
        other => panic!("a follower answered {other:?}"),
    }

    cluster.restart(first).await;
    assert_eq!(cluster.converged().await, ["one", "two"]);
    let mut seen = Vec::new();
    while let Ok(event) = events.try_recv() {
        seen.push(event);
    }
    let change = |event: &GroupEvent| matches!(event, GroupEvent::LeaderChanged { leader: Some(leader), .. } if leader.0 == second);
    assert!(seen.iter().any(change), "{seen:?}");

    // Whoever does not answer within an election timeout is asked anew.
    let election_timeout = cluster.group(second).record().timings.election_timeout;
    for kind in ["append", "vote", "pre-vote"] {
        let timeouts = cluster.network.timeouts(kind);
        assert_eq!(timeouts, [election_timeout], "{kind}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_without_a_quorum_neither_reads_nor_claims_to_lead() {
    let cluster = Cluster::start(3).await;
    cluster.write("one").await;
    let old = cluster.leader().await;
    cluster.network.isolate(old);
    eventually("another leader", || {
        cluster.leader_now().filter(|leader| *leader != old)
    })
    .await;
    cluster.write("two").await;

    let status = cluster.group(old).status();
    assert_ne!(status.role, Role::Leader);
    let read = cluster
        .group(old)
        .linearizable_read(Instant::now() + Duration::from_secs(2))
        .await;
    assert!(read.is_err(), "a cut-off leader read {read:?}");
    let outcome = cluster.propose(old, "lost").await;
    assert!(outcome.is_err(), "a cut-off leader wrote {outcome:?}");

    cluster.network.heal();
    let lines = cluster.converged().await;
    assert_eq!(lines, ["one", "two"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_linearizable_read_sees_every_write_that_was_acknowledged_before() {
    let cluster = Cluster::start(3).await;
    let mut last = 0;
    for number in 0..100 {
        let index = cluster.write(&format!("{number}")).await;
        assert!(index > last);
        last = index;
        let leader = cluster.leader().await;
        let reads = (0..4).map(|_| cluster.group(leader).linearizable_read(soon()));
        for read in futures::future::join_all(reads).await {
            assert!(read.unwrap().index >= index);
        }
        let seen = cluster
            .group(leader)
            .with_machine(|journal| journal.lines.len());
        assert_eq!(seen, number + 1);
    }
    let leader = cluster.leader().await;
    let follower = leader % 3 + 1;
    let refused = cluster.group(follower).linearizable_read(soon()).await;
    assert!(
        matches!(refused, Err(ReadError::NotLeader(Some(_)))),
        "{refused:?}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_panic_of_the_machine_is_reported() {
    let cluster = Cluster::start(1).await;
    cluster.write("one").await;
    let outcome = cluster.propose(1, "panic").await;
    assert!(
        matches!(outcome, Err(ProposeError::Unknown(_))),
        "{outcome:?}"
    );
    let error = tokio::time::timeout_at(soon(), cluster.members[&1].engine.failed())
        .await
        .expect("a fatal error");
    assert_eq!(error.partition, Some(crate::support::PARTITION));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_member_that_is_far_behind_gets_a_snapshot_and_keeps_it() {
    let mut cluster = Cluster::start(3).await;
    cluster.write("before").await;
    cluster.converged().await;
    let leader = cluster.leader().await;
    let behind = leader % 3 + 1;
    cluster.crash(behind).await;

    let mut expected = vec!["before".to_owned()];
    // Two snapshots, so that the log is compacted up to the older one.
    for round in 0..2 {
        for number in 0..20 {
            let line = format!("{round} {number} {}", "x".repeat(100_000));
            cluster.write(&line).await;
            expected.push(line);
        }
        let leader = cluster.leader().await;
        let group = cluster.group(leader);
        let applied = group.status().applied;
        assert!(group.snapshot_now().await.unwrap() >= applied);
    }
    let leader = cluster.leader().await;
    eventually("a compacted log", || {
        (cluster.group(leader).status().compacted > 10).then_some(())
    })
    .await;

    cluster.restart(behind).await;
    let mut events = cluster.group(behind).subscribe();
    assert_eq!(cluster.converged().await, expected);
    let chunks = cluster
        .network
        .snapshot_chunks
        .load(std::sync::atomic::Ordering::Relaxed);
    assert!(chunks > 4, "4 MB came in {chunks} chunks");
    eventually("the event", || {
        matches!(events.try_recv(), Ok(GroupEvent::SnapshotInstalled { .. })).then_some(())
    })
    .await;

    // What was installed survives, with what came after.
    cluster.write("after").await;
    expected.push("after".to_owned());
    cluster.converged().await;
    cluster.crash(behind).await;
    cluster.restart(behind).await;
    assert_eq!(cluster.converged().await, expected);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restarted_leader_does_not_lead_without_an_election() {
    let mut cluster = Cluster::start(3).await;
    for round in 0..3 {
        cluster.write(&format!("round {round}")).await;
        let leader = cluster.leader().await;
        let term = cluster.group(leader).status().term;
        cluster.crash(leader).await;
        cluster.restart(leader).await;
        let outcome = cluster.propose(leader, &format!("early {round}")).await;
        let status = cluster.group(leader).status();
        if outcome.is_ok() || status.role == Role::Leader {
            assert!(
                status.term > term,
                "leads again in term {term}: {outcome:?}"
            );
        }
        let settled = cluster.leader().await;
        assert!(cluster.group(settled).status().term > term);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_message_for_another_member_is_refused() {
    use atomix_proto::multiraft::v1::{peer_message::Body as Request, peer_reply::Body as Reply};
    use atomix_raft::{PeerMessage, peer_refusal::Reason};

    let cluster = Cluster::start(1).await;
    let right = PeerMessage {
        store_uid: "store-of-the-test".to_owned(),
        incarnation: 3,
        partition_id: crate::support::PARTITION.0,
        from_member: 2,
        to_member: 1,
        body: Some(Request::PreVote(atomix_proto::multiraft::v1::RequestVote {
            vote: Some(atomix_proto::multiraft::v1::Vote {
                term: 1,
                member_id: 2,
                committed: false,
            }),
            ..Default::default()
        })),
    };
    let reply = cluster.group(1).handle(right.clone()).await;
    assert!(matches!(reply.body, Some(Reply::Vote(_))), "{reply:?}");

    let wrong = [
        PeerMessage {
            store_uid: "another".to_owned(),
            ..right.clone()
        },
        PeerMessage {
            incarnation: 2,
            ..right.clone()
        },
        PeerMessage {
            partition_id: 8,
            ..right.clone()
        },
        PeerMessage {
            to_member: 9,
            ..right.clone()
        },
    ];
    for message in wrong {
        let reply = cluster.group(1).handle(message).await;
        let Some(Reply::Refusal(refusal)) = reply.body else {
            panic!("not refused: {reply:?}");
        };
        assert_eq!(refusal.reason(), Reason::WrongMember);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn reads_are_never_stale_while_leaders_are_killed_and_cut_off() {
    let mut cluster = Cluster::start(3).await;
    let mut acknowledged = 0;
    let mut reads = 0;
    for round in 0..6_u64 {
        for number in 0..5 {
            cluster.write(&format!("{round}.{number}")).await;
            acknowledged += 1;
        }
        let leader = cluster.leader().await;
        if round % 2 == 0 {
            cluster.crash(leader).await;
            cluster.restart(leader).await;
        } else {
            cluster.network.isolate(leader);
        }
        // Whoever answers, the old leader first of all, must know every acknowledged write.
        let deadline = soon();
        let mut answered = false;
        while !answered {
            assert!(Instant::now() < deadline, "nobody reads");
            for id in (1..=3).map(|offset| (leader + offset - 2) % 3 + 1) {
                let soon = Instant::now() + Duration::from_millis(400);
                if cluster.group(id).linearizable_read(soon).await.is_ok() {
                    let seen = cluster
                        .group(id)
                        .with_machine(|journal| journal.lines.len());
                    assert!(
                        seen >= acknowledged,
                        "member {id} saw {seen} of {acknowledged}"
                    );
                    answered = true;
                    reads += 1;
                }
            }
        }
        cluster.network.heal();
        acknowledged = cluster.converged().await.len();
    }
    assert!(reads >= 6);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cut_off_follower_that_returns_neither_raises_the_term_nor_unseats_the_leader() {
    let cluster = Cluster::start(3).await;
    cluster.write("one").await;
    let leader = cluster.leader().await;
    let before = cluster.group(leader).status();
    let follower = leader % 3 + 1;
    let mut events = cluster.group(leader).subscribe();

    cluster.network.isolate(follower);
    let cut = Instant::now();
    let election_timeout = cluster.group(follower).record().timings.election_timeout;
    eventually(
        "the follower misses the leader for several elections",
        || (cut.elapsed() > election_timeout * 6).then_some(()),
    )
    .await;
    assert_eq!(
        cluster.group(follower).status().term,
        before.term,
        "without a majority it only asks beforehand"
    );
    cluster.write("two").await;

    cluster.network.heal();
    assert_eq!(cluster.converged().await, ["one", "two"]);
    cluster.write("three").await;
    assert_eq!(cluster.converged().await, ["one", "two", "three"]);
    for id in 1..=3 {
        let after = cluster.group(id).status();
        assert_eq!((id, after.term), (id, before.term));
        assert_eq!(after.leader.map(|leader| leader.0), Some(leader));
    }
    while let Ok(event) = events.try_recv() {
        let is_change = matches!(event, GroupEvent::LeaderChanged { .. });
        assert!(!is_change, "{event:?}");
    }
}
