//! Streams: first what a primitive holds, page by page, then what happens to it. Read piece by piece
//! as the reader asks, so one that is slow holds up nobody; one that is so slow that the partition
//! has forgotten what comes next is told so.
//!
//! A page is of a later moment than the one before. What happened in between to entries that were
//! told already is told before it, so that whoever follows the messages sees every state in its
//! turn.
//!
//! Where a stream stands is known here alone: after a change of leaders the next one is asked for
//! what comes after.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use atomix_primitives::spread::{Streaming, decode_reply};
use atomix_proto::multiraft::v1::{
    Event, EventPosition, FollowEvents, Operation, Page, PageRequest,
};
use bytes::Bytes;
use futures::future::join_all;
use futures::stream::{self, Stream, StreamExt as _};
use prost::{DecodeError, Message as _};
use tokio::time::Instant;

use super::{PAGE, PartitionId, Partitions, operation_error};
use crate::error::{DriverError, ErrorKind};

/// The first page of each partition is in memory before anything is sent.
const PAGE_BYTES: u32 = 128 << 10;
/// How long a partition is asked to wait for an event: a leader that was lost without a word is
/// found out after this and an election timeout.
const WAIT: Duration = Duration::from_secs(2);
/// One asking; when the store is away for longer, it is asked again.
const PATIENCE: Duration = Duration::from_hours(1);

/// Opens a stream: takes its position in every partition.
pub(super) async fn open<P: Partitions>(
    partitions: &Arc<P>,
    followed: Vec<PartitionId>,
    operation: &Operation,
    streaming: Streaming,
    deadline: Instant,
) -> Result<impl Stream<Item = Result<Bytes, DriverError>> + Send + use<P>, DriverError> {
    let streaming = Arc::new(streaming);
    let opening = followed.into_iter().map(|partition| {
        let stream = PartitionStream {
            partitions: Arc::clone(partitions),
            partition,
            kind: operation.kind.clone(),
            primitive: operation.primitive.clone(),
            streaming: Arc::clone(&streaming),
            ready: VecDeque::new(),
            next_page: None,
            position: EventPosition::default(),
            incarnation: 0,
        };
        stream.begin(deadline)
    });
    let opened: Result<Vec<_>, DriverError> = join_all(opening).await.into_iter().collect();
    let of_partitions = opened?.into_iter().map(|partition| {
        let messages = stream::unfold(partition, |mut partition| async move {
            let message = partition.next().await?;
            Some((message, partition))
        });
        messages.boxed()
    });
    let greeting = stream::iter(streaming.greeting.clone().map(Ok));
    Ok(greeting.chain(until_an_error(stream::select_all(of_partitions))))
}

fn until_an_error<S>(messages: S) -> impl Stream<Item = S::Item> + Send
where
    S: Stream<Item = Result<Bytes, DriverError>> + Send + Unpin,
{
    stream::unfold(Some(messages), |messages| async move {
        let mut messages = messages?;
        let message = messages.next().await?;
        let rest = message.is_ok().then_some(messages);
        Some((message, rest))
    })
}

/// What one partition contributes.
struct PartitionStream<P> {
    partitions: Arc<P>,
    partition: PartitionId,
    kind: String,
    primitive: String,
    streaming: Arc<Streaming>,
    /// Messages that are to be sent.
    ready: VecDeque<Bytes>,
    /// There is another page, after this.
    next_page: Option<Bytes>,
    /// Every event up to here has been told, is in a page that was told, or in one that will be.
    position: EventPosition,
    /// The incarnation of the store's data that the position is of.
    incarnation: u64,
}

impl<P: Partitions> PartitionStream<P> {
    async fn begin(mut self, deadline: Instant) -> Result<Self, DriverError> {
        if self.streaming.follows {
            let asked = self.asked(None);
            let present = self.partitions.events(self.partition, asked, 0, deadline);
            let present = present.await?;
            // Before the first page is read: a page of a later incarnation is found out.
            self.incarnation = present.incarnation;
            self.position = present.events.position.unwrap_or_default();
        }
        if let Some(listing) = &self.streaming.listing {
            let nothing = listing.nothing.clone();
            self.read_page(None, deadline).await?;
            if self.ready.is_empty() {
                self.ready.extend(nothing);
            }
        }
        Ok(self)
    }

    async fn next(&mut self) -> Option<Result<Bytes, DriverError>> {
        loop {
            if let Some(message) = self.ready.pop_front() {
                return Some(Ok(message));
            }
            let deadline = Instant::now() + PATIENCE;
            let read = match self.next_page.take() {
                Some(after) => {
                    let read = self.read_page(Some(after.clone()), deadline).await;
                    if read.is_err() {
                        self.next_page = Some(after);
                    }
                    read
                }
                None if self.streaming.follows => self.read_events(deadline).await,
                None => return None,
            };
            match read {
                Ok(()) => {}
                // The store is away; whoever has enough of that ends the stream.
                Err(error) if error.kind == ErrorKind::Timeout => {}
                Err(error) => return Some(Err(ended(error))),
            }
        }
    }

    async fn read_page(
        &mut self,
        after: Option<Bytes>,
        deadline: Instant,
    ) -> Result<(), DriverError> {
        let request = PageRequest {
            after: after.clone(),
            max_bytes: PAGE_BYTES,
        };
        let operation = Operation {
            kind: self.kind.clone(),
            primitive: self.primitive.clone(),
            method: PAGE.to_owned(),
            request: request.encode_to_vec().into(),
            owner: 0,
        };
        let read = self.partitions.read(self.partition, operation, deadline);
        let mut page: Page = decode_reply(read.await?).map_err(operation_error)?;
        let Some(listing) = &self.streaming.listing else {
            return Ok(());
        };
        let entries = std::mem::take(&mut page.entries).into_iter();
        let entries: Result<Vec<Bytes>, DecodeError> = entries.map(listing.entry).collect();
        let entries = entries.map_err(broken)?;
        if self.streaming.follows {
            let moment = EventPosition {
                operation: page.operation,
                ordinal: u32::MAX,
            };
            match &after {
                Some(told) => self.catch_up(told, moment, deadline).await?,
                None => self.position = moment,
            }
        }
        self.ready.extend(entries);
        self.next_page = page.next;
        Ok(())
    }

    /// Tells what happened up to a moment to the entries of earlier pages, which end at the place
    /// `told`. The others are in the page of that moment, or in a later one.
    async fn catch_up(
        &mut self,
        told: &[u8],
        moment: EventPosition,
        deadline: Instant,
    ) -> Result<(), DriverError> {
        while is_before(&self.position, &moment) {
            let asked = FollowEvents {
                wait_nanos: 0,
                ..self.asked(Some(self.position))
            };
            let partitions = &self.partitions;
            let read = partitions.events(self.partition, asked, self.incarnation, deadline);
            let happened = read.await?.events;
            for event in &happened.events {
                let is_later = event.position.is_none_or(|at| is_before(&moment, &at));
                if !is_later && *self.place_of(event)? <= *told {
                    let message = (self.streaming.change)(event).map_err(broken)?;
                    self.ready.push_back(message);
                }
            }
            let through = happened.position.unwrap_or(moment);
            self.position = if is_before(&through, &moment) {
                through
            } else {
                moment
            };
        }
        Ok(())
    }

    async fn read_events(&mut self, deadline: Instant) -> Result<(), DriverError> {
        let asked = self.asked(Some(self.position));
        let partitions = &self.partitions;
        let read = partitions.events(self.partition, asked, self.incarnation, deadline);
        let happened = read.await?.events;
        for event in &happened.events {
            let message = (self.streaming.change)(event).map_err(broken)?;
            self.ready.push_back(message);
        }
        if let Some(position) = happened.position {
            self.position = position;
        }
        Ok(())
    }

    fn place_of(&self, event: &Event) -> Result<Bytes, DriverError> {
        let listing = self.streaming.listing.as_ref();
        let place = listing.map(|listing| (listing.place)(event));
        place.unwrap_or_else(|| Ok(Bytes::new())).map_err(broken)
    }

    fn asked(&self, after: Option<EventPosition>) -> FollowEvents {
        FollowEvents {
            kind: self.kind.clone(),
            primitive: self.primitive.clone(),
            key: self.streaming.key.clone(),
            after,
            wait_nanos: u64::try_from(WAIT.as_nanos()).unwrap_or(u64::MAX),
        }
    }
}

fn is_before(one: &EventPosition, other: &EventPosition) -> bool {
    (one.operation, one.ordinal) < (other.operation, other.ordinal)
}

/// A stream that has begun must not look as if it had not: see [`crate::ReplyStream`].
fn ended(error: DriverError) -> DriverError {
    match error.kind {
        ErrorKind::Unavailable => DriverError::new(
            ErrorKind::DataLoss,
            format!("the stream cannot go on, read again: {}", error.message),
        ),
        _ => error,
    }
}

fn broken(error: DecodeError) -> DriverError {
    let message = format!("the store told what does not decode: {error}");
    DriverError::new(ErrorKind::Internal, message)
}
