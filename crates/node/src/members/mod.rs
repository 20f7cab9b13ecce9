//! Changes of a group's members: Join, Leave, handing over the leadership, and noticing that this
//! node's member was removed.
//!
//! The leader of a group does single steps, each of which may be repeated (`leader`, by the pure
//! rules of `wish`); it remembers nothing between them. Whoever wants something asks it, through
//! `asker`, until it is so: the node that joins (`join`) or leaves (`leave`). So any of them may die
//! at any moment and go on later.
//!
//! Not for how a change is proposed (crate `raft`).

mod answer;
mod asker;
mod intent;
mod join;
mod leader;
mod leave;
mod service;
mod standing;
mod wish;

pub(crate) use answer::Answer;
pub(crate) use asker::Asker;
pub(crate) use join::Joiner;
pub(crate) use leave::{hand_over, leave};
pub(crate) use service::MembersService;
pub(crate) use standing::watch_standing;
