//! Recovery of a group that lost its quorum for good, from this node's member, by the word of a
//! person: `online` while the node serves its other groups, `offline` by `atomix-node recover` when
//! it does not run. `retire` tells the former members, should they come back, that they are none.
//!
//! Not for what is written (crate `raft`), nor for members that can be replaced while the group has
//! a quorum (`members`).

pub(crate) mod offline;
pub(crate) mod online;
pub(crate) mod retire;

use atomix_raft::MemberId;

/// A member id: 63 random bits, never 0.
fn fresh_member() -> MemberId {
    MemberId((rand::random::<u64>() >> 1).max(1))
}
