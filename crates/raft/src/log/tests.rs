//! What a group's log is after truncations, purges and reopening.

#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt as _;
use openraft::EntryPayload;
use openraft::RaftLogReader as _;
use openraft::storage::{RaftLogStorage as _, RaftLogStorageExt as _};
use openraft::type_config::TypeConfigExt as _;
use parking_lot::{Condvar, Mutex};

use crate::device::{Device, DiskFaults};
use crate::engine::{Claim, Engine};
use crate::error::OpenError;
use crate::ids::{MemberId, PartitionId};
use crate::log::{Files, GroupLog, LogEngine, Operation};
use crate::options::{EngineOptions, WriteFailure};
use crate::record::{GroupRecord, Timings};
use crate::types::{Entry, IoFlushed, LogId, Payload, TypeConfig, Vote};

pub(super) fn record() -> GroupRecord {
    GroupRecord {
        partition_id: PartitionId(5),
        member_id: MemberId(1),
        store_uid: "store".to_owned(),
        incarnation: 1,
        initializer: None,
        members: std::collections::BTreeMap::new(),
        plan_digest: bytes::Bytes::new(),
        timings: Timings::default(),
        observer: false,
        replaces: None,
        expected_membership: None,
        admitted: false,
    }
}

async fn open(directory: &Path) -> (Engine, GroupLog) {
    let engine = Engine::open(EngineOptions {
        on_write_failure: WriteFailure::Report,
        ..EngineOptions::new(directory)
    });
    let engine = engine.unwrap();
    engine.create_group(&record()).await.unwrap();
    let Claim { log, .. } = engine.claim(&record()).unwrap();
    (engine, log)
}

fn entry(term: u64, index: u64) -> Entry {
    Entry {
        log_id: LogId::new_term_index(term, index),
        payload: EntryPayload::Normal(Payload(bytes::Bytes::from(format!("{term}.{index}")))),
    }
}

async fn append(log: &mut GroupLog, term: u64, range: std::ops::Range<u64>) {
    let entries: Vec<_> = range.map(|index| entry(term, index)).collect();
    log.blocking_append(entries).await.unwrap();
}

/// Purged index, last id, and the (term, index) of every entry.
async fn content(log: &mut GroupLog) -> (Option<u64>, Option<LogId>, Vec<(u64, u64)>) {
    let state = log.get_log_state().await.unwrap();
    let entries = log.try_get_log_entries(..).await.unwrap();
    let ids = entries
        .iter()
        .map(|entry| (entry.log_id.leader_id.term, entry.log_id.index))
        .collect();
    let purged = state.last_purged_log_id.map(|purged| purged.index);
    (purged, state.last_log_id, ids)
}

#[tokio::test]
async fn truncated_entries_stay_away_over_restarts() {
    let directory = tempfile::tempdir().unwrap();
    let (engine, mut log) = open(directory.path()).await;
    append(&mut log, 1, 0..10).await;
    log.truncate_after(Some(LogId::new_term_index(1, 4)))
        .await
        .unwrap();
    drop((engine, log));

    let (engine, mut log) = open(directory.path()).await;
    let first_five: Vec<_> = (0..5).map(|index| (1, index)).collect();
    let last = Some(LogId::new_term_index(1, 4));
    assert_eq!(content(&mut log).await, (None, last, first_five.clone()));
    append(&mut log, 3, 5..7).await;
    drop((engine, log));

    let (engine, mut log) = open(directory.path()).await;
    let expected = [first_five, vec![(3, 5), (3, 6)]].concat();
    let last = Some(LogId::new_term_index(3, 6));
    assert_eq!(content(&mut log).await, (None, last, expected));
    log.truncate_after(None).await.unwrap();
    drop((engine, log));

    let (_engine, mut log) = open(directory.path()).await;
    assert_eq!(content(&mut log).await, (None, None, vec![]));
    append(&mut log, 4, 0..2).await;
    let last = Some(LogId::new_term_index(4, 1));
    assert_eq!(content(&mut log).await, (None, last, vec![(4, 0), (4, 1)]));
}

/// Whoever moves entries to other files at the same time would panic.
#[tokio::test]
async fn the_place_of_entries_that_were_cut_off_before_a_restart_is_taken_alone() {
    let directory = tempfile::tempdir().unwrap();
    let (engine, mut log) = open(directory.path()).await;
    append(&mut log, 1, 0..10).await;
    log.truncate_after(Some(LogId::new_term_index(1, 4)))
        .await
        .unwrap();
    drop((engine, log));

    let next = |index| Operation::Append(vec![entry(2, index)]);
    let (engine, mut log) = open(directory.path()).await;
    assert!(log.replaces_when_opened(&next(5)), "5 to 9 are on the disk");
    append(&mut log, 2, 5..6).await;
    drop((engine, log));

    let (_engine, log) = open(directory.path()).await;
    assert!(!log.replaces_when_opened(&next(6)));
}

#[tokio::test]
async fn a_purge_within_and_beyond_the_log_keeps_vote_and_committed() {
    let directory = tempfile::tempdir().unwrap();
    let vote = Vote::new_committed(7, 1);
    let (engine, mut log) = open(directory.path()).await;
    append(&mut log, 1, 0..10).await;
    log.save_vote(vote).await.unwrap();
    log.save_committed(Some(LogId::new_term_index(1, 9)));
    log.purge(LogId::new_term_index(1, 3));
    append(&mut log, 2, 10..11).await;
    drop((engine, log));

    let (engine, mut log) = open(directory.path()).await;
    let mut expected: Vec<_> = (4..10).map(|index| (1, index)).collect();
    expected.push((2, 10));
    let last = Some(LogId::new_term_index(2, 10));
    assert_eq!(content(&mut log).await, (Some(3), last, expected));
    assert_eq!(log.read_vote().await.unwrap(), Some(vote));
    let committed = Some(LogId::new_term_index(1, 9));
    assert_eq!(log.read_committed().await.unwrap(), committed);

    // An installed snapshot is ahead of the log.
    let snapshot = LogId::new_term_index(5, 40);
    log.purge(snapshot);
    assert_eq!(content(&mut log).await, (Some(40), Some(snapshot), vec![]));
    drop((engine, log));

    let (engine, mut log) = open(directory.path()).await;
    assert_eq!(content(&mut log).await, (Some(40), Some(snapshot), vec![]));
    assert_eq!(log.read_vote().await.unwrap(), Some(vote));
    append(&mut log, 6, 41..43).await;
    drop((engine, log));

    let (_engine, mut log) = open(directory.path()).await;
    let last = Some(LogId::new_term_index(6, 42));
    assert_eq!(
        content(&mut log).await,
        (Some(40), last, vec![(6, 41), (6, 42)])
    );
}

#[tokio::test]
async fn an_append_with_a_hole_fails_and_leaves_the_log_readable() {
    let directory = tempfile::tempdir().unwrap();
    let (engine, mut log) = open(directory.path()).await;
    append(&mut log, 1, 0..3).await;
    let refused = log.blocking_append([entry(1, 5)]).await;
    assert!(refused.is_err());
    assert!(engine.failure().is_some());
    drop((engine, log));

    let image = tempfile::tempdir().unwrap();
    copy(directory.path(), image.path());
    let (_engine, mut log) = open(image.path()).await;
    let (_, _, entries) = content(&mut log).await;
    assert_eq!(entries, [(1, 0), (1, 1), (1, 2)]);
}

/// The engine of a failed writer stays open, so a copy is looked at.
fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy(&entry.path(), &target);
        } else {
            std::fs::copy(entry.path(), target).unwrap();
        }
    }
}

const BATCHES: u64 = 6;

/// A log of several batches with one entry each, which tests damage.
struct Small {
    root: tempfile::TempDir,
    bytes: Vec<u8>,
    /// How long the file was after each batch.
    ends: Vec<usize>,
}

impl Small {
    async fn written() -> Self {
        // In memory where that is possible: thousands of starts sync for nothing here.
        let in_memory = tempfile::tempdir_in("/dev/shm");
        let root = in_memory.or_else(|_| tempfile::tempdir()).unwrap();
        let pristine = root.path().join("pristine");
        let (engine, mut log) = open(&pristine).await;
        let mut ends = Vec::new();
        for index in 0..BATCHES {
            append(&mut log, 1, index..index + 1).await;
            // Behind its end lies what the engine has reserved, until it closes the file.
            let bytes = std::fs::read(log_file(&pristine)).unwrap();
            let last = bytes.iter().rposition(|byte| *byte != 0).unwrap();
            ends.push(last + 1);
        }
        drop((engine, log));
        let bytes = std::fs::read(log_file(&pristine)).unwrap();
        assert_eq!(
            ends.last(),
            Some(&bytes.len()),
            "a batch ends by a checksum"
        );
        copy(&pristine, &root.path().join("damaged"));
        Self { root, bytes, ends }
    }

    /// How many entries a node finds that starts on the log with these bytes; `None` = it refuses.
    async fn entries_of(&self, bytes: &[u8], damage: &dyn std::fmt::Debug) -> Option<u64> {
        let directory = self.root.path().join("damaged");
        std::fs::write(log_file(&directory), bytes).unwrap();
        let entries = match Engine::open(EngineOptions::new(&directory)) {
            Ok(engine) => entries_of_open(engine, damage).await,
            Err(OpenError::Damaged { .. }) => {
                let left = std::fs::read(log_file(&directory)).unwrap();
                assert!(left == bytes, "{damage:?}: refused and changed");
                return None;
            }
            Err(OpenError::Incomplete { .. }) => None,
            Err(error) => panic!("{damage:?}: {error}"),
        };
        std::fs::remove_dir_all(&directory).unwrap();
        copy(&self.root.path().join("pristine"), &directory);
        entries
    }
}

async fn entries_of_open(engine: Engine, damage: &dyn std::fmt::Debug) -> Option<u64> {
    if engine.groups().is_empty() {
        return Some(0);
    }
    let claimed = engine.claim(&record());
    let Claim { mut log, .. } = claimed.unwrap_or_else(|error| panic!("{damage:?}: {error}"));
    let (purged, last, entries) = content(&mut log).await;
    let found = entries.len() as u64;
    let first_ones = (0..found).map(|index| (1, index));
    assert!(entries.into_iter().eq(first_ones), "{damage:?}");
    let last_found = found.checked_sub(1);
    let last_found = last_found.map(|index| LogId::new_term_index(1, index));
    assert_eq!((purged, last), (None, last_found), "{damage:?}");
    Some(found)
}

fn log_file(directory: &Path) -> PathBuf {
    directory.join("log").join("0000000000000001.raftlog")
}

#[tokio::test]
async fn a_flip_of_any_bit_leaves_all_or_all_but_the_last_batch_or_is_refused() {
    let small = Small::written().await;
    let [.., last_batch, end] = small.ends[..] else {
        panic!("several batches: {:?}", small.ends);
    };
    let mut bytes = small.bytes.clone();
    for position in 0..end {
        for bit in 0..8 {
            bytes[position] ^= 1 << bit;
            let found = small.entries_of(&bytes, &(position, bit)).await;
            bytes[position] ^= 1 << bit;
            if position < last_batch {
                assert_eq!(found, None, "byte {position}, bit {bit}: others follow");
            } else {
                let expected = [None, Some(BATCHES - 1)];
                assert!(
                    expected.contains(&found),
                    "byte {position}, bit {bit}: {found:?}"
                );
            }
        }
    }
}

/// Nothing tells a log that was cut from one that was never longer.
#[tokio::test]
async fn a_log_cut_at_any_byte_has_the_batches_that_are_whole_or_is_refused() {
    let small = Small::written().await;
    let mut refused = Vec::new();
    for length in 0..=small.bytes.len() {
        let whole = small.ends.iter().filter(|end| **end <= length).count() as u64;
        // What is missing is missing, or the disk had reserved room for it.
        let cut = small.bytes[..length].to_vec();
        let mut zeroed = cut.clone();
        zeroed.resize(small.bytes.len() + 100, 0);
        for bytes in [cut, zeroed] {
            match small.entries_of(&bytes, &length).await {
                Some(found) => assert_eq!(found, whole, "cut at {length}"),
                None => refused.push(length),
            }
        }
    }
    // A torn batch is never a reason to refuse once the node and its group are on disk.
    let first = small.ends[0];
    assert!(refused.iter().all(|length| *length < first), "{refused:?}");
}

#[tokio::test]
async fn appends_of_all_groups_complete_in_the_order_in_which_they_were_made() {
    let directory = tempfile::tempdir().unwrap();
    let (engine, first) = open(directory.path()).await;
    let other = GroupRecord {
        partition_id: PartitionId(6),
        ..record()
    };
    engine.create_group(&other).await.unwrap();
    let Claim { log: second, .. } = engine.claim(&other).unwrap();
    let mut completions = Vec::new();
    for index in 0..500 {
        for log in [&first, &second] {
            let (sender, receiver) = TypeConfig::oneshot();
            log.append(vec![entry(1, index)], IoFlushed::signal(sender));
            completions.push(receiver);
        }
    }
    // Whichever is looked at: when it is complete, all before it are.
    let step = 97;
    let mut completions = completions.into_iter();
    while completions.len() > 0 {
        let mut some: Vec<_> = completions.by_ref().take(step).collect();
        some.pop().unwrap().await.unwrap().unwrap();
        for earlier in some {
            let completed = tokio::task::unconstrained(earlier).now_or_never();
            completed.unwrap().unwrap().unwrap();
        }
    }
}

/// Counts the syncs of the log, which wait while the disk stands still.
#[derive(Default)]
struct Standstill {
    state: Mutex<Syncs>,
    changed: Condvar,
}

/// How long anything may take that must happen.
const PATIENCE: Duration = Duration::from_secs(30);

#[derive(Default)]
struct Syncs {
    stands_still: bool,
    begun: usize,
}

impl Standstill {
    fn stop(&self) {
        let mut state = self.state.lock();
        state.stands_still = true;
        state.begun = 0;
    }

    fn wait_for_a_sync(&self) {
        let mut state = self.state.lock();
        let is_none = |state: &mut Syncs| state.begun == 0;
        let waited = self.changed.wait_while_for(&mut state, is_none, PATIENCE);
        assert!(!waited.timed_out(), "never synced");
    }

    fn go_on(&self) {
        self.state.lock().stands_still = false;
        self.changed.notify_all();
    }
}

impl DiskFaults for Standstill {
    fn sync(&self, path: &Path) -> std::io::Result<()> {
        if path.extension().is_some_and(|kind| kind == "raftlog") {
            let mut state = self.state.lock();
            state.begun += 1;
            self.changed.notify_all();
            self.changed
                .wait_while_for(&mut state, |state| state.stands_still, PATIENCE);
        }
        Ok(())
    }
}

#[tokio::test]
async fn what_all_groups_append_while_the_disk_syncs_is_synced_at_once() {
    let directory = tempfile::tempdir().unwrap();
    let disk = Arc::new(Standstill::default());
    let engine = Engine::open(EngineOptions {
        faults: Some(disk.clone()),
        ..EngineOptions::new(directory.path())
    });
    let engine = engine.unwrap();
    let mut logs = Vec::new();
    for number in 1..=3 {
        let group = GroupRecord {
            partition_id: PartitionId(number),
            ..record()
        };
        engine.create_group(&group).await.unwrap();
        let Claim { log, .. } = engine.claim(&group).unwrap();
        logs.push(log);
    }
    let mut completions = Vec::new();
    let mut append = |log: &GroupLog, index| {
        let (sender, receiver) = TypeConfig::oneshot();
        log.append(vec![entry(1, index)], IoFlushed::signal(sender));
        completions.push(receiver);
    };

    disk.stop();
    let [first, others @ ..] = &logs[..] else {
        panic!("three groups");
    };
    append(first, 0);
    disk.wait_for_a_sync();
    for index in 0..100 {
        for log in others {
            append(log, index);
        }
    }
    disk.go_on();
    for completion in completions {
        completion.await.unwrap().unwrap();
    }
    assert_eq!(
        disk.state.lock().begun,
        2,
        "that of the first append, and one for all others"
    );
}

#[tokio::test]
async fn entries_that_are_no_longer_in_memory_are_read_from_the_disk_in_order() {
    let directory = tempfile::tempdir().unwrap();
    let (_engine, mut log) = open(directory.path()).await;
    // More than what is kept in memory.
    let entries: Vec<_> = (0..24)
        .map(|index| Entry {
            payload: EntryPayload::Normal(Payload(vec![1; 512 << 10].into())),
            ..entry(1, index)
        })
        .collect();
    for entry in entries {
        log.blocking_append([entry]).await.unwrap();
    }
    let (_, _, all) = content(&mut log).await;
    assert!(all.into_iter().eq((0..24).map(|index| (1, index))));
    // Batches for a member that lags behind: at least one entry, from where it is, without a gap.
    let mut next = 0;
    let mut batches = 0;
    while next < 24 {
        let batch = log.limited_get_log_entries(next, 24).await.unwrap();
        for entry in batch {
            assert_eq!(entry.log_id.index, next);
            next += 1;
        }
        batches += 1;
    }
    assert!(batches >= 12, "{batches} batches of at most 1 MiB");
    let middle = log.try_get_log_entries(5..=20).await.unwrap();
    let middle = middle.iter().map(|entry| entry.log_id.index);
    assert!(middle.eq(5..=20));
}

#[tokio::test]
async fn a_log_without_a_node_id_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let log = directory.path().join("log");
    std::fs::create_dir(&log).unwrap();
    let config = raft_engine::Config {
        dir: log.to_string_lossy().into_owned(),
        enable_log_recycle: false,
        ..raft_engine::Config::default()
    };
    let files = Files::new(std::collections::HashMap::new(), Device::default());
    let engine = LogEngine::open_with_file_system(config, Arc::new(files)).unwrap();
    let mut batch = raft_engine::LogBatch::default();
    batch.put(5, b"vote".to_vec(), Vec::new()).unwrap();
    engine.write(&mut batch, true).unwrap();
    drop(engine);
    let refused = Engine::open(EngineOptions::new(directory.path())).err();
    let refused = refused.unwrap().to_string();
    assert!(refused.contains("the log has no node id"), "{refused}");

    // A node id that was not written before a crash is written at the next start.
    let directory = tempfile::tempdir().unwrap();
    let (engine, log) = open(directory.path()).await;
    let node_id = engine.node_id();
    drop((engine, log));
    std::fs::remove_file(directory.path().join("node-id")).unwrap();
    let (engine, _log) = open(directory.path()).await;
    assert_eq!(engine.node_id(), node_id);
    assert!(directory.path().join("node-id").exists());
}

#[tokio::test]
async fn a_batch_for_another_member_ends_at_its_size_or_after_one_entry() {
    let directory = tempfile::tempdir().unwrap();
    let (_engine, mut log) = open(directory.path()).await;
    let sizes = [10, 400_000, 400_000, 400_000, 3_000_000, 10];
    let entries: Vec<_> = (0..)
        .zip(sizes)
        .map(|(index, size)| Entry {
            payload: EntryPayload::Normal(Payload(vec![1; size].into())),
            ..entry(1, index)
        })
        .collect();
    log.blocking_append(entries).await.unwrap();
    let mut lengths = Vec::new();
    let mut next = 0;
    while next < 6 {
        let batch = log.limited_get_log_entries(next, 6).await.unwrap();
        lengths.push(batch.len());
        next += batch.len() as u64;
    }
    assert_eq!(lengths, [3, 1, 1, 1]);
}
