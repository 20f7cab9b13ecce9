//! Snapshots that groups take of their own accord, and what of the log they allow to go.

use std::path::{Path, PathBuf};
use std::time::Duration;

use atomix_raft::{EngineOptions, Group, GroupEvent, RecoverError, StartError};

use crate::support::machine::Journal;
use crate::support::network::Network;
use crate::support::others::{History, Others};
use crate::support::{Cluster, PARTITION, copy, eventually, follower_record, open, options};

/// Options under which a few writes are enough for a snapshot.
fn eager(options: EngineOptions) -> EngineOptions {
    EngineOptions {
        snapshot_bytes: 20_000,
        snapshot_pause: Duration::from_secs(3600),
        log_file_size: 16 << 10,
        purge_threshold: 32 << 10,
        purge_interval: Duration::from_millis(10),
        ..options
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn writes_cause_snapshots_after_which_the_log_is_compacted_and_its_files_deleted() {
    let mut cluster = Cluster::start_with(1, eager).await;
    let mut events = cluster.group(1).subscribe();
    let mut expected = Vec::new();
    let mut snapshots = Vec::new();
    let mut compacted = Vec::new();
    while compacted.is_empty() {
        let line = format!("{} {}", expected.len(), "x".repeat(2_000));
        cluster.write(&line).await;
        expected.push(line);
        while let Ok(event) = events.try_recv() {
            match event {
                GroupEvent::SnapshotCreated { index } => snapshots.push(index),
                GroupEvent::LogCompacted { index } => compacted.push(index),
                _ => {}
            }
        }
        assert!(expected.len() < 100_000, "no snapshot: {snapshots:?}");
    }
    let [older, newer] = snapshots[..2] else {
        panic!("the log was compacted after {snapshots:?}");
    };
    assert!(newer > older);
    assert_eq!(compacted, [older], "back to the older of two snapshots");

    let log = cluster.directory(1).join("log");
    eventually("deleted files", || {
        (!log.join("0000000000000001.raftlog").exists()).then_some(())
    })
    .await;
    let status = cluster.group(1).status();
    assert!(status.compacted > 0 && status.snapshot >= newer);

    cluster.crash(1).await;
    cluster.restart(1).await;
    cluster.write("after the restart").await;
    expected.push("after the restart".to_owned());
    assert_eq!(cluster.converged().await, expected);
    let restarted = cluster.group(1).status();
    assert!(restarted.compacted >= older && restarted.snapshot >= newer);
}

/// The snapshots of a node, oldest first.
fn snapshot_files(directory: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(directory.join("snapshots/7")).unwrap();
    let mut files: Vec<_> = entries.map(|entry| entry.unwrap().path()).collect();
    files.sort();
    files
}

fn damage(file: &Path) {
    let mut bytes = std::fs::read(file).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(file, bytes).unwrap();
}

/// The group must neither start nor be recovered on what is left.
async fn is_refused(directory: &Path, compacted_upto: u64) {
    let engine = open(options(directory)).await;
    let record = engine.groups().pop().expect("the record is on disk");
    let lost = engine.look_at_lost(PARTITION).await;
    assert!(
        matches!(lost, Err(RecoverError::NoSnapshot { compacted, .. }) if compacted == compacted_upto),
        "{lost:?}"
    );
    let started = Group::start(&engine, record, Journal::default(), Network::new()).await;
    let refused = started.err().expect("it is not started");
    assert!(
        matches!(refused, StartError::NoSnapshot { compacted, .. } if compacted == compacted_upto),
        "{refused:?}"
    );
    let refused = refused.to_string();
    assert!(refused.contains("`store replace-node`"), "{refused}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_compacted_log_whose_snapshots_are_all_damaged_is_refused() {
    let mut cluster = Cluster::start(1).await;
    for round in 0..2 {
        cluster.write(&format!("{round}")).await;
        cluster.group(1).snapshot_now().await.unwrap();
    }
    let compacted = eventually("a compacted log", || {
        let compacted = cluster.group(1).status().compacted;
        (compacted > 0).then_some(compacted)
    })
    .await;
    cluster.write("last").await;
    cluster.crash(1).await;
    let files = snapshot_files(cluster.directory(1));
    assert_eq!(files.len(), 2, "{files:?}");
    for file in &files {
        damage(file);
    }
    is_refused(cluster.directory(1), compacted).await;
    for file in &files {
        std::fs::remove_file(file).unwrap();
    }
    is_refused(cluster.directory(1), compacted).await;
}

/// Nothing says then what was committed but the snapshot itself.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_fresh_member_whose_only_snapshot_is_damaged_is_refused() {
    const LEADER: (u64, u64) = (1, 2);
    let root = tempfile::tempdir().unwrap();
    let directory = root.path().join("node");
    let engine = open(options(&directory)).await;
    let record = follower_record();
    engine.create_group(&record).await.unwrap();
    let group = Group::start(&engine, record, Journal::default(), Network::new());
    let group = group.await.unwrap();
    let history = History::first_entries().with(1, &["one", "two"]);
    Others::of(&group).install(LEADER, &history).await;
    let compacted = eventually("a log behind the snapshot", || {
        let compacted = group.status().compacted;
        (compacted > 0).then_some(compacted)
    })
    .await;
    group.shutdown().await;
    drop((group, engine));

    let whole = root.path().join("whole");
    copy(&directory, &whole);
    let engine = open(options(&whole)).await;
    let group = Group::start(
        &engine,
        follower_record(),
        Journal::default(),
        Network::new(),
    );
    let group = group.await.unwrap();
    let found = group.with_machine(|journal| journal.lines.clone());
    assert_eq!(found, history.lines());
    group.shutdown().await;

    let files = snapshot_files(&directory);
    let [only] = &files[..] else {
        panic!("one was received: {files:?}");
    };
    damage(only);
    is_refused(&directory, compacted).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_damaged_newest_snapshot_costs_nothing() {
    let mut cluster = Cluster::start(1).await;
    for round in 0..3 {
        for number in 0..5 {
            cluster.write(&format!("{round}.{number}")).await;
        }
        cluster.group(1).snapshot_now().await.unwrap();
    }
    cluster.write("last").await;
    let expected = cluster.converged().await;
    cluster.crash(1).await;

    let files = snapshot_files(cluster.directory(1));
    let [_, newest] = &files[..] else {
        panic!("two are kept: {files:?}");
    };
    damage(newest);

    cluster.restart(1).await;
    cluster.leader().await;
    eventually("all lines", || {
        let found = cluster
            .group(1)
            .with_machine(|journal| journal.lines.clone());
        (found == expected).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_log_behind_a_snapshot_that_is_being_sent_stays() {
    let mut cluster = Cluster::start(3).await;
    cluster.write("before").await;
    cluster.converged().await;
    let leader = cluster.leader().await;
    let behind = leader % 3 + 1;
    cluster.crash(behind).await;
    let mut sent = 0;
    for round in 0..2 {
        for number in 0..5 {
            cluster.write(&format!("{round}.{number}")).await;
        }
        sent = cluster.group(leader).snapshot_now().await.unwrap();
    }
    eventually("a compacted log", || {
        (cluster.group(leader).status().compacted > 0).then_some(())
    })
    .await;

    cluster.network.holds_snapshots.send_replace(true);
    cluster.restart(behind).await;
    eventually("a snapshot under way", || {
        let chunks = &cluster.network.held_chunks;
        (chunks.load(std::sync::atomic::Ordering::Relaxed) > 0).then_some(())
    })
    .await;
    // Without the transfer, the log would be compacted to the first of these.
    for round in 2..5 {
        for number in 0..5 {
            cluster.write(&format!("{round}.{number}")).await;
        }
        cluster.group(leader).snapshot_now().await.unwrap();
        let compacted = cluster.group(leader).status().compacted;
        assert!(compacted <= sent, "{compacted} is behind {sent}");
    }
    cluster.network.holds_snapshots.send_replace(false);
    let lines = cluster.converged().await;
    assert_eq!(lines.len(), 26);
    eventually("the rest is compacted", || {
        (cluster.group(leader).status().compacted > sent).then_some(())
    })
    .await;
}
