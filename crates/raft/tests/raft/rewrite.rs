//! Live entries that are moved out of old log files: a power cut in the middle of that loses none
//! of them, and leaves nothing that looks like damage.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use atomix_raft::{Engine, EngineOptions, Group, OpenError, PartitionId};
use bytes::Bytes;
use tokio::time::Instant;

use crate::support::machine::Journal;
use crate::support::network::Network;
use crate::support::powercut::{Change, Recorder, images, write_image};
use crate::support::{eventually, follower_record, open, options, pause, soon};

/// Its entries stay in the log.
const QUIET: PartitionId = PartitionId(1);
/// It fills the log.
const BUSY: PartitionId = PartitionId(2);

fn small_files(directory: &Path) -> EngineOptions {
    EngineOptions {
        log_file_size: 128 << 10,
        purge_threshold: 512 << 10,
        purge_interval: Duration::from_millis(5),
        ..options(directory)
    }
}

async fn start(engine: &Engine, partition: PartitionId) -> Group<Journal> {
    let mut record = follower_record();
    record.partition_id = partition;
    record.initializer = Some(record.member_id);
    record.members.retain(|id, _| id.0 == 1);
    engine.create_group(&record).await.unwrap();
    let group = Group::start(engine, record, Journal::default(), Network::new());
    let group = group.await.unwrap();
    group.initialize().await.unwrap();
    group
}

async fn write(group: &Group<Journal>, line: &str) {
    let deadline = soon();
    let payload = Bytes::copy_from_slice(line.as_bytes());
    while group.propose(payload.clone(), deadline).await.is_err() {
        assert!(Instant::now() < deadline, "never written");
        pause().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn entries_that_are_moved_to_other_files_survive_a_power_cut() {
    let root = tempfile::tempdir().unwrap();
    let directory = root.path().join("node");
    let recorder = Arc::new(Recorder::new(&directory));
    let engine = open(EngineOptions {
        faults: Some(recorder.clone()),
        ..small_files(&directory)
    })
    .await;
    let quiet = start(&engine, QUIET).await;
    let busy = start(&engine, BUSY).await;
    // More than what raft-engine moves in one batch, which is 128 KiB.
    let lines: Vec<_> = (0..8)
        .map(|number| format!("{number} {}", "q".repeat(50_000)))
        .collect();
    for line in &lines {
        write(&quiet, line).await;
    }
    let acknowledged = recorder.position();
    let is_moved = |changes: &[Change]| {
        let written =
            |change: &&Change| matches!(change, Change::Written(..)) && change.is_of(".rewrite");
        changes.iter().filter(written).count() > 3
            && changes
                .iter()
                .any(|change| matches!(change, Change::Removed(_)) && change.is_of(".raftlog"))
    };
    let deadline = soon();
    while !is_moved(&recorder.changes()) {
        assert!(Instant::now() < deadline, "nothing is moved");
        write(&busy, &"b".repeat(20_000)).await;
    }
    quiet.shutdown().await;
    busy.shutdown().await;
    assert_eq!(engine.failure(), None);
    drop((quiet, busy, engine));

    let changes = recorder.changes();
    let images = images(&changes, |change| {
        change.is_of(".rewrite") || matches!(change, Change::Removed(_))
    });
    println!("{} changes, {} images", changes.len(), images.len());
    let last = images.iter().map(|(_, position, _)| *position).max();
    for (number, (image, position, loss)) in images.into_iter().enumerate() {
        if position < acknowledged {
            continue;
        }
        // Each has a directory of its own: the engine before may not be done with deleting its files.
        let directory = root.path().join(format!("image-{number}"));
        write_image(&image, &directory);
        let engine = Engine::open(small_files(&directory));
        let engine = engine.unwrap_or_else(|error| panic!("{loss:?} at {position}: {error}"));
        // A start costs an election, so not every image is looked into that deeply.
        if Some(position) == last || position % 16 == 0 {
            let quiet = start(&engine, QUIET).await;
            let found = eventually("all lines", || {
                let found = quiet.with_machine(|journal| journal.lines.clone());
                (found.len() >= lines.len()).then_some(found)
            })
            .await;
            assert!(found == lines, "{loss:?} at {position}");
            quiet.shutdown().await;
        }
        drop(engine);
        eventually("a closed engine", || {
            std::fs::remove_dir_all(&directory).ok()
        })
        .await;
    }
}

/// Moves nothing.
fn still(directory: &Path) -> EngineOptions {
    EngineOptions {
        purge_interval: Duration::from_secs(3600),
        ..small_files(directory)
    }
}

/// A directory whose entries were moved, with the file of them and how long it must be.
async fn moved(directory: &Path) -> (PathBuf, usize) {
    let engine = open(small_files(directory)).await;
    let quiet = start(&engine, QUIET).await;
    let busy = start(&engine, BUSY).await;
    for number in 0..8 {
        write(&quiet, &format!("{number} {}", "q".repeat(50_000))).await;
    }
    let log = directory.join("log");
    let deadline = soon();
    let is_deleted = || !log.join("0000000000000001.raftlog").exists();
    while !is_deleted() {
        assert!(Instant::now() < deadline, "nothing is deleted");
        write(&busy, &"b".repeat(20_000)).await;
    }
    quiet.shutdown().await;
    busy.shutdown().await;
    drop((quiet, busy, engine));
    eventually("a closed engine", || Engine::open(still(directory)).ok()).await;
    let mark = std::fs::read_to_string(log.join("moved")).unwrap();
    let mut mark = mark.split(' ').map(|number| number.parse::<usize>());
    let file = mark.next().unwrap().unwrap();
    let length = mark.next().unwrap().unwrap();
    (log.join(format!("{file:016}.rewrite")), length)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn moved_entries_without_originals_are_never_cut_off() {
    let root = tempfile::tempdir().unwrap();
    let directory = root.path().join("node");
    let (file, length) = moved(&directory).await;
    // What came later may go: its originals are there.
    let mut whole = std::fs::read(&file).unwrap();
    whole.truncate(length);
    std::fs::write(&file, &whole).unwrap();
    drop(Engine::open(still(&directory)).expect("it is whole"));

    let mut flipped = whole.clone();
    flipped[length - 3] ^= 1;
    for (what, damaged) in [
        ("a byte of the last batch", Some(&flipped[..])),
        ("its last batch", Some(&whole[..length - 3])),
        (
            "everything but the first batches",
            Some(&whole[..length / 2]),
        ),
        ("the file", None),
    ] {
        match damaged {
            Some(bytes) => std::fs::write(&file, bytes).unwrap(),
            None => std::fs::remove_file(&file).unwrap(),
        }
        match Engine::open(still(&directory)) {
            Err(OpenError::Damaged { .. }) => {}
            Err(error) => panic!("{what}: {error}"),
            Ok(_) => panic!("{what}: it was opened"),
        }
    }
    std::fs::write(&file, &whole).unwrap();
    let mark = directory.join("log/moved");
    let stored = std::fs::read(&mark).unwrap();
    std::fs::write(&mark, b"1 1 1").unwrap();
    assert!(matches!(
        Engine::open(still(&directory)),
        Err(OpenError::Damaged { .. })
    ));
    std::fs::write(&mark, stored).unwrap();
    Engine::open(still(&directory)).expect("it is whole again");
}
