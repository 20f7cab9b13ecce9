//! Sends what openraft says to the other members, over the [`Transport`].

use std::collections::BTreeMap;
use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use atomix_proto::multiraft::v1 as pb;
use atomix_proto::multiraft::v1::peer_message::Body;
use atomix_proto::multiraft::v1::peer_reply::Body as ReplyBody;
use bytes::Bytes;
use futures::future::BoxFuture;
use futures::stream::BoxStream;
use futures::{Stream, StreamExt as _};
use openraft::errors::{NetworkError, RPCError, ReplicationClosed, StreamingError, Unreachable};
use openraft::network::{RPCOption, RaftNetworkFactory, RaftNetworkV2};
use openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, SnapshotResponse, StreamAppendResult,
    TransferLeaderRequest, TransferLeaderResponse, VoteRequest, VoteResponse,
};
use openraft::type_config::alias::SnapshotOf;
use parking_lot::Mutex;

use crate::codec;
use crate::ids::{MemberId, PartitionId};
use crate::record::{GroupRecord, MemberAddress};
use crate::snapshot::SnapshotFile;
use crate::transport::{Class, PeerTarget, Transport, TransportError};
use crate::types::{LogId, Peer, TypeConfig, Vote, member};
use crate::{PeerMessage, PeerReply};

/// Appends that are under way to one member at once.
const APPENDS_IN_FLIGHT: usize = 16;
/// Bytes of a snapshot that one message carries.
const CHUNK_BYTES: usize = 512 << 10;

type RpcError = RPCError<TypeConfig>;

/// How far a member is, by its own account.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MemberReport {
    /// The highest term that it has seen.
    pub term: u64,
    /// The last index of its log; 0 = none.
    pub last_log: u64,
    /// The last applied index; 0 = none.
    pub applied: u64,
}

/// Who sends, and what all messages of the group share.
pub(crate) struct Sender {
    record: GroupRecord,
    transport: Arc<dyn Transport>,
    transfers: AtomicU64,
    /// The last index of every snapshot that is being sent, by the number of the transfer.
    sending: Mutex<BTreeMap<u64, u64>>,
}

impl Sender {
    pub(crate) fn new(record: GroupRecord, transport: Arc<dyn Transport>) -> Self {
        Self {
            record,
            transport,
            transfers: AtomicU64::new(0),
            sending: Mutex::default(),
        }
    }

    /// Asks another member how far it is.
    ///
    /// # Errors
    /// Why there is no report.
    pub(crate) async fn report(
        &self,
        to: MemberId,
        address: &MemberAddress,
        timeout: Duration,
    ) -> Result<MemberReport, String> {
        let target = PeerTarget {
            partition: self.record.partition_id,
            from_member: self.record.member_id,
            to_member: to,
            to_node: address.node_id,
            address: address.address.clone(),
        };
        let message = self.message(to, Body::Report(pb::ReportRequest {}));
        let sent = self.transport.send(&target, message, Class::Raft, timeout);
        match sent.await {
            Ok(PeerReply {
                body: Some(ReplyBody::Report(report)),
            }) => Ok(MemberReport {
                term: report.term,
                last_log: report.last_log,
                applied: report.applied,
            }),
            other => Err(unexpected(other).to_string()),
        }
    }

    fn message(&self, to: MemberId, body: Body) -> PeerMessage {
        let PartitionId(partition_id) = self.record.partition_id;
        PeerMessage {
            store_uid: self.record.store_uid.clone(),
            incarnation: self.record.incarnation,
            partition_id,
            from_member: self.record.member_id.0,
            to_member: to.0,
            body: Some(body),
        }
    }

    /// Log entries behind this one are needed by whoever receives a snapshot now.
    pub(crate) fn oldest_snapshot_in_transfer(&self) -> Option<u64> {
        self.sending.lock().values().min().copied()
    }

    fn election_timeout(&self) -> Duration {
        self.record.timings.election_timeout
    }
}

/// Makes the connections of a group.
pub(crate) struct Factory(pub(crate) Arc<Sender>);

impl RaftNetworkFactory<TypeConfig> for Factory {
    type Network = Connection;

    async fn new_client(&mut self, target: u64, node: &Peer) -> Connection {
        Connection {
            sender: self.0.clone(),
            target: PeerTarget {
                partition: self.0.record.partition_id,
                from_member: self.0.record.member_id,
                to_member: member(target),
                to_node: node.node_id(),
                address: node.address.clone(),
            },
        }
    }
}

/// The way to one member.
pub(crate) struct Connection {
    sender: Arc<Sender>,
    target: PeerTarget,
}

impl Connection {
    fn send(
        &self,
        body: Body,
        class: Class,
        timeout: Duration,
    ) -> BoxFuture<'static, Result<PeerReply, TransportError>> {
        let message = self.sender.message(self.target.to_member, body);
        self.sender
            .transport
            .send(&self.target, message, class, timeout)
    }

    async fn request_vote(&self, body: Body) -> Result<VoteResponse<TypeConfig>, RpcError> {
        let timeout = self.sender.election_timeout();
        match self.send(body, Class::Raft, timeout).await {
            Ok(PeerReply {
                body: Some(ReplyBody::Vote(reply)),
            }) => codec::vote_reply_from_pb(&reply).map_err(|error| network_error(&error)),
            other => Err(unexpected(other)),
        }
    }

    async fn send_snapshot(
        &self,
        vote: Vote,
        file: &SnapshotFile,
        transfer_id: u64,
        timeout: Duration,
    ) -> Result<SnapshotResponse<TypeConfig>, RpcError> {
        use pb::snapshot_chunk_reply::Outcome;
        let mut offset = 0;
        loop {
            let reader = file.clone();
            let chunk =
                tokio::task::spawn_blocking(move || reader.read_chunk(offset, CHUNK_BYTES)).await;
            let data = chunk
                .unwrap_or_else(|error| Err(std::io::Error::other(error)))
                .map_err(|error| network_error(&error))?;
            let after = offset + data.len() as u64;
            let is_last = after >= file.length();
            let chunk = pb::SnapshotChunk {
                vote: Some(codec::vote_to_pb(&vote)),
                transfer_id,
                offset,
                crc: crc32fast::hash(&data),
                data: Bytes::from(data),
                end: is_last.then(|| pb::SnapshotEnd {
                    length: file.length(),
                    meta: Some(codec::snapshot_meta_to_pb(file.meta())),
                }),
            };
            let sent = self.send(Body::SnapshotChunk(chunk), Class::Snapshot, timeout);
            let outcome = match sent.await {
                Ok(PeerReply {
                    body: Some(ReplyBody::SnapshotChunk(reply)),
                }) => reply.outcome,
                other => return Err(unexpected(other)),
            };
            match outcome {
                Some(Outcome::NextOffset(next)) if !is_last && next == after => offset = next,
                Some(Outcome::Finished(vote) | Outcome::HigherVote(vote)) => {
                    return Ok(SnapshotResponse::new(codec::vote_from_pb(&vote)));
                }
                Some(Outcome::Broken(reason)) => return Err(network_string(reason)),
                Some(Outcome::NextOffset(_)) | None => {
                    return Err(network_string(
                        "the receiver lost its place in the snapshot",
                    ));
                }
            }
        }
    }
}

fn network_error(error: &(impl std::error::Error + 'static)) -> RpcError {
    RPCError::Network(NetworkError::new(error))
}

fn network_string(reason: impl ToString) -> RpcError {
    RPCError::Network(NetworkError::from_string(reason))
}

/// An unreachable node and a refusal are backed off from, everything else is tried again at once.
fn unexpected(outcome: Result<PeerReply, TransportError>) -> RpcError {
    match outcome {
        Err(error @ TransportError::Unreachable { .. }) => {
            RPCError::Unreachable(Unreachable::new(&error))
        }
        Err(error) => network_error(&error),
        Ok(PeerReply {
            body: Some(ReplyBody::Refusal(refusal)),
        }) => RPCError::Unreachable(Unreachable::from_string(format!(
            "refused ({:?}): {}",
            refusal.reason(),
            refusal.message
        ))),
        Ok(_) => network_string("a reply of another kind than the request"),
    }
}

/// What the answer to one append means, given what was sent.
fn append_outcome(
    outcome: Result<PeerReply, TransportError>,
    previous: Option<LogId>,
    last: Option<LogId>,
) -> Result<StreamAppendResult<TypeConfig>, RpcError> {
    let reply = match outcome {
        Ok(PeerReply {
            body: Some(ReplyBody::AppendEntries(reply)),
        }) => reply,
        other => return Err(unexpected(other)),
    };
    let reply = codec::append_reply_from_pb(&reply).map_err(|error| network_error(&error))?;
    if reply.is_conflict() && previous.is_none() {
        return Err(network_string("a conflict before the first entry"));
    }
    Ok(reply.into_stream_result(previous, last))
}

impl RaftNetworkV2<TypeConfig> for Connection {
    type SnapshotData = SnapshotFile;

    async fn append_entries(
        &mut self,
        request: AppendEntriesRequest<TypeConfig>,
        _option: RPCOption,
    ) -> Result<AppendEntriesResponse<TypeConfig>, RpcError> {
        let body = Body::AppendEntries(codec::append_to_pb(&request));
        let timeout = self.sender.election_timeout();
        match self.send(body, Class::Raft, timeout).await {
            Ok(PeerReply {
                body: Some(ReplyBody::AppendEntries(reply)),
            }) => codec::append_reply_from_pb(&reply).map_err(|error| network_error(&error)),
            other => Err(unexpected(other)),
        }
    }

    /// Keeps several appends under way; their order is the order of the requests.
    fn stream_append<'s, S>(
        &'s mut self,
        requests: S,
        _option: RPCOption,
    ) -> BoxFuture<
        's,
        Result<BoxStream<'s, Result<StreamAppendResult<TypeConfig>, RpcError>>, RpcError>,
    >
    where
        S: Stream<Item = AppendEntriesRequest<TypeConfig>> + Send + Unpin + 'static,
    {
        let timeout = self.sender.election_timeout();
        let connection = &*self;
        let outcomes = requests
            .map(move |request| {
                let previous = request.prev_log_id;
                let last = request
                    .entries
                    .last()
                    .map(|entry| entry.log_id)
                    .or(previous);
                let body = Body::AppendEntries(codec::append_to_pb(&request));
                let reply = connection.send(body, Class::Raft, timeout);
                async move { (append_outcome(reply.await, previous, last), last) }
            })
            .buffered(APPENDS_IN_FLIGHT)
            // After a failure, or when not all was taken, openraft starts a new stream.
            .scan(false, |ended, (outcome, last)| {
                if *ended {
                    return std::future::ready(None);
                }
                *ended = !matches!(&outcome, Ok(Ok(matched)) if *matched == last);
                std::future::ready(Some(outcome))
            });
        let outcomes: BoxStream<'s, _> = Box::pin(outcomes);
        Box::pin(std::future::ready(Ok(outcomes)))
    }

    async fn vote(
        &mut self,
        request: VoteRequest<TypeConfig>,
        _option: RPCOption,
    ) -> Result<VoteResponse<TypeConfig>, RpcError> {
        let body = Body::Vote(codec::vote_request_to_pb(&request));
        self.request_vote(body).await
    }

    async fn pre_vote(
        &mut self,
        request: VoteRequest<TypeConfig>,
        _option: RPCOption,
    ) -> Result<VoteResponse<TypeConfig>, RpcError> {
        let body = Body::PreVote(codec::vote_request_to_pb(&request));
        self.request_vote(body).await
    }

    async fn full_snapshot(
        &mut self,
        vote: Vote,
        snapshot: SnapshotOf<TypeConfig, SnapshotFile>,
        cancel: impl Future<Output = ReplicationClosed> + Send + 'static,
        option: RPCOption,
    ) -> Result<SnapshotResponse<TypeConfig>, StreamingError<TypeConfig>> {
        let file = snapshot.snapshot;
        let transfer_id = self.sender.transfers.fetch_add(1, Ordering::Relaxed) + 1;
        self.sender
            .sending
            .lock()
            .insert(transfer_id, file.last_index());
        let _sending = Sending {
            sender: self.sender.clone(),
            transfer_id,
        };
        tokio::select! {
            closed = cancel => Err(StreamingError::Closed(closed)),
            sent = self.send_snapshot(vote, &file, transfer_id, option.hard_ttl()) => {
                Ok(sent?)
            }
        }
    }

    async fn transfer_leader(
        &mut self,
        request: TransferLeaderRequest<TypeConfig>,
        _option: RPCOption,
    ) -> Result<TransferLeaderResponse<TypeConfig>, RpcError> {
        let body = Body::TransferLeader(codec::transfer_to_pb(&request));
        let timeout = self.sender.election_timeout();
        match self.send(body, Class::Raft, timeout).await {
            Ok(PeerReply {
                body: Some(ReplyBody::TransferLeader(reply)),
            }) if reply.error.is_empty() => Ok(Ok(())),
            Ok(PeerReply {
                body: Some(ReplyBody::TransferLeader(reply)),
            }) => Err(network_string(reply.error)),
            other => Err(unexpected(other)),
        }
    }
}

/// Notes the end of a transfer, however it ends.
struct Sending {
    sender: Arc<Sender>,
    transfer_id: u64,
}

impl Drop for Sending {
    fn drop(&mut self) {
        self.sender.sending.lock().remove(&self.transfer_id);
    }
}
