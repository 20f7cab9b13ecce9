//! When a snapshot is due.

use std::time::Duration;

/// When a group takes a snapshot of its own accord.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct SnapshotPolicy {
    /// So many payload bytes since the last one are reason enough, if it is not larger itself.
    pub(super) bytes: u64,
    /// So many entries are, too, but no sooner than `pause` after the last one.
    pub(super) entries: u64,
    pub(super) pause: Duration,
}

/// What happened since the last snapshot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct SinceSnapshot {
    /// Applied payload bytes.
    pub(super) bytes: u64,
    /// Applied entries.
    pub(super) entries: u64,
    pub(super) elapsed: Duration,
    /// The length of the last snapshot in bytes: about the size of the state.
    pub(super) snapshot_bytes: u64,
}

impl SnapshotPolicy {
    pub(super) fn is_due(&self, since: &SinceSnapshot) -> bool {
        let many_bytes = since.bytes > self.bytes.max(since.snapshot_bytes);
        let many_entries = since.entries >= self.entries && since.elapsed >= self.pause;
        since.entries > 0 && (many_bytes || many_entries)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    #[test]
    fn a_snapshot_is_due_after_many_bytes_or_many_entries_and_some_time() {
        let policy = SnapshotPolicy {
            bytes: 64 * MIB,
            entries: 10_000,
            pause: Duration::from_secs(60),
        };
        // Bytes, entries, seconds, bytes of the last snapshot.
        let table = [
            (0, 0, 0, 0, false),
            (0, 0, 3600, 0, false),
            // By bytes alone, at any time.
            (64 * MIB, 1, 0, 0, false),
            (64 * MIB + 1, 1, 0, 0, true),
            (64 * MIB + 1, 1, 0, 64 * MIB, true),
            // A large state is written again only after as many bytes.
            (100 * MIB, 9_999, 3600, 100 * MIB, false),
            (100 * MIB + 1, 9_999, 0, 100 * MIB, true),
            // By entries, and not several times a second.
            (MIB, 9_999, 3600, 0, false),
            (MIB, 10_000, 59, 0, false),
            (MIB, 10_000, 60, 0, true),
            (MIB, 1_000_000, 59, 0, false),
            (MIB, 10_000, 60, 1 << 40, true),
        ];
        for (bytes, entries, seconds, snapshot_bytes, due) in table {
            let since = SinceSnapshot {
                bytes,
                entries,
                elapsed: Duration::from_secs(seconds),
                snapshot_bytes,
            };
            assert_eq!(policy.is_due(&since), due, "{since:?}");
        }
    }
}
