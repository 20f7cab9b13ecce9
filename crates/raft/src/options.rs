//! How a data directory is opened.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use crate::device::DiskFaults;

/// How to open a data directory.
#[derive(Clone)]
pub struct EngineOptions {
    /// The data directory; created when it does not exist.
    pub directory: PathBuf,
    /// Bytes of log beyond which files with few live entries are emptied. Default 256 MiB.
    pub purge_threshold: u64,
    /// Bytes after which a new log file begins. Default 32 MiB.
    pub log_file_size: u64,
    /// How often log files that hold nothing any more are looked for. Default 10 s.
    pub purge_interval: Duration,
    /// Payload bytes that each group keeps in its log behind the last snapshots. Default 64 MiB.
    pub log_retention: u64,
    /// Payload bytes after which a group takes a snapshot, if its last one is not larger. Default
    /// 64 MiB.
    pub snapshot_bytes: u64,
    /// The least time between snapshots that a group takes because of the number of its entries.
    /// Default 60 s.
    pub snapshot_pause: Duration,
    /// Default: abort.
    pub on_write_failure: WriteFailure,
    /// Makes the disk misbehave, in tests. Default: none.
    pub faults: Option<Arc<dyn DiskFaults>>,
}

impl EngineOptions {
    /// The defaults for a directory.
    pub fn new(directory: impl Into<PathBuf>) -> Self {
        Self {
            directory: directory.into(),
            purge_threshold: 256 << 20,
            log_file_size: 32 << 20,
            purge_interval: Duration::from_secs(10),
            log_retention: 64 << 20,
            snapshot_bytes: 64 << 20,
            snapshot_pause: Duration::from_secs(60),
            on_write_failure: WriteFailure::Abort,
            faults: None,
        }
    }
}

/// What a failed write or fsync of the log does, besides being reported by [`Engine::failed`](crate::Engine::failed).
/// It is never tried again: what a disk holds after a failed fsync, nobody knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WriteFailure {
    /// Ends the process at once.
    Abort,
    /// Every later write fails; for tests.
    Report,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_defaults_are_those_of_the_design() {
        let EngineOptions {
            directory,
            purge_threshold,
            log_file_size,
            purge_interval,
            log_retention,
            snapshot_bytes,
            snapshot_pause,
            on_write_failure,
            faults,
        } = EngineOptions::new("data");
        assert_eq!(directory, PathBuf::from("data"));
        assert_eq!(purge_threshold, 256 << 20);
        assert_eq!(log_file_size, 32 << 20);
        assert_eq!(purge_interval, Duration::from_secs(10));
        assert_eq!(log_retention, 64 << 20);
        assert_eq!(snapshot_bytes, 64 << 20);
        assert_eq!(snapshot_pause, Duration::from_secs(60));
        assert_eq!(on_write_failure, WriteFailure::Abort);
        assert!(faults.is_none());
    }
}
