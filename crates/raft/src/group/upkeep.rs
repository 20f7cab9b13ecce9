//! Takes snapshots and compacts the log, when that is due.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use openraft::async_runtime::WatchReceiver as _;
use parking_lot::Mutex;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::Node;
use super::snapshot_policy::{SinceSnapshot, SnapshotPolicy};
use crate::error::StorageError;
use crate::host::Host;
use crate::machine::Machine;
use crate::network::Sender;
use crate::types::index_of;

const INTERVAL: Duration = Duration::from_secs(1);

pub(super) struct Upkeep<M: Machine> {
    raft: Node<M>,
    host: Arc<Host<M>>,
    sender: Arc<Sender>,
    policy: SnapshotPolicy,
    /// Applied payload bytes that the log keeps.
    retention: u64,
    history: Mutex<History>,
}

struct History {
    /// Applied payload bytes at the last snapshot, and when that was.
    snapshot_bytes: u64,
    snapshot_at: Instant,
    /// Index and applied payload bytes at that index, in order.
    marks: VecDeque<(u64, u64)>,
}

impl<M: Machine> Upkeep<M> {
    pub(super) fn new(
        raft: Node<M>,
        host: Arc<Host<M>>,
        sender: Arc<Sender>,
        policy: SnapshotPolicy,
        retention: u64,
    ) -> Self {
        let history = History {
            snapshot_bytes: 0,
            snapshot_at: Instant::now(),
            marks: VecDeque::new(),
        };
        Self {
            raft,
            host,
            sender,
            policy,
            retention,
            history: Mutex::new(history),
        }
    }

    pub(super) async fn run(self: Arc<Self>, stopping: CancellationToken) {
        let mut snapshots = self.host.snapshot_progress();
        let mut tick = tokio::time::interval(INTERVAL);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                _ = tick.tick() => {
                    if self.snapshot_is_due() {
                        self.begin_snapshot().await;
                    }
                }
                changed = snapshots.changed() => {
                    if changed.is_err() {
                        return;
                    }
                }
                () = stopping.cancelled() => return,
            }
            self.compact().await;
        }
    }

    fn snapshot_is_due(&self) -> bool {
        let applied = *self.host.progress().borrow();
        let bytes = self.host.applied_bytes();
        let (snapshot, snapshot_size) = self.host.newest_snapshot();
        let history = self.history.lock();
        self.policy.is_due(&SinceSnapshot {
            bytes: bytes.saturating_sub(history.snapshot_bytes),
            entries: applied.saturating_sub(snapshot),
            elapsed: history.snapshot_at.elapsed(),
            snapshot_bytes: snapshot_size,
        })
    }

    async fn begin_snapshot(&self) {
        {
            let mut history = self.history.lock();
            history.snapshot_bytes = self.host.applied_bytes();
            history.snapshot_at = Instant::now();
        }
        if let Err(error) = self.raft.trigger().snapshot().await {
            tracing::warn!(%error, "cannot begin a snapshot");
        }
    }

    pub(super) async fn snapshot_now(&self) -> Result<u64, StorageError> {
        let target = *self.host.progress().borrow();
        let mut snapshots = self.host.snapshot_progress();
        loop {
            let index = *snapshots.borrow_and_update();
            if index >= target {
                self.compact().await;
                return Ok(index);
            }
            // One that began before may end first; ask again then.
            self.begin_snapshot().await;
            snapshots
                .changed()
                .await
                .map_err(|error| StorageError(error.to_string()))?;
        }
    }

    async fn compact(&self) {
        let upto = self.may_compact();
        let metrics = self.raft.metrics();
        let compacted = index_of(metrics.borrow_watched().purged.as_ref());
        drop(metrics);
        if upto <= compacted {
            return;
        }
        if let Err(error) = self.raft.trigger().purge_log(upto).await {
            tracing::warn!(%error, "cannot compact the log");
        }
    }

    /// The last entry that neither a kept snapshot, nor a snapshot that is being sent, nor the
    /// retention needs.
    fn may_compact(&self) -> u64 {
        let applied = *self.host.progress().borrow();
        let bytes = self.host.applied_bytes();
        let retained = self.history.lock().retained(applied, bytes, self.retention);
        let in_transfer = self
            .sender
            .oldest_snapshot_in_transfer()
            .unwrap_or(u64::MAX);
        self.host.older_snapshot().min(retained).min(in_transfer)
    }
}

impl History {
    /// The last entry behind which at least `retention` bytes were applied; 0 = none.
    fn retained(&mut self, applied: u64, bytes: u64, retention: u64) -> u64 {
        if self.marks.back().is_none_or(|(index, _)| *index < applied) {
            self.marks.push_back((applied, bytes));
        }
        let is_enough = |mark: &(u64, u64)| bytes - mark.1 >= retention;
        while self.marks.get(1).is_some_and(is_enough) {
            self.marks.pop_front();
        }
        self.marks
            .front()
            .filter(|mark| is_enough(mark))
            .map_or(0, |(index, _)| *index)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_log_keeps_at_least_the_retention_behind_what_is_applied() {
        let mut history = History {
            snapshot_bytes: 0,
            snapshot_at: Instant::now(),
            marks: VecDeque::new(),
        };
        // Ten bytes an entry, looked at after every third one.
        for applied in (3..300).step_by(3) {
            let kept_from = history.retained(applied, applied * 10, 100);
            let kept = (applied - kept_from) * 10;
            assert!(kept >= 100 || kept_from == 0, "{kept} bytes at {applied}");
            assert!(kept < 100 + 60 || applied < 16, "{kept} bytes at {applied}");
        }
        assert!(history.marks.len() < 10, "{}", history.marks.len());
        assert_eq!(history.retained(300, 3000, 0), 300, "nothing to keep");
    }
}
