//! What a leader answers, as values.

use atomix_proto::multiraft::v1::members_response::{
    Answer as Message, NoMember, OtherLeader, Pending, Refused, Settled,
};
use atomix_raft::{LeaderHint, MemberId, NodeId};
use tonic::Code;

/// What became of a request to a leader.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Answer {
    /// What was asked for is so, and committed.
    Settled,
    /// Ask again.
    Pending {
        progress: String,
        is_member: bool,
    },
    Refused {
        code: Code,
        message: String,
    },
    /// Ask this one, if it is known.
    OtherLeader(Option<LeaderHint>),
    /// The member was removed, or never was one.
    NoMember,
}

impl Answer {
    pub(super) fn refused(code: Code, message: impl Into<String>) -> Self {
        Self::Refused {
            code,
            message: message.into(),
        }
    }
}

impl From<Answer> for Message {
    fn from(answer: Answer) -> Self {
        match answer {
            Answer::Settled => Self::Settled(Settled {}),
            Answer::Pending {
                progress,
                is_member,
            } => Self::Pending(Pending {
                progress,
                is_member,
            }),
            Answer::Refused { code, message } => Self::Refused(Refused {
                code: code.into(),
                message,
            }),
            Answer::OtherLeader(None) => Self::OtherLeader(OtherLeader::default()),
            Answer::OtherLeader(Some(hint)) => Self::OtherLeader(OtherLeader {
                member_id: hint.member_id.0,
                node_id: hint.node_id.0,
                address: hint.address,
            }),
            Answer::NoMember => Self::NoMember(NoMember {}),
        }
    }
}

impl From<Message> for Answer {
    fn from(message: Message) -> Self {
        match message {
            Message::Settled(Settled {}) => Self::Settled,
            Message::Pending(pending) => Self::Pending {
                progress: pending.progress,
                is_member: pending.is_member,
            },
            Message::Refused(refused) => Self::Refused {
                code: Code::from_i32(refused.code),
                message: refused.message,
            },
            Message::OtherLeader(leader) if leader.member_id == 0 => Self::OtherLeader(None),
            Message::OtherLeader(leader) => Self::OtherLeader(Some(LeaderHint {
                member_id: MemberId(leader.member_id),
                node_id: NodeId(leader.node_id),
                address: leader.address,
            })),
            Message::NoMember(NoMember {}) => Self::NoMember,
        }
    }
}
