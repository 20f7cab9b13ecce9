//! Between openraft's types and the protobuf messages of the wire and the disk.

use std::collections::{BTreeMap, BTreeSet};

use atomix_proto::multiraft::v1 as pb;
use openraft::EntryPayload;
use openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, TransferLeaderRequest, VoteRequest, VoteResponse,
};

use crate::types::{
    Entry, LogId, Membership, Payload, Peer, SnapshotMeta, StoredMembership, TypeConfig, Vote,
};

/// A message that lacks what it must have.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message} without a valid {field}")]
pub(crate) struct CodecError {
    message: &'static str,
    field: &'static str,
}

fn missing(message: &'static str, field: &'static str) -> CodecError {
    CodecError { message, field }
}

pub(crate) fn vote_to_pb(vote: &Vote) -> pb::Vote {
    pb::Vote {
        term: vote.leader_id.term,
        member_id: vote.leader_id.voted_for,
        committed: vote.committed,
    }
}

pub(crate) fn vote_from_pb(vote: &pb::Vote) -> Vote {
    if vote.committed {
        Vote::new_committed(vote.term, vote.member_id)
    } else {
        Vote::new(vote.term, vote.member_id)
    }
}

fn required_vote(vote: Option<&pb::Vote>, message: &'static str) -> Result<Vote, CodecError> {
    vote.map(vote_from_pb)
        .ok_or_else(|| missing(message, "vote"))
}

pub(crate) fn log_id_to_pb(log_id: &LogId) -> pb::LogId {
    pb::LogId {
        term: log_id.leader_id.term,
        index: log_id.index,
    }
}

pub(crate) fn log_id_from_pb(log_id: &pb::LogId) -> LogId {
    LogId::new_term_index(log_id.term, log_id.index)
}

pub(crate) fn entry_to_pb(entry: &Entry) -> pb::LogEntry {
    use pb::log_entry::Payload as P;
    let payload = match &entry.payload {
        EntryPayload::Blank => P::Blank(pb::log_entry::Blank {}),
        EntryPayload::Normal(Payload(bytes)) => P::Command(bytes.clone()),
        EntryPayload::Membership(membership) => P::Membership(membership_to_pb(membership)),
    };
    pb::LogEntry {
        term: entry.log_id.leader_id.term,
        index: entry.log_id.index,
        payload: Some(payload),
    }
}

pub(crate) fn entry_from_pb(entry: pb::LogEntry) -> Result<Entry, CodecError> {
    use pb::log_entry::Payload as P;
    let payload = match entry.payload {
        Some(P::Blank(_)) => EntryPayload::Blank,
        Some(P::Command(bytes)) => EntryPayload::Normal(Payload(bytes)),
        Some(P::Membership(membership)) => {
            EntryPayload::Membership(membership_from_pb(&membership)?)
        }
        // A payload of a newer version must stop the member, never be skipped.
        None => return Err(missing("log entry", "payload")),
    };
    Ok(Entry {
        log_id: LogId::new_term_index(entry.term, entry.index),
        payload,
    })
}

pub(crate) fn membership_to_pb(membership: &Membership) -> pb::Membership {
    let configurations = membership
        .get_joint_config()
        .iter()
        .map(|voters| pb::membership::VoterSet {
            members: voters.iter().copied().collect(),
        })
        .collect();
    let members = membership
        .nodes()
        .map(|(id, peer)| pb::membership::Member {
            member_id: *id,
            node_id: peer.node_id,
            address: peer.address.clone(),
        })
        .collect();
    pb::Membership {
        configurations,
        members,
    }
}

pub(crate) fn membership_from_pb(membership: &pb::Membership) -> Result<Membership, CodecError> {
    let configurations: Vec<BTreeSet<u64>> = membership
        .configurations
        .iter()
        .map(|voters| voters.members.iter().copied().collect())
        .collect();
    let members: BTreeMap<u64, Peer> = membership
        .members
        .iter()
        .map(|member| {
            let peer = Peer {
                node_id: member.node_id,
                address: member.address.clone(),
            };
            (member.member_id, peer)
        })
        .collect();
    if configurations.is_empty() && members.is_empty() {
        return Ok(Membership::default());
    }
    Membership::new(configurations, members).map_err(|_| missing("membership", "set of voters"))
}

pub(crate) fn snapshot_meta_to_pb(meta: &SnapshotMeta) -> pb::SnapshotMeta {
    pb::SnapshotMeta {
        last_log: meta.last_log_id.as_ref().map(log_id_to_pb),
        membership_log: meta.last_membership.log_id().as_ref().map(log_id_to_pb),
        membership: Some(membership_to_pb(meta.last_membership.membership())),
    }
}

pub(crate) fn snapshot_meta_from_pb(meta: &pb::SnapshotMeta) -> Result<SnapshotMeta, CodecError> {
    let membership = meta
        .membership
        .as_ref()
        .ok_or_else(|| missing("snapshot", "membership"))?;
    let membership_log = meta.membership_log.as_ref().map(log_id_from_pb);
    Ok(SnapshotMeta {
        last_log_id: meta.last_log.as_ref().map(log_id_from_pb),
        last_membership: StoredMembership::new(membership_log, membership_from_pb(membership)?),
    })
}

pub(crate) fn append_to_pb(request: &AppendEntriesRequest<TypeConfig>) -> pb::AppendEntries {
    pb::AppendEntries {
        vote: Some(vote_to_pb(&request.vote)),
        previous: request.prev_log_id.as_ref().map(log_id_to_pb),
        entries: request.entries.iter().map(entry_to_pb).collect(),
        leader_commit: request.leader_commit.as_ref().map(log_id_to_pb),
    }
}

pub(crate) fn append_from_pb(
    request: pb::AppendEntries,
) -> Result<AppendEntriesRequest<TypeConfig>, CodecError> {
    let entries = request
        .entries
        .into_iter()
        .map(entry_from_pb)
        .collect::<Result<Vec<_>, _>>()?;
    Ok(AppendEntriesRequest {
        vote: required_vote(request.vote.as_ref(), "append")?,
        prev_log_id: request.previous.as_ref().map(log_id_from_pb),
        entries,
        leader_commit: request.leader_commit.as_ref().map(log_id_from_pb),
    })
}

pub(crate) fn append_reply_to_pb(
    reply: AppendEntriesResponse<TypeConfig>,
) -> pb::AppendEntriesReply {
    use pb::append_entries_reply::{Conflict, Matched, Outcome};
    let outcome = match reply {
        AppendEntriesResponse::Success => Outcome::Matched(Matched {
            partial: None,
            is_partial: false,
        }),
        AppendEntriesResponse::PartialSuccess(matched) => Outcome::Matched(Matched {
            partial: matched.as_ref().map(log_id_to_pb),
            is_partial: true,
        }),
        AppendEntriesResponse::Conflict => Outcome::Conflict(Conflict {}),
        AppendEntriesResponse::HigherVote(vote) => Outcome::HigherVote(vote_to_pb(&vote)),
    };
    pb::AppendEntriesReply {
        outcome: Some(outcome),
    }
}

pub(crate) fn append_reply_from_pb(
    reply: &pb::AppendEntriesReply,
) -> Result<AppendEntriesResponse<TypeConfig>, CodecError> {
    use pb::append_entries_reply::Outcome;
    match &reply.outcome {
        Some(Outcome::Matched(matched)) if matched.is_partial => {
            let partial = matched.partial.as_ref().map(log_id_from_pb);
            Ok(AppendEntriesResponse::PartialSuccess(partial))
        }
        Some(Outcome::Matched(_)) => Ok(AppendEntriesResponse::Success),
        Some(Outcome::Conflict(_)) => Ok(AppendEntriesResponse::Conflict),
        Some(Outcome::HigherVote(vote)) => {
            Ok(AppendEntriesResponse::HigherVote(vote_from_pb(vote)))
        }
        None => Err(missing("append reply", "outcome")),
    }
}

pub(crate) fn vote_request_to_pb(request: &VoteRequest<TypeConfig>) -> pb::RequestVote {
    pb::RequestVote {
        vote: Some(vote_to_pb(&request.vote)),
        last_log: request.last_log_id.as_ref().map(log_id_to_pb),
        leadership_transfer: request.leadership_transfer,
    }
}

pub(crate) fn vote_request_from_pb(
    request: &pb::RequestVote,
) -> Result<VoteRequest<TypeConfig>, CodecError> {
    let vote = required_vote(request.vote.as_ref(), "vote request")?;
    let last_log = request.last_log.as_ref().map(log_id_from_pb);
    let mut decoded = VoteRequest::new(vote, last_log);
    decoded.leadership_transfer = request.leadership_transfer;
    Ok(decoded)
}

pub(crate) fn vote_reply_to_pb(reply: &VoteResponse<TypeConfig>) -> pb::VoteReply {
    pb::VoteReply {
        vote: Some(vote_to_pb(&reply.vote)),
        granted: reply.vote_granted,
        last_log: reply.last_log_id.as_ref().map(log_id_to_pb),
    }
}

pub(crate) fn vote_reply_from_pb(
    reply: &pb::VoteReply,
) -> Result<VoteResponse<TypeConfig>, CodecError> {
    let vote = required_vote(reply.vote.as_ref(), "vote reply")?;
    let last_log = reply.last_log.as_ref().map(log_id_from_pb);
    Ok(VoteResponse::new(vote, last_log, reply.granted))
}

pub(crate) fn transfer_to_pb(request: &TransferLeaderRequest<TypeConfig>) -> pb::TransferLeader {
    pb::TransferLeader {
        from_leader: Some(vote_to_pb(request.from_leader())),
        to_member: *request.to_node_id(),
        last_log: request.last_log_id().map(log_id_to_pb),
    }
}

pub(crate) fn transfer_from_pb(
    request: &pb::TransferLeader,
) -> Result<TransferLeaderRequest<TypeConfig>, CodecError> {
    let vote = required_vote(request.from_leader.as_ref(), "leader transfer")?;
    let last_log = request.last_log.as_ref().map(log_id_from_pb);
    Ok(TransferLeaderRequest::new(
        vote,
        request.to_member,
        last_log,
    ))
}
