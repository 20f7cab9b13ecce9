//! One partition on this node: its Raft member, what its leader does, and the way in for requests.
//!
//! Not for the streams that requests come from (module `exchange`) nor for what operations mean
//! (crate `primitives`).

mod answers;
mod clock;
mod deadlines;
mod events;
mod leadership;
mod machine;
mod proposer;
mod queues;
mod reader;
mod requests;

use std::sync::Arc;
use std::time::Duration;

use atomix_primitives::Kinds;
use atomix_proto::multiraft::v1::PartitionLeader;
use atomix_raft::{
    ChangeError, Engine, GroupEvent, GroupRecord, GroupStatus, MemberChange, MemberId, PartitionId,
    PeerMessage, PeerReply, Role, StartError, Transport,
};
use tokio::sync::broadcast;
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::faults::Faults;
use crate::metrics::PartitionMetrics;
use crate::options::RaftSettings;
use leadership::{Duties, Leadership, leader_of};
use machine::PartitionMachine;
use queues::{Proposals, Reads};

pub(crate) use answers::{
    exhausted, not_leader, unavailable, unknown_outcome, unknown_partition, wrong_store,
};

/// The Raft member of a partition.
pub(crate) type Group = atomix_raft::Group<PartitionMachine>;

/// What the tasks of a partition share.
struct Inner {
    group: Group,
    kinds: Arc<Kinds>,
    leadership: Leadership,
    proposals: Proposals,
    reads: Reads,
    metrics: PartitionMetrics,
    /// Held while members are changed.
    changing: tokio::sync::Mutex<()>,
}

impl Inner {
    fn duties(&self) -> Duties<'_> {
        Duties {
            group: &self.group,
            leadership: &self.leadership,
            proposals: &self.proposals,
            election_timeout: self.election_timeout(),
        }
    }

    fn election_timeout(&self) -> Duration {
        self.group.record().timings.election_timeout
    }

    /// How long an entry may take until its outcome counts as unknown.
    fn propose_timeout(&self) -> Duration {
        self.election_timeout() * 2
    }
}

/// What a partition needs of the node.
#[derive(Clone)]
pub(crate) struct Environment {
    pub(crate) engine: Engine,
    pub(crate) raft: RaftSettings,
    pub(crate) kinds: Arc<Kinds>,
    pub(crate) transport: Arc<dyn Transport>,
    pub(crate) faults: Faults,
    pub(crate) metrics: crate::metrics::Metrics,
    pub(crate) events: broadcast::Sender<PartitionEvent>,
}

/// An event of one partition.
#[derive(Debug, Clone)]
pub(crate) enum PartitionEvent {
    /// Something happened to its group.
    Group {
        partition: PartitionId,
        event: GroupEvent,
    },
    /// This node's member left; its data is deleted.
    Removed {
        partition: PartitionId,
        member: MemberId,
    },
}

/// A running partition.
pub(crate) struct Partition {
    inner: Arc<Inner>,
    stopping: CancellationToken,
    tasks: parking_lot::Mutex<Vec<JoinHandle<()>>>,
}

impl Partition {
    /// Starts this node's member; the initializer of a new group initializes it.
    ///
    /// # Errors
    /// When its data cannot be read.
    pub(crate) async fn start(
        environment: &Environment,
        mut record: GroupRecord,
    ) -> Result<Self, StartError> {
        record.timings = environment.raft.over(record.timings);
        let partition = record.partition_id;
        let initializes = record.initializer == Some(record.member_id);
        let machine = PartitionMachine::new(
            partition,
            Arc::clone(&environment.kinds),
            environment.faults.clone(),
        );
        let transport = Arc::clone(&environment.transport);
        let group = Box::pin(Group::start(
            &environment.engine,
            record,
            machine,
            transport,
        ))
        .await?;
        let events = group.subscribe();

        let (proposal_queue, proposals) = Proposals::new();
        let (read_queue, reads) = Reads::new();
        let inner = Arc::new(Inner {
            group,
            kinds: Arc::clone(&environment.kinds),
            leadership: Leadership::default(),
            proposals: proposal_queue,
            reads: read_queue,
            metrics: environment.metrics.partition(partition),
            changing: tokio::sync::Mutex::default(),
        });
        let stopping = CancellationToken::new();
        let spawn = |name: &str, task: futures::future::BoxFuture<'static, ()>| {
            let stopping = stopping.clone();
            let name = format!("{name} of partition {partition}");
            environment.faults.spawn(name, async move {
                tokio::select! {
                    () = task => {}
                    () = stopping.cancelled() => {}
                }
            })
        };
        let mut tasks = vec![
            spawn(
                "proposer",
                Box::pin(proposer::run(Arc::clone(&inner), proposals)),
            ),
            spawn("reader", Box::pin(reader::run(Arc::clone(&inner), reads))),
            spawn(
                "leader's duties",
                Box::pin(lead(Arc::clone(&inner), events, environment.events.clone())),
            ),
        ];
        if initializes {
            let initializing = initialize(Arc::clone(&inner), environment.faults.clone());
            tasks.push(spawn("initializer", Box::pin(initializing)));
        }
        Ok(Self {
            inner,
            stopping,
            tasks: parking_lot::Mutex::new(tasks),
        })
    }

    /// Stops the member; its data stays.
    pub(crate) async fn stop(&self) {
        self.stopping.cancel();
        let tasks = std::mem::take(&mut *self.tasks.lock());
        for task in tasks {
            // A panic was reported as a fault.
            let _ = task.await;
        }
        Box::pin(self.inner.group.shutdown()).await;
        self.inner.metrics.remove();
    }

    pub(crate) fn record(&self) -> &GroupRecord {
        self.inner.group.record()
    }

    pub(crate) fn status(&self) -> GroupStatus {
        self.inner.group.status()
    }

    /// Who leads, as this node knows it.
    pub(crate) fn leader(&self) -> Option<PartitionLeader> {
        leader_of(&self.status(), self.record())
    }

    pub(crate) fn group(&self) -> &Group {
        &self.inner.group
    }

    /// To be held while members are changed.
    pub(crate) async fn changing(&self) -> tokio::sync::MutexGuard<'_, ()> {
        self.inner.changing.lock().await
    }

    /// The leader, or any other member, as the place to ask once this node's member is gone.
    pub(crate) fn another_member(&self) -> Option<PartitionLeader> {
        let me = self.record().member_id;
        let led = self.leader().filter(|leader| leader.member_id != me.0);
        let any = || {
            let membership = self.inner.group.membership();
            let mut others = membership.addresses.into_iter();
            let (member, address) = others.find(|(member, _)| *member != me)?;
            Some(PartitionLeader {
                partition_id: self.record().partition_id.0,
                term: 0,
                member_id: member.0,
                address: address.address,
            })
        };
        led.or_else(any)
    }

    /// Takes a message of another member. It is queued during the call.
    pub(crate) fn handle(
        &self,
        message: PeerMessage,
    ) -> impl Future<Output = PeerReply> + Send + 'static + use<> {
        self.inner.group.handle(message)
    }
}

/// Does the leader's duties when something happens, and at least four times in an election timeout.
async fn lead(
    inner: Arc<Inner>,
    mut events: broadcast::Receiver<GroupEvent>,
    watchers: broadcast::Sender<PartitionEvent>,
) {
    let partition = inner.group.record().partition_id;
    loop {
        let pause = inner.duties().look().await;
        let status = inner.group.status();
        inner.metrics.observe(&status);
        if status.role == Role::Leader && !status.outgoing_voters.is_empty() {
            // Waits for a quorum of both configurations; the other duties go on.
            tokio::spawn(complete_joint(Arc::clone(&inner)));
        }
        let next_look = Instant::now() + pause;
        let waited = tokio::select! {
            event = events.recv() => event,
            () = tokio::time::sleep_until(next_look) => continue,
        };
        let event = match waited {
            Ok(event) => event,
            Err(broadcast::error::RecvError::Lagged(missed)) => {
                tracing::warn!(%partition, missed, "events of the group were lost");
                let status = inner.group.status();
                GroupEvent::LeaderChanged {
                    term: status.term,
                    leader: status.leader,
                }
            }
            Err(broadcast::error::RecvError::Closed) => return,
        };
        // Nobody may watch.
        let _ = watchers.send(PartitionEvent::Group { partition, event });
    }
}

/// Ends a change of voters that an earlier leader, or an earlier process of this one, left half done.
async fn complete_joint(inner: Arc<Inner>) {
    // Whoever changes members at this moment completes it.
    let Ok(_one) = inner.changing.try_lock() else {
        return;
    };
    let group = &inner.group;
    let membership = group.membership();
    let is_committed = group.applied_membership().position == membership.position;
    if !membership.is_joint() || !is_committed {
        return;
    }
    let deadline = Instant::now() + inner.propose_timeout();
    let change = MemberChange::Complete;
    let completed = group.change_members(&change, membership.position, deadline);
    match completed.await {
        Ok(_) | Err(ChangeError::NotLeader(_) | ChangeError::Conflict(_)) => {}
        Err(error) => tracing::debug!(%error, "a change of voters is not complete yet"),
    }
}

async fn initialize(inner: Arc<Inner>, faults: Faults) {
    if let Err(error) = inner.group.initialize().await {
        let partition = inner.group.record().partition_id;
        faults.report(format!("partition {partition}: {error}"));
    }
}
