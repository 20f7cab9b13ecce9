//! Damage of a log that has several files: whatever is not the end of the newest cannot be a crash's.

use std::path::{Path, PathBuf};
use std::time::Duration;

use atomix_raft::{Engine, EngineOptions, OpenError};
use tokio::time::Instant;

use crate::disk::{start, write};
use crate::support::{copy, options, pause, soon};

/// Files that fill up soon, so that live entries are moved out of old ones.
pub(crate) fn small_files(directory: &Path) -> EngineOptions {
    EngineOptions {
        log_file_size: 64 << 10,
        purge_threshold: 256 << 10,
        purge_interval: Duration::from_millis(5),
        ..options(directory)
    }
}

/// The files of new entries, oldest first.
fn files(directory: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(directory.join("log")).unwrap();
    let paths = entries.map(|entry| entry.unwrap().path());
    let is_new = |path: &PathBuf| path.extension().is_some_and(|kind| kind == "raftlog");
    let mut files: Vec<PathBuf> = paths.filter(is_new).collect();
    files.sort();
    files
}

/// A log of several files, closed.
async fn written(directory: &Path) {
    let (engine, group) = start(small_files(directory)).await;
    let deadline = soon();
    while files(directory).len() < 3 {
        assert!(Instant::now() < deadline, "it stays one file");
        write(&group, &"x".repeat(20_000)).await.unwrap();
    }
    group.shutdown().await;
    drop((group, engine));
    drop(reopened(directory).await.unwrap());
}

/// As soon as its last user has closed it.
async fn reopened(directory: &Path) -> Result<Engine, OpenError> {
    let deadline = soon();
    loop {
        match Engine::open(EngineOptions {
            purge_interval: Duration::from_secs(3600),
            ..small_files(directory)
        }) {
            Err(OpenError::Locked(_)) => assert!(Instant::now() < deadline, "never closed"),
            opened => return opened,
        }
        pause().await;
    }
}

/// Done to a node's directory.
type Damage = fn(&Path);

fn flip(path: &Path, position: usize) {
    let mut bytes = std::fs::read(path).unwrap();
    bytes[position] ^= 1;
    std::fs::write(path, bytes).unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn damage_before_the_end_of_the_newest_file_is_refused() {
    let root = tempfile::tempdir().unwrap();
    let pristine = root.path().join("pristine");
    written(&pristine).await;
    let damages: [(&str, &str, Damage); 3] = [
        ("a file in the middle is gone", "is missing", |node| {
            std::fs::remove_file(&files(node)[1]).unwrap();
        }),
        (
            "a byte of the oldest file",
            "another file follows",
            |node| {
                flip(&files(node)[0], 5_000);
            },
        ),
        (
            "the end of the oldest file",
            "another file follows",
            |node| {
                let oldest = &files(node)[0];
                let bytes = std::fs::read(oldest).unwrap();
                std::fs::write(oldest, &bytes[..bytes.len() - 10]).unwrap();
            },
        ),
    ];
    for (what, expected, damage) in damages {
        let node = root.path().join("damaged");
        copy(&pristine, &node);
        damage(&node);
        match reopened(&node).await {
            Err(error @ OpenError::Damaged { .. }) => {
                let text = error.to_string();
                assert!(text.contains(expected), "{what}: {text}");
            }
            Err(error) => panic!("{what}: {error}"),
            Ok(_) => panic!("{what}: it was opened"),
        }
        std::fs::remove_dir_all(&node).unwrap();
    }
}
