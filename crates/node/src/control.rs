//! The Node service: what the operator calls.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use atomix_process::grpc::deadline;
use atomix_process::grpc::fencing::Fence;
use atomix_proto::multiraft::v1::group_status::Role as RoleMessage;
use atomix_proto::multiraft::v1::node_server::Node;
use atomix_proto::multiraft::v1::watch_response::Event;
use atomix_proto::multiraft::v1::{
    BootstrapRequest, BootstrapResponse, GetStatusRequest, GetStatusResponse, GroupMember,
    GroupStatus, JoinRequest, JoinResponse, LeaderChanged, LeaveRequest, LeaveResponse,
    LogCompacted, LogPosition as LogPositionMessage, MemberProgress, MemberReady, MemberRemoved,
    MembershipChanged, RaftTimings, RecoverRequest, RecoverResponse, SnapshotChanged,
    TransferLeadershipRequest, TransferLeadershipResponse, WatchRequest, WatchResponse,
};
use atomix_raft::{GroupEvent, LogPosition, MemberId, PartitionId, Role};
use tokio::sync::{broadcast, mpsc};
use tokio::time::Instant;
use tokio_stream::Stream;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status};

use crate::bootstrap::Bootstrapper;
use crate::hosted::Hosted;
use crate::members::{Asker, Joiner, hand_over, leave};
use crate::partition::{Partition, PartitionEvent};
use crate::recover::online;

/// Messages that wait for one watcher's connection, besides the events that it may lag behind.
const WATCH_MESSAGES: usize = 16;
/// How long a caller without a deadline waits for a change of members.
const CHANGE_PATIENCE: Duration = Duration::from_secs(10);

/// Serves the operator.
pub(crate) struct NodeService {
    pub(crate) hosted: Arc<Hosted>,
    pub(crate) fence: Fence,
    pub(crate) bootstrapper: Arc<Bootstrapper>,
    pub(crate) asker: Arc<Asker>,
    pub(crate) joiner: Joiner,
    pub(crate) events: broadcast::Sender<PartitionEvent>,
    pub(crate) shutdown: CancellationToken,
}

#[tonic::async_trait]
impl Node for NodeService {
    async fn bootstrap(
        &self,
        request: Request<BootstrapRequest>,
    ) -> Result<Response<BootstrapResponse>, Status> {
        self.fence.admit(request.metadata()).await?;
        let bootstrapper = Arc::clone(&self.bootstrapper);
        // A task of its own: a caller that gives up must not leave a group half started.
        let bootstrap = tokio::spawn(async move {
            let request = request.into_inner();
            bootstrapper.bootstrap(&request).await
        });
        bootstrap
            .await
            .map_err(|error| Status::internal(format!("the bootstrap broke off: {error}")))??;
        Ok(Response::new(BootstrapResponse {}))
    }

    async fn join(&self, request: Request<JoinRequest>) -> Result<Response<JoinResponse>, Status> {
        self.fence.admit(request.metadata()).await?;
        let deadline = change_deadline(&request)?;
        let joiner = self.joiner.clone();
        let request = request.into_inner();
        unbroken(async move { joiner.join(&request, deadline).await }).await?;
        Ok(Response::new(JoinResponse {}))
    }

    async fn leave(
        &self,
        request: Request<LeaveRequest>,
    ) -> Result<Response<LeaveResponse>, Status> {
        self.fence.admit(request.metadata()).await?;
        let deadline = change_deadline(&request)?;
        let (hosted, asker) = (Arc::clone(&self.hosted), Arc::clone(&self.asker));
        let joiner = self.joiner.clone();
        let request = request.into_inner();
        unbroken(async move { leave(&hosted, &asker, &joiner, &request, deadline).await }).await?;
        Ok(Response::new(LeaveResponse {}))
    }

    async fn transfer_leadership(
        &self,
        request: Request<TransferLeadershipRequest>,
    ) -> Result<Response<TransferLeadershipResponse>, Status> {
        self.fence.admit(request.metadata()).await?;
        let deadline = change_deadline(&request)?;
        let (hosted, asker) = (Arc::clone(&self.hosted), Arc::clone(&self.asker));
        let request = request.into_inner();
        unbroken(async move { hand_over(&hosted, &asker, request, deadline).await }).await?;
        Ok(Response::new(TransferLeadershipResponse {}))
    }

    async fn recover(
        &self,
        request: Request<RecoverRequest>,
    ) -> Result<Response<RecoverResponse>, Status> {
        self.fence.admit(request.metadata()).await?;
        let (hosted, joiner) = (Arc::clone(&self.hosted), self.joiner.clone());
        let request = request.into_inner();
        // A task of its own: a caller that gives up must not leave a group stopped.
        let recovering =
            tokio::spawn(async move { online::recover(&hosted, &joiner, request).await });
        let recovered = recovering
            .await
            .map_err(|error| Status::internal(format!("the recovery broke off: {error}")))??;
        Ok(Response::new(recovered))
    }

    async fn get_status(
        &self,
        _request: Request<GetStatusRequest>,
    ) -> Result<Response<GetStatusResponse>, Status> {
        Ok(Response::new(status(&self.hosted, &self.fence)))
    }

    type WatchStream = Pin<Box<dyn Stream<Item = Result<WatchResponse, Status>> + Send>>;

    async fn watch(
        &self,
        _request: Request<WatchRequest>,
    ) -> Result<Response<Self::WatchStream>, Status> {
        // Subscribed before the status is taken, so nothing falls between.
        let events = self.events.subscribe();
        let first = Event::Status(status(&self.hosted, &self.fence));
        let (sender, receiver) = mpsc::channel(WATCH_MESSAGES);
        let shutdown = self.shutdown.clone();
        let hosted = Arc::clone(&self.hosted);
        tokio::spawn(async move {
            let ended = tokio::select! {
                ended = forward(&hosted, first, events, &sender) => ended,
                () = shutdown.cancelled() => Status::unavailable("the node shuts down"),
                () = sender.closed() => return,
            };
            // The watcher may be gone.
            let _ = sender.send(Err(ended)).await;
        });
        Ok(Response::new(Box::pin(ReceiverStream::new(receiver))))
    }
}

/// When the caller of a change stops waiting.
fn change_deadline<T>(request: &Request<T>) -> Result<Instant, Status> {
    let asked = deadline::of(request.metadata())?;
    Ok(asked.unwrap_or_else(|| Instant::now() + CHANGE_PATIENCE))
}

/// Runs a change in a task of its own: a caller that gives up must not end it half way.
async fn unbroken(
    change: impl Future<Output = Result<(), Status>> + Send + 'static,
) -> Result<(), Status> {
    tokio::spawn(change)
        .await
        .unwrap_or_else(|error| Err(Status::internal(format!("the change broke off: {error}"))))
}

/// Sends events until the watcher is gone or lags too far behind.
async fn forward(
    hosted: &Hosted,
    first: Event,
    mut events: broadcast::Receiver<PartitionEvent>,
    sender: &mpsc::Sender<Result<WatchResponse, Status>>,
) -> Status {
    let mut next = first;
    loop {
        let message = WatchResponse { event: Some(next) };
        if sender.send(Ok(message)).await.is_err() {
            return Status::cancelled("the watcher left");
        }
        next = match events.recv().await {
            Ok(event) => event_message(hosted, event),
            Err(broadcast::error::RecvError::Lagged(missed)) => {
                return Status::resource_exhausted(format!(
                    "the watcher missed {missed} events; watch again"
                ));
            }
            Err(broadcast::error::RecvError::Closed) => {
                return Status::unavailable("the node shuts down");
            }
        };
    }
}

fn event_message(hosted: &Hosted, event: PartitionEvent) -> Event {
    let (id, event) = match event {
        PartitionEvent::Group { partition, event } => (partition, event),
        PartitionEvent::Removed { partition, member } => {
            return Event::MemberRemoved(MemberRemoved {
                partition_id: partition.0,
                member_id: member.0,
            });
        }
    };
    let PartitionId(partition) = id;
    match event {
        GroupEvent::MemberReady { member_id } => Event::MemberReady(MemberReady {
            partition_id: partition,
            member_id: member_id.0,
        }),
        GroupEvent::LeaderChanged { term, leader } => Event::LeaderChanged(LeaderChanged {
            partition_id: partition,
            term,
            leader: leader.map_or(0, |leader| leader.0),
        }),
        GroupEvent::MembershipChanged { membership } => {
            Event::MembershipChanged(MembershipChanged {
                partition_id: partition,
                membership: Some(position(membership)),
                group: hosted.get(id).map(|partition| group_status(&partition)),
            })
        }
        GroupEvent::SnapshotCreated { index } => Event::SnapshotCreated(SnapshotChanged {
            partition_id: partition,
            index,
        }),
        GroupEvent::SnapshotInstalled { index } => Event::SnapshotInstalled(SnapshotChanged {
            partition_id: partition,
            index,
        }),
        GroupEvent::LogCompacted { index } => Event::LogCompacted(LogCompacted {
            partition_id: partition,
            index,
        }),
    }
}

/// What the disk holds, whether it runs or not: a node whose groups did not start is not empty.
fn status(hosted: &Hosted, fence: &Fence) -> GetStatusResponse {
    let operator = fence.seen().unwrap_or_default();
    let records = hosted.records();
    let newest = records.iter().max_by_key(|record| record.incarnation);
    let groups = records
        .iter()
        .map(|record| match hosted.get(record.partition_id) {
            Some(partition) => group_status(&partition),
            None => GroupStatus {
                partition_id: record.partition_id.0,
                member_id: record.member_id.0,
                role: RoleMessage::Stopped.into(),
                ..GroupStatus::default()
            },
        });
    GetStatusResponse {
        node_id: hosted.node_id().0,
        store_uid: newest
            .map(|record| record.store_uid.clone())
            .unwrap_or_default(),
        incarnation: newest.map_or(0, |record| record.incarnation),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        groups: groups.collect(),
        operator_id: operator.id,
        operator_term: operator.term,
    }
}

fn group_status(partition: &Partition) -> GroupStatus {
    let status = partition.status();
    let timings = &partition.record().timings;
    let role = match status.role {
        Role::Stopped => RoleMessage::Stopped,
        Role::Learner => RoleMessage::Learner,
        Role::Follower => RoleMessage::Follower,
        Role::Candidate => RoleMessage::Candidate,
        Role::Leader => RoleMessage::Leader,
    };
    let ids = |members: std::collections::BTreeSet<MemberId>| -> Vec<u64> {
        members.into_iter().map(|member| member.0).collect()
    };
    let progress = status.progress.into_iter().map(|member| MemberProgress {
        member_id: member.member_id.0,
        matched: member.matched,
        since_last_contact: member
            .since_last_contact
            .and_then(|since| since.try_into().ok()),
    });
    let members = status
        .addresses
        .into_iter()
        .map(|(member, address)| GroupMember {
            member_id: member.0,
            node_id: address.node_id.0,
            address: address.address,
        });
    GroupStatus {
        partition_id: status.partition_id.0,
        member_id: status.member_id.0,
        role: role.into(),
        term: status.term,
        leader: status.leader.map_or(0, |leader| leader.0),
        voters: ids(status.voters),
        outgoing_voters: ids(status.outgoing_voters),
        learners: ids(status.learners),
        membership: status.membership.map(position),
        applied: status.applied,
        committed: status.committed,
        progress: progress.collect(),
        members: members.collect(),
        raft: Some(RaftTimings {
            election_timeout: timings.election_timeout.try_into().ok(),
            snapshot_entry_threshold: timings.snapshot_entry_threshold,
        }),
        last_log: status.last_log,
    }
}

fn position(position: LogPosition) -> LogPositionMessage {
    LogPositionMessage {
        term: position.term,
        index: position.index,
    }
}
