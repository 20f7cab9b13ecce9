//! The limits that change what applying a command results in. They live in the state and change
//! only through `SetLimits` in the log, so that all replicas have the same ones.

use atomix_proto::multiraft::v1::SetLimits;

/// The limits of one partition. The defaults belong to active version 1 and never change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// How many bytes of events the ring keeps.
    pub event_ring_bytes: u64,
    /// How many events the ring keeps.
    pub event_ring_count: u64,
    /// How many operations of a session may be remembered at once, waiting ones included.
    pub session_window_operations: u64,
    /// How many bytes of replies of a session may be remembered before it must acknowledge.
    pub session_window_reply_bytes: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            event_ring_bytes: 16 << 20,
            event_ring_count: 100_000,
            session_window_operations: 4_096,
            session_window_reply_bytes: 8 << 20,
        }
    }
}

impl Limits {
    /// How many operations of a session may wait in primitives at once: a part of its window, so that
    /// they leave room for those that end the waiting.
    pub(crate) fn session_waiting_operations(&self) -> u64 {
        (self.session_window_operations / 4).max(1)
    }

    pub(crate) fn set(&mut self, new: &SetLimits) {
        set_unless_zero(&mut self.event_ring_bytes, new.event_ring_bytes);
        set_unless_zero(&mut self.event_ring_count, new.event_ring_count);
        set_unless_zero(
            &mut self.session_window_operations,
            new.session_window_operations,
        );
        set_unless_zero(
            &mut self.session_window_reply_bytes,
            new.session_window_reply_bytes,
        );
    }
}

fn set_unless_zero(limit: &mut u64, new: u64) {
    if new != 0 {
        *limit = new;
    }
}
