//! A failed sync ends the process at once. The test runs its own program again, as the process
//! that ends.

use std::io;
use std::os::unix::process::ExitStatusExt as _;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use atomix_raft::{DiskFaults, EngineOptions, WriteFailure};

use crate::support::{follower_record, open};

/// Set for the process that ends: its data directory.
const DIRECTORY: &str = "ATOMIX_TEST_ABORT_DIRECTORY";
const SIGABRT: i32 = 6;

#[derive(Default)]
struct Broken(AtomicBool);

impl DiskFaults for Broken {
    fn sync(&self, _path: &Path) -> io::Result<()> {
        if self.0.load(Ordering::SeqCst) {
            return Err(io::Error::other("injected: not synced"));
        }
        Ok(())
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_failed_sync_aborts_the_process() {
    if let Ok(directory) = std::env::var(DIRECTORY) {
        return fail_to_sync(Path::new(&directory)).await;
    }
    let root = tempfile::tempdir().unwrap();
    let output = Command::new(std::env::current_exe().unwrap())
        .args([
            "--exact",
            "abort::a_failed_sync_aborts_the_process",
            "--nocapture",
        ])
        .env(DIRECTORY, root.path())
        .output()
        .unwrap();
    let printed = String::from_utf8_lossy(&output.stdout);
    assert_eq!(output.status.signal(), Some(SIGABRT), "{printed}");
    assert!(printed.contains("the disk breaks"), "{printed}");
    assert!(!printed.contains("acknowledged"), "{printed}");

    // What was acknowledged before is there, and the directory opens again.
    let engine = open(EngineOptions::new(root.path())).await;
    assert_eq!(engine.groups(), [follower_record()]);
}

async fn fail_to_sync(directory: &Path) {
    let disk = Arc::new(Broken::default());
    let engine = open(EngineOptions {
        faults: Some(disk.clone()),
        on_write_failure: WriteFailure::Abort,
        ..EngineOptions::new(directory)
    })
    .await;
    engine.create_group(&follower_record()).await.unwrap();
    println!("the disk breaks");
    disk.0.store(true, Ordering::SeqCst);
    let mut other = follower_record();
    other.partition_id.0 += 1;
    let created = engine.create_group(&other).await;
    println!("acknowledged or refused: {created:?}");
}
