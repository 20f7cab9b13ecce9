//! What happens to primitives, for drivers that follow it: one answer to each asking, at once or when
//! the first event comes.
//!
//! Nothing is remembered between two askings: a driver that goes away or turns to another leader
//! leaves nothing behind. Not for the first position, which needs a confirmed leader (`reader`).

use std::sync::Arc;
use std::time::Duration;

use atomix_primitives::{EventFilter, EventPosition, EventsLost, EventsRead, OperationError};
use atomix_proto::multiraft::v1 as proto;
use atomix_proto::multiraft::v1::{Events, Failure, FollowEvents, response};
use tokio::sync::oneshot;
use tokio::time::Instant;

use super::answers::{self, unavailable};
use super::machine::Following;
use super::queues::Read;
use super::{Inner, Partition};
use crate::exchange::Ticket;

/// The longest that one asking waits.
const LONGEST_WAIT: Duration = Duration::from_mins(1);

impl Partition {
    /// Takes a driver's asking. Never blocks.
    pub(super) fn follow_events(&self, asked: FollowEvents, ticket: Ticket) {
        let FollowEvents {
            kind,
            primitive,
            key,
            after,
            wait_nanos,
        } = asked;
        let filter = self.inner.group.with_machine(|machine| {
            let state = machine.state();
            state.event_filter(&kind, &primitive, key)
        });
        let Some(filter) = filter else {
            let message = format!("the kind {kind:?} does not exist here");
            return ticket.fail(answers::operation(&OperationError::unimplemented(message)));
        };
        let Some(after) = after else {
            return self.inner.reads.push(Read::Position { ticket });
        };
        let deadline = Instant::now() + Duration::from_nanos(wait_nanos).min(LONGEST_WAIT);
        let inner = Arc::clone(&self.inner);
        let stopping = self.stopping.clone();
        tokio::spawn(async move {
            let over = inner.leadership.over();
            let found = tokio::select! {
                biased;
                found = next_events(&inner, &filter, from_proto(after), deadline) => found,
                () = over.cancelled() => Err(not_leading(&inner)),
                () = stopping.cancelled() => Err(unavailable("the partition stops")),
            };
            match found {
                Ok(events) => ticket.answer(response::Outcome::Events(events)),
                Err(failure) => ticket.fail(failure),
            }
        });
    }
}

/// The next events after a position; none, and a later position, when there is none in time.
async fn next_events(
    inner: &Inner,
    filter: &EventFilter,
    mut after: EventPosition,
    deadline: Instant,
) -> Result<Events, Failure> {
    loop {
        // A member that was left behind would wait for ever.
        inner.leadership.serve(&inner.group)?;
        let followed = inner
            .group
            .with_machine(|machine| machine.follow(filter, after))
            .map_err(lost)?;
        match followed {
            Following::Read(read) if !read.events.is_empty() => return Ok(events(read)),
            Following::Read(read) => after = read.through,
            Following::Waits { id, through, call } => {
                let registration = Registration { inner, id };
                match wait(call, deadline).await {
                    Waited::Called(before) => after = before.max(through),
                    Waited::Replaced => return Err(unavailable("a snapshot was installed")),
                    Waited::Enough => {
                        if let Some(present) = registration.leave() {
                            return Ok(none(present.max(through)));
                        }
                        // It was called in this moment.
                        after = through;
                    }
                }
            }
        }
        // A long way to go is gone in steps.
        tokio::task::yield_now().await;
    }
}

/// The term is over: who leads now, as far as this node knows.
fn not_leading(inner: &Inner) -> Failure {
    let served = inner.leadership.serve(&inner.group);
    served.map_or_else(
        |failure| failure,
        |_| unavailable("the leader's term is over"),
    )
}

enum Waited {
    Called(EventPosition),
    Replaced,
    Enough,
}

async fn wait(call: oneshot::Receiver<EventPosition>, deadline: Instant) -> Waited {
    match tokio::time::timeout_at(deadline, call).await {
        Ok(Ok(before)) => Waited::Called(before),
        Ok(Err(_)) => Waited::Replaced,
        Err(_) => Waited::Enough,
    }
}

/// Takes a follower out that does not wait any more.
struct Registration<'a> {
    inner: &'a Inner,
    id: atomix_primitives::FollowerId,
}

impl Registration<'_> {
    /// The present position, if nothing has called the follower up to it.
    fn leave(&self) -> Option<EventPosition> {
        let leave = |machine: &super::machine::PartitionMachine| {
            let waited = machine.leave(&self.id);
            waited.then(|| machine.state().event_position())
        };
        self.inner.group.with_machine(leave)
    }
}

impl Drop for Registration<'_> {
    fn drop(&mut self) {
        self.leave();
    }
}

/// An answer without events.
pub(super) fn none(position: EventPosition) -> Events {
    Events {
        events: Vec::new(),
        position: Some(to_proto(position)),
    }
}

fn events(read: EventsRead) -> Events {
    let events = read.events.into_iter().map(|event| proto::Event {
        position: Some(to_proto(event.position)),
        key: event.key,
        payload: event.payload,
    });
    Events {
        events: events.collect(),
        position: Some(to_proto(read.through)),
    }
}

fn lost(lost: EventsLost) -> Failure {
    answers::operation(&lost.into())
}

fn to_proto(position: EventPosition) -> proto::EventPosition {
    let EventPosition { operation, ordinal } = position;
    proto::EventPosition { operation, ordinal }
}

fn from_proto(position: proto::EventPosition) -> EventPosition {
    let proto::EventPosition { operation, ordinal } = position;
    EventPosition { operation, ordinal }
}
