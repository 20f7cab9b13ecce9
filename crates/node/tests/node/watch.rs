//! What the operator is told of a node by Watch and GetStatus.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use atomix_proto::multiraft::v1::group_status::Role;
use atomix_proto::multiraft::v1::node_client::NodeClient;
use atomix_proto::multiraft::v1::watch_response::Event;
use atomix_proto::multiraft::v1::{
    BootstrapRequest, GroupStatus, LeaderChanged, WatchRequest, WatchResponse,
};
use tonic::transport::Endpoint;
use tonic::{Code, Streaming};

use crate::support::addresses::Addresses;
use crate::support::driver::Stream;
use crate::support::eventually;
use crate::support::nodes::{Cluster, PATIENCE, member_id};
use crate::support::services::NodeService;

const LONG: Duration = Duration::from_secs(60);

async fn watch(node: &Addresses) -> Streaming<WatchResponse> {
    let mut control = node.control().await.unwrap();
    control.watch(WatchRequest {}).await.unwrap().into_inner()
}

/// Reads events until `choose` has found what it looks for.
async fn told<T>(
    watch: &mut Streaming<WatchResponse>,
    mut choose: impl FnMut(Event) -> Option<T>,
) -> T {
    let reading = async {
        loop {
            let message = watch.message().await.unwrap().expect("the watch goes on");
            if let Some(found) = message.event.and_then(&mut choose) {
                return found;
            }
        }
    };
    let found = tokio::time::timeout(LONG, reading).await;
    found.expect("it is told in time")
}

fn leader_changed(event: Event) -> Option<LeaderChanged> {
    match event {
        Event::LeaderChanged(changed) => Some(changed),
        _ => None,
    }
}

#[tokio::test]
async fn a_watch_tells_of_a_member_from_its_bootstrap_on_and_the_leader_of_the_others() {
    let cluster = Cluster::start().await;
    let mut watch = watch(&cluster.nodes[0]).await;
    let nothing = told(&mut watch, |event| match event {
        Event::Status(status) => Some(status.groups.is_empty()),
        _ => None,
    });
    assert!(nothing.await, "it begins with an empty node");
    for (number, node) in cluster.nodes.iter().enumerate() {
        node.bootstrap(cluster.plan(number, 1, 1)).await.unwrap();
    }
    let members: Vec<u64> = (0..3).map(|node| member_id(1, 1, node)).collect();
    let (mut leader, mut membership, mut ready) = (None, None, None);
    told(&mut watch, |event| {
        match event {
            Event::LeaderChanged(changed) if changed.leader != 0 => leader = Some(changed),
            Event::MembershipChanged(changed) => membership = Some(changed),
            Event::MemberReady(member) => ready = Some(member),
            _ => {}
        }
        (leader.is_some() && membership.is_some() && ready.is_some()).then_some(())
    })
    .await;
    let (leader, membership) = (leader.unwrap(), membership.unwrap());
    assert_eq!(leader.partition_id, 1);
    assert!(members.contains(&leader.leader) && leader.term > 0);
    assert_eq!(membership.partition_id, 1);
    assert!(membership.membership.is_some());
    assert_eq!(membership.group.unwrap().voters, members);
    let ready = ready.unwrap();
    assert_eq!((ready.partition_id, ready.member_id), (1, members[0]));

    let knows_others = |group: &GroupStatus| {
        group.progress.len() == 2
            && group.progress.iter().all(|member| {
                let contact = member.since_last_contact;
                member.member_id != group.member_id
                    && members.contains(&member.member_id)
                    && member.matched > 0
                    && contact.is_some_and(|since| {
                        Duration::try_from(since).unwrap() < Duration::from_millis(500)
                    })
            })
    };
    eventually("the leader knows of the others", PATIENCE, || async {
        let mut leaders = 0;
        for node in &cluster.nodes {
            let group = node.group(1).await?;
            match group.role() {
                Role::Leader if knows_others(&group) => leaders += 1,
                Role::Follower => assert_eq!(group.progress, [], "{group:?}"),
                _ => return None,
            }
        }
        (leaders == 1).then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_watch_tells_that_a_leader_has_lost_its_quorum_and_that_there_is_one_again() {
    let cluster = Cluster::bootstrapped(1).await;
    let leader = cluster.leader(1).await;
    let mut watch = watch(&cluster.nodes[leader]).await;
    let others = [(leader + 1) % 3, (leader + 2) % 3];
    for other in others {
        cluster.nodes[other].pause().await;
    }
    let lost = |event| leader_changed(event).filter(|changed| changed.leader == 0);
    let lost = told(&mut watch, lost).await;
    assert_eq!(lost.partition_id, 1);
    for other in others {
        cluster.nodes[other].resume().await;
    }
    let found = |event| leader_changed(event).filter(|changed| changed.leader != 0);
    let found = told(&mut watch, found).await;
    assert!(found.term >= lost.term, "{found:?} after {lost:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_watcher_that_does_not_read_is_dropped_and_holds_nobody_up() {
    /// More than a node keeps for a watcher, its connection and the test's side of it.
    const EVENTS: usize = 1_500;
    const PARTITIONS: u32 = 64;
    let folder = tempfile::tempdir().unwrap();
    let mut node = NodeService::new(folder.path().join("node"));
    let node_id = node.start(std::convert::identity).await;
    let endpoint = Endpoint::from_shared(format!("http://{}", node.addresses.control)).unwrap();
    let narrow = endpoint.initial_stream_window_size(1_024);
    let mut control = NodeClient::new(narrow.connect().await.unwrap());
    let slow = control.watch(WatchRequest {}).await.unwrap();
    let mut slow = slow.into_inner();

    let seen = Arc::new(AtomicUsize::new(0));
    let counting = {
        let (seen, addresses) = (Arc::clone(&seen), node.addresses);
        tokio::spawn(async move {
            // It may be slow, too, on a busy machine, and watches again.
            while let Ok(mut control) = addresses.control().await
                && let Ok(watch) = control.watch(WatchRequest {}).await
            {
                let mut watch = watch.into_inner();
                while let Ok(Some(_)) = watch.message().await {
                    seen.fetch_add(1, Ordering::Relaxed);
                }
            }
        })
    };
    let mut incarnation = 0;
    while seen.load(Ordering::Relaxed) < EVENTS {
        incarnation += 1;
        let partitions = (1..=PARTITIONS).map(|id| node.alone(id, node_id, incarnation));
        let plan = BootstrapRequest {
            partitions: partitions.collect(),
        };
        node.addresses.bootstrap(plan).await.unwrap();
        let stream = Stream::open(node.addresses.peer, "").await.unwrap();
        for partition in [1, PARTITIONS] {
            let session = eventually("a session is opened", PATIENCE, || async {
                stream.open_session(partition, LONG).await.ok()
            })
            .await;
            let value = stream.increment(partition, "c", session, 1).await;
            assert_eq!(value.unwrap(), 1);
        }
    }
    println!("{incarnation} incarnations");
    let mut read = 0;
    let ended = loop {
        match tokio::time::timeout(LONG, slow.message()).await.unwrap() {
            Ok(Some(_)) => read += 1,
            Ok(None) => panic!("the watch ended without a reason"),
            Err(status) => break status,
        }
    };
    assert_eq!(ended.code(), Code::ResourceExhausted, "{ended}");
    assert!(ended.message().contains("watch again"), "{ended}");
    assert!(read > 0 && read < EVENTS, "{read}");
    node.stop().await;
    counting.await.unwrap();
}
