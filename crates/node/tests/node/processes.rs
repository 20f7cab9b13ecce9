//! Three real nodes on loopback: what an application may rely on when nodes die.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::time::Duration;

use atomix_proto::multiraft::v1::failure::Reason;
use atomix_proto::multiraft::v1::{Operate, request};
use tokio::time::Instant;

use crate::support::driver::{Follower, NoReply, Stream, count, increment};
use crate::support::eventually;
use crate::support::nodes::{Cluster, PATIENCE, member_id};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_count_under_kill_9_is_at_least_the_acknowledged_and_at_most_the_possible() {
    const PARTITIONS: u32 = 4;
    const KILLS: u32 = 4;
    let mut cluster = Cluster::bootstrapped(PARTITIONS).await;
    let stop = Arc::new(AtomicBool::new(false));
    let clients: Vec<_> = (0..8_u32)
        .map(|number| {
            let stop = Arc::clone(&stop);
            let partition = number % PARTITIONS + 1;
            let follower = Follower::new(cluster.peers(), partition);
            tokio::spawn(count(follower, stop))
        })
        .collect();

    for kill in 0..KILLS {
        // The leader of each partition in turn.
        let victim = cluster.leader(kill % PARTITIONS + 1).await;
        cluster.nodes[victim].kill().await;
        for partition in 1..=PARTITIONS {
            cluster.leader(partition).await;
        }
        cluster.nodes[victim].start().await;
    }
    stop.store(true, Ordering::Relaxed);

    let mut counts = [(0, 0); PARTITIONS as usize];
    for (number, client) in clients.into_iter().enumerate() {
        let count = client.await.unwrap();
        assert!(count.acknowledged > 0, "client {number} made progress");
        let sum = &mut counts[number % PARTITIONS as usize];
        sum.0 += count.acknowledged;
        sum.1 += count.unknown;
    }
    for (partition, (acknowledged, unknown)) in (1..).zip(counts) {
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
        // All replicas end in the same state, those that were killed too.
        for node in 0..3 {
            let found = cluster.read_at(node, partition, "shared").await;
            assert_eq!(found, value, "partition {partition} at node {node}");
        }
    }
}

const LONG: Duration = Duration::from_secs(60);
/// Before the others elect.
const AT_ONCE: Duration = Duration::from_millis(200);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_restarted_at_once_never_reads_stale_state() {
    let mut cluster = Cluster::bootstrapped(1).await;
    let acknowledged = Arc::new(AtomicI64::new(0));
    let stop = Arc::new(AtomicBool::new(false));
    let writer = {
        let acknowledged = Arc::clone(&acknowledged);
        let stop = Arc::clone(&stop);
        let mut follower = Follower::new(cluster.peers(), 1);
        tokio::spawn(async move {
            let session = follower.open_session(Duration::from_secs(30)).await;
            let mut sequence = 0;
            while !stop.load(Ordering::Relaxed) {
                sequence += 1;
                let deadline = Instant::now() + PATIENCE;
                let value = follower
                    .increment("shared", session, sequence, deadline)
                    .await
                    .expect("an outcome in time")
                    .expect("an increment succeeds");
                acknowledged.fetch_max(value, Ordering::SeqCst);
            }
        })
    };

    let (mut rounds, mut quick, mut answered) = (0, 0, 0);
    // A leader that is back only after its lease proves nothing.
    while rounds < 5 || quick == 0 {
        assert!(rounds < 20, "no node was back within {AT_ONCE:?}");
        rounds += 1;
        let leader = cluster.leader(1).await;
        let before = acknowledged.load(Ordering::SeqCst);
        eventually("writes go on", PATIENCE, || async {
            (acknowledged.load(Ordering::SeqCst) > before + 20).then_some(())
        })
        .await;
        cluster.nodes[leader].kill().await;
        let killed = Instant::now();
        cluster.nodes[leader].spawn();
        let peer = cluster.nodes[leader].peer;
        let stream = eventually("the node is back", PATIENCE, || async {
            Stream::open(peer, "").await.ok()
        })
        .await;
        let back = killed.elapsed();
        println!("back after {back:?}");
        quick += usize::from(back < AT_ONCE);
        // It may refuse to read, but what it reads is not older than what was acknowledged before.
        let until = Instant::now() + Duration::from_secs(1);
        while Instant::now() < until {
            let floor = acknowledged.load(Ordering::SeqCst);
            match stream.get(1, "shared").await {
                Ok(value) => {
                    answered += 1;
                    assert!(
                        value >= floor,
                        "read {value} after {floor} was acknowledged"
                    );
                }
                Err(failure) => assert!(
                    failure.is_without_effect() || failure.reason().is_none(),
                    "{failure:?}"
                ),
            }
        }
        // It may have been a follower all the while. It leads again, and so does answer.
        let member = member_id(1, 1, leader);
        eventually("it reads", PATIENCE, || async {
            let floor = acknowledged.load(Ordering::SeqCst);
            if let Ok(value) = stream.get(1, "shared").await {
                assert!(
                    value >= floor,
                    "read {value} after {floor} was acknowledged"
                );
                return Some(());
            }
            let leader = cluster.leader(1).await;
            // It may be too far behind yet.
            let _ = cluster.nodes[leader].transfer(1, member).await;
            None
        })
        .await;
        answered += 1;
    }
    assert!(answered >= rounds, "each restarted leader has read");
    stop.store(true, Ordering::Relaxed);
    writer.await.unwrap();
    let leader = cluster.leader(1).await;
    let stream = Stream::open(cluster.nodes[leader].peer, "").await.unwrap();
    assert_eq!(
        stream.get(1, "shared").await.unwrap(),
        acknowledged.load(Ordering::SeqCst),
        "with one writer nothing is unknown ({answered} reads were answered)"
    );
}

#[tokio::test]
async fn a_repeated_request_is_applied_once_also_by_the_next_leader() {
    let mut cluster = Cluster::bootstrapped(1).await;
    let leader = cluster.leader(1).await;
    let stream = Stream::open(cluster.nodes[leader].peer, "a-store")
        .await
        .unwrap();
    let session = stream
        .open_session(1, Duration::from_secs(30))
        .await
        .unwrap();
    assert_eq!(stream.increment(1, "c", session, 1).await.unwrap(), 1);
    assert_eq!(stream.increment(1, "c", session, 1).await.unwrap(), 1);
    let (left, right) = tokio::join!(
        stream.increment(1, "c", session, 2),
        stream.increment(1, "c", session, 2)
    );
    assert_eq!((left.unwrap(), right.unwrap()), (2, 2));

    let follower = (leader + 1) % 3;
    let other = Stream::open(cluster.nodes[follower].peer, "a-store")
        .await
        .unwrap();
    // A follower that has just heard of its leader for the first time may know no address yet.
    let hinted = eventually("the follower names the leader", PATIENCE, || async {
        let refused = other.increment(1, "c", session, 3).await.unwrap_err();
        let NoReply::Failed(failure) = refused else {
            panic!("{refused:?}");
        };
        assert_eq!(failure.reason(), Reason::NotLeader);
        Some(failure.leader?.address)
    })
    .await;
    assert_eq!(hinted, cluster.nodes[leader].peer.to_string());

    cluster.nodes[leader].kill().await;
    let next = cluster.leader(1).await;
    assert_ne!(next, leader);
    let mut successor = Follower::new(vec![cluster.nodes[next].peer], 1);
    let deadline = Instant::now() + PATIENCE;
    let repeated = successor.increment("c", session, 2, deadline).await;
    assert_eq!(repeated.unwrap().unwrap(), 2, "the reply is remembered");
    let new = successor.increment("c", session, 3, deadline).await;
    assert_eq!(new.unwrap().unwrap(), 3);
    assert_eq!(successor.get("c").await, 3);
}

#[tokio::test]
async fn an_idle_session_expires_and_a_kept_one_does_not() {
    let cluster = Cluster::bootstrapped(1).await;
    let leader = cluster.leader(1).await;
    let stream = Stream::open(cluster.nodes[leader].peer, "").await.unwrap();
    let timeout = Duration::from_secs(3);
    let idle = stream.open_session(1, timeout).await.unwrap();
    let kept = stream.open_session(1, timeout).await.unwrap();
    let opened = Instant::now();

    let expired_after = eventually("the idle session ends", PATIENCE, || async {
        // On a busy machine a leader may not hear of its quorum for a while: that ends no session.
        let refused = stream.keep_alive(1, kept).await.unwrap();
        let reason = refused.map_or(Reason::Unavailable, |failure| failure.reason());
        assert_eq!(reason, Reason::Unavailable, "the kept session is alive");
        // A keep-alive of the idle session would keep it; an unrelated look does not.
        let metrics = cluster.nodes[leader].admin("/metrics").await;
        assert!(
            metrics.contains("atomix_node_partition_leader"),
            "{metrics}"
        );
        let log = std::fs::read_to_string(cluster.nodes[leader].log_file()).unwrap();
        log.contains("sessions expire").then(|| opened.elapsed())
    })
    .await;
    assert!(expired_after >= timeout, "only after {expired_after:?}");

    let lost = eventually("the idle session is lost", PATIENCE, || async {
        let refused = stream.increment(1, "c", idle, 1).await.err();
        refused.filter(|refused| refused.reason() != Some(Reason::Unavailable))
    })
    .await;
    assert_eq!(lost.reason(), Some(Reason::SessionLost));
    let value = eventually("the kept session counts", PATIENCE, || async {
        stream.increment(1, "c", kept, 1).await.ok()
    });
    assert_eq!(value.await, 1);
    let failure = eventually("the end is told again", PATIENCE, || async {
        let refused = stream.keep_alive(1, idle).await.unwrap();
        refused.filter(|failure| failure.reason() != Reason::Unavailable)
    });
    assert_eq!(failure.await.reason(), Reason::SessionLost);
}

#[tokio::test]
async fn an_outage_longer_than_the_timeout_ends_no_session() {
    let mut cluster = Cluster::bootstrapped(1).await;
    let timeout = Duration::from_secs(2);
    let mut follower = Follower::new(cluster.peers(), 1);
    let session = follower.open_session(timeout).await;
    for node in &mut cluster.nodes {
        node.kill().await;
    }
    let down = Instant::now();
    eventually(
        "the outage is longer than the timeout",
        PATIENCE,
        || async { (down.elapsed() > timeout + Duration::from_millis(200)).then_some(()) },
    )
    .await;
    for node in &mut cluster.nodes {
        node.start().await;
    }
    let deadline = Instant::now() + PATIENCE;
    let value = follower.increment("c", session, 1, deadline).await;
    assert_eq!(value.unwrap().unwrap(), 1);
}

#[tokio::test]
async fn a_leader_cut_off_from_the_others_longer_than_the_timeout_ends_no_session() {
    let cluster = Cluster::bootstrapped(1).await;
    let timeout = Duration::from_secs(3);
    let mut follower = Follower::new(cluster.peers(), 1);
    let session = follower.open_session(timeout).await;
    let leader = cluster.leader(1).await;
    let others = [(leader + 1) % 3, (leader + 2) % 3];
    for other in others {
        cluster.nodes[other].pause().await;
    }
    passes(timeout + Duration::from_secs(2)).await;
    for other in others {
        cluster.nodes[other].resume().await;
    }
    // A leader is acknowledged again. Whoever keeps the session alive takes a little longer.
    assert_eq!(follower.get("c").await, 0);
    passes(timeout / 3).await;
    let deadline = Instant::now() + PATIENCE;
    let value = follower.increment("c", session, 1, deadline).await;
    assert_eq!(value.unwrap().unwrap(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_that_was_stopped_never_answers_with_the_state_of_before() {
    const WRITES: i64 = 20;
    const READS: usize = 50;
    let cluster = Cluster::bootstrapped(1).await;
    let session = Follower::new(cluster.peers(), 1).open_session(LONG).await;
    let mut written = 0;
    for _ in 0..3 {
        let leader = cluster.leader(1).await;
        let stopped = &cluster.nodes[leader];
        let stream = Stream::open(stopped.peer, "").await.unwrap();
        eventually("the leader reads", PATIENCE, || async {
            stream
                .get(1, "c")
                .await
                .ok()
                .filter(|read| *read == written)
        })
        .await;
        stopped.pause().await;

        let mut others = cluster.peers();
        others.remove(leader);
        let mut others = Follower::new(others, 1);
        let target = written + WRITES;
        while written < target {
            written += 1;
            let sequence = u64::try_from(written).unwrap();
            let deadline = Instant::now() + PATIENCE;
            let value = others.increment("c", session, sequence, deadline).await;
            assert_eq!(value.unwrap().unwrap(), written);
        }
        let reads = (0..READS).map(|_| {
            let stream = stream.clone();
            tokio::spawn(async move { stream.get(1, "c").await })
        });
        let reads: Vec<_> = reads.collect();
        eventually(
            "the reads wait for the stopped leader",
            PATIENCE,
            || async { (stream.unsent() == 0 && stream.unanswered() >= READS).then_some(()) },
        )
        .await;
        stopped.resume().await;
        for read in reads {
            match read.await.unwrap() {
                Ok(value) => assert!(value >= written, "read {value} after {written} was written"),
                Err(failure) => assert!(
                    failure.is_without_effect() || failure.reason().is_none(),
                    "{failure:?}"
                ),
            }
        }
        assert_eq!(cluster.read_at(leader, 1, "c").await, written);
    }
}

async fn passes(time: Duration) {
    let begun = Instant::now();
    eventually("the time passes", PATIENCE, || async {
        (begun.elapsed() > time).then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_full_window_is_no_final_answer_and_there_is_room_again_once_replies_are_acknowledged() {
    const WINDOW: u64 = 4096;
    let cluster = Cluster::bootstrapped(1).await;
    let leader = cluster.leader(1).await;
    let stream = Stream::open(cluster.nodes[leader].peer, "").await.unwrap();
    let session = stream.open_session(1, Duration::from_secs(30)).await;
    let session = session.unwrap();
    let operate = |sequence, acknowledged| {
        let operate = Operate {
            session,
            sequence,
            acknowledged,
            operation: Some(increment("c")),
            open: Vec::new(),
        };
        stream.call(1, request::Body::Operate(operate))
    };
    let window = (1..=WINDOW).map(|sequence| operate(sequence, 0));
    for answer in futures::future::join_all(window).await {
        answer.unwrap();
    }
    // Refused before the log, so nothing remembers it: an earlier attempt may have been applied.
    let refused = operate(WINDOW + 1, 0).await.unwrap_err();
    assert_eq!(refused.reason(), Some(Reason::Unavailable), "{refused:?}");
    assert!(refused.is_without_effect());
    operate(WINDOW + 1, 1).await.unwrap();
    let value = stream.get(1, "c").await.unwrap();
    assert_eq!(value, i64::try_from(WINDOW).unwrap() + 1);
}
