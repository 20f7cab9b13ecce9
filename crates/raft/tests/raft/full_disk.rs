//! Writes that the disk refuses: those that find no room wait and lose nothing, any other ends the
//! log.

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use atomix_raft::{DiskChange, DiskFaults, EngineOptions};

use crate::disk::{lines_after_open, start, write};
use crate::support::{PARTITION, copy, eventually, options};

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

/// Has no room for snapshots: either it says so when some is reserved, or only at the first write.
#[derive(Default)]
struct NoRoomForSnapshots {
    reserves: bool,
    is_full: AtomicBool,
    /// Snapshots that were begun while it was full.
    begun: AtomicU64,
    /// What the last one wanted to reserve.
    wanted: AtomicU64,
    /// Bytes of snapshots that were written while it was full.
    written: AtomicU64,
    /// Unfinished files that are there.
    unfinished: AtomicU64,
}

impl NoRoomForSnapshots {
    fn refuse(&self) -> io::Result<()> {
        if !self.is_full.load(Ordering::Relaxed) {
            return Ok(());
        }
        Err(io::ErrorKind::StorageFull.into())
    }
}

fn is_unfinished(path: &Path) -> bool {
    path.extension().is_some_and(|suffix| suffix == "tmp")
        && path.to_string_lossy().contains("snapshots")
}

fn size_of_snapshots(directory: &Path) -> u64 {
    let folder = directory.join("snapshots").join(PARTITION.to_string());
    let files = std::fs::read_dir(folder).unwrap();
    let sizes = files.map(|file| file.unwrap().metadata().unwrap().len());
    sizes.sum()
}

impl DiskFaults for NoRoomForSnapshots {
    fn reserve(&self, _path: &Path, length: u64) -> io::Result<()> {
        self.wanted.store(length, Ordering::Relaxed);
        if self.reserves {
            return self.refuse();
        }
        Ok(())
    }

    fn write(&self, path: &Path, length: usize) -> io::Result<usize> {
        if !self.reserves && is_unfinished(path) {
            self.refuse()?;
        }
        Ok(length)
    }

    fn changed(&self, change: DiskChange<'_>) {
        match change {
            DiskChange::Written { path, bytes, .. }
                if is_unfinished(path) && self.is_full.load(Ordering::Relaxed) =>
            {
                self.written
                    .fetch_add(bytes.len() as u64, Ordering::Relaxed);
            }
            DiskChange::Created(path) if is_unfinished(path) => {
                self.unfinished.fetch_add(1, Ordering::Relaxed);
                let is_full = self.is_full.load(Ordering::Relaxed);
                self.begun.fetch_add(u64::from(is_full), Ordering::Relaxed);
            }
            DiskChange::Removed(path) if is_unfinished(path) => {
                self.unfinished.fetch_sub(1, Ordering::Relaxed);
            }
            DiskChange::Renamed { from, .. } if is_unfinished(from) => {
                self.unfinished.fetch_sub(1, Ordering::Relaxed);
            }
            _ => {}
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_snapshot_waits_for_room_and_leaves_what_there_is_to_the_log() {
    for reserves in [true, false] {
        let root = tempfile::tempdir().unwrap();
        let directory = root.path().join("node");
        let faults = Arc::new(NoRoomForSnapshots {
            reserves,
            ..NoRoomForSnapshots::default()
        });
        let options = EngineOptions {
            faults: Some(faults.clone()),
            ..options(&directory)
        };
        let (engine, group) = start(options).await;
        write(&group, "first").await.expect("acknowledged");
        // The second one is expected to be as large as this one.
        group.snapshot_now().await.expect("a snapshot");
        let first = size_of_snapshots(&directory);
        write(&group, "second").await.expect("acknowledged");
        faults.is_full.store(true, Ordering::Relaxed);
        let snapshot = group.snapshot_now();
        let meanwhile = async {
            eventually("a second attempt", || {
                (faults.begun.load(Ordering::Relaxed) >= 2).then_some(())
            })
            .await;
            write(&group, "third").await.expect("acknowledged");
            eventually("no unfinished file", || {
                (faults.unfinished.load(Ordering::Relaxed) == 0).then_some(())
            })
            .await;
            assert_eq!(faults.written.load(Ordering::Relaxed), 0);
            assert_eq!(faults.wanted.load(Ordering::Relaxed), first);
            faults.is_full.store(false, Ordering::Relaxed);
        };
        let (snapshot, ()) = tokio::join!(snapshot, meanwhile);
        let snapshot = snapshot.expect("a snapshot");
        eventually("that snapshot", || {
            (group.status().snapshot == snapshot).then_some(())
        })
        .await;
        assert_eq!(faults.unfinished.load(Ordering::Relaxed), 0);
        assert_eq!(engine.failure(), None);
        group.shutdown().await;
        drop((group, engine));
        let lines = lines_after_open(&directory).await.unwrap();
        assert_eq!(lines, ["first", "second", "third"]);
    }
}
