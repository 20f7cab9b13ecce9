//! Who claims to lead, and what a proposal's outcome is called.

use std::time::Duration;

use atomix_raft::{GroupEvent, GroupStatus, ProposeError, Role};
use bytes::Bytes;
use tokio::sync::broadcast::error::TryRecvError;
use tokio::time::Instant;

use crate::support::{Cluster, eventually, soon};

fn claims(status: &GroupStatus) -> bool {
    status.role == Role::Leader || status.leader == Some(status.member_id)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_that_no_quorum_acknowledges_ends_its_claim_within_the_lease() {
    let cluster = Cluster::start(3).await;
    cluster.write("one").await;
    let leader = cluster.leader().await;
    let group = cluster.group(leader);
    let mut events = group.subscribe();
    assert!(claims(&group.status()));

    // The others do not elect another one: both are gone, too.
    for id in 1..=3 {
        cluster.network.isolate(id);
    }
    let cut = Instant::now();
    eventually("the end of the claim", || {
        (!claims(&group.status())).then_some(())
    })
    .await;
    // The lease is 0.6 election timeouts of 500 ms; the rest is for a busy machine.
    assert!(
        cut.elapsed() < Duration::from_secs(3),
        "{:?}",
        cut.elapsed()
    );
    eventually("the event", || match events.try_recv() {
        Ok(GroupEvent::LeaderChanged { leader: None, .. }) => Some(()),
        Ok(_) | Err(TryRecvError::Empty | TryRecvError::Lagged(_)) => None,
        Err(TryRecvError::Closed) => panic!("the group stopped"),
    })
    .await;
    assert!(group.status().leader.is_none() && group.status().leader_address.is_none());

    cluster.network.heal();
    cluster.write("two").await;
    assert_eq!(cluster.converged().await, ["one", "two"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_proposal_that_no_quorum_takes_has_an_unknown_outcome_at_its_deadline() {
    let cluster = Cluster::start(3).await;
    cluster.write("one").await;
    let leader = cluster.leader().await;
    for id in 1..=3 {
        cluster.network.isolate(id);
    }
    let began = Instant::now();
    let deadline = began + Duration::from_millis(250);
    let payload = Bytes::from_static(b"perhaps");
    let outcome = cluster.group(leader).propose(payload, deadline).await;
    assert!(
        matches!(outcome, Err(ProposeError::Unknown(_))),
        "{outcome:?}"
    );
    assert!(Instant::now() >= deadline, "it gave up early");
    // Unknown means what it says: the entry may be applied yet.
    cluster.network.heal();
    cluster.write("two").await;
    let lines = cluster.converged().await;
    assert!(
        lines == ["one", "two"] || lines == ["one", "perhaps", "two"],
        "{lines:?}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_proposal_that_another_leader_overwrites_has_an_unknown_outcome() {
    let cluster = Cluster::start(3).await;
    cluster.write("one").await;
    cluster.converged().await;
    let old = cluster.leader().await;
    cluster.network.isolate(old);
    // Far behind the time at which the entry is overwritten.
    let group = cluster.group(old).clone();
    let overwritten =
        tokio::spawn(async move { group.propose(Bytes::from_static(b"lost"), soon()).await });
    eventually("the entry in the old leader's log", || {
        let status = cluster.group(old).status();
        (status.last_log > status.committed).then_some(())
    })
    .await;
    eventually("another leader", || {
        cluster.leader_now().filter(|leader| *leader != old)
    })
    .await;
    cluster.write("two").await;
    cluster.network.heal();
    let outcome = tokio::time::timeout_at(soon(), overwritten).await;
    let outcome = outcome.expect("an outcome").unwrap();
    assert!(
        matches!(outcome, Err(ProposeError::Unknown(_))),
        "{outcome:?}"
    );
    assert_eq!(cluster.converged().await, ["one", "two"]);
}
