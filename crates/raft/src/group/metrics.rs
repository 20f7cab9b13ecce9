//! What openraft's metrics say, as status, events and fatal errors.

use openraft::async_runtime::WatchReceiver as _;
use openraft::metrics::RaftMetrics;
use openraft::{Instant as _, ServerState};
use tokio::sync::broadcast;
use tokio_util::sync::CancellationToken;

use super::{Node, lease};
use crate::ids::MemberId;
use crate::machine::Machine;
use crate::membership::Membership;
use crate::position::LogPosition;
use crate::record::GroupRecord;
use crate::status::{GroupEvent, GroupStatus, MemberProgress, Role};
use crate::types::{TypeConfig, index_of, member};

pub(super) fn status<M: Machine>(record: &GroupRecord, raft: &Node<M>) -> GroupStatus {
    let metrics = raft.metrics().borrow_watched().clone();
    to_status(record, &metrics)
}

fn to_status(record: &GroupRecord, metrics: &RaftMetrics<TypeConfig>) -> GroupStatus {
    let stored = &metrics.membership_config;
    let Membership {
        position,
        voters,
        outgoing_voters,
        learners,
        addresses,
    } = Membership::of(stored);
    let role = role(record, metrics);
    let claims_to_lead = metrics.state == ServerState::Leader;
    let leader = metrics
        .current_leader
        .filter(|_| role == Role::Leader || !claims_to_lead);
    let leader_address = leader
        .and_then(|leader| stored.get_node(&leader))
        .map(|peer| peer.address.clone());
    let committed = metrics.cluster_committed.max(metrics.local_committed);
    GroupStatus {
        partition_id: record.partition_id,
        member_id: record.member_id,
        role,
        term: metrics.current_term,
        leader: leader.map(member),
        leader_address,
        voters,
        outgoing_voters,
        learners,
        membership: position,
        addresses,
        applied: index_of(metrics.last_applied.as_ref()),
        committed: index_of(committed.as_ref()),
        last_log: metrics.last_log_index.unwrap_or(0),
        snapshot: index_of(metrics.snapshot.as_ref()),
        compacted: index_of(metrics.purged.as_ref()),
        progress: progress(record, metrics),
    }
}

fn role(record: &GroupRecord, metrics: &RaftMetrics<TypeConfig>) -> Role {
    if metrics.running_state.is_err() {
        return Role::Stopped;
    }
    match metrics.state {
        ServerState::Learner => Role::Learner,
        ServerState::Follower => Role::Follower,
        ServerState::Candidate => Role::Candidate,
        ServerState::Leader => {
            let mut voters = metrics.membership_config.voter_ids();
            let is_alone = voters.all(|voter| voter == record.member_id.0);
            // A quorum of one acknowledges nothing: it has nobody to ask.
            let acknowledged = is_alone
                || metrics
                    .last_quorum_acked
                    .is_some_and(|acked| acked.elapsed() < lease(&record.timings));
            if acknowledged {
                Role::Leader
            } else {
                Role::Candidate
            }
        }
        ServerState::Shutdown => Role::Stopped,
    }
}

fn progress(record: &GroupRecord, metrics: &RaftMetrics<TypeConfig>) -> Vec<MemberProgress> {
    let Some(replication) = &metrics.replication else {
        return Vec::new();
    };
    replication
        .iter()
        .filter(|(id, _)| **id != record.member_id.0)
        .map(|(id, matched)| MemberProgress {
            member_id: member(*id),
            matched: index_of(matched.as_ref()),
            since_last_contact: metrics
                .heartbeat
                .as_ref()
                .and_then(|heartbeat| heartbeat.get(id))
                .copied()
                .flatten()
                .map(|at| at.elapsed()),
        })
        .collect()
}

/// Turns changes into events, until the group stops.
///
/// # Errors
/// When the group broke.
pub(super) async fn watch<M: Machine>(
    record: GroupRecord,
    raft: Node<M>,
    events: broadcast::Sender<GroupEvent>,
    stopping: CancellationToken,
) -> Result<(), String> {
    let mut metrics = raft.metrics();
    let mut seen = Seen::default();
    // A lease runs out without any change of the metrics.
    let mut tick = tokio::time::interval(lease(&record.timings) / 2);
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        let now = metrics.borrow_watched().clone();
        if let Err(error) = &now.running_state {
            return Err(error.to_string());
        }
        for event in seen.changes(&to_status(&record, &now)) {
            // Nobody listens; the status has it.
            let _ = events.send(event);
        }
        tokio::select! {
            changed = metrics.changed() => {
                if changed.is_err() {
                    return Err("the Raft task ended".to_owned());
                }
            }
            _ = tick.tick() => {}
            () = stopping.cancelled() => return Ok(()),
        }
    }
}

/// What was told before.
#[derive(Default)]
struct Seen {
    leader: Option<(u64, Option<MemberId>)>,
    membership: Option<LogPosition>,
    compacted: u64,
    ready: bool,
}

impl Seen {
    fn changes(&mut self, status: &GroupStatus) -> Vec<GroupEvent> {
        let mut events = Vec::new();
        let leader = Some((status.term, status.leader));
        if self.leader != leader {
            self.leader = leader;
            events.push(GroupEvent::LeaderChanged {
                term: status.term,
                leader: status.leader,
            });
        }
        if let Some(membership) = status.membership
            && self.membership != Some(membership)
        {
            self.membership = Some(membership);
            events.push(GroupEvent::MembershipChanged { membership });
        }
        if self.compacted < status.compacted {
            self.compacted = status.compacted;
            events.push(GroupEvent::LogCompacted {
                index: status.compacted,
            });
        }
        let caught_up = status.leader.is_some() && status.applied >= status.committed;
        if caught_up && status.committed > 0 && !self.ready {
            self.ready = true;
            events.push(GroupEvent::MemberReady {
                member_id: status.member_id,
            });
        }
        events
    }
}
