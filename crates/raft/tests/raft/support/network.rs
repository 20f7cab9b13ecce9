//! Carries messages between the groups of one process, encoded as on a real wire.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use atomix_proto::multiraft::v1::peer_message::Body;
use atomix_raft::{
    Class, Group, PartitionId, PeerMessage, PeerReply, PeerTarget, Transport, TransportError,
};
use futures::future::BoxFuture;
use parking_lot::Mutex;
use prost::Message as _;
use tokio::sync::watch;

use super::machine::Journal;

#[derive(Default)]
pub(crate) struct Network {
    state: Arc<Mutex<State>>,
    pub(crate) snapshot_chunks: AtomicU64,
    /// True while snapshots stay where they are.
    pub(crate) holds_snapshots: watch::Sender<bool>,
    /// Chunks that were held.
    pub(crate) held_chunks: AtomicU64,
    /// How long the senders of each kind of message waited at most for the answer.
    timeouts: Mutex<BTreeMap<&'static str, BTreeSet<Duration>>>,
}

#[derive(Default)]
struct State {
    groups: BTreeMap<(PartitionId, u64), Group<Journal>>,
    /// Members that nobody reaches, and that reach nobody.
    isolated: BTreeSet<u64>,
    /// Members that are reached by all but new entries.
    starved: BTreeSet<u64>,
}

impl State {
    fn is_cut(&self, one: u64, other: u64) -> bool {
        self.isolated.contains(&one) || self.isolated.contains(&other)
    }
}

impl Network {
    pub(crate) fn new() -> Arc<Self> {
        Arc::default()
    }

    pub(crate) fn attach(&self, id: u64, group: Group<Journal>) {
        let partition = group.record().partition_id;
        self.state.lock().groups.insert((partition, id), group);
    }

    pub(crate) fn detach(&self, id: u64) {
        self.state
            .lock()
            .groups
            .retain(|(_, member), _| *member != id);
    }

    /// Messages from and to the member vanish, replies that are under way included.
    pub(crate) fn isolate(&self, id: u64) {
        self.state.lock().isolated.insert(id);
    }

    /// Entries for the member vanish; it answers all else.
    pub(crate) fn starve(&self, id: u64) {
        self.state.lock().starved.insert(id);
    }

    /// All time-outs that messages of a kind were sent with.
    pub(crate) fn timeouts(&self, kind: &str) -> Vec<Duration> {
        let timeouts = self.timeouts.lock();
        timeouts.get(kind).into_iter().flatten().copied().collect()
    }

    pub(crate) fn heal(&self) {
        let mut state = self.state.lock();
        state.isolated.clear();
        state.starved.clear();
    }
}

fn kind(message: &PeerMessage) -> &'static str {
    match &message.body {
        Some(Body::AppendEntries(_)) => "append",
        Some(Body::Vote(_)) => "vote",
        Some(Body::PreVote(_)) => "pre-vote",
        Some(Body::TransferLeader(_)) => "transfer",
        Some(Body::SnapshotChunk(_)) => "snapshot",
        Some(Body::Report(_)) => "report",
        None => "nothing",
    }
}

fn has_entries(message: &PeerMessage) -> bool {
    matches!(&message.body, Some(Body::AppendEntries(append)) if !append.entries.is_empty())
}

impl Transport for Network {
    fn send(
        &self,
        target: &PeerTarget,
        message: PeerMessage,
        class: Class,
        timeout: Duration,
    ) -> BoxFuture<'static, Result<PeerReply, TransportError>> {
        if class == Class::Snapshot {
            self.snapshot_chunks.fetch_add(1, Ordering::Relaxed);
        }
        let mut timeouts = self.timeouts.lock();
        timeouts.entry(kind(&message)).or_default().insert(timeout);
        drop(timeouts);
        let (from, to, node_id) = (target.from_member.0, target.to_member.0, target.to_node);
        let address = target.address.clone();
        let state = self.state.clone();
        let message = PeerMessage::decode(message.encode_to_vec().as_slice());
        let message = message.expect("it decodes");
        let (group, cut) = {
            let state = state.lock();
            let group = state.groups.get(&(target.partition, to));
            let is_starved = state.starved.contains(&to) && has_entries(&message);
            (group.cloned(), is_starved || state.is_cut(from, to))
        };
        let mut held = self.holds_snapshots.subscribe();
        if class == Class::Snapshot && *held.borrow() {
            self.held_chunks.fetch_add(1, Ordering::Relaxed);
            return Box::pin(async move {
                // The network outlives the test.
                let _ = held.wait_for(|holds| !holds).await;
                match group {
                    Some(group) => Ok(group.handle(message).await),
                    None => Err(TransportError::TimedOut { node_id, timeout }),
                }
            });
        }
        let reply = group.filter(|_| !cut).map(|group| group.handle(message));
        Box::pin(async move {
            let timed_out = TransportError::TimedOut { node_id, timeout };
            let Some(reply) = reply else {
                if cut {
                    tokio::time::sleep(timeout).await;
                    return Err(timed_out);
                }
                return Err(TransportError::Unreachable {
                    node_id,
                    address,
                    reason: "nobody listens".to_owned(),
                });
            };
            let Ok(reply) = tokio::time::timeout(timeout, reply).await else {
                return Err(timed_out);
            };
            if state.lock().is_cut(from, to) {
                tokio::time::sleep(timeout).await;
                return Err(timed_out);
            }
            let reply = PeerReply::decode(reply.encode_to_vec().as_slice());
            Ok(reply.expect("it decodes"))
        })
    }
}
