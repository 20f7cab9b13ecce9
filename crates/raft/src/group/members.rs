//! Changes of a group's members, and handing over the leadership. Only a leader does either.
//!
//! Not for deciding which change is due.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use futures::StreamExt as _;
use futures::stream::FuturesUnordered;
use openraft::async_runtime::WatchReceiver as _;
use openraft::errors::{ChangeMembershipError, ClientWriteError, ForwardReason, RaftError};
use openraft::raft::Precondition;
use tokio::time::Instant;

use super::{Group, hint};
use crate::error::{ChangeError, LeaderHint, TransferError};
use crate::ids::{MemberId, NodeId};
use crate::machine::Machine;
use crate::membership::{CatchUp, MemberChange, Membership};
use crate::network::MemberReport;
use crate::position::LogPosition;
use crate::status::{GroupStatus, Role};
use crate::types::{Peer, StoredMembership, TypeConfig, to_log_id};

/// A member that lags further behind cannot take the leadership over: nobody would serve meanwhile.
const TRANSFER_LAG: u64 = 100;

impl<M: Machine> Group<M> {
    /// The members, also those of a change that is not committed yet.
    pub fn membership(&self) -> Membership {
        Membership::of(&self.inner.raft.metrics().borrow_watched().membership_config)
    }

    /// The node of a member: by the membership, or by the plan while there is none.
    pub fn node_of(&self, member: MemberId) -> Option<NodeId> {
        let metrics = self.inner.raft.metrics();
        let metrics = metrics.borrow_watched();
        let known = metrics.membership_config.get_node(&member.0);
        let planned = || self.inner.record.members.get(&member);
        known
            .map(Peer::node_id)
            .or_else(|| planned().map(|planned| planned.node_id))
    }

    /// The members by the last change that this member has applied.
    pub fn applied_membership(&self) -> Membership {
        Membership::of(&self.inner.host.membership())
    }

    /// How long ago a leader's message arrived last; since the start, when none did.
    pub fn since_heard(&self) -> Duration {
        self.inner.inbox.since_heard()
    }

    /// One heartbeat of this group.
    pub fn heartbeat(&self) -> Duration {
        self.inner.record.timings.election_timeout / 10
    }

    /// Changes the members if they are still those of `expected`, and waits until the change is
    /// committed, with both steps of a change of voters. A caller that gives up does not stop it.
    /// Proposes nothing when nothing would change.
    ///
    /// # Errors
    /// `Unknown` alone means that the change may have been, or may yet be carried out.
    pub async fn change_members(
        &self,
        change: &MemberChange,
        expected: Option<LogPosition>,
        deadline: Instant,
    ) -> Result<Membership, ChangeError> {
        let before = self.membership();
        if before.position != expected {
            return Err(ChangeError::Conflict(
                "the membership has changed meanwhile".to_owned(),
            ));
        }
        let Some(proposal) = change.proposal(&before).map_err(ChangeError::Refused)? else {
            return Ok(before);
        };
        let precondition = Precondition::LastMembershipLogId {
            last_membership_log_id: expected.map(to_log_id),
        };
        let raft = self.inner.raft.clone();
        let partition = self.inner.record.partition_id;
        tracing::info!(%partition, ?change, "changes the members");
        // A task of its own: who gives up must not leave a joint configuration behind.
        let guard = self.inner.host.panic_guard("a change of the members");
        let changing = tokio::spawn(async move {
            let _guard = guard;
            let changed = raft.change_membership_if(proposal, false, [precondition]);
            Box::pin(changed).await
        });
        let outcome = match tokio::time::timeout_at(deadline, changing).await {
            Err(_) => return Err(ChangeError::Unknown("no outcome in time".to_owned())),
            Ok(Err(error)) => return Err(ChangeError::Unknown(error.to_string())),
            Ok(Ok(outcome)) => outcome.map_err(change_error)?,
        };
        let stored =
            StoredMembership::new(Some(outcome.log_id), outcome.membership.unwrap_or_default());
        // Metrics lag a little; the next change is judged by them.
        let mut metrics = self.inner.raft.metrics();
        let shown = async {
            while metrics.borrow_watched().membership_config.log_id().as_ref()
                < Some(&outcome.log_id)
            {
                if metrics.changed().await.is_err() {
                    return;
                }
            }
        };
        let _ = tokio::time::timeout_at(deadline, shown).await;
        Ok(Membership::of(&stored))
    }

    /// Asks a member how far it is. `None` = no answer in time.
    pub async fn report_of(&self, member: MemberId, timeout: Duration) -> Option<MemberReport> {
        if member == self.inner.record.member_id {
            let status = self.status();
            return Some(MemberReport {
                term: status.term,
                last_log: status.last_log,
                applied: status.applied,
            });
        }
        let address = self.membership().addresses.get(&member).cloned()?;
        let asked = self.inner.sender.report(member, &address, timeout).await;
        match asked {
            Ok(report) => Some(report),
            Err(reason) => {
                tracing::debug!(%member, reason, "a member does not tell how far it is");
                None
            }
        }
    }

    /// Waits until a member is caught up: three times in a row, a heartbeat apart, it reported
    /// itself that it has applied what was committed one heartbeat before.
    ///
    /// # Errors
    /// How far it is, when it is not caught up in time or this member leads no longer.
    pub async fn caught_up(&self, member: MemberId, deadline: Instant) -> Result<(), String> {
        let mut catch_up = CatchUp::default();
        loop {
            let committed = self.status().committed;
            let report = self.report_of(member, self.heartbeat() * 5).await;
            let applied = report.map(|report| report.applied);
            if catch_up.observe(applied, committed) {
                return Ok(());
            }
            if self.status().role != Role::Leader {
                return Err("the leadership was lost meanwhile".to_owned());
            }
            if Instant::now() >= deadline {
                return Err(match applied {
                    Some(applied) => {
                        format!("member {member} has applied {applied} of {committed} entries")
                    }
                    None => format!("member {member} does not answer"),
                });
            }
            tokio::time::sleep(self.heartbeat()).await;
        }
    }

    /// Which of `candidates` answer and have applied what is committed, or was a heartbeat before
    /// they were asked. Returns as soon as they are a majority of the candidates, at the latest
    /// after one election timeout.
    pub async fn level_members(&self, candidates: &BTreeSet<MemberId>) -> BTreeSet<MemberId> {
        let election_timeout = self.inner.record.timings.election_timeout;
        let deadline = Instant::now() + election_timeout;
        let mut level = BTreeSet::new();
        loop {
            let committed = self.status().committed;
            tokio::time::sleep(self.heartbeat()).await;
            let left = deadline.saturating_duration_since(Instant::now());
            let mut asking: FuturesUnordered<_> = candidates
                .difference(&level)
                .copied()
                .map(|member| async move { (member, self.report_of(member, left).await) })
                .collect();
            while let Some((member, report)) = asking.next().await {
                if report.is_some_and(|report| report.applied >= committed) {
                    level.insert(member);
                }
                if is_majority(&level, candidates) {
                    return level;
                }
            }
            drop(asking);
            if Instant::now() >= deadline {
                return level;
            }
        }
    }

    /// Hands the leadership to another voter, which must answer within one heartbeat and be close
    /// behind, because a transfer cannot be taken back. One at a time. Done already is no error.
    ///
    /// # Errors
    /// `Unknown` alone means that the leadership may have changed.
    pub async fn transfer_leadership(
        &self,
        to: MemberId,
        deadline: Instant,
    ) -> Result<(), TransferError> {
        let Ok(_one) = self.inner.transferring.try_lock() else {
            return Err(TransferError::Busy);
        };
        let status = self.status();
        if status.leader == Some(to) {
            return Ok(());
        }
        if status.role != Role::Leader {
            return Err(TransferError::NotLeader(self.leader_hint(&status)));
        }
        let refused = |reason: String| Err(TransferError::Refused(reason));
        if !status.voters.contains(&to) {
            return refused(format!("member {to} is no voter"));
        }
        let heartbeat = self.heartbeat();
        let Some(report) = self.report_of(to, heartbeat).await else {
            return refused(format!(
                "member {to} did not answer within one heartbeat, {heartbeat:?}"
            ));
        };
        let lag = self.status().last_log.saturating_sub(report.last_log);
        if lag >= TRANSFER_LAG {
            return refused(format!("member {to} is {lag} entries behind"));
        }
        tracing::info!(partition = %self.inner.record.partition_id, %to, "hands over the leadership");
        let unknown = |reason: String| Err(TransferError::Unknown(reason));
        if let Err(error) = self.inner.raft.trigger().transfer_leader(to.0).await {
            return unknown(error.to_string());
        }
        let mut metrics = self.inner.raft.metrics();
        let changed = async {
            loop {
                {
                    let now = metrics.borrow_watched();
                    if now.current_term > status.term
                        && let Some(leader) = now.current_leader
                    {
                        return Ok(MemberId(leader));
                    }
                }
                metrics.changed().await.map_err(|error| error.to_string())?;
            }
        };
        match tokio::time::timeout_at(deadline, changed).await {
            Ok(Ok(leader)) if leader == to => Ok(()),
            Ok(Ok(leader)) => unknown(format!("member {leader} leads now")),
            Ok(Err(error)) => unknown(error),
            Err(_) => unknown(format!("member {to} does not lead yet")),
        }
    }

    /// Hands the leadership to whichever of `candidates` takes it, those with the longest log
    /// first.
    ///
    /// # Errors
    /// Why the last one did not.
    pub async fn hand_over(
        &self,
        candidates: &BTreeSet<MemberId>,
        deadline: Instant,
    ) -> Result<(), TransferError> {
        let me = self.inner.record.member_id;
        let reports: BTreeMap<MemberId, MemberReport> = candidates
            .iter()
            .filter(|member| **member != me)
            .map(|member| async move { (*member, self.report_of(*member, self.heartbeat()).await) })
            .collect::<FuturesUnordered<_>>()
            .filter_map(|(member, report)| async move { Some((member, report?)) })
            .collect()
            .await;
        let mut order: Vec<MemberId> = reports.keys().copied().collect();
        order.sort_by_key(|member| {
            let last_log = reports.get(member).map_or(0, |report| report.last_log);
            (std::cmp::Reverse(last_log), *member)
        });
        let mut failed = TransferError::Refused("no other voter answers".to_owned());
        for member in order {
            match self.transfer_leadership(member, deadline).await {
                Ok(()) => return Ok(()),
                Err(error @ TransferError::Refused(_)) => failed = error,
                Err(error) => return Err(error),
            }
        }
        Err(failed)
    }

    /// Who leads, by `status`.
    pub fn leader_hint(&self, status: &GroupStatus) -> Option<LeaderHint> {
        let member_id = status.leader?;
        let planned = || self.inner.record.members.get(&member_id);
        let address = status.addresses.get(&member_id).or_else(planned)?;
        Some(LeaderHint {
            member_id,
            node_id: address.node_id,
            address: address.address.clone(),
        })
    }
}

/// Whether `some` are more than half of `all`.
pub(super) fn is_majority(some: &BTreeSet<MemberId>, all: &BTreeSet<MemberId>) -> bool {
    some.len() > all.len() / 2
}

fn change_error(error: RaftError<TypeConfig, ClientWriteError<TypeConfig>>) -> ChangeError {
    let error = match error {
        RaftError::APIError(error) => error,
        RaftError::Fatal(error) => return ChangeError::Unknown(error.to_string()),
    };
    match error {
        ClientWriteError::ForwardToLeader(forward) => match forward.reason {
            ForwardReason::NotLeader => ChangeError::NotLeader(hint(&forward)),
            ForwardReason::LeadershipTransfer | ForwardReason::LeaseExpired => {
                ChangeError::Unavailable("the leadership is unsettled".to_owned())
            }
        },
        ClientWriteError::LogEntryDiscarded(_) => ChangeError::Unknown(error.to_string()),
        ClientWriteError::ChangeMembershipError(ChangeMembershipError::InProgress(_))
        | ClientWriteError::PreconditionFailed(_) => ChangeError::Conflict(error.to_string()),
        ClientWriteError::ChangeMembershipError(error) => ChangeError::Refused(error.to_string()),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use std::collections::BTreeMap;
    use std::io::{Read, Write};
    use std::sync::Arc;

    use bytes::Bytes;
    use futures::FutureExt as _;
    use futures::future::BoxFuture;
    use openraft::EntryPayload;

    use super::*;
    use crate::ids::PartitionId;
    use crate::transport::{Class, PeerTarget, Transport, TransportError};
    use crate::{
        Engine, EngineOptions, GroupRecord, MemberAddress, PeerMessage, PeerReply, Timings,
    };

    struct Nothing;

    impl Machine for Nothing {
        type Output = ();
        type Snapshot = ();

        fn apply(&mut self, _index: u64, _term: u64, _payload: &Bytes) {}

        fn snapshot(&self) {}

        fn write_snapshot(_snapshot: &(), _writer: &mut dyn Write) -> std::io::Result<()> {
            Ok(())
        }

        fn install(&mut self, _reader: &mut dyn Read) -> std::io::Result<()> {
            Ok(())
        }
    }

    /// The group has one member, so nobody is ever sent anything.
    struct Nobody;

    impl Transport for Nobody {
        fn send(
            &self,
            target: &PeerTarget,
            _message: PeerMessage,
            _class: Class,
            _timeout: Duration,
        ) -> BoxFuture<'static, Result<PeerReply, TransportError>> {
            let unreachable = TransportError::Unreachable {
                node_id: target.to_node,
                address: target.address.clone(),
                reason: "nobody is there".to_owned(),
            };
            futures::future::ready(Err(unreachable)).boxed()
        }
    }

    /// What a leader leaves that dies between the two steps of a change of voters.
    #[tokio::test]
    async fn a_joint_configuration_is_completed_before_anything_else_changes() {
        let directory = tempfile::tempdir().unwrap();
        let engine = Engine::open(EngineOptions::new(directory.path())).unwrap();
        let address = MemberAddress {
            node_id: engine.node_id(),
            address: "node-1:5681".to_owned(),
        };
        let record = GroupRecord {
            partition_id: PartitionId(1),
            member_id: MemberId(1),
            store_uid: "store".to_owned(),
            incarnation: 1,
            initializer: Some(MemberId(1)),
            members: BTreeMap::from([(MemberId(1), address.clone())]),
            plan_digest: Bytes::new(),
            timings: Timings::default(),
            observer: false,
            replaces: None,
            expected_membership: None,
            admitted: false,
        };
        engine.create_group(&record).await.unwrap();
        let group = Group::start(&engine, record, Nothing, Arc::new(Nobody))
            .await
            .unwrap();
        group.initialize().await.unwrap();
        let deadline = Instant::now() + Duration::from_secs(30);
        while group.linearizable_read(deadline).await.is_err() {
            assert!(Instant::now() < deadline, "no leader");
            tokio::task::yield_now().await;
        }

        let same = BTreeSet::from([1]);
        let peers = BTreeMap::from([(1, Peer::new(&address))]);
        let joint = openraft::Membership::new(vec![same.clone(), same], peers).unwrap();
        let raft = &group.inner.raft;
        raft.append_membership(joint, EntryPayload::Blank, [])
            .await
            .unwrap();
        while !group.membership().is_joint() {
            assert!(Instant::now() < deadline, "no joint configuration");
            tokio::task::yield_now().await;
        }
        let position = group.membership().position;
        let learn = MemberChange::AddLearner {
            member: MemberId(2),
            address,
        };
        let refused = group.change_members(&learn, position, deadline).await;
        assert!(
            matches!(refused, Err(ChangeError::Refused(_))),
            "{refused:?}"
        );
        let complete = MemberChange::Complete;
        let completed = group.change_members(&complete, position, deadline).await;
        let completed = completed.unwrap();
        assert!(!completed.is_joint());
        assert_eq!(completed.voters, BTreeSet::from([MemberId(1)]));
        assert_eq!(group.membership(), completed);
        group.shutdown().await;
    }
}
