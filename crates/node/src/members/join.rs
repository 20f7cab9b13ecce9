//! Join: makes this node a member of a group that exists, and goes on until it is one, whoever dies
//! or gives up meanwhile.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use atomix_proto::multiraft::v1::JoinRequest;
use atomix_proto::multiraft::v1::members_request::Ask;
use atomix_raft::{GroupRecord, MemberId, PartitionId};
use parking_lot::Mutex;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tonic::{Code, Status};

use super::answer::Answer;
use super::asker::Asker;
use super::intent::{self, Work};
use super::wish::Admission;
use crate::bootstrap::plan::parse_join;
use crate::hosted::Hosted;

const MIN_PAUSE: Duration = Duration::from_millis(50);
const MAX_PAUSE: Duration = Duration::from_secs(1);
/// How long one round of asking may take.
const ROUND: Duration = Duration::from_secs(15);

/// How far a Join is.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Progress {
    Going(String),
    Joined,
    Failed(Code, String),
}

impl Progress {
    fn has_ended(&self) -> bool {
        match self {
            Self::Going(_) => false,
            Self::Joined | Self::Failed(..) => true,
        }
    }
}

/// Carries out Joins, at most one of each partition.
#[derive(Clone)]
pub(crate) struct Joiner {
    hosted: Arc<Hosted>,
    asker: Arc<Asker>,
    shutdown: CancellationToken,
    joining: Arc<Mutex<BTreeMap<PartitionId, Joining>>>,
}

struct Joining {
    progress: watch::Receiver<Progress>,
    stop: CancellationToken,
    task: JoinHandle<()>,
}

impl Joiner {
    pub(crate) fn new(hosted: Arc<Hosted>, asker: Arc<Asker>, shutdown: CancellationToken) -> Self {
        Self {
            hosted,
            asker,
            shutdown,
            joining: Arc::default(),
        }
    }

    /// Goes on with every Join that an earlier process of this node began and did not finish.
    pub(crate) fn resume(&self) {
        for record in self.hosted.records() {
            if record.initializer.is_none() && !self.has_role(&record) {
                tracing::info!(partition = %record.partition_id, "goes on with a join");
                self.begin(record.partition_id, false);
            }
        }
    }

    /// Whether the partition's Join is under way.
    pub(crate) fn is_joining(&self, partition: PartitionId) -> bool {
        let joining = self.joining.lock();
        let found = joining.get(&partition);
        found.is_some_and(|joining| !joining.progress.borrow().has_ended())
    }

    /// Ends the partition's Join, if any, and waits until it has ended.
    pub(crate) async fn stop(&self, partition: PartitionId) {
        let stopped = self.joining.lock().remove(&partition);
        if let Some(Joining { stop, task, .. }) = stopped {
            stop.cancel();
            // A panic was reported as a fault.
            let _ = task.await;
        }
    }

    /// Stores what the Join wants, then waits until this node's member is in the group in the role
    /// that was asked for.
    ///
    /// # Errors
    /// INVALID_ARGUMENT naming the field; FAILED_PRECONDITION, ALREADY_EXISTS and ABORTED with what
    /// stands against it; DEADLINE_EXCEEDED with how far it is, while it goes on.
    pub(crate) async fn join(
        &self,
        request: &JoinRequest,
        deadline: Instant,
    ) -> Result<(), Status> {
        let (wanted, named) =
            parse_join(request).map_err(|error| Status::invalid_argument(error.to_string()))?;
        let partition = wanted.partition_id;
        let changes = self.prepare(wanted, named).await?;
        let mut progress = self.begin(partition, changes);
        let ended = async {
            let ended = progress.wait_for(Progress::has_ended).await;
            ended.map(|ended| ended.clone())
        };
        let found = match tokio::time::timeout_at(deadline, ended).await {
            Ok(Ok(ended)) => Some(ended),
            Ok(Err(_)) => return Err(Status::aborted("another call ended the join")),
            Err(_) => None,
        };
        match found.unwrap_or_else(|| progress.borrow().clone()) {
            Progress::Joined => Ok(()),
            Progress::Failed(code, message) => Err(Status::new(code, message)),
            Progress::Going(progress) => Err(Status::deadline_exceeded(format!(
                "the join goes on: {progress}"
            ))),
        }
    }

    /// Brings the disk to what a Join wants and starts the group. True when another Join of the
    /// same member wanted something else.
    async fn prepare(
        &self,
        wanted: GroupRecord,
        named: atomix_raft::NodeId,
    ) -> Result<bool, Status> {
        let partition = wanted.partition_id;
        let _one = self.hosted.one_at_a_time().await;
        let held = self.hosted.records();
        let departed = self.hosted.departed(partition);
        let work = intent::judge(&wanted, named, self.hosted.node_id(), &held, &departed)
            .map_err(|refusal| Status::new(refusal.code(), refusal.to_string()))?;
        let (record, changes) = match work {
            Work::Create { delete } => {
                for partition in delete {
                    tracing::info!(%partition, "deletes a group of an older incarnation");
                    self.hosted.delete(partition).await.map_err(internal)?;
                }
                self.hosted.store(&wanted).await.map_err(internal)?;
                tracing::info!(%partition, member = %wanted.member_id, "joins a partition");
                (wanted, true)
            }
            Work::Attach(record) => {
                let changes = !held.contains(&record);
                if changes {
                    self.hosted.update(&record).await.map_err(internal)?;
                }
                (record, changes)
            }
        };
        self.hosted.run(record).await.map_err(internal)?;
        Ok(changes)
    }

    /// Attaches to the partition's Join; begins it when there is none, or anew when what it wants
    /// has changed.
    fn begin(&self, partition: PartitionId, changed: bool) -> watch::Receiver<Progress> {
        let mut joining = self.joining.lock();
        if let Some(found) = joining.get(&partition) {
            if !changed && !found.progress.borrow().has_ended() {
                return found.progress.clone();
            }
            found.stop.cancel();
        }
        let (sender, progress) = watch::channel(Progress::Going("begins".to_owned()));
        let stop = self.shutdown.child_token();
        let run = Run {
            joiner: self.clone(),
            partition,
            sender,
        };
        let stopped = stop.clone();
        let task = self
            .hosted
            .spawn(format!("join of partition {partition}"), async move {
                tokio::select! {
                    () = run.run() => {}
                    () = stopped.cancelled() => {}
                }
            });
        let begun = Joining {
            progress: progress.clone(),
            stop,
            task,
        };
        joining.insert(partition, begun);
        progress
    }

    /// Whether this node's member has the role that its record asks for, by what it has applied.
    fn has_role(&self, record: &GroupRecord) -> bool {
        let Some(partition) = self.hosted.get(record.partition_id) else {
            return false;
        };
        let membership = partition.group().applied_membership();
        let member = &record.member_id;
        if membership.is_joint() {
            return false;
        }
        if record.observer {
            membership.learners.contains(member)
        } else {
            membership.voters.contains(member)
        }
    }
}

fn internal(error: impl std::fmt::Display) -> Status {
    tracing::error!(%error, "a join failed");
    Status::internal(error.to_string())
}

/// One Join on its way.
struct Run {
    joiner: Joiner,
    partition: PartitionId,
    sender: watch::Sender<Progress>,
}

impl Run {
    async fn run(self) {
        let mut pause = MIN_PAUSE;
        loop {
            let progress = self.round().await;
            if let Progress::Failed(_, reason) = &progress {
                tracing::warn!(partition = %self.partition, reason, "a join ended");
            }
            if progress == Progress::Joined {
                tracing::info!(partition = %self.partition, "joined the partition");
            }
            let ended = progress.has_ended();
            self.sender.send_if_modified(|current| {
                let is_news = *current != progress;
                *current = progress;
                is_news
            });
            if ended {
                return;
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(MAX_PAUSE);
        }
    }

    async fn round(&self) -> Progress {
        let Joiner { hosted, asker, .. } = &self.joiner;
        let gone = || Progress::Failed(Code::Aborted, "the group was deleted here".to_owned());
        let Some(record) = hosted.record(self.partition) else {
            return gone();
        };
        let Some(own) = record.members.get(&record.member_id).cloned() else {
            return Progress::Failed(Code::Internal, "the record names no own address".to_owned());
        };
        let admission = Admission {
            member: record.member_id,
            address: own,
            observer: record.observer,
            replaces: record.replaces,
            expected: record.expected_membership,
            admitted: record.admitted || record.initializer.is_some(),
        };
        let ask = Ask::Admit((&admission).into());
        let answered = asker.ask(&record, ask, Instant::now() + ROUND).await;
        let answered = match answered {
            Ok(answered) => answered,
            Err(reason) => return Progress::Going(reason),
        };
        match answered.answer {
            Answer::Settled => {
                self.note_admitted(record.member_id).await;
                if self.joiner.has_role(&record) {
                    return Progress::Joined;
                }
                Progress::Going("the change is committed, this node has not applied it yet".into())
            }
            Answer::Pending {
                progress,
                is_member,
            } => {
                if is_member {
                    self.note_admitted(record.member_id).await;
                }
                Progress::Going(progress)
            }
            // A leader that is being elected, or a leader's disk that is full, comes right.
            Answer::Refused {
                code: Code::Unavailable | Code::Internal | Code::NotFound,
                message,
            } => Progress::Going(message),
            Answer::Refused { code, message } => Progress::Failed(code, message),
            Answer::NoMember if !answered.by_own_member => self.depart(record.member_id).await,
            Answer::OtherLeader(_) | Answer::NoMember => {
                Progress::Going("the leader is changing".to_owned())
            }
        }
    }

    /// The member was added and removed again before it had its role.
    async fn depart(&self, member: MemberId) -> Progress {
        let departed = self.joiner.hosted.depart(self.partition, member).await;
        match departed {
            Ok(()) => Progress::Failed(
                Code::FailedPrecondition,
                format!("member {member} was removed from the group; mint a new member id"),
            ),
            Err(error) => Progress::Going(error.to_string()),
        }
    }

    /// Remembers that the member was added, so that it is not added again once it was removed.
    async fn note_admitted(&self, member: MemberId) {
        let hosted = &self.joiner.hosted;
        let _one = hosted.one_at_a_time().await;
        let Some(record) = hosted.record(self.partition) else {
            return;
        };
        if record.member_id != member || record.admitted || record.initializer.is_some() {
            return;
        }
        let admitted = GroupRecord {
            admitted: true,
            ..record
        };
        if let Err(error) = hosted.update(&admitted).await {
            tracing::warn!(%error, "cannot note that the member was added");
        }
    }
}
