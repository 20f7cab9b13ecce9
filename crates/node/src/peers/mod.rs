//! The streams between nodes: one per pair of nodes and class, for all partitions.
//!
//! Not for what the messages mean (crate `raft`).

mod link;
mod server;
mod transport;

use std::sync::Arc;

use atomix_proto::multiraft::v1::{PeerFrame, PeerHello, peer_frame::Body};
use atomix_raft::{BootCounters, NodeId};

pub(crate) use server::PeersService;
pub(crate) use transport::PeerTransport;

/// The version of the protocol between nodes.
const VERSION: u32 = 1;

/// Who this node is to the others, and what it knows of them.
pub(crate) struct Greeting {
    pub(crate) node_id: NodeId,
    pub(crate) boot_counter: u64,
    pub(crate) seen: Arc<BootCounters>,
}

impl Greeting {
    fn frame(&self, store_uid: &str) -> PeerFrame {
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

    /// Checks the first frame of the other side.
    fn check(&self, first: Option<PeerFrame>) -> Result<PeerHello, String> {
        let Some(Body::Hello(hello)) = first.and_then(|frame| frame.body) else {
            return Err("the first frame is no hello".to_owned());
        };
        if hello.version != VERSION {
            return Err(format!(
                "node {:016x} speaks version {}, this node {VERSION}",
                hello.node_id, hello.version
            ));
        }
        self.seen
            .admit(NodeId(hello.node_id), hello.boot_counter)
            .map_err(|stale| stale.to_string())?;
        Ok(hello)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use super::*;

    #[test]
    fn a_hello_with_a_lower_boot_counter_is_refused() {
        let greeting = |node, boot_counter| Greeting {
            node_id: NodeId(node),
            boot_counter,
            seen: Arc::default(),
        };
        let me = greeting(1, 1);
        assert!(me.check(Some(greeting(2, 5).frame("store"))).is_ok());
        let stale = me.check(Some(greeting(2, 4).frame("store"))).unwrap_err();
        assert!(stale.contains("restored or copied"), "{stale}");
        assert!(me.check(Some(greeting(2, 6).frame("store"))).is_ok());
        assert!(me.check(Some(PeerFrame::default())).is_err());
        assert!(me.check(None).is_err());
    }
}
