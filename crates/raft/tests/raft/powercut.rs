//! A power cut at every moment of a workload of several groups: whatever the disk did with that
//! which was not synced, everything acknowledged is there, votes are kept, and the groups go on.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use atomix_raft::{Engine, EngineOptions, Group, GroupRecord, NodeId, PartitionId, ProposeError};
use bytes::Bytes;
use futures::StreamExt as _;

use crate::support::machine::Journal;
use crate::support::network::Network;
use crate::support::others::{History, Others};
use crate::support::powercut::{Change, Recorder, images, write_image};
use crate::support::{eventually, follower_record, open, options, pause, soon};

/// A group with this member alone.
const ALONE: PartitionId = PartitionId(1);
/// A group in which this member follows.
const FOLLOWS: PartitionId = PartitionId(2);
/// A group that is made and deleted.
const DELETED: PartitionId = PartitionId(3);

/// Another node.
const PEER: NodeId = NodeId(7);

/// Directories that are checked at the same time.
const CHECKS_AT_ONCE: usize = 12;

fn record(partition_id: PartitionId, size: u64) -> GroupRecord {
    let mut record = follower_record();
    record.partition_id = partition_id;
    record.initializer = Some(record.member_id);
    record.members.retain(|id, _| id.0 <= size);
    record
}

/// Small files, so that the log is purged, and its live entries moved, all the time.
fn small_files(directory: &Path) -> EngineOptions {
    EngineOptions {
        log_file_size: 2 << 10,
        purge_threshold: 4 << 10,
        purge_interval: Duration::from_millis(10),
        ..options(directory)
    }
}

async fn start(engine: &Engine, record: GroupRecord) -> Group<Journal> {
    Group::start(engine, record, Journal::default(), Network::new())
        .await
        .expect("the group starts")
}

async fn write(group: &Group<Journal>, line: &str) {
    let deadline = soon();
    loop {
        let payload = Bytes::copy_from_slice(line.as_bytes());
        match group.propose(payload, deadline).await {
            Ok(_) => return,
            Err(ProposeError::NotLeader(_) | ProposeError::Unavailable(_)) => pause().await,
            Err(error) => panic!("{line} is not written: {error}"),
        }
    }
}

/// What was acknowledged, and when: after how many changes of the disk.
#[derive(Default)]
struct Acknowledged {
    created: BTreeMap<PartitionId, usize>,
    /// When the deletion of the last group began, and when it was acknowledged.
    deleting: usize,
    deleted: usize,
    lines: Vec<(usize, String)>,
    votes: Vec<(usize, u64, u64)>,
    histories: Vec<(usize, History)>,
    /// Boot counters seen of another node.
    boots: Vec<(usize, u64)>,
}

impl Acknowledged {
    /// What the follower certainly has, and what it may have instead.
    fn history(&self, position: usize) -> (History, History) {
        let is_before = |(at, _): &&(usize, History)| *at <= position;
        let count = self.histories.iter().take_while(is_before).count();
        let known = count.checked_sub(1).map(|last| &self.histories[last].1);
        let known = known.cloned().unwrap_or_default();
        let next = self.histories.get(count).map_or(&known, |(_, next)| next);
        (known.common(next), next.clone())
    }
}

/// One write to each group at a time; every kind of change that a group makes to the disk.
async fn work(engine: &Engine, recorder: &Recorder) -> Acknowledged {
    let now = || recorder.position();
    let mut acknowledged = Acknowledged::default();
    for (partition, members) in [(ALONE, 1), (FOLLOWS, 3)] {
        engine
            .create_group(&record(partition, members))
            .await
            .unwrap();
        acknowledged.created.insert(partition, now());
    }
    let alone = start(engine, record(ALONE, 1)).await;
    alone.initialize().await.unwrap();
    let follows = start(engine, record(FOLLOWS, 3)).await;
    let others = Others::of(&follows);
    let mut history = History::first_entries();
    let mut written = 0;
    let mut term = 0;

    for round in 0..4 {
        for _ in 0..4 {
            let line = format!("line {written} {}", "x".repeat(300));
            write(&alone, &line).await;
            acknowledged.lines.push((now(), line));
            written += 1;
        }
        // Another leader each round. A member votes for nobody while it hears of a leader.
        term += 1;
        let leader = (term, 2 + round % 2);
        let deadline = soon();
        while !others.ask_for_vote(term, leader.1).await.granted {
            assert!(tokio::time::Instant::now() < deadline, "it never votes");
            pause().await;
        }
        acknowledged.votes.push((now(), term, leader.1));
        // It overwrites the last entry of the one before, which was not committed.
        let keep = if round == 0 { 0 } else { history.0.len() - 1 };
        history.0.truncate(keep.max(2));
        history = history.with(term, &["a", "b"]);
        assert!(others.replicate(leader, &history, keep, 1).await);
        acknowledged.histories.push((now(), history.clone()));
        let from = history.0.len();
        history = history.with(term, &["c", "may be overwritten"]);
        assert!(others.replicate(leader, &history, from, from).await);
        acknowledged.histories.push((now(), history.clone()));

        engine.boot_counters().admit(PEER, round + 1).unwrap();
        acknowledged.boots.push((now(), round + 1));
        if round == 1 {
            // The log ends before this snapshot.
            history = history.with(term, &["d", "e", "f", "g"]);
            others.install(leader, &history).await;
            acknowledged.histories.push((now(), history.clone()));
            let from = history.0.len();
            history = history.with(term, &["h", "may be overwritten"]);
            assert!(others.replicate(leader, &history, from, from).await);
            acknowledged.histories.push((now(), history.clone()));
        }
        if round >= 2 {
            alone.snapshot_now().await.unwrap();
        }
        if round == 2 {
            let record = record(DELETED, 1);
            engine.create_group(&record).await.unwrap();
            acknowledged.created.insert(DELETED, now());
            acknowledged.deleting = now();
            engine.delete_group(DELETED).await.unwrap();
            acknowledged.deleted = now();
        }
    }
    eventually("purged files", || {
        let is_purged =
            |change: &Change| matches!(change, Change::Removed(_)) && change.is_of(".raftlog");
        recorder.changes().iter().any(is_purged).then_some(())
    })
    .await;
    alone.shutdown().await;
    follows.shutdown().await;
    assert_eq!(engine.failure(), None);
    acknowledged
}

/// Opens what a power cut left, and looks for everything that was acknowledged before.
async fn check(
    directory: &Path,
    position: usize,
    acknowledged: &Acknowledged,
) -> Result<(), String> {
    let engine = Engine::open(small_files(directory)).map_err(|error| error.to_string())?;
    let groups = engine.groups();
    let exists = |partition| groups.iter().any(|record| record.partition_id == partition);
    for (partition, created) in &acknowledged.created {
        let may_be_deleted = *partition == DELETED && position > acknowledged.deleting;
        if *created <= position && !may_be_deleted && !exists(*partition) {
            return Err(format!("partition {partition} is gone"));
        }
    }
    if acknowledged.deleted <= position && exists(DELETED) {
        return Err("the deleted group is back".to_owned());
    }

    let boots = acknowledged.boots.iter();
    if let Some((_, seen)) = boots.rev().find(|(at, _)| *at <= position)
        && engine.boot_counters().admit(PEER, seen - 1).is_ok()
    {
        return Err(format!("boot counter {seen} is forgotten"));
    }

    if exists(ALONE) {
        let group = start(&engine, record(ALONE, 1)).await;
        group
            .initialize()
            .await
            .map_err(|error| error.to_string())?;
        write(&group, "after the cut").await;
        let found = group.with_machine(|journal| journal.lines.clone());
        group.shutdown().await;
        let all = acknowledged.lines.iter();
        let before = all.clone().filter(|(at, _)| *at <= position).count();
        let Some((last, lines)) = found.split_last() else {
            return Err("the write after the cut is not there".to_owned());
        };
        let is_prefix = all.map(|(_, line)| line).take(lines.len()).eq(lines);
        if last != "after the cut" || !is_prefix || lines.len() < before {
            return Err(format!("{before} lines were acknowledged, found {lines:?}"));
        }
    }
    if exists(FOLLOWS) {
        let group = start(&engine, record(FOLLOWS, 3)).await;
        let checked = check_follower(&group, position, acknowledged).await;
        group.shutdown().await;
        checked?;
    }
    engine
        .failure()
        .map_or(Ok(()), |error| Err(error.to_string()))
}

async fn check_follower(
    group: &Group<Journal>,
    position: usize,
    acknowledged: &Acknowledged,
) -> Result<(), String> {
    let others = Others::of(group);
    let votes = acknowledged.votes.iter();
    if let Some((_, term, candidate)) = votes.rev().find(|(at, _, _)| *at <= position) {
        let rival = 5 - candidate;
        let reply = others.ask_for_vote(*term, rival).await;
        let vote = reply.vote.unwrap();
        if (vote.term, vote.member_id) < (*term, 0) {
            return Err(format!("the vote of term {term} is forgotten: {vote:?}"));
        }
        if reply.granted || (vote.term == *term && vote.member_id != *candidate) {
            return Err(format!(
                "voted for {candidate} in {term}, and again: {vote:?}"
            ));
        }
    }
    // The next leader finds every acknowledged entry, and goes on from there.
    let leader = (100, 3);
    let (known, next) = acknowledged.history(position);
    for history in [next, known] {
        let from = history.0.len();
        let longer = if from == 0 {
            History::first_entries()
        } else {
            history.clone()
        };
        let longer = longer.with(leader.0, &["after the cut"]);
        let last = longer.0.len() - 1;
        if others.replicate(leader, &longer, from, last).await {
            if !group.wait_applied(last as u64, soon()).await {
                return Err("the entry after the cut is never applied".to_owned());
            }
            let found = group.with_machine(|journal| journal.lines.clone());
            if found != longer.lines() {
                return Err(format!("applied {found:?} instead of {:?}", longer.lines()));
            }
            return Ok(());
        }
    }
    Err("acknowledged entries are gone".to_owned())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn nothing_acknowledged_is_lost_when_the_power_is_cut_at_any_moment() {
    let root = tempfile::tempdir().unwrap();
    let directory = root.path().join("node");
    let recorder = Arc::new(Recorder::new(&directory));
    let engine = open(EngineOptions {
        faults: Some(recorder.clone()),
        ..small_files(&directory)
    })
    .await;
    let acknowledged = Arc::new(work(&engine, &recorder).await);
    drop(engine);

    let changes = recorder.changes();
    let is_rewrite =
        |change: &&Change| matches!(change, Change::Written(..)) && change.is_of(".rewrite");
    let rewritten = changes.iter().filter(is_rewrite);
    assert!(rewritten.count() > 1, "live entries were moved");
    let images = images(&changes, |_| true);
    println!("{} changes, {} images", changes.len(), images.len());
    let checks = images
        .into_iter()
        .enumerate()
        .map(|(number, (image, position, loss))| {
            let directory = root.path().join(format!("image-{number}"));
            let acknowledged = acknowledged.clone();
            let around: Vec<String> = changes
                [position.saturating_sub(3)..changes.len().min(position + 1)]
                .iter()
                .map(|change| format!("{change:?}").chars().take(80).collect())
                .collect();
            tokio::spawn(async move {
                write_image(&image, &directory);
                let checked = check(&directory, position, &acknowledged).await;
                checked.map_err(|error| format!("{loss:?} at {position}, {around:?}: {error}"))
            })
        });
    let results: Vec<_> = futures::stream::iter(checks)
        .buffer_unordered(CHECKS_AT_ONCE)
        .collect()
        .await;
    let failures: Vec<_> = results
        .into_iter()
        .filter_map(|result| result.expect("no panic").err())
        .collect();
    assert!(failures.is_empty(), "{}: {failures:#?}", failures.len());
}
