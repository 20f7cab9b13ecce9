//! The types that openraft is made to work with here.

use std::any::Any;
use std::fmt;

use bytes::Bytes;
use parking_lot::Mutex;

use crate::ids::{MemberId, NodeId};
use crate::position::LogPosition;
use crate::record::MemberAddress;

openraft::declare_raft_types!(
    /// Standard Raft terms: one leader per term.
    pub(crate) TypeConfig:
        D = Payload,
        R = Answer,
        NodeId = u64,
        Node = Peer,
        LeaderId = openraft::impls::leader_id_std::LeaderId<Self::Term, Self::NodeId>,
        AsyncRuntime = openraft::impls::TokioRuntime,
);

pub(crate) type LogId = openraft::type_config::alias::LogIdOf<TypeConfig>;
pub(crate) type Vote = openraft::type_config::alias::VoteOf<TypeConfig>;
pub(crate) type Entry = openraft::type_config::alias::EntryOf<TypeConfig>;
pub(crate) type StoredMembership = openraft::type_config::alias::StoredMembershipOf<TypeConfig>;
pub(crate) type SnapshotMeta = openraft::type_config::alias::SnapshotMetaOf<TypeConfig>;
pub(crate) type Membership = openraft::Membership<u64, Peer>;
pub(crate) type IoFlushed = openraft::storage::IOFlushed<TypeConfig>;

/// What the machine applies; never looked into.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Payload(pub(crate) Bytes);

impl fmt::Debug for Payload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} bytes", self.0.len())
    }
}

impl fmt::Display for Payload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

/// Carries a machine's output through openraft, which wants it `Sync`.
pub(crate) struct Answer(Mutex<Option<Box<dyn Any + Send>>>);

impl Answer {
    /// The answer to entries that no machine sees.
    pub(crate) fn none() -> Self {
        Self(Mutex::new(None))
    }

    pub(crate) fn of<T: Send + 'static>(output: T) -> Self {
        Self(Mutex::new(Some(Box::new(output))))
    }

    pub(crate) fn take<T: 'static>(self) -> Option<T> {
        let output = self.0.into_inner()?;
        output.downcast::<T>().ok().map(|output| *output)
    }
}

impl fmt::Debug for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Answer")
    }
}

/// What the membership says about a member.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Peer {
    pub(crate) node_id: u64,
    pub(crate) address: String,
}

impl Peer {
    pub(crate) fn new(address: &MemberAddress) -> Self {
        Self {
            node_id: address.node_id.0,
            address: address.address.clone(),
        }
    }

    pub(crate) fn node_id(&self) -> NodeId {
        NodeId(self.node_id)
    }
}

pub(crate) fn member(id: u64) -> MemberId {
    MemberId(id)
}

/// Where an entry is.
pub(crate) fn position(log_id: &LogId) -> LogPosition {
    LogPosition {
        term: log_id.leader_id.term,
        index: log_id.index,
    }
}

pub(crate) fn to_log_id(position: LogPosition) -> LogId {
    LogId::new_term_index(position.term, position.index)
}

/// The index of a log id; 0 for none.
pub(crate) fn index_of(log_id: Option<&LogId>) -> u64 {
    log_id.map_or(0, |log_id| log_id.index)
}
