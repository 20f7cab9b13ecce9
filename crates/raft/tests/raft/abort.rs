//! A failed sync ends the process at once. The test runs its own program again, as the process
//! that ends.

use std::io;
use std::os::unix::process::ExitStatusExt as _;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use atomix_raft::{DiskFaults, EngineOptions, WriteFailure};
use tokio::time::Instant;

use crate::disk::{lines_after_open, start, write};
use crate::several_files::small_files;
use crate::support::{copy, follower_record, open, options, soon};

/// Set for the process that ends: its data directory.
const DIRECTORY: &str = "ATOMIX_TEST_ABORT_DIRECTORY";
const SIGABRT: i32 = 6;

/// Syncs no file whose name ends like this, from some moment on.
struct Broken {
    ending: &'static str,
    is_broken: AtomicBool,
}

impl Broken {
    fn new(ending: &'static str) -> Arc<Self> {
        Arc::new(Self {
            ending,
            is_broken: AtomicBool::new(false),
        })
    }

    fn breaks(&self) {
        println!("the disk breaks");
        self.is_broken.store(true, Ordering::SeqCst);
    }
}

impl DiskFaults for Broken {
    fn sync(&self, path: &Path) -> io::Result<()> {
        let is_meant = path.to_string_lossy().ends_with(self.ending);
        if is_meant && self.is_broken.load(Ordering::SeqCst) {
            return Err(io::Error::other("injected: not synced"));
        }
        Ok(())
    }
}

/// Runs one test of this program as a process of its own, which must abort after its disk broke.
fn expect_abort(test: &str, directory: &Path) -> String {
    let output = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", test, "--nocapture"])
        .env(DIRECTORY, directory)
        .output()
        .unwrap();
    let printed = String::from_utf8_lossy(&output.stdout).into_owned();
    assert_eq!(output.status.signal(), Some(SIGABRT), "{printed}");
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
    let disk = Broken::new("");
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
    let disk = Broken::new(".rewrite");
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
    for ending in ["build.tmp", "snapshots/7"] {
        let root = tempfile::tempdir().unwrap();
        let directory = root.path().join("node");
        let disk = Broken::new(ending);
        let (engine, group) = start(EngineOptions {
            faults: Some(disk.clone()),
            ..options(&directory)
        })
        .await;
        write(&group, "first").await.expect("acknowledged");
        disk.breaks();
        tokio::select! {
            made = group.snapshot_now() => assert!(made.is_err(), "{ending}: {made:?}"),
            _ = engine.failed() => {}
        }
        assert!(engine.failure().is_some(), "{ending}");
        group.shutdown().await;
        let image = root.path().join("image");
        copy(&directory, &image);
        assert_eq!(
            lines_after_open(&image).await.unwrap(),
            ["first"],
            "{ending}"
        );
    }
}
