//! Plays all other members of a group towards one member: candidates that ask for its vote,
//! leaders that send it entries and snapshots.

use std::io::Write as _;

use atomix_proto::multiraft::v1 as pb;
use atomix_proto::multiraft::v1::append_entries_reply::Outcome;
use atomix_proto::multiraft::v1::log_entry::{Blank, Payload};
use atomix_proto::multiraft::v1::membership::{Member, VoterSet};
use atomix_proto::multiraft::v1::peer_message::Body;
use atomix_proto::multiraft::v1::peer_reply::Body as Reply;
use atomix_proto::multiraft::v1::snapshot_chunk_reply::Outcome as ChunkOutcome;
use atomix_raft::{Group, GroupRecord, PeerMessage};
use bytes::Bytes;
use prost::Message as _;

use super::machine::Journal;

/// The log of the whole group: the term and the line of each entry. The first two entries are the
/// membership and a blank one.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct History(pub(crate) Vec<(u64, String)>);

const FIRST_LINE: usize = 2;

impl History {
    pub(crate) fn last(&self) -> Option<pb::LogId> {
        let index = self.0.len().checked_sub(1)?;
        Some(self.id(index))
    }

    pub(crate) fn id(&self, index: usize) -> pb::LogId {
        pb::LogId {
            term: self.0[index].0,
            index: index as u64,
        }
    }

    /// What a machine holds that has applied all of it.
    pub(crate) fn lines(&self) -> Vec<String> {
        let lines = self.0.iter().skip(FIRST_LINE);
        lines.map(|(_, line)| line.clone()).collect()
    }

    pub(crate) fn common(&self, other: &Self) -> Self {
        let same = self.0.iter().zip(&other.0).take_while(|(a, b)| a == b);
        Self(self.0[..same.count()].to_vec())
    }

    /// The first entries of every group.
    pub(crate) fn first_entries() -> Self {
        Self(vec![(0, String::new()), (1, String::new())])
    }

    pub(crate) fn with(&self, term: u64, lines: &[&str]) -> Self {
        let mut longer = self.clone();
        longer
            .0
            .extend(lines.iter().map(|line| (term, (*line).to_owned())));
        longer
    }

    fn entries(&self, from: usize, members: &pb::Membership) -> Vec<pb::LogEntry> {
        let payload = |index: usize, line: &String| match index {
            0 => Payload::Membership(members.clone()),
            1 => Payload::Blank(Blank {}),
            _ => Payload::Command(Bytes::copy_from_slice(line.as_bytes())),
        };
        let entries = self.0.iter().enumerate().skip(from);
        entries
            .map(|(index, (term, line))| pb::LogEntry {
                term: *term,
                index: index as u64,
                payload: Some(payload(index, line)),
            })
            .collect()
    }
}

/// The other members of a group.
pub(crate) struct Others {
    pub(crate) group: Group<Journal>,
    record: GroupRecord,
}

impl Others {
    pub(crate) fn of(group: &Group<Journal>) -> Self {
        Self {
            group: group.clone(),
            record: group.record().clone(),
        }
    }

    fn membership(&self) -> pb::Membership {
        pb::Membership {
            configurations: vec![VoterSet {
                members: self.record.members.keys().map(|id| id.0).collect(),
            }],
            members: self
                .record
                .members
                .iter()
                .map(|(id, address)| Member {
                    member_id: id.0,
                    node_id: address.node_id.0,
                    address: address.address.clone(),
                })
                .collect(),
        }
    }

    pub(crate) fn message(&self, from: u64, body: Body) -> PeerMessage {
        PeerMessage {
            store_uid: self.record.store_uid.clone(),
            incarnation: self.record.incarnation,
            partition_id: self.record.partition_id.0,
            from_member: from,
            to_member: self.record.member_id.0,
            body: Some(body),
        }
    }

    async fn tell(&self, from: u64, body: Body) -> Reply {
        let reply = self.group.handle(self.message(from, body)).await;
        reply.body.expect("a reply")
    }

    /// Asks for a vote, as a candidate with the longest log.
    pub(crate) async fn ask_for_vote(&self, term: u64, candidate: u64) -> pb::VoteReply {
        let request = pb::RequestVote {
            vote: Some(pb::Vote {
                term,
                member_id: candidate,
                committed: false,
            }),
            last_log: Some(pb::LogId {
                term,
                index: 1_000_000,
            }),
            leadership_transfer: false,
        };
        match self.tell(candidate, Body::Vote(request)).await {
            Reply::Vote(reply) => reply,
            other => panic!("a vote was asked for, not {other:?}"),
        }
    }

    /// An append of the entries of `history` from `from` on.
    pub(crate) fn append(
        &self,
        leader: (u64, u64),
        history: &History,
        from: usize,
        commit: usize,
    ) -> Body {
        let (term, member_id) = leader;
        Body::AppendEntries(pb::AppendEntries {
            vote: Some(pb::Vote {
                term,
                member_id,
                committed: true,
            }),
            previous: from.checked_sub(1).map(|before| history.id(before)),
            entries: history.entries(from, &self.membership()),
            leader_commit: Some(history.id(commit)),
        })
    }

    /// Sends the entries from `from` on, as a leader (term and member); true when they are on the
    /// member's disk, false when it does not have the entry before them.
    pub(crate) async fn replicate(
        &self,
        leader: (u64, u64),
        history: &History,
        from: usize,
        commit: usize,
    ) -> bool {
        let body = self.append(leader, history, from, commit);
        match self.tell(leader.1, body).await {
            Reply::AppendEntries(reply) => match reply.outcome.expect("an outcome") {
                Outcome::Matched(matched) => !matched.is_partial,
                Outcome::Conflict(_) => false,
                Outcome::HigherVote(vote) => panic!("a newer leader: {vote:?}"),
            },
            other => panic!("entries were sent, not {other:?}"),
        }
    }

    /// Sends a snapshot of the whole history; it is installed when this returns.
    pub(crate) async fn install(&self, leader: (u64, u64), history: &History) {
        match self.try_install(leader, history).await {
            Reply::SnapshotChunk(reply) => {
                assert!(
                    matches!(reply.outcome, Some(ChunkOutcome::Finished(_))),
                    "{reply:?}"
                );
            }
            other => panic!("a snapshot was sent, not {other:?}"),
        }
    }

    /// Sends a snapshot of the whole history.
    pub(crate) async fn try_install(&self, leader: (u64, u64), history: &History) -> Reply {
        let (term, member_id) = leader;
        let meta = pb::SnapshotMeta {
            last_log: history.last(),
            membership_log: Some(history.id(0)),
            membership: Some(self.membership()),
        };
        let lines: String = history.lines().iter().map(|l| format!("{l}\n")).collect();
        let mut file = b"ATXSNAP1".to_vec();
        for frame in [meta.encode_to_vec(), lines.into_bytes(), Vec::new()] {
            let length = u32::try_from(frame.len()).expect("a small frame");
            file.write_all(&length.to_le_bytes()).expect("memory");
            file.write_all(&frame).expect("memory");
            let checksum = crc32fast::hash(&frame).to_le_bytes();
            file.write_all(&checksum).expect("memory");
        }
        let chunk = pb::SnapshotChunk {
            vote: Some(pb::Vote {
                term,
                member_id,
                committed: true,
            }),
            transfer_id: 1,
            offset: 0,
            crc: crc32fast::hash(&file),
            end: Some(pb::SnapshotEnd {
                length: file.len() as u64,
                meta: Some(meta),
            }),
            data: file.into(),
        };
        self.tell(member_id, Body::SnapshotChunk(chunk)).await
    }
}
