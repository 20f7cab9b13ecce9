//! What a member does only while it leads: it counts time, fires timers, ends idle sessions.

use std::time::Duration;

use atomix_primitives::SessionId;
use atomix_proto::multiraft::v1::{ExpireSessions, Failure, PartitionLeader, Tick, command};
use atomix_raft::{GroupRecord, GroupStatus, Role};
use parking_lot::Mutex;
use tokio::sync::oneshot;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::Group;
use super::answers::{self, Asker};
use super::clock::LeaderClock;
use super::deadlines::SessionDeadlines;
use super::queues::{Proposal, Proposals};

/// A term that this member leads, from when it has applied everything of the terms before.
pub(crate) struct Term {
    pub(crate) term: u64,
    clock: LeaderClock,
    pub(crate) deadlines: SessionDeadlines,
    /// Whether a quorum acknowledged the leadership within the lease, when last looked at.
    acknowledged: bool,
    /// Cancelled when the term is over.
    over: CancellationToken,
}

impl Term {
    /// Begins at the state machine's time, with its sessions.
    fn new(
        term: u64,
        time: Duration,
        sessions: impl Iterator<Item = (SessionId, Duration)>,
        began: Instant,
        election_timeout: Duration,
    ) -> Self {
        let mut deadlines = SessionDeadlines::default();
        deadlines.reconcile(sessions, time);
        Self {
            term,
            clock: LeaderClock::new(time, began, election_timeout),
            deadlines,
            acknowledged: true,
            over: CancellationToken::new(),
        }
    }

    /// The state machine's time. It stands still while no quorum acknowledges the leadership:
    /// whoever keeps sessions alive may be cut off from this member just as the others are.
    fn now(&mut self, now: Instant) -> Duration {
        if self.acknowledged {
            self.clock.wake(now)
        } else {
            self.clock.stand_still(now)
        }
    }

    /// Takes note of whether a quorum acknowledges the leadership. When it does again, everybody may
    /// take as long to come back as after an election.
    fn acknowledge(&mut self, acknowledged: bool, now: Duration) {
        if acknowledged && !self.acknowledged {
            self.deadlines.renew(now);
        }
        self.acknowledged = acknowledged;
    }
}

/// The term that this member leads, if any.
#[derive(Default)]
pub(crate) struct Leadership {
    current: Mutex<Option<Term>>,
}

impl Leadership {
    /// Runs `act` with the present term and the state machine's time now; `None` when this member
    /// does not lead.
    pub(crate) fn with<R>(&self, act: impl FnOnce(&mut Term, Duration) -> R) -> Option<R> {
        let mut current = self.current.lock();
        let term = current.as_mut()?;
        let now = term.now(Instant::now());
        Some(act(term, now))
    }

    /// The state machine's time now, for whoever may ask for service.
    ///
    /// # Errors
    /// NOT_LEADER or UNAVAILABLE.
    pub(crate) fn serve(&self, group: &Group) -> Result<Duration, Failure> {
        match self.with(|term, now| (term.acknowledged, now)) {
            Some((true, now)) => Ok(now),
            Some((false, _)) => Err(answers::unavailable(
                "the leader has not heard of a quorum for a while",
            )),
            None => {
                let status = group.status();
                if status.leader == Some(status.member_id) {
                    return Err(answers::unavailable("the leader is taking over"));
                }
                Err(answers::not_leader(leader_of(&status, group.record())))
            }
        }
    }

    /// A token that ends with the present term.
    pub(crate) fn over(&self) -> CancellationToken {
        let ended = || {
            let token = CancellationToken::new();
            token.cancel();
            token
        };
        self.with(|term, _| term.over.clone()).unwrap_or_else(ended)
    }

    fn end(&self) {
        if let Some(term) = self.current.lock().take() {
            term.over.cancel();
            tracing::info!(term = term.term, "leads no longer");
        }
    }
}

impl Drop for Leadership {
    fn drop(&mut self) {
        self.end();
    }
}

/// Who leads, as `status` knows it; `None` when nobody does.
pub(crate) fn leader_of(status: &GroupStatus, record: &GroupRecord) -> Option<PartitionLeader> {
    let leader = status.leader?;
    // A member that has not received the membership yet knows the plan's addresses.
    let planned = || Some(record.members.get(&leader)?.address.clone());
    let address = status.leader_address.clone().or_else(planned);
    Some(PartitionLeader {
        partition_id: status.partition_id.0,
        term: status.term,
        member_id: leader.0,
        address: address.unwrap_or_default(),
    })
}

/// Keeps the leadership of one member up to date and does a leader's duties.
pub(crate) struct Duties<'a> {
    pub(crate) group: &'a Group,
    pub(crate) leadership: &'a Leadership,
    pub(crate) proposals: &'a Proposals,
    pub(crate) election_timeout: Duration,
}

impl Duties<'_> {
    /// Looks once at what there is to do. Returns how long it may wait until the next look.
    pub(crate) async fn look(&self) -> Duration {
        let pause = self.election_timeout / 4;
        let status = self.group.status();
        self.follow(&status).await;
        let Some(now) = self.leadership.with(|_, now| now) else {
            return pause;
        };
        self.group.with_machine(|machine| {
            self.leadership
                .with(|term, now| term.deadlines.reconcile(machine.state().sessions(), now))
        });
        self.expire(now).await;
        self.fire_timers(now).await.ok();
        let next_timer = self
            .group
            .with_machine(|machine| machine.state().next_timer());
        next_timer.map_or(pause, |due| {
            due.saturating_sub(now)
                .clamp(Duration::from_millis(1), pause)
        })
    }

    /// Begins or ends the term of this member.
    async fn follow(&self, status: &GroupStatus) {
        let known = self.leadership.with(|term, now| {
            term.acknowledge(status.role == Role::Leader, now);
            term.term
        });
        let still_leads = matches!(status.role, Role::Leader | Role::Candidate);
        match known {
            Some(term) if still_leads && term == status.term => return,
            Some(_) => self.leadership.end(),
            None => {}
        }
        if status.role != Role::Leader {
            return;
        }
        // Afterwards everything that earlier leaders committed is applied here.
        let deadline = Instant::now() + self.election_timeout;
        if let Err(error) = self.group.linearizable_read(deadline).await {
            tracing::debug!(term = status.term, %error, "cannot take over yet");
            return;
        }
        let after = self.group.status();
        if after.role != Role::Leader || after.term != status.term {
            return;
        }
        self.group.with_machine(|machine| {
            let state = machine.state();
            *self.leadership.current.lock() = Some(Term::new(
                status.term,
                state.time(),
                state.sessions(),
                Instant::now(),
                self.election_timeout,
            ));
        });
        tracing::info!(partition = %status.partition_id, term = status.term, "leads");
    }

    /// Ends the sessions that nobody kept alive.
    async fn expire(&self, now: Duration) {
        let is_any = self
            .leadership
            .with(|term, _| !term.deadlines.expired(now).is_empty());
        if is_any != Some(true) {
            return;
        }
        // Confirms the leadership, and keep-alives that arrived meanwhile count.
        let deadline = Instant::now() + self.election_timeout;
        if self.group.linearizable_read(deadline).await.is_err() {
            return;
        }
        let expired: Vec<SessionId> = self
            .leadership
            .with(|term, _| term.deadlines.expired(now))
            .unwrap_or_default();
        if expired.is_empty() {
            return;
        }
        tracing::info!(sessions = ?expired, "sessions expire");
        let command = command::Command::ExpireSessions(ExpireSessions {
            sessions: expired.iter().map(|session| session.0).collect(),
        });
        if let Err(failure) = self.propose(command).await {
            tracing::debug!(?failure, "sessions could not be ended yet");
        }
    }

    /// Proposes the tick of the timers that are due at `now`, if any, and waits until it is applied.
    ///
    /// # Errors
    /// When the tick was perhaps not applied.
    pub(crate) async fn fire_timers(&self, now: Duration) -> Result<(), Failure> {
        let next = self
            .group
            .with_machine(|machine| machine.state().next_timer());
        if next.is_none_or(|due| due > now) {
            return Ok(());
        }
        self.propose(command::Command::Tick(Tick {})).await
    }

    async fn propose(&self, command: command::Command) -> Result<(), Failure> {
        let (sender, receiver) = oneshot::channel();
        self.proposals.push(Proposal {
            command,
            asker: Asker::Node(sender),
        });
        receiver
            .await
            .unwrap_or_else(|_| Err(answers::unknown_outcome("the partition stops")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);
    const SESSION: SessionId = SessionId(7);

    fn term(began: Instant) -> Term {
        let sessions = [(SESSION, 5 * SECOND)];
        Term::new(3, 100 * SECOND, sessions.into_iter(), began, SECOND)
    }

    /// Looks four times a second, as the duties do; answers the last time.
    fn look(term: &mut Term, acknowledged: bool, from: Instant, length: Duration) -> Duration {
        let mut passed = Duration::ZERO;
        loop {
            let now = term.now(from + passed);
            term.acknowledge(acknowledged, now);
            if passed >= length {
                return now;
            }
            passed += SECOND / 4;
        }
    }

    #[test]
    fn a_cut_longer_than_the_timeout_ends_no_session_and_silence_after_it_does() {
        let start = Instant::now();
        let mut term = term(start);
        let before = look(&mut term, true, start, 4 * SECOND);
        assert_eq!(before, 104 * SECOND);
        let cut = start + 4 * SECOND;
        let during = look(&mut term, false, cut, 60 * SECOND);
        assert!(during <= 105 * SECOND, "{during:?}");

        let healed = cut + 60 * SECOND;
        let now = look(&mut term, true, healed, Duration::ZERO);
        assert_eq!(term.deadlines.expired(now), []);
        // Its whole timeout, not what was left of it.
        let now = look(&mut term, true, healed, 5 * SECOND);
        assert_eq!(term.deadlines.expired(now), []);
        let now = look(&mut term, true, healed, 6 * SECOND);
        assert_eq!(term.deadlines.expired(now), [SESSION]);
    }

    #[test]
    fn an_acknowledged_leader_renews_no_session_by_itself() {
        let start = Instant::now();
        let mut term = term(start);
        let now = look(&mut term, true, start, 6 * SECOND);
        assert_eq!(term.deadlines.expired(now), [SESSION]);
    }
}
