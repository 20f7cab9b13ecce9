//! The newest process of each other node, as its boot counter tells. A stream belongs to the process
//! that greeted on it; what comes on the stream of an older process is not taken any more, because
//! its disk may have been replaced or copied since.

use std::collections::HashMap;
use std::sync::Arc;

use atomix_raft::{BootCounters, NodeId, StaleBoot};
use parking_lot::Mutex;
use tokio::sync::watch;

/// What is known of one node.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Newest {
    boot_counter: u64,
    /// The streams that the node has opened to this one so far.
    arrivals: u64,
}

/// The newest process of every node that was met.
pub(super) struct PeerProcesses {
    seen: Arc<BootCounters>,
    nodes: Mutex<HashMap<NodeId, watch::Sender<Newest>>>,
}

impl PeerProcesses {
    pub(super) fn new(seen: Arc<BootCounters>) -> Self {
        Self {
            seen,
            nodes: Mutex::default(),
        }
    }

    /// Admits the process that greets on a new stream. A newer one ends the streams of the older.
    ///
    /// # Errors
    /// When a newer process of that node was met before.
    pub(super) fn admit(
        &self,
        node_id: NodeId,
        boot_counter: u64,
    ) -> Result<PeerProcess, StaleBoot> {
        self.seen.admit(node_id, boot_counter)?;
        let newest = self.subscribe(node_id, |newest| {
            let is_newer = boot_counter > newest.boot_counter;
            newest.boot_counter = newest.boot_counter.max(boot_counter);
            is_newer
        });
        let process = PeerProcess {
            node_id,
            boot_counter,
            newest,
        };
        // Two may greet at once, and this is the older.
        process.check()?;
        Ok(process)
    }

    /// The node has just opened a stream to this one: it can be reached.
    pub(super) fn arrived(&self, node_id: NodeId) {
        self.subscribe(node_id, |newest| {
            newest.arrivals += 1;
            true
        });
    }

    /// Streams that the node opens to this one from now on.
    pub(super) fn arrivals(&self, node_id: NodeId) -> Arrivals {
        let newest = self.subscribe(node_id, |_| false);
        let before = newest.borrow().arrivals;
        Arrivals { newest, before }
    }

    fn subscribe(
        &self,
        node_id: NodeId,
        change: impl FnOnce(&mut Newest) -> bool,
    ) -> watch::Receiver<Newest> {
        let mut nodes = self.nodes.lock();
        let newest = nodes
            .entry(node_id)
            .or_insert_with(|| watch::channel(Newest::default()).0);
        newest.send_if_modified(change);
        newest.subscribe()
    }
}

/// The process of a node that greeted on a stream.
#[derive(Debug)]
pub(super) struct PeerProcess {
    pub(super) node_id: NodeId,
    boot_counter: u64,
    newest: watch::Receiver<Newest>,
}

impl PeerProcess {
    /// To be asked for each frame.
    ///
    /// # Errors
    /// When a newer process of the node was met since.
    pub(super) fn check(&self) -> Result<(), StaleBoot> {
        let seen = self.newest.borrow().boot_counter;
        if seen > self.boot_counter {
            return Err(StaleBoot {
                node_id: self.node_id,
                offered: self.boot_counter,
                seen,
            });
        }
        Ok(())
    }

    /// Returns when a newer process of the node was met.
    pub(super) async fn replaced(&mut self) -> StaleBoot {
        loop {
            if let Err(stale) = self.check() {
                return stale;
            }
            if self.newest.changed().await.is_err() {
                // The node ends, and its streams with it.
                std::future::pending::<()>().await;
            }
        }
    }
}

/// Waits for a node to come.
pub(super) struct Arrivals {
    newest: watch::Receiver<Newest>,
    before: u64,
}

impl Arrivals {
    /// Returns when the node has opened a stream to this one since the arrivals were asked for.
    pub(super) async fn next(&mut self) {
        let before = self.before;
        let arrived = self.newest.wait_for(|newest| newest.arrivals > before);
        if arrived.await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use super::*;

    #[tokio::test]
    async fn a_newer_process_ends_the_streams_of_the_older_and_of_no_other_node() {
        let processes = PeerProcesses::new(Arc::default());
        let mut old = processes.admit(NodeId(7), 3).unwrap();
        let other = processes.admit(NodeId(8), 1).unwrap();
        processes.admit(NodeId(7), 3).unwrap();
        assert_eq!(old.check(), Ok(()), "another stream of the same process");

        let waiting = tokio::spawn(async move { old.replaced().await });
        let new = processes.admit(NodeId(7), 4).unwrap();
        let stale = waiting.await.unwrap();
        assert_eq!((stale.offered, stale.seen), (3, 4));
        assert_eq!(new.check(), Ok(()));
        assert_eq!(other.check(), Ok(()));
        assert!(processes.admit(NodeId(7), 3).is_err());
    }

    #[tokio::test]
    async fn an_arrival_between_asking_and_waiting_is_not_missed() {
        let processes = PeerProcesses::new(Arc::default());
        processes.arrived(NodeId(7));
        let mut arrivals = processes.arrivals(NodeId(7));
        processes.arrived(NodeId(8));
        processes.arrived(NodeId(7));
        arrivals.next().await;
    }
}
