//! Recovery of a group that lost its quorum for good, from this node's member, by the word of a
//! person: `online` while the node serves its other groups, `offline` by `atomix-node recover` when
//! it does not run. `retire` tells the former members, should they come back, that they are none.
//!
//! Not for what is written (crate `raft`), nor for members that can be replaced while the group has
//! a quorum (`members`).

pub(crate) mod offline;
pub(crate) mod online;
pub(crate) mod retire;

use std::time::{SystemTime, UNIX_EPOCH};

use atomix_proto::multiraft::v1::{Command, CommandBatch, Recovered, command};
use atomix_raft::MemberId;
use bytes::Bytes;
use prost::Message as _;

/// A member id: 63 random bits, never 0.
fn fresh_member() -> MemberId {
    MemberId((rand::random::<u64>() >> 1).max(1))
}

/// What a recovered member's state machine is told: it may lag behind what its group had acknowledged,
/// so ids, versions and tokens go on far above its own, and the sessions end. It moves no time.
pub(crate) fn notice() -> Bytes {
    let since_epoch = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    let batch = CommandBatch {
        time_nanos: 0,
        wall_time_millis: u64::try_from(since_epoch.as_millis()).unwrap_or(u64::MAX),
        commands: vec![Command {
            command: Some(command::Command::Recovered(Recovered {})),
        }],
    };
    batch.encode_to_vec().into()
}
