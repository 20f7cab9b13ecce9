//! A failed sync ends the process at once: tests run their own program again, as the process that
//! ends. Failures of snapshots are reported, for whoever runs the group to end the process.

use std::io;
use std::os::unix::process::ExitStatusExt as _;
use std::path::Path;
use std::process::{Command, ExitStatus};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use atomix_proto::multiraft::v1::peer_reply::Body as Reply;
use atomix_proto::multiraft::v1::snapshot_chunk_reply::Outcome;
use atomix_raft::{DiskFaults, Engine, EngineOptions, Group, WriteFailure, peer_refusal::Reason};
use tokio::time::Instant;

use crate::disk::{lines_after_open, start, write};
use crate::several_files::small_files;
use crate::support::machine::Journal;
use crate::support::network::Network;
use crate::support::others::{History, Others};
use crate::support::{PARTITION, closed, copy, eventually, follower_record, open, options, soon};

/// Set for the process that ends: its data directory.
const DIRECTORY: &str = "ATOMIX_TEST_ABORT_DIRECTORY";
const SIGABRT: i32 = 6;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Operation {
    Write,
    Sync,
}

/// Fails an operation on the files that are meant, from some moment on.
struct Broken {
    operation: Operation,
    is_meant: fn(&str) -> bool,
    is_broken: AtomicBool,
}

impl Broken {
    fn new(operation: Operation, is_meant: fn(&str) -> bool) -> Arc<Self> {
        Arc::new(Self {
            operation,
            is_meant,
            is_broken: AtomicBool::new(false),
        })
    }

    fn breaks(&self) {
        println!("the disk breaks");
        self.is_broken.store(true, Ordering::SeqCst);
    }

    fn carry_out(&self, operation: Operation, path: &Path) -> io::Result<()> {
        let is_meant = operation == self.operation && (self.is_meant)(&path.to_string_lossy());
        if is_meant && self.is_broken.load(Ordering::SeqCst) {
            return Err(io::Error::other("injected: it failed"));
        }
        Ok(())
    }
}

impl DiskFaults for Broken {
    fn write(&self, path: &Path, length: usize) -> io::Result<usize> {
        self.carry_out(Operation::Write, path)?;
        Ok(length)
    }

    fn sync(&self, path: &Path) -> io::Result<()> {
        self.carry_out(Operation::Sync, path)
    }
}

/// Runs one test of this program as a process of its own; answers how it ended and what it printed.
fn run_again(test: &str, directory: &Path) -> (ExitStatus, String) {
    let output = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", test, "--nocapture"])
        .env(DIRECTORY, directory)
        .output()
        .unwrap();
    let printed = String::from_utf8_lossy(&output.stdout).into_owned();
    (output.status, printed)
}

/// The process must abort after its disk broke.
fn expect_abort(test: &str, directory: &Path) -> String {
    let (status, printed) = run_again(test, directory);
    assert_eq!(status.signal(), Some(SIGABRT), "{printed}");
    assert!(printed.contains("the disk breaks"), "{printed}");
    printed
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_failed_sync_aborts_the_process() {
    if let Ok(directory) = std::env::var(DIRECTORY) {
        return fail_to_sync(Path::new(&directory)).await;
    }
    let root = tempfile::tempdir().unwrap();
    let printed = expect_abort("abort::a_failed_sync_aborts_the_process", root.path());
    assert!(!printed.contains("acknowledged"), "{printed}");

    // What was acknowledged before is there, and the directory opens again.
    let engine = open(EngineOptions::new(root.path())).await;
    assert_eq!(engine.groups(), [follower_record()]);
}

async fn fail_to_sync(directory: &Path) {
    let disk = Broken::new(Operation::Sync, |_| true);
    let engine = open(EngineOptions {
        faults: Some(disk.clone()),
        on_write_failure: WriteFailure::Abort,
        ..EngineOptions::new(directory)
    })
    .await;
    engine.create_group(&follower_record()).await.unwrap();
    disk.breaks();
    let mut other = follower_record();
    other.partition_id.0 += 1;
    let created = engine.create_group(&other).await;
    println!("acknowledged or refused: {created:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_failed_sync_of_moved_entries_aborts_the_process() {
    if let Ok(directory) = std::env::var(DIRECTORY) {
        return move_entries_until_the_end(Path::new(&directory)).await;
    }
    let root = tempfile::tempdir().unwrap();
    let test = "abort::a_failed_sync_of_moved_entries_aborts_the_process";
    let printed = expect_abort(test, root.path());
    let acknowledged = printed.matches("acknowledged").count();
    assert!(acknowledged > 0, "{printed}");
    let found = lines_after_open(root.path()).await.unwrap();
    assert!(
        found.len() >= acknowledged,
        "{} of {acknowledged}",
        found.len()
    );
}

async fn move_entries_until_the_end(directory: &Path) {
    let disk = Broken::new(Operation::Sync, |path| path.ends_with(".rewrite"));
    let (_engine, group) = start(EngineOptions {
        faults: Some(disk.clone()),
        on_write_failure: WriteFailure::Abort,
        ..small_files(directory)
    })
    .await;
    disk.breaks();
    let deadline = soon();
    while Instant::now() < deadline {
        if write(&group, &"x".repeat(20_000)).await.is_ok() {
            println!("acknowledged");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_snapshot_that_could_not_be_synced_does_not_exist_and_ends_the_member() {
    type Meant = fn(&str) -> bool;
    let meant: [(&str, Meant); 2] = [
        ("the file", |path| path.ends_with("build.tmp")),
        ("the directory", |path| path.ends_with("snapshots/7")),
    ];
    for (what, is_meant) in meant {
        let root = tempfile::tempdir().unwrap();
        let directory = root.path().join("node");
        let disk = Broken::new(Operation::Sync, is_meant);
        let (engine, group) = start(EngineOptions {
            faults: Some(disk.clone()),
            ..options(&directory)
        })
        .await;
        write(&group, "first").await.expect("acknowledged");
        disk.breaks();
        tokio::select! {
            made = group.snapshot_now() => assert!(made.is_err(), "{what}: {made:?}"),
            _ = engine.failed() => {}
        }
        assert!(engine.failure().is_some(), "{what}");
        group.shutdown().await;
        let image = root.path().join("image");
        copy(&directory, &image);
        assert_eq!(lines_after_open(&image).await.unwrap(), ["first"], "{what}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_directory_of_snapshots_that_could_not_be_synced_is_fatal() {
    let is_parent = |path: &str| path.ends_with("/snapshots");
    for is_left_over in [false, true] {
        let root = tempfile::tempdir().unwrap();
        let directory = root.path().join("node");
        let disk = Broken::new(Operation::Sync, is_parent);
        let engine = open(EngineOptions {
            faults: Some(disk.clone()),
            ..options(&directory)
        })
        .await;
        if is_left_over {
            std::fs::create_dir_all(directory.join("snapshots/7")).unwrap();
            disk.breaks();
            let created = engine.create_group(&follower_record()).await;
            created.expect_err("what was left over may come again");
        } else {
            engine.create_group(&follower_record()).await.unwrap();
            disk.breaks();
            let machine = Journal::default();
            let started = Group::start(&engine, follower_record(), machine, Network::new()).await;
            started.err().expect("snapshots may be lost");
        }
        let failure = engine.failure().expect("the process must end");
        assert_eq!(failure.partition, Some(PARTITION), "{failure}");
        assert!(failure.message.contains("snapshots"), "{failure}");
    }
}

fn is_received(path: &str) -> bool {
    path.contains("snapshots/7/receive-")
}

fn snapshot_files(directory: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(directory.join("snapshots/7")).unwrap();
    entries
        .map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned())
        .collect()
}

/// A follower with `history` on its disk.
async fn start_follower(options: EngineOptions, history: &History) -> (Engine, Group<Journal>) {
    let engine = open(options).await;
    engine.create_group(&follower_record()).await.unwrap();
    let group = restart_follower(&engine).await;
    assert!(Others::of(&group).replicate(LEADER, history, 0, 1).await);
    (engine, group)
}

async fn restart_follower(engine: &Engine) -> Group<Journal> {
    let machine = Journal::default();
    Group::start(engine, follower_record(), machine, Network::new())
        .await
        .unwrap()
}

async fn shows_log_to(group: &Group<Journal>, last: u64) {
    eventually("the log that was on disk", || {
        (group.status().last_log == last).then_some(())
    })
    .await;
}

/// Another member.
const LEADER: (u64, u64) = (1, 2);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_received_snapshot_that_could_not_be_written_or_synced_does_not_exist_and_is_fatal() {
    for operation in [Operation::Write, Operation::Sync] {
        let root = tempfile::tempdir().unwrap();
        let directory = root.path().join("node");
        let disk = Broken::new(operation, is_received);
        let options_with_faults = EngineOptions {
            faults: Some(disk.clone()),
            ..options(&directory)
        };
        let history = History::first_entries().with(1, &["first"]);
        let (engine, group) = start_follower(options_with_faults, &history).await;
        let longer = history.with(1, &["second", "third"]);
        disk.breaks();
        // The sender tries again, and is not told that it would help.
        for _ in 0..2 {
            let reply = Others::of(&group).try_install(LEADER, &longer).await;
            let is_stopped =
                matches!(&reply, Reply::Refusal(refusal) if refusal.reason() == Reason::Stopped);
            let is_broken = matches!(&reply, Reply::SnapshotChunk(_));
            assert!(is_stopped || is_broken, "{operation:?}: {reply:?}");
            let failure = engine.failure().expect("reported before the reply");
            assert_eq!(failure.partition, Some(PARTITION));
            assert!(failure.message.contains("received snapshot"), "{failure}");
            assert_eq!(snapshot_files(&directory), [""; 0], "{operation:?}");
        }
        group.shutdown().await;

        let image = root.path().join("image");
        copy(&directory, &image);
        let engine = open(options(&image)).await;
        let group = restart_follower(&engine).await;
        shows_log_to(&group, 2).await;
        Others::of(&group).install(LEADER, &longer).await;
        let found = group.with_machine(|journal| journal.lines.clone());
        assert_eq!(found, longer.lines());
        group.shutdown().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_received_snapshot_whose_name_could_not_be_synced_is_fatal_and_loses_nothing() {
    let root = tempfile::tempdir().unwrap();
    let directory = root.path().join("node");
    let disk = Broken::new(Operation::Sync, |path| path.ends_with("snapshots/7"));
    let options_with_faults = EngineOptions {
        faults: Some(disk.clone()),
        ..options(&directory)
    };
    let history = History::first_entries().with(1, &["first"]);
    let (engine, group) = start_follower(options_with_faults, &history).await;
    let longer = history.with(1, &["second", "third"]);
    disk.breaks();
    let others = Others::of(&group);
    let install = others.try_install(LEADER, &longer);
    let (_, failure) = tokio::join!(install, tokio::time::timeout_at(soon(), engine.failed()));
    assert_eq!(failure.unwrap().partition, Some(PARTITION));
    group.shutdown().await;

    // It is whole and synced, so a disk that has its name may give it back; one that has not has
    // the log as it was.
    for has_name in [true, false] {
        let image = root.path().join(format!("image-{has_name}"));
        copy(&directory, &image);
        assert_eq!(snapshot_files(&image).len(), 1);
        if !has_name {
            std::fs::remove_dir_all(image.join("snapshots")).unwrap();
        }
        let engine = open(options(&image)).await;
        let group = restart_follower(&engine).await;
        shows_log_to(&group, if has_name { 4 } else { 2 }).await;
        Others::of(&group).install(LEADER, &longer).await;
        let found = group.with_machine(|journal| journal.lines.clone());
        assert_eq!(found, longer.lines());
        group.shutdown().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_received_snapshot_that_finds_no_room_is_taken_when_there_is_some() {
    let root = tempfile::tempdir().unwrap();
    let disk = Full::new(is_received);
    let options = EngineOptions {
        faults: Some(disk.clone()),
        ..options(root.path())
    };
    let history = History::first_entries().with(1, &["first"]);
    let (engine, group) = start_follower(options, &history).await;
    let longer = history.with(1, &["second", "third"]);
    disk.is_full.store(true, Ordering::SeqCst);
    let reply = Others::of(&group).try_install(LEADER, &longer).await;
    assert!(
        matches!(&reply, Reply::SnapshotChunk(reply) if matches!(reply.outcome, Some(Outcome::Broken(_)))),
        "{reply:?}"
    );
    assert_eq!(snapshot_files(root.path()), [""; 0]);
    assert_eq!(engine.failure(), None);
    disk.is_full.store(false, Ordering::SeqCst);
    Others::of(&group).install(LEADER, &longer).await;
    assert_eq!(engine.failure(), None);
    group.shutdown().await;
}

/// Has no room for the files that are meant, while it is full.
struct Full {
    is_meant: fn(&str) -> bool,
    is_full: AtomicBool,
    refused: AtomicU64,
}

impl Full {
    fn new(is_meant: fn(&str) -> bool) -> Arc<Self> {
        Arc::new(Self {
            is_meant,
            is_full: AtomicBool::new(false),
            refused: AtomicU64::new(0),
        })
    }
}

impl DiskFaults for Full {
    fn write(&self, path: &Path, length: usize) -> io::Result<usize> {
        if self.is_full.load(Ordering::SeqCst) && (self.is_meant)(&path.to_string_lossy()) {
            self.refused.fetch_add(1, Ordering::SeqCst);
            return Err(io::ErrorKind::StorageFull.into());
        }
        Ok(length)
    }
}

/// Nothing is lost: what waits for room was not acknowledged.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_log_that_is_closed_while_the_disk_is_full_ends_in_good_order() {
    if let Ok(directory) = std::env::var(DIRECTORY) {
        return close_on_a_full_disk(Path::new(&directory)).await;
    }
    let root = tempfile::tempdir().unwrap();
    let test = "abort::a_log_that_is_closed_while_the_disk_is_full_ends_in_good_order";
    let (status, printed) = run_again(test, root.path());
    assert!(status.success(), "{status}: {printed}");
    assert!(printed.contains("closed on a full disk"), "{printed}");
    assert_eq!(lines_after_open(root.path()).await.unwrap(), ["first"]);
}

async fn close_on_a_full_disk(directory: &Path) {
    let disk = Full::new(|_| true);
    let (engine, group) = start(EngineOptions {
        faults: Some(disk.clone()),
        on_write_failure: WriteFailure::Abort,
        ..options(directory)
    })
    .await;
    write(&group, "first").await.expect("acknowledged");
    disk.is_full.store(true, Ordering::SeqCst);
    let writer = group.clone();
    let waits = tokio::spawn(async move { write(&writer, "second").await });
    eventually("a write that finds no room", || {
        (disk.refused.load(Ordering::SeqCst) > 0).then_some(())
    })
    .await;
    group.shutdown().await;
    let outcome = waits.await.unwrap();
    assert!(outcome.is_err(), "acknowledged: {outcome:?}");
    assert_eq!(engine.failure(), None);
    drop((group, engine));
    closed(directory).await;
    println!("closed on a full disk");
}
