//! What a damaged, torn, failing or foreign disk does to a log: nothing acknowledged is lost
//! without a word.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use atomix_raft::{
    DiskFaults, Engine, EngineOptions, Group, GroupRecord, MemberAddress, MemberId, NodeId,
    OpenError, ProposeError, Timings,
};
use bytes::Bytes;

use tokio::time::Instant;

use crate::support::machine::Journal;
use crate::support::network::Network;
use crate::support::{PARTITION, copy, open, options, pause, soon};

fn record(node_id: NodeId) -> GroupRecord {
    let address = MemberAddress {
        node_id,
        address: "node-1:5681".to_owned(),
    };
    GroupRecord {
        partition_id: PARTITION,
        member_id: MemberId(1),
        store_uid: "store-of-the-test".to_owned(),
        incarnation: 1,
        initializer: Some(MemberId(1)),
        members: BTreeMap::from([(MemberId(1), address)]),
        plan_digest: Bytes::new(),
        timings: Timings {
            election_timeout: std::time::Duration::from_millis(100),
            ..Timings::default()
        },
        observer: false,
        replaces: None,
        expected_membership: None,
        admitted: false,
    }
}

pub(crate) async fn start(options: EngineOptions) -> (Engine, Group<Journal>) {
    let engine = open(options).await;
    let record = record(engine.node_id());
    engine.create_group(&record).await.expect("a group");
    let group = start_group(&engine, record).await;
    group.initialize().await.expect("initialized");
    (engine, group)
}

async fn start_group(engine: &Engine, record: GroupRecord) -> Group<Journal> {
    Group::start(engine, record, Journal::default(), Network::new())
        .await
        .expect("the group starts")
}

pub(crate) async fn write(group: &Group<Journal>, line: &str) -> Result<u64, ProposeError> {
    let deadline = soon();
    loop {
        let payload = Bytes::copy_from_slice(line.as_bytes());
        match group.propose(payload, deadline).await {
            Err(error @ (ProposeError::NotLeader(_) | ProposeError::Unavailable(_))) => {
                let status = group.status();
                assert!(
                    Instant::now() < deadline,
                    "never written: {error}, {status:?}"
                );
                pause().await;
            }
            outcome => return outcome,
        }
    }
}

/// A directory with `lines` acknowledged writes, one batch each.
async fn written(directory: &Path, lines: usize) -> Vec<String> {
    let (_engine, group) = start(options(directory)).await;
    let lines: Vec<_> = (0..lines).map(|number| format!("line {number}")).collect();
    for line in &lines {
        write(&group, line).await.expect("acknowledged");
    }
    group.shutdown().await;
    lines
}

fn log_file(directory: &Path) -> PathBuf {
    directory.join("log").join("0000000000000001.raftlog")
}

/// What a start finds, in a log that had `lines`.
pub(crate) async fn lines_after_open(directory: &Path) -> Result<Vec<String>, OpenError> {
    let deadline = soon();
    let engine = loop {
        match Engine::open(options(directory)) {
            Err(OpenError::Locked(_)) => {
                assert!(Instant::now() < deadline, "the log is never closed");
                pause().await;
            }
            opened => break opened?,
        }
    };
    let Some(record) = engine.groups().pop() else {
        return Ok(Vec::new());
    };
    let group = start_group(&engine, record).await;
    if !group.is_initialized().await {
        group.shutdown().await;
        return Ok(Vec::new());
    }
    // A single voter leads again, and then everything on its disk is committed.
    let deadline = soon();
    let read = loop {
        match group.linearizable_read(deadline).await {
            Ok(read) => break read,
            Err(error) => assert!(
                tokio::time::Instant::now() < deadline,
                "never read: {error}"
            ),
        }
        tokio::task::yield_now().await;
    };
    assert!(group.wait_applied(read.index, soon()).await);
    let lines = group.with_machine(|journal| journal.lines.clone());
    group.shutdown().await;
    Ok(lines)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flipped_byte_leaves_the_log_intact_or_without_its_last_batch_or_refuses() {
    let root = tempfile::tempdir().unwrap();
    let pristine = root.path().join("pristine");
    let lines = written(&pristine, 6).await;
    let bytes = std::fs::read(log_file(&pristine)).unwrap();
    let (mut intact, mut torn, mut refused) = (0, 0, 0);
    // Damage in the last batch costs a whole start each: every fifth byte of it must do.
    // Behind the records lies what the engine has reserved, until it closes the file.
    let end = bytes.iter().rposition(|byte| *byte != 0).unwrap() + 1;
    let tail = end - 100;
    for position in (0..tail).chain((tail..end).step_by(5)) {
        let directory = root.path().join("flipped");
        copy(&pristine, &directory);
        let mut flipped = bytes.clone();
        flipped[position] ^= 1 << (position % 8);
        std::fs::write(log_file(&directory), &flipped).unwrap();
        match lines_after_open(&directory).await {
            Ok(found) => {
                if found == lines {
                    intact += 1;
                } else {
                    // The last batches hold the committed log id; the line itself is before.
                    assert!(lines.starts_with(&found), "byte {position}: {found:?}");
                    assert!(found.len() + 1 >= lines.len(), "byte {position}: {found:?}");
                    torn += 1;
                }
            }
            Err(OpenError::Damaged { .. } | OpenError::Incomplete { .. }) => refused += 1,
            Err(error) => panic!("byte {position}: {error}"),
        }
        std::fs::remove_dir_all(&directory).unwrap();
    }
    println!("{intact} intact, {torn} torn, {refused} refused");
    assert!(refused > end / 2, "most damage lies before the last batch");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_log_cut_anywhere_in_its_last_batch_opens_without_that_batch() {
    let root = tempfile::tempdir().unwrap();
    let pristine = root.path().join("pristine");
    let (_engine, group) = start(options(&pristine)).await;
    write(&group, "first").await.unwrap();
    let before = std::fs::read(log_file(&pristine)).unwrap();
    write(&group, "second").await.unwrap();
    group.shutdown().await;
    drop((group, _engine));
    lines_after_open(&pristine).await.unwrap();
    let whole = std::fs::read(log_file(&pristine)).unwrap();
    let end_of_first = before.iter().rposition(|byte| *byte != 0).unwrap() + 1;
    // Behind the records lies what the engine has reserved, until it closes the file.
    let end_of_second = whole.iter().rposition(|byte| *byte != 0).unwrap() + 1;
    for end in (end_of_first..end_of_second).step_by(5) {
        let directory = root.path().join("cut");
        copy(&pristine, &directory);
        std::fs::write(log_file(&directory), &whole[..end]).unwrap();
        let found = lines_after_open(&directory).await;
        let found = found.unwrap_or_else(|error| panic!("cut at {end}: {error}"));
        assert_eq!(found[0], "first", "cut at {end}");
        std::fs::remove_dir_all(&directory).unwrap();
    }
}

/// Fails at the n-th operation, and from then on.
#[derive(Default)]
struct FailAfter {
    writes: AtomicU64,
    syncs: AtomicU64,
    last_write: Option<u64>,
    /// Of the log, after the directory was opened: a failure before would end the process.
    last_sync: Option<u64>,
    opened: AtomicBool,
    /// How much of the failing write reaches the disk, in per cent.
    torn: usize,
}

impl DiskFaults for FailAfter {
    fn write(&self, _path: &Path, length: usize) -> io::Result<usize> {
        let number = self.writes.fetch_add(1, Ordering::Relaxed);
        if self.last_write.is_some_and(|last| number > last) {
            return Ok(length * self.torn / 100);
        }
        Ok(length)
    }

    fn sync(&self, path: &Path) -> io::Result<()> {
        let is_log = path.extension().is_some_and(|kind| kind == "raftlog");
        if !is_log || !self.opened.load(Ordering::Relaxed) {
            return Ok(());
        }
        let number = self.syncs.fetch_add(1, Ordering::Relaxed);
        if self.last_sync.is_some_and(|last| number > last) {
            return Err(io::Error::other("injected: not synced"));
        }
        Ok(())
    }
}

/// Writes until the disk fails; answers what was acknowledged.
async fn write_until_failure(directory: &Path, faults: FailAfter) -> Vec<String> {
    let faults = Arc::new(faults);
    let options = EngineOptions {
        faults: Some(faults.clone()),
        ..options(directory)
    };
    let Ok(engine) = Engine::open(options) else {
        return Vec::new();
    };
    faults.opened.store(true, Ordering::Relaxed);
    let record = record(engine.node_id());
    let mut acknowledged = Vec::new();
    if engine.create_group(&record).await.is_ok() {
        let group = start_group(&engine, record).await;
        if group.initialize().await.is_ok() {
            for number in 0..100 {
                let line = format!("line {number}");
                tokio::select! {
                    written = write(&group, &line) => match written {
                        Ok(_) => acknowledged.push(line),
                        Err(_) => break,
                    },
                    _ = engine.failed() => break,
                }
            }
        }
        group.shutdown().await;
    }
    assert!(engine.failure().is_some(), "the failure was reported");
    acknowledged
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_write_torn_at_any_point_loses_nothing_acknowledged() {
    for last_write in 2..16 {
        for torn in [0, 40, 99] {
            let root = tempfile::tempdir().unwrap();
            let directory = root.path().join("node");
            let faults = FailAfter {
                last_write: Some(last_write),
                torn,
                ..FailAfter::default()
            };
            let acknowledged = write_until_failure(&directory, faults).await;
            let image = root.path().join("image");
            copy(&directory, &image);
            let found = lines_after_open(&image).await.unwrap();
            assert!(
                found.starts_with(&acknowledged),
                "write {last_write}, {torn} %: {acknowledged:?} became {found:?}"
            );
            assert!(found.len() <= acknowledged.len() + 1);
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_acknowledged_that_was_not_synced() {
    for last_sync in 0..16 {
        let root = tempfile::tempdir().unwrap();
        let directory = root.path().join("node");
        let faults = FailAfter {
            last_sync: Some(last_sync),
            ..FailAfter::default()
        };
        let acknowledged = write_until_failure(&directory, faults).await;
        assert!(acknowledged.len() as u64 <= last_sync);
        let image = root.path().join("image");
        copy(&directory, &image);
        let found = lines_after_open(&image).await.unwrap();
        assert!(found.starts_with(&acknowledged), "sync {last_sync}");
    }
}

#[tokio::test]
async fn a_directory_is_opened_once_and_keeps_its_node_id() {
    let root = tempfile::tempdir().unwrap();
    let node = root.path().join("node");
    let engine = Engine::open(options(&node)).unwrap();
    let node_id = engine.node_id();
    assert_eq!(engine.boot_counter(), 1);
    assert!(matches!(
        Engine::open(options(&node)),
        Err(OpenError::Locked(_))
    ));
    drop(engine);
    let engine = Engine::open(options(&node)).unwrap();
    assert_eq!((engine.node_id(), engine.boot_counter()), (node_id, 2));
    drop(engine);

    let without_log = root.path().join("without-log");
    copy(&node, &without_log);
    std::fs::remove_dir_all(without_log.join("log")).unwrap();
    let refused = Engine::open(options(&without_log));
    assert!(matches!(refused, Err(OpenError::Incomplete { .. })));

    let other = root.path().join("other");
    drop(Engine::open(options(&other)).unwrap());
    std::fs::copy(node.join("node-id"), other.join("node-id")).unwrap();
    let refused = Engine::open(options(&other));
    assert!(matches!(refused, Err(OpenError::Incomplete { .. })));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_deleted_group_is_gone_and_can_be_made_anew() {
    let root = tempfile::tempdir().unwrap();
    let (engine, group) = start(options(root.path())).await;
    write(&group, "old").await.unwrap();
    group.snapshot_now().await.unwrap();
    assert!(engine.delete_group(PARTITION).await.is_err(), "it runs");
    group.shutdown().await;
    engine.delete_group(PARTITION).await.unwrap();
    engine.delete_group(PARTITION).await.unwrap();
    assert_eq!(engine.groups(), []);
    drop((engine, group));

    let engine = open(options(root.path())).await;
    assert_eq!(engine.groups(), []);
    let record = GroupRecord {
        member_id: MemberId(2),
        incarnation: 2,
        initializer: None,
        ..record(engine.node_id())
    };
    engine.create_group(&record).await.unwrap();
    engine.create_group(&record).await.unwrap();
    let other = GroupRecord {
        incarnation: 3,
        ..record.clone()
    };
    assert!(engine.create_group(&other).await.is_err());
    let group = start_group(&engine, record.clone()).await;
    assert!(!group.is_initialized().await);
    assert_eq!(group.with_machine(|journal| journal.lines.len()), 0);
    group.shutdown().await;
    drop((engine, group));
    assert_eq!(open(options(root.path())).await.groups(), [record]);
}
