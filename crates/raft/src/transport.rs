//! The seam to the network: how a group's messages reach the other members.

use std::time::Duration;

use futures::future::BoxFuture;

use crate::ids::{MemberId, NodeId, PartitionId};
use crate::{PeerMessage, PeerReply};

/// Which of the streams to a node a message takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Class {
    /// Appends and votes.
    Raft,
    /// Snapshot chunks.
    Snapshot,
}

/// The addressee of a message. `message` names the same members again, for the receiver to check.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PeerTarget {
    /// The partition.
    pub partition: PartitionId,
    /// The sending member.
    pub from_member: MemberId,
    /// The receiving member.
    pub to_member: MemberId,
    /// The node that holds the receiving member.
    pub to_node: NodeId,
    /// `host:port` of the receiving node's peer port.
    pub address: String,
}

/// Why there is no reply.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TransportError {
    /// There is no connection to the node; trying again at once is of no use.
    #[error("node {node_id} at {address} is unreachable: {reason}")]
    Unreachable {
        /// The node.
        node_id: NodeId,
        /// Where it was looked for.
        address: String,
        /// What happened.
        reason: String,
    },
    /// The connection broke while the message was under way: perhaps it arrived.
    #[error("the stream to node {node_id} ended: {reason}")]
    Broken {
        /// The node.
        node_id: NodeId,
        /// What happened.
        reason: String,
    },
    /// No reply in time: perhaps the message arrived.
    #[error("node {node_id} did not answer within {timeout:?}")]
    TimedOut {
        /// The node.
        node_id: NodeId,
        /// How long the reply was waited for.
        timeout: Duration,
    },
}

/// Carries messages to other members. All groups of a process share one.
pub trait Transport: Send + Sync + 'static {
    /// Sends `message` and waits for the reply, at most `timeout`.
    ///
    /// The message takes its place in the stream DURING this call: calls for the same node and
    /// class in some order are delivered in that order, though their futures be polled in any
    /// other. Dropping the future gives the reply up, not the message.
    fn send(
        &self,
        target: &PeerTarget,
        message: PeerMessage,
        class: Class,
        timeout: Duration,
    ) -> BoxFuture<'static, Result<PeerReply, TransportError>>;
}
