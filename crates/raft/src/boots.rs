//! Detects a restored or copied disk: its node comes back with a boot counter that was seen before.

use std::collections::HashMap;

use parking_lot::Mutex;

use crate::ids::NodeId;

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

/// The highest boot counter seen of each node. Lives as long as the process.
#[derive(Debug, Default)]
pub struct BootCounters {
    highest: Mutex<HashMap<NodeId, u64>>,
}

impl BootCounters {
    /// Checks the counter of a node that connects, and remembers it.
    ///
    /// # Errors
    /// When a higher counter of the same node was admitted before.
    pub fn admit(&self, node_id: NodeId, boot_counter: u64) -> Result<(), StaleBoot> {
        let mut highest = self.highest.lock();
        let seen = highest.entry(node_id).or_insert(boot_counter);
        if boot_counter < *seen {
            return Err(StaleBoot {
                node_id,
                offered: boot_counter,
                seen: *seen,
            });
        }
        *seen = boot_counter;
        Ok(())
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
