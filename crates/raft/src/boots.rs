//! Detects a restored or copied disk: its node comes back with a boot counter that was seen before.

use std::collections::HashMap;
use std::sync::{Weak, mpsc};

use parking_lot::Mutex;
use tokio::runtime::{Handle, RuntimeFlavor};

use crate::error::StorageError;
use crate::ids::NodeId;
use crate::log::{Completion, LogCore, Operation, Request, disk};

/// The sender started fewer times than somebody with its node id did before.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "node {node_id} came with boot counter {offered} after {seen}: its disk was restored or copied; replace the node"
)]
pub struct StaleBoot {
    /// The node.
    pub node_id: NodeId,
    /// The counter that it came with.
    pub offered: u64,
    /// The highest counter seen.
    pub seen: u64,
}

/// The highest boot counter seen of each node. Those of [`crate::Engine::boot_counters`] are kept
/// on its disk; others live as long as the process.
#[derive(Debug, Default)]
pub struct BootCounters {
    counters: Mutex<HashMap<NodeId, Counter>>,
    /// Weak: whoever checks peers must not keep the log open.
    core: Option<Weak<LogCore>>,
}

#[derive(Debug, Default, Clone, Copy)]
struct Counter {
    seen: u64,
    /// The highest that is on disk.
    stored: u64,
}

impl BootCounters {
    pub(crate) fn stored(core: Weak<LogCore>, on_disk: Vec<(NodeId, u64)>) -> Self {
        let counter = |seen| Counter { seen, stored: seen };
        let counters = on_disk
            .into_iter()
            .map(|(node, seen)| (node, counter(seen)));
        Self {
            counters: Mutex::new(counters.collect()),
            core: Some(core),
        }
    }

    /// Checks the counter of a node that connects, and remembers it: it is on disk when this
    /// returns. That blocks for one write when the node was started since it last connected.
    ///
    /// # Errors
    /// When a higher counter of the same node was admitted before.
    pub fn admit(&self, node_id: NodeId, boot_counter: u64) -> Result<(), StaleBoot> {
        let stored = {
            let mut counters = self.counters.lock();
            let counter = counters.entry(node_id).or_default();
            if boot_counter < counter.seen {
                return Err(StaleBoot {
                    node_id,
                    offered: boot_counter,
                    seen: counter.seen,
                });
            }
            counter.seen = boot_counter;
            if boot_counter == counter.stored {
                return Ok(());
            }
            // Submitted while the counters are locked: disk and memory agree on the order.
            self.store(node_id, boot_counter)
        };
        let Some(stored) = stored else {
            return Ok(());
        };
        if wait(&stored).is_ok_and(|stored| stored.is_ok()) {
            let mut counters = self.counters.lock();
            let counter = counters.entry(node_id).or_default();
            counter.stored = counter.stored.max(boot_counter);
        }
        // Else the log has failed: the process ends, or acknowledges nothing any more.
        Ok(())
    }

    fn store(&self, node_id: NodeId, boot_counter: u64) -> Option<Stored> {
        let core = self.core.as_ref()?.upgrade()?;
        let (sender, receiver) = mpsc::channel();
        let put = Operation::Put(disk::boot_key(node_id.0), disk::encode_boot(boot_counter));
        core.submit(Request {
            region: disk::NODE_REGION,
            operations: vec![put],
            completion: Completion::Blocking(sender),
        });
        Some(receiver)
    }
}

type Stored = mpsc::Receiver<Result<(), StorageError>>;

/// Waits for the log's thread, without keeping other tasks of this one waiting.
fn wait(stored: &Stored) -> Result<Result<(), StorageError>, mpsc::RecvError> {
    let is_worker = Handle::try_current()
        .is_ok_and(|runtime| runtime.runtime_flavor() == RuntimeFlavor::MultiThread);
    if is_worker {
        tokio::task::block_in_place(|| stored.recv())
    } else {
        stored.recv()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lower_boot_counter_of_the_same_node_is_refused() {
        let counters = BootCounters::default();
        assert_eq!(counters.admit(NodeId(1), 3), Ok(()));
        assert_eq!(counters.admit(NodeId(1), 3), Ok(()), "a reconnect");
        assert_eq!(counters.admit(NodeId(2), 1), Ok(()), "another node");
        assert_eq!(counters.admit(NodeId(1), 4), Ok(()), "a restart");
        let stale = counters.admit(NodeId(1), 3);
        assert_eq!(
            stale,
            Err(StaleBoot {
                node_id: NodeId(1),
                offered: 3,
                seen: 4
            })
        );
    }
}
