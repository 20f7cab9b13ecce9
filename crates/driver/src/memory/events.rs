//! Waiting for what happens to a primitive of a memory store.

use std::time::Duration;

use atomix_primitives::{EventFilter, EventPosition, EventsRead, FollowerId};
use atomix_proto::multiraft::v1 as proto;
use atomix_proto::multiraft::v1::command::Command as CommandKind;
use atomix_proto::multiraft::v1::{Events, FollowEvents, Tick};
use tokio::sync::oneshot;
use tokio::time::Instant;

use super::partition::{MemoryPartition, disconnected};
use crate::error::{DriverError, ErrorKind};
use crate::spread::operation_error;

/// The next events after a position; none, and a later position, when there is none in time.
pub(super) async fn next(
    partition: &MemoryPartition,
    asked: FollowEvents,
    deadline: Instant,
) -> Result<Events, DriverError> {
    let FollowEvents {
        kind,
        primitive,
        key,
        after,
        wait_nanos,
    } = asked;
    let Some(after) = after else {
        // What is due has happened before anybody follows.
        partition.apply(CommandKind::Tick(Tick {}));
        let store = partition.store.lock();
        if store.closed {
            return Err(disconnected());
        }
        return Ok(none(store.machine.event_position()));
    };
    let enough = deadline.min(Instant::now() + Duration::from_nanos(wait_nanos));
    let filter = partition
        .store
        .lock()
        .machine
        .event_filter(&kind, &primitive, key);
    let filter = filter.ok_or_else(|| {
        let message = format!("the kind {kind:?} does not exist here");
        DriverError::new(ErrorKind::Unsupported, message)
    })?;
    let mut after = EventPosition {
        operation: after.operation,
        ordinal: after.ordinal,
    };
    loop {
        let (registration, call) = match follow(partition, &filter, after)? {
            Following::Read(read) if !read.events.is_empty() => return Ok(events(read)),
            Following::Read(read) => {
                after = read.through;
                continue;
            }
            Following::Waits(registration, call) => (registration, call),
        };
        match tokio::time::timeout_at(enough, call).await {
            Ok(Ok(before)) => after = before.max(registration.through),
            Ok(Err(_)) => return Err(disconnected()),
            Err(_) => {
                if let Some(present) = registration.leave() {
                    return Ok(none(present));
                }
                after = registration.through;
            }
        }
    }
}

enum Following<'a> {
    Read(EventsRead),
    Waits(Registration<'a>, oneshot::Receiver<EventPosition>),
}

fn follow<'a>(
    partition: &'a MemoryPartition,
    filter: &EventFilter,
    after: EventPosition,
) -> Result<Following<'a>, DriverError> {
    let mut store = partition.store.lock();
    if store.closed {
        return Err(disconnected());
    }
    let read = store
        .machine
        .read_events(filter, after)
        .map_err(|lost| operation_error(lost.into()))?;
    if !read.events.is_empty() || !read.is_all {
        return Ok(Following::Read(read));
    }
    let (caller, call) = oneshot::channel();
    let through = read.through;
    let id = store.followers.add(filter.clone(), through, caller);
    let registration = Registration {
        partition,
        id,
        through,
    };
    Ok(Following::Waits(registration, call))
}

/// Takes a follower out that does not wait any more.
struct Registration<'a> {
    partition: &'a MemoryPartition,
    id: FollowerId,
    through: EventPosition,
}

impl Registration<'_> {
    /// The present position, if nothing has called the follower up to it.
    fn leave(&self) -> Option<EventPosition> {
        let mut store = self.partition.store.lock();
        let waited = store.followers.remove(&self.id);
        waited.then(|| store.machine.event_position())
    }
}

impl Drop for Registration<'_> {
    fn drop(&mut self) {
        self.leave();
    }
}

fn none(position: EventPosition) -> Events {
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

fn to_proto(position: EventPosition) -> proto::EventPosition {
    let EventPosition { operation, ordinal } = position;
    proto::EventPosition { operation, ordinal }
}
