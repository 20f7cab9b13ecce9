//! Writes that the disk refuses: those that find no room wait and lose nothing, any other ends the
//! log.

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use atomix_raft::{DiskFaults, EngineOptions};

use crate::disk::{lines_after_open, start, write};
use crate::support::{copy, options};

/// Refuses so many of the next writes to the log.
#[derive(Default)]
struct Refuse {
    left: AtomicU64,
    refused: AtomicU64,
    with: Option<io::ErrorKind>,
}

impl DiskFaults for Refuse {
    fn write(&self, _path: &Path, length: usize) -> io::Result<usize> {
        let left = self.left.load(Ordering::Relaxed);
        let Some(less) = left.checked_sub(1) else {
            return Ok(length);
        };
        self.left.store(less, Ordering::Relaxed);
        self.refused.fetch_add(1, Ordering::Relaxed);
        Err(self.with.unwrap_or(io::ErrorKind::StorageFull).into())
    }
}

fn refusing(directory: &Path, faults: &Arc<Refuse>) -> EngineOptions {
    EngineOptions {
        faults: Some(faults.clone()),
        ..options(directory)
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn writes_wait_for_room_and_are_there_once() {
    let root = tempfile::tempdir().unwrap();
    let directory = root.path().join("node");
    let faults = Arc::new(Refuse::default());
    let (engine, group) = start(refusing(&directory, &faults)).await;
    let mut lines = Vec::new();
    // Also more than raft-engine itself tries anew in another file.
    for refusals in [1, 2, 3, 5] {
        for line in [format!("before {refusals}"), format!("while {refusals}")] {
            write(&group, &line).await.expect("acknowledged");
            lines.push(line);
            faults.left.store(refusals, Ordering::Relaxed);
        }
    }
    write(&group, "after").await.expect("acknowledged");
    lines.push("after".to_owned());
    assert_eq!(faults.left.load(Ordering::Relaxed), 0);
    assert!(faults.refused.load(Ordering::Relaxed) >= 11);
    assert_eq!(engine.failure(), None);
    group.shutdown().await;
    drop((group, engine));
    assert_eq!(lines_after_open(&directory).await.unwrap(), lines);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_write_that_fails_otherwise_ends_the_log_and_is_not_acknowledged() {
    let root = tempfile::tempdir().unwrap();
    let directory = root.path().join("node");
    let faults = Arc::new(Refuse {
        with: Some(io::ErrorKind::Other),
        ..Refuse::default()
    });
    let (engine, group) = start(refusing(&directory, &faults)).await;
    write(&group, "first").await.expect("acknowledged");
    faults.left.store(1, Ordering::Relaxed);
    tokio::select! {
        written = write(&group, "second") => assert!(written.is_err(), "{written:?}"),
        _ = engine.failed() => {}
    }
    // Only one write was refused, but what the disk holds is not known any more.
    assert!(engine.failure().is_some());
    tokio::select! {
        written = write(&group, "third") => assert!(written.is_err(), "{written:?}"),
        _ = engine.failed() => {}
    }
    group.shutdown().await;
    let image = root.path().join("image");
    copy(&directory, &image);
    let found = lines_after_open(&image).await.unwrap();
    assert_eq!(found.first().map(String::as_str), Some("first"));
    assert!(!found.contains(&"third".to_owned()), "{found:?}");
}
