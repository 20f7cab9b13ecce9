//! Messages from other members: checked, queued in order, handed to openraft.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use atomix_proto::multiraft::v1 as pb;
use atomix_proto::multiraft::v1::peer_message::Body;
use atomix_proto::multiraft::v1::peer_refusal::Reason;
use atomix_proto::multiraft::v1::peer_reply::Body as ReplyBody;
use futures::StreamExt as _;
use futures::stream::FuturesUnordered;
use openraft::async_runtime::WatchReceiver as _;
use openraft::type_config::alias::SnapshotOf;
use parking_lot::Mutex;
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::Node;
use crate::codec;
use crate::host::Host;
use crate::machine::Machine;
use crate::record::GroupRecord;
use crate::snapshot::{Progress, ReceiveError, Receiver, SnapshotFile};
use crate::types::{TypeConfig, index_of};
use crate::{PeerMessage, PeerReply};

/// Messages that wait for the group.
const CAPACITY: usize = 512;
/// Messages that openraft works on.
const IN_PROGRESS: usize = 128;

pub(super) struct Inbox {
    me: Identity,
    sender: mpsc::Sender<Incoming>,
    heard: Arc<Mutex<Instant>>,
}

struct Incoming {
    body: Body,
    reply: oneshot::Sender<PeerReply>,
}

/// Whose messages are taken.
struct Identity {
    store_uid: String,
    incarnation: u64,
    partition_id: u32,
    member_id: u64,
}

impl Inbox {
    /// The future hands the messages on until the group stops.
    pub(super) fn new<M: Machine>(
        record: &GroupRecord,
        raft: Node<M>,
        host: Arc<Host<M>>,
        stopping: CancellationToken,
    ) -> (Self, impl Future<Output = ()> + Send + 'static + use<M>) {
        let (sender, receiver) = mpsc::channel(CAPACITY);
        let heard = Arc::new(Mutex::new(Instant::now()));
        let snapshots = Receiver::new(host.snapshots.clone());
        let worker = Arc::new(Worker {
            raft,
            snapshots: tokio::sync::Mutex::new(Some(snapshots)),
            host,
            heard: heard.clone(),
        });
        let inbox = Self {
            me: Identity {
                store_uid: record.store_uid.clone(),
                incarnation: record.incarnation,
                partition_id: record.partition_id.0,
                member_id: record.member_id.0,
            },
            sender,
            heard,
        };
        let run = async move {
            tokio::select! {
                () = run(receiver, worker) => {}
                () = stopping.cancelled() => {}
            }
        };
        (inbox, run)
    }

    /// Since the last message of a leader, or since the start.
    pub(super) fn since_heard(&self) -> Duration {
        let heard = *self.heard.lock();
        Instant::now().saturating_duration_since(heard)
    }

    pub(super) fn accept(
        &self,
        message: PeerMessage,
    ) -> impl Future<Output = PeerReply> + Send + 'static + use<> {
        let queued = self.queue(message);
        async move {
            match queued {
                Ok(reply) => reply
                    .await
                    .unwrap_or_else(|_| refusal(Reason::Stopped, "the group stopped")),
                Err(refusal) => refusal,
            }
        }
    }

    fn queue(&self, message: PeerMessage) -> Result<oneshot::Receiver<PeerReply>, PeerReply> {
        self.me.check(&message)?;
        let Some(body) = message.body else {
            return Err(refusal(
                Reason::Invalid,
                "a message that this version does not know",
            ));
        };
        let (reply, receiver) = oneshot::channel();
        match self.sender.try_send(Incoming { body, reply }) {
            Ok(()) => Ok(receiver),
            Err(mpsc::error::TrySendError::Full(_)) => {
                Err(refusal(Reason::Busy, "the inbox is full"))
            }
            Err(mpsc::error::TrySendError::Closed(_)) => {
                Err(refusal(Reason::Stopped, "the group stopped"))
            }
        }
    }
}

impl Identity {
    fn check(&self, message: &PeerMessage) -> Result<(), PeerReply> {
        let is_for_me = message.store_uid == self.store_uid
            && message.incarnation == self.incarnation
            && message.partition_id == self.partition_id
            && message.to_member == self.member_id;
        if is_for_me {
            return Ok(());
        }
        let found = format!(
            "this is member {:016x} of partition {}, incarnation {} of store {:?}",
            self.member_id, self.partition_id, self.incarnation, self.store_uid
        );
        Err(refusal(Reason::WrongMember, &found))
    }
}

fn refusal(reason: Reason, message: &str) -> PeerReply {
    let refusal = pb::PeerRefusal {
        reason: reason.into(),
        message: message.to_owned(),
    };
    reply(ReplyBody::Refusal(refusal))
}

fn reply(body: ReplyBody) -> PeerReply {
    PeerReply { body: Some(body) }
}

async fn run<M: Machine>(mut receiver: mpsc::Receiver<Incoming>, worker: Arc<Worker<M>>) {
    let mut in_progress = FuturesUnordered::new();
    loop {
        tokio::select! {
            // What came earlier reaches openraft's queue before anything later is begun.
            biased;
            Some(()) = in_progress.next(), if !in_progress.is_empty() => {}
            incoming = receiver.recv(), if in_progress.len() < IN_PROGRESS => {
                let Some(Incoming { body, reply }) = incoming else {
                    return;
                };
                let worker = worker.clone();
                in_progress.push(async move {
                    // The sender may have given up.
                    let _ = reply.send(worker.handle(body).await);
                });
            }
        }
    }
}

struct Worker<M: Machine> {
    raft: Node<M>,
    snapshots: tokio::sync::Mutex<Option<Receiver>>,
    host: Arc<Host<M>>,
    heard: Arc<Mutex<Instant>>,
}

impl<M: Machine> Worker<M> {
    async fn handle(&self, body: Body) -> PeerReply {
        let handled = match body {
            Body::AppendEntries(request) => self.append(request).await,
            Body::Vote(request) => self.vote(&request).await,
            Body::PreVote(request) => self.pre_vote(&request).await,
            Body::SnapshotChunk(chunk) => Box::pin(self.snapshot_chunk(chunk)).await,
            Body::TransferLeader(request) => self.transfer_leader(&request).await,
            Body::Report(_) => Ok(self.report()),
        };
        handled.map_or_else(|refusal| refusal, reply)
    }

    fn report(&self) -> ReplyBody {
        let metrics = self.raft.metrics();
        let metrics = metrics.borrow_watched();
        ReplyBody::Report(pb::Report {
            term: metrics.current_term,
            last_log: metrics.last_log_index.unwrap_or(0),
            applied: index_of(metrics.last_applied.as_ref()).max(*self.host.progress().borrow()),
        })
    }

    fn hear_leader(&self) {
        *self.heard.lock() = Instant::now();
    }

    async fn append(&self, request: pb::AppendEntries) -> Result<ReplyBody, PeerReply> {
        let request = codec::append_from_pb(request).map_err(|error| invalid(&error))?;
        self.hear_leader();
        let answer = self.raft.append_entries(request).await;
        let answer = answer.map_err(|error| stopped(&error))?;
        Ok(ReplyBody::AppendEntries(codec::append_reply_to_pb(answer)))
    }

    async fn vote(&self, request: &pb::RequestVote) -> Result<ReplyBody, PeerReply> {
        let request = codec::vote_request_from_pb(request).map_err(|error| invalid(&error))?;
        let answer = self.raft.vote(request).await;
        let answer = answer.map_err(|error| stopped(&error))?;
        Ok(ReplyBody::Vote(codec::vote_reply_to_pb(&answer)))
    }

    async fn pre_vote(&self, request: &pb::RequestVote) -> Result<ReplyBody, PeerReply> {
        let request = codec::vote_request_from_pb(request).map_err(|error| invalid(&error))?;
        let answer = self.raft.pre_vote(request).await;
        let answer = answer.map_err(|error| stopped(&error))?;
        Ok(ReplyBody::Vote(codec::vote_reply_to_pb(&answer)))
    }

    async fn transfer_leader(&self, request: &pb::TransferLeader) -> Result<ReplyBody, PeerReply> {
        let request = codec::transfer_from_pb(request).map_err(|error| invalid(&error))?;
        let answer = self.raft.handle_transfer_leader(request).await;
        let answer = answer.map_err(|error| stopped(&error))?;
        Ok(ReplyBody::TransferLeader(pb::TransferLeaderReply {
            error: answer
                .err()
                .map(|error| error.to_string())
                .unwrap_or_default(),
        }))
    }

    async fn snapshot_chunk(&self, chunk: pb::SnapshotChunk) -> Result<ReplyBody, PeerReply> {
        use pb::snapshot_chunk_reply::Outcome;
        self.hear_leader();
        let vote = codec::vote_from_pb(&chunk.vote.unwrap_or_default());
        let outcome = match self.receive(chunk).await {
            Ok(Progress::More(next)) => Outcome::NextOffset(next),
            Ok(Progress::Whole(file)) => {
                let snapshot: SnapshotOf<TypeConfig, SnapshotFile> = openraft::Snapshot {
                    meta: file.meta().clone(),
                    snapshot: file,
                };
                let installed = self.raft.install_full_snapshot(vote, snapshot).await;
                let installed = installed.map_err(|error| stopped(&error))?;
                Outcome::Finished(codec::vote_to_pb(&installed.vote))
            }
            Err(error @ ReceiveError::Disk(_)) => {
                self.host.fail(error.to_string());
                return Err(stopped(&error));
            }
            Err(error @ (ReceiveError::Broken(_) | ReceiveError::NoRoom(_))) => {
                tracing::warn!(%error, "a snapshot transfer broke");
                Outcome::Broken(error.to_string())
            }
        };
        Ok(ReplyBody::SnapshotChunk(pb::SnapshotChunkReply {
            outcome: Some(outcome),
        }))
    }

    async fn receive(&self, chunk: pb::SnapshotChunk) -> Result<Progress, ReceiveError> {
        let mut place = self.snapshots.lock().await;
        let Some(mut receiver) = place.take() else {
            return Err(ReceiveError::Broken("receiving broke before".to_owned()));
        };
        let guard = self.host.panic_guard("receiving a snapshot");
        let received = tokio::task::spawn_blocking(move || {
            let _guard = guard;
            let progress = receiver.receive(&chunk);
            (receiver, progress)
        });
        let (receiver, progress) = received
            .await
            .map_err(|error| ReceiveError::Broken(error.to_string()))?;
        // After a failure of the disk nothing more is received.
        if !matches!(progress, Err(ReceiveError::Disk(_))) {
            *place = Some(receiver);
        }
        progress
    }
}

fn invalid(error: &dyn std::fmt::Display) -> PeerReply {
    refusal(Reason::Invalid, &error.to_string())
}

fn stopped(error: &dyn std::fmt::Display) -> PeerReply {
    refusal(Reason::Stopped, &error.to_string())
}
