//! Members come and go on real nodes: what is asked for happens once, whoever dies meanwhile, and
//! no acknowledged write is lost.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use atomix_proto::multiraft::v1::failure::Reason;
use atomix_proto::multiraft::v1::group_status::Role;
use atomix_proto::multiraft::v1::watch_response::Event;
use atomix_proto::multiraft::v1::{
    ExpectedMembership, GroupStatus, JoinRequest, LeaveRequest, WatchRequest,
};
use futures::future::join_all;
use tonic::{Code, Status};

use crate::support::driver::{Count, Follower, NoReply, Stream, count};
use crate::support::eventually;
use crate::support::nodes::{Cluster, PATIENCE, member_id};

/// A Join or Leave is called again, as the operator does, until it is done.
const LONG: Duration = Duration::from_secs(60);
/// What one call is given.
const CALL: Duration = Duration::from_secs(5);

fn code<T>(result: Result<T, Status>) -> Option<Code> {
    result.err().map(|status| status.code())
}

/// What comes right by itself when it is called again.
fn is_passing(status: &Status) -> bool {
    matches!(
        status.code(),
        Code::DeadlineExceeded | Code::Unavailable | Code::Cancelled | Code::Unknown
    )
}

async fn joined(cluster: &Cluster, node: usize, request: &JoinRequest) {
    eventually("the member has joined", LONG, || async {
        match cluster.nodes[node].join(request.clone(), CALL).await {
            Ok(()) => Some(()),
            Err(status) if is_passing(&status) => None,
            Err(status) => panic!("a join is refused: {status}"),
        }
    })
    .await;
}

async fn left(cluster: &Cluster, node: usize, request: LeaveRequest) {
    eventually("the member has left", LONG, || async {
        match cluster.nodes[node].leave(request, CALL).await {
            Ok(()) => Some(()),
            // Of the others, who had to restart, too few may be caught up yet.
            Err(status) if is_passing(&status) || status.code() == Code::FailedPrecondition => None,
            Err(status) => panic!("a leave is refused: {status}"),
        }
    })
    .await;
}

fn leave_of(partition: u32, member: u64) -> LeaveRequest {
    LeaveRequest {
        partition_id: partition,
        member_id: member,
        expected_membership: None,
    }
}

async fn voters_become(cluster: &Cluster, partition: u32, expected: &[u64]) -> GroupStatus {
    let what = format!("partition {partition} has the voters {expected:?}");
    eventually(&what, LONG, || async {
        let group = cluster.settled_group(partition).await?;
        (group.voters == expected && group.learners.is_empty()).then_some(group)
    })
    .await
}

async fn holds_nothing(cluster: &Cluster, node: usize) {
    let what = format!("node {node} has deleted what it held");
    eventually(&what, LONG, || async {
        let status = cluster.nodes[node].status().await.ok()?;
        status.groups.is_empty().then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_member_joins_in_the_role_asked_for_and_leaves_once() {
    let mut cluster = Cluster::bootstrapped(1).await;
    let fresh = cluster.add_node().await;
    let old = |node| member_id(1, 1, node);
    let request = cluster.join_request(1, fresh, 100).await;
    let config = request.partition.clone().unwrap();
    let position = cluster.settled_group(1).await.unwrap().membership.unwrap();

    // What is refused stores nothing.
    let mut other_node = request.clone();
    let partition = other_node.partition.as_mut().unwrap();
    partition.node_id = 7;
    partition.node_ids.insert(100, 7);
    let refused = cluster.nodes[fresh].join(other_node, CALL).await;
    assert_eq!(code(refused), Some(Code::FailedPrecondition));
    let mut nobody = request.clone();
    nobody.partition.as_mut().unwrap().members.clear();
    let refused = cluster.nodes[fresh].join(nobody, CALL).await;
    assert_eq!(code(refused), Some(Code::InvalidArgument));
    assert!(
        cluster.nodes[fresh]
            .status()
            .await
            .unwrap()
            .groups
            .is_empty()
    );

    // Planned on another membership: nothing changes, and the intent waits for a better one.
    let mut stale = request.clone();
    stale.expected_membership = Some(ExpectedMembership { term: 99, index: 1 });
    let refused = cluster.nodes[fresh].join(stale, LONG).await.unwrap_err();
    assert_eq!(refused.code(), Code::Aborted, "{refused}");
    let group = cluster.nodes[fresh].group(1).await.unwrap();
    assert_eq!((group.member_id, group.voters.len()), (100, 0));
    assert_eq!(cluster.settled_group(1).await.unwrap().voters.len(), 3);
    let mut other_member = request.clone();
    let partition = other_member.partition.as_mut().unwrap();
    partition.member_id = 101;
    partition.members.insert(101, config.members[&100].clone());
    partition.node_ids.insert(101, cluster.node_ids[fresh]);
    partition.members.remove(&100);
    partition.node_ids.remove(&100);
    let refused = cluster.nodes[fresh].join(other_member, CALL).await;
    assert_eq!(code(refused), Some(Code::AlreadyExists));

    // First an observer, then, asked once more, a voter.
    let mut observer = request.clone();
    observer.partition.as_mut().unwrap().observer = true;
    observer.expected_membership = Some(ExpectedMembership {
        term: position.term,
        index: position.index,
    });
    joined(&cluster, fresh, &observer).await;
    let group = cluster.nodes[fresh].group(1).await.unwrap();
    assert_eq!((group.role(), group.learners), (Role::Learner, vec![100]));
    let refused = cluster.nodes[0].transfer(1, 100).await;
    assert_eq!(code(refused), Some(Code::FailedPrecondition));
    joined(&cluster, fresh, &request).await;
    let voters = [old(0), old(1), old(2), 100];
    let mut sorted = voters.to_vec();
    sorted.sort_unstable();
    let group = voters_become(&cluster, 1, &sorted).await;
    assert_eq!(group.members.len(), 4);
    let mut demoted = request.clone();
    demoted.partition.as_mut().unwrap().observer = true;
    let refused = cluster.nodes[fresh].join(demoted, LONG).await;
    assert_eq!(code(refused), Some(Code::FailedPrecondition));
    joined(&cluster, fresh, &request).await;
    let unchanged = voters_become(&cluster, 1, &sorted).await;
    assert_eq!(
        unchanged.membership, group.membership,
        "nothing is proposed twice"
    );
    // Members of the bootstrap are members.
    let again = cluster.join_request(1, 0, old(0)).await;
    joined(&cluster, 0, &again).await;

    // The leadership goes where it is told.
    for to in [100, old(0)] {
        eventually("the leadership is handed over", PATIENCE, || async {
            cluster.nodes[1].transfer(1, to).await.ok()
        })
        .await;
        eventually("it leads", PATIENCE, || async {
            (cluster.settled_group(1).await?.leader == to).then_some(())
        })
        .await;
    }

    let mut stale = leave_of(1, 100);
    stale.expected_membership = Some(ExpectedMembership { term: 99, index: 1 });
    let refused = cluster.nodes[0].leave(stale, CALL).await;
    assert_eq!(code(refused), Some(Code::Aborted));
    left(&cluster, fresh, leave_of(1, 0)).await;
    assert!(
        cluster.nodes[fresh]
            .status()
            .await
            .unwrap()
            .groups
            .is_empty()
    );
    voters_become(&cluster, 1, &[old(0), old(1), old(2)]).await;
    // Again, here and elsewhere, also for a member that never was.
    for (node, member) in [(fresh, 0), (fresh, 100), (0, 100), (1, 12345)] {
        let again = cluster.nodes[node].leave(leave_of(1, member), CALL).await;
        assert_eq!(code(again), None, "member {member} at node {node}");
    }
    let unknown = cluster.nodes[fresh].leave(leave_of(1, 55), CALL).await;
    assert_eq!(code(unknown), Some(Code::NotFound));
    // Its id is used, after a restart, too.
    for _ in 0..2 {
        let refused = cluster.nodes[fresh].join(request.clone(), CALL).await;
        assert_eq!(code(refused), Some(Code::FailedPrecondition));
        cluster.nodes[fresh].kill().await;
        cluster.nodes[fresh].start().await;
    }
    let next = cluster.join_request(1, fresh, 102).await;
    joined(&cluster, fresh, &next).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leave_that_would_cost_the_majority_or_the_last_voter_is_refused() {
    let mut cluster = Cluster::bootstrapped(1).await;
    let old = |node| member_id(1, 1, node);
    let leader = cluster.leader(1).await;
    let dead = (leader + 1) % 3;
    let other = (leader + 2) % 3;
    cluster.nodes[dead].kill().await;
    let refused = cluster.nodes[leader].leave(leave_of(1, old(other)), LONG);
    let refused = refused.await.unwrap_err();
    assert_eq!(refused.code(), Code::FailedPrecondition, "{refused}");
    assert!(refused.message().contains("only 1 answer"), "{refused}");

    // The dead one can go, and what it held is deleted when it comes back.
    left(&cluster, other, leave_of(1, old(dead))).await;
    let mut rest = vec![old(leader), old(other)];
    rest.sort_unstable();
    voters_become(&cluster, 1, &rest).await;
    cluster.nodes[dead].start().await;
    holds_nothing(&cluster, dead).await;

    // A leader that leaves is followed by the other, which is the last one.
    let leader = cluster.leader(1).await;
    left(&cluster, leader, leave_of(1, 0)).await;
    assert!(
        cluster.nodes[leader]
            .status()
            .await
            .unwrap()
            .groups
            .is_empty()
    );
    let last = cluster.leader(1).await;
    // Drivers that still ask the node that is a member no longer are sent to one that is.
    let stream = Stream::open(cluster.nodes[leader].peer, "").await.unwrap();
    let NoReply::Failed(failure) = stream.get(1, "shared").await.unwrap_err() else {
        panic!("no answer");
    };
    assert_eq!(failure.reason(), Reason::NotLeader);
    let hinted = failure.leader.map(|leader| leader.address);
    assert_eq!(hinted, Some(cluster.nodes[last].peer.to_string()));
    let refused = cluster.nodes[last].leave(leave_of(1, 0), LONG).await;
    let refused = refused.unwrap_err();
    assert_eq!(refused.code(), Code::FailedPrecondition, "{refused}");
    assert!(refused.message().contains("last voter"), "{refused}");

    // The last one moves to another disk.
    let mut request = cluster.join_request(1, dead, 200).await;
    let last_member = cluster.settled_group(1).await.unwrap().voters[0];
    request.partition.as_mut().unwrap().replaces = last_member;
    joined(&cluster, dead, &request).await;
    voters_become(&cluster, 1, &[200]).await;
    holds_nothing(&cluster, last).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_join_goes_on_after_its_caller_and_its_process_and_tells_how_far_it_is() {
    let mut cluster = Cluster::bootstrapped(1).await;
    let fresh = cluster.add_node().await;
    let request = cluster.join_request(1, fresh, 100).await;
    // Without a quorum nobody can be added.
    let leader = cluster.leader(1).await;
    for node in [(leader + 1) % 3, (leader + 2) % 3] {
        cluster.nodes[node].kill().await;
    }
    let waiting = cluster.nodes[fresh].join(request.clone(), Duration::from_secs(2));
    let waiting = waiting.await.unwrap_err();
    assert_eq!(waiting.code(), Code::DeadlineExceeded, "{waiting}");
    assert!(
        waiting.message().contains("the join goes on: "),
        "{waiting}"
    );
    cluster.nodes[fresh].kill().await;
    for node in [(leader + 1) % 3, (leader + 2) % 3, fresh] {
        cluster.nodes[node].start().await;
    }
    // Nobody calls Join again.
    let mut voters: Vec<u64> = (0..3).map(|node| member_id(1, 1, node)).collect();
    voters.push(100);
    voters.sort_unstable();
    voters_become(&cluster, 1, &voters).await;
    joined(&cluster, fresh, &request).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_watch_tells_of_changed_members_and_of_a_member_that_left() {
    let mut cluster = Cluster::bootstrapped(1).await;
    let fresh = cluster.add_node().await;
    let leader = cluster.leader(1).await;
    let watch = async |node: usize| {
        let mut control = cluster.nodes[node].control().await.unwrap();
        control.watch(WatchRequest {}).await.unwrap().into_inner()
    };
    let mut at_leader = watch(leader).await;
    let mut at_fresh = watch(fresh).await;
    let request = cluster.join_request(1, fresh, 100).await;
    joined(&cluster, fresh, &request).await;
    let told = tokio::time::timeout(PATIENCE, async {
        loop {
            let message = at_leader
                .message()
                .await
                .unwrap()
                .expect("the watch goes on");
            if let Some(Event::MembershipChanged(changed)) = message.event
                && let Some(group) = changed.group
                && group.voters.contains(&100)
                && group.outgoing_voters.is_empty()
            {
                return (changed.membership, group);
            }
        }
    });
    let (position, group) = told.await.expect("the leader's node tells");
    assert!(position.is_some());
    assert_eq!(group.members.len(), 4);

    left(&cluster, leader, leave_of(1, 100)).await;
    let removed = tokio::time::timeout(LONG, async {
        loop {
            let message = at_fresh
                .message()
                .await
                .unwrap()
                .expect("the watch goes on");
            if let Some(Event::MemberRemoved(removed)) = message.event {
                return removed.member_id;
            }
        }
    });
    assert_eq!(removed.await.expect("the node tells"), 100);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_is_told_to_end_hands_its_leaderships_over_first() {
    let mut cluster = Cluster::bootstrapped(4).await;
    let stop = Arc::new(AtomicBool::new(false));
    let clients = start_clients(&cluster, 4, &stop);
    for round in 0..3 {
        let node = cluster.leader(round % 4 + 1).await;
        let led = async |cluster: &Cluster, node: usize| {
            let status = cluster.nodes[node].status().await.unwrap();
            let groups = status.groups.into_iter();
            let led = groups.filter(|group| group.role() == Role::Leader);
            led.map(|group| (group.partition_id, group.term))
                .collect::<Vec<_>>()
        };
        let before = led(&cluster, node).await;
        assert!(!before.is_empty());
        let ended = cluster.nodes[node].terminate().await;
        assert!(ended.success(), "{ended}");
        let log = std::fs::read_to_string(cluster.nodes[node].log_file()).unwrap();
        assert!(log.contains("hands over the leadership"), "{log}");
        // At once: nobody has had the time to find that it is gone, and to elect another.
        for (partition, term) in before {
            let others = cluster.nodes.iter().filter(|other| other.is_running());
            let groups = join_all(others.map(|other| other.group(partition))).await;
            let mut groups = groups.into_iter().flatten();
            let is_led = groups.any(|group| group.role() == Role::Leader && group.term > term);
            assert!(
                is_led,
                "nobody leads partition {partition} as its leader ends"
            );
        }
        cluster.nodes[node].start().await;
    }
    check_counts(&cluster, 4, clients, &stop).await;
}

/// The test of all of it: every member moves to another disk while clients count and processes die.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn members_move_between_nodes_under_load_while_processes_are_killed() {
    const PARTITIONS: u32 = 2;
    let mut cluster = Cluster::bootstrapped(PARTITIONS).await;
    let first = cluster.add_node().await;
    let second = cluster.add_node().await;
    let stop = Arc::new(AtomicBool::new(false));
    let clients = start_clients(&cluster, PARTITIONS, &stop);
    let old = |partition, node| member_id(partition, 1, node);
    let new = |partition: u32, node: usize| 5000 + old(partition, node);

    // All members of node 0 move to the first fresh node, which is killed at random moments.
    for partition in 1..=PARTITIONS {
        let mut request = cluster
            .join_request(partition, first, new(partition, first))
            .await;
        request.partition.as_mut().unwrap().replaces = old(partition, 0);
        let moment = Duration::from_millis(rand::random_range(1..400));
        println!("the joining node of partition {partition} is killed after {moment:?}");
        let interrupted = cluster.nodes[first].join(request.clone(), moment).await;
        assert!(
            interrupted.as_ref().err().is_none_or(is_passing),
            "{interrupted:?}"
        );
        cluster.nodes[first].kill().await;
        cluster.nodes[first].start().await;
        joined(&cluster, first, &request).await;
        let mut voters = vec![old(partition, 1), old(partition, 2), new(partition, first)];
        voters.sort_unstable();
        voters_become(&cluster, partition, &voters).await;
    }
    holds_nothing(&cluster, 0).await;
    for partition in 1..=PARTITIONS {
        left(&cluster, 0, leave_of(partition, 0)).await;
    }

    // Those of node 1 move to the second, while the leaders are killed.
    for partition in 1..=PARTITIONS {
        let mut request = cluster
            .join_request(partition, second, new(partition, second))
            .await;
        request.partition.as_mut().unwrap().replaces = old(partition, 1);
        let leader = cluster.leader(partition).await;
        let moment = Duration::from_millis(rand::random_range(1..600));
        println!("the leader of partition {partition} is killed after {moment:?}");
        let interrupted = cluster.nodes[second].join(request.clone(), moment).await;
        assert!(
            interrupted.as_ref().err().is_none_or(is_passing),
            "{interrupted:?}"
        );
        cluster.nodes[leader].kill().await;
        cluster.nodes[leader].start().await;
        joined(&cluster, second, &request).await;
        let mut voters = [
            old(partition, 2),
            new(partition, first),
            new(partition, second),
        ];
        voters.sort_unstable();
        voters_become(&cluster, partition, &voters).await;
    }
    holds_nothing(&cluster, 1).await;

    // Node 2 dies, its members are removed by way of another node, and it comes back.
    cluster.nodes[2].kill().await;
    for partition in 1..=PARTITIONS {
        left(&cluster, first, leave_of(partition, old(partition, 2))).await;
        let mut voters = [new(partition, first), new(partition, second)];
        voters.sort_unstable();
        voters_become(&cluster, partition, &voters).await;
    }
    cluster.nodes[2].start().await;
    holds_nothing(&cluster, 2).await;

    // Node 0 is a member again, under another id.
    for partition in 1..=PARTITIONS {
        let request = cluster.join_request(partition, 0, new(partition, 0)).await;
        joined(&cluster, 0, &request).await;
    }
    // And one goes in good order.
    let leader = cluster.leader(1).await;
    let ended = cluster.nodes[leader].terminate().await;
    assert!(ended.success(), "{ended}");
    cluster.nodes[leader].start().await;
    check_counts(&cluster, PARTITIONS, clients, &stop).await;
}

type Clients = Vec<tokio::task::JoinHandle<Count>>;

/// Two clients of each partition.
fn start_clients(cluster: &Cluster, partitions: u32, stop: &Arc<AtomicBool>) -> Clients {
    (0..partitions * 2)
        .map(|number| {
            let follower = Follower::new(cluster.peers(), number % partitions + 1);
            tokio::spawn(count(follower, Arc::clone(stop)))
        })
        .collect()
}

/// Nothing that was acknowledged is lost, and nothing is there that was not asked for.
async fn check_counts(
    cluster: &Cluster,
    partitions: u32,
    clients: Clients,
    stop: &Arc<AtomicBool>,
) {
    stop.store(true, Ordering::Relaxed);
    let mut sums = vec![(0, 0); partitions as usize];
    for (number, client) in clients.into_iter().enumerate() {
        let count = client.await.unwrap();
        assert!(count.acknowledged > 0, "client {number} made progress");
        println!("client {number}: longest gap {:?}", count.longest_gap);
        let sum = &mut sums[number % partitions as usize];
        sum.0 += count.acknowledged;
        sum.1 += count.unknown;
    }
    for (partition, (acknowledged, unknown)) in (1..).zip(sums) {
        let value = Follower::new(cluster.peers(), partition)
            .get("shared")
            .await;
        println!(
            "partition {partition}: {acknowledged} acknowledged, {unknown} unknown, {value} final"
        );
        assert!(
            (acknowledged..=acknowledged + unknown).contains(&value),
            "partition {partition}: {acknowledged} acknowledged, {unknown} unknown, but {value}"
        );
    }
}
