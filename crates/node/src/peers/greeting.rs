//! The hello with which both sides of a stream begin: who they are, and which process of their node.

use std::sync::Arc;

use atomix_proto::multiraft::v1::{PeerFrame, PeerHello, peer_frame::Body};
use atomix_raft::{BootCounters, NodeId};

use super::processes::{PeerProcess, PeerProcesses};

/// The version of the protocol between nodes.
const VERSION: u32 = 1;

/// Who this node is to the others, and what it knows of them.
pub(crate) struct Greeting {
    node_id: NodeId,
    boot_counter: u64,
    pub(super) processes: PeerProcesses,
}

impl Greeting {
    pub(crate) fn new(node_id: NodeId, boot_counter: u64, seen: Arc<BootCounters>) -> Self {
        Self {
            node_id,
            boot_counter,
            processes: PeerProcesses::new(seen),
        }
    }

    pub(super) fn frame(&self, store_uid: &str) -> PeerFrame {
        PeerFrame {
            correlation_id: 0,
            body: Some(Body::Hello(PeerHello {
                version: VERSION,
                node_id: self.node_id.0,
                boot_counter: self.boot_counter,
                store_uid: store_uid.to_owned(),
            })),
        }
    }

    /// Checks the first frame of the other side and admits its process.
    ///
    /// # Errors
    /// Why there can be no stream.
    pub(super) fn check(&self, first: Option<PeerFrame>) -> Result<PeerProcess, String> {
        let Some(Body::Hello(hello)) = first.and_then(|frame| frame.body) else {
            return Err("the first frame is no hello".to_owned());
        };
        if hello.version != VERSION {
            return Err(format!(
                "node {:016x} speaks version {}, this node {VERSION}",
                hello.node_id, hello.version
            ));
        }
        if hello.node_id == self.node_id.0 {
            return Err(format!(
                "node {:016x} is this node itself: an address is wrong, or its disk was copied",
                hello.node_id
            ));
        }
        self.processes
            .admit(NodeId(hello.node_id), hello.boot_counter)
            .map_err(|stale| stale.to_string())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use super::*;

    #[test]
    fn a_hello_of_an_older_process_or_of_this_node_or_none_is_refused() {
        let greeting = |node, boot| Greeting::new(NodeId(node), boot, Arc::default());
        let me = greeting(1, 1);
        assert!(me.check(Some(greeting(2, 5).frame("store"))).is_ok());
        let stale = me.check(Some(greeting(2, 4).frame("store"))).unwrap_err();
        assert!(stale.contains("restored or copied"), "{stale}");
        assert!(me.check(Some(greeting(2, 6).frame("store"))).is_ok());
        let myself = me.check(Some(greeting(1, 7).frame("store"))).unwrap_err();
        assert!(myself.contains("this node itself"), "{myself}");
        assert!(me.check(Some(PeerFrame::default())).is_err());
        assert!(me.check(None).is_err());
    }
}
