//! Primitives spread over the partitions of a store, for drivers whose partitions run the state
//! machine of crate `primitives`: carries out what goes to one partition or to several, and reads
//! streams from pages and events.
//!
//! Not for which partitions these are and what a stream consists of: the kinds say that
//! ([`atomix_primitives::spread`]). Not for how a partition is reached: that is the driver's, behind
//! [`Partitions`].

mod stream;

use std::future::Future;
use std::sync::Arc;

pub(crate) use atomix_primitives::spread::PartitionId;
use atomix_primitives::spread::{Plan, encode_remaining};
use atomix_primitives::{Access, Kinds, OperationError};
use atomix_proto::multiraft::v1::{Events, FollowEvents, Operation};
use atomix_proto::runtime::map::v1::LockRequest;
use bytes::Bytes;
use futures::StreamExt as _;
use futures::future::join_all;
use prost::Message as _;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;

use crate::driver::{Holdings, Invocation, ReplyStream};
use crate::error::{DriverError, ErrorKind};

/// The largest operation, as storage nodes take it.
const MAX_OPERATION_BYTES: usize = 1 << 20;

/// The operation that streams are read with; applications cannot ask for it.
const PAGE: &str = "Page";

/// The partitions of a store.
pub(crate) trait Partitions: Send + Sync + 'static {
    /// What a write is answered with.
    type Grant: Grant;

    /// How many there are: 1, 2 …
    fn count(&self) -> u32;

    /// Asks a partition; the answer is linearizable.
    fn read(
        &self,
        partition: PartitionId,
        operation: Operation,
        deadline: Instant,
    ) -> impl Future<Output = Result<Bytes, DriverError>> + Send;

    /// Carries out a mutation at most once. Dropping the future withdraws it.
    fn write(
        &self,
        partition: PartitionId,
        operation: Operation,
        deadline: Instant,
    ) -> impl Future<Output = Result<Self::Grant, DriverError>> + Send;

    /// What happens to a primitive after a position of this incarnation of the data, or the present
    /// position. Of an earlier incarnation: a data loss.
    fn events(
        &self,
        partition: PartitionId,
        asked: FollowEvents,
        incarnation: u64,
        deadline: Instant,
    ) -> impl Future<Output = Result<Happened, DriverError>> + Send;
}

/// What happened to a primitive.
#[derive(Debug)]
pub(crate) struct Happened {
    pub(crate) events: Events,
    /// The incarnation of the store's data; 0 = there is only one.
    pub(crate) incarnation: u64,
}

/// The reply of a mutation. What the mutation granted (a lock, a place in a line) is given back when
/// this is dropped.
pub(crate) trait Grant: Send {
    /// Keeps what was granted.
    fn keep(self) -> Bytes;
}

/// How many partitions all open streams of a connection may follow, a partition of each stream counted
/// by itself. Each has a request under way and up to a page in memory; nodes take four times as many
/// requests at once, so that streams leave room for everything else.
const MAX_FOLLOWINGS: u32 = 16_384;

/// Carries operations to the partitions of one store.
pub(crate) struct Spread<P> {
    kinds: Arc<Kinds>,
    partitions: Arc<P>,
    /// A permit for each partition of a stream that may still be opened.
    followings: Arc<Semaphore>,
}

impl<P: Partitions> Spread<P> {
    pub(crate) fn new(kinds: Arc<Kinds>, partitions: Arc<P>) -> Self {
        let followings = Arc::new(Semaphore::new(MAX_FOLLOWINGS as usize));
        Self {
            kinds,
            partitions,
            followings,
        }
    }

    /// See [`Connection::invoke`](crate::Connection::invoke).
    pub(crate) async fn invoke(&self, invocation: Invocation) -> Result<Bytes, DriverError> {
        let (operation, deadline) = operation(invocation);
        if operation.method == PAGE {
            return Err(no_method(&operation));
        }
        check_size(&operation)?;
        self.kinds.validate(&operation).map_err(operation_error)?;
        let plan = self.kinds.plan(&operation, self.partitions.count());
        match plan.map_err(operation_error)? {
            Plan::One(partition) => self.one(partition, operation, deadline).await,
            Plan::Each { requests, merge } => {
                let parts = requests.into_iter().map(|(partition, request)| {
                    let part = with_request(&operation, request);
                    self.one(partition, part, deadline)
                });
                // All of them, also when one fails: what has begun is better finished.
                let replies = join_all(parts).await;
                let replies: Result<Vec<Bytes>, DriverError> = replies.into_iter().collect();
                merge(replies?).map_err(operation_error)
            }
            Plan::Locks(locks) => self.lock(&operation, locks, deadline).await,
        }
    }

    /// Which partitions may have what an owner holds.
    pub(crate) fn partitions_with(&self, holdings: Holdings<'_>) -> Vec<PartitionId> {
        let count = self.partitions.count();
        match holdings {
            Holdings::All => (1..=count).map(PartitionId).collect(),
            Holdings::Of { kind, primitive } => {
                self.kinds.partitions_of(kind, primitive, None, count)
            }
        }
    }

    /// See [`Connection::subscribe`](crate::Connection::subscribe).
    pub(crate) async fn subscribe(
        &self,
        invocation: Invocation,
    ) -> Result<ReplyStream, DriverError> {
        let (operation, deadline) = operation(invocation);
        check_size(&operation)?;
        self.kinds
            .validate_primitive(&operation.kind, &operation.primitive)
            .map_err(operation_error)?;
        let streaming = self.kinds.streaming(&operation).map_err(operation_error)?;
        let partitions = self.kinds.partitions_of(
            &operation.kind,
            &operation.primitive,
            streaming.key.as_deref(),
            self.partitions.count(),
        );
        let permits = self.may_follow(partitions.len())?;
        let opened = stream::open(
            &self.partitions,
            partitions,
            &operation,
            streaming,
            deadline,
        );
        let messages = opened.await?.inspect(move |_| {
            let _until_the_stream_ends = &permits;
        });
        Ok(messages.boxed())
    }

    fn may_follow(&self, partitions: usize) -> Result<OwnedSemaphorePermit, DriverError> {
        let wanted = u32::try_from(partitions).unwrap_or(u32::MAX);
        let permits = Arc::clone(&self.followings).try_acquire_many_owned(wanted);
        permits.map_err(|_| {
            let open = MAX_FOLLOWINGS as usize - self.followings.available_permits();
            DriverError::new(
                ErrorKind::ResourceExhausted,
                format!(
                    "the streams that are open here follow {open} partitions, and at most \
                     {MAX_FOLLOWINGS} may be followed, each stream counted by itself; this one needs \
                     {partitions}: end some, watch single keys, or share a stream"
                ),
            )
        })
    }

    async fn one(
        &self,
        partition: PartitionId,
        operation: Operation,
        deadline: Instant,
    ) -> Result<Bytes, DriverError> {
        let partitions = &self.partitions;
        match self.kinds.access(&operation).map_err(operation_error)? {
            Access::Read => partitions.read(partition, operation, deadline).await,
            Access::Write => {
                let granted = partitions.write(partition, operation, deadline).await?;
                Ok(granted.keep())
            }
        }
    }

    /// Takes the locks of one partition after those of the other, always in the same order, so that
    /// two callers cannot wait for each other. What was taken is given back when one fails.
    async fn lock(
        &self,
        operation: &Operation,
        locks: Vec<(PartitionId, LockRequest)>,
        deadline: Instant,
    ) -> Result<Bytes, DriverError> {
        let started = Instant::now();
        let mut granted = Vec::with_capacity(locks.len());
        for (partition, lock) in locks {
            let request = encode_remaining(lock, started.elapsed());
            let part = with_request(operation, request);
            granted.push(self.partitions.write(partition, part, deadline).await?);
        }
        let replies = granted.into_iter().map(Grant::keep);
        Ok(replies.last().unwrap_or_default())
    }
}

fn operation(invocation: Invocation) -> (Operation, Instant) {
    let Invocation {
        kind,
        primitive,
        method,
        request,
        owner,
        deadline,
    } = invocation;
    let operation = Operation {
        kind,
        primitive,
        method,
        request,
        owner: owner.0,
    };
    (operation, deadline)
}

fn with_request(operation: &Operation, request: Bytes) -> Operation {
    let Operation {
        kind,
        primitive,
        method,
        request: _,
        owner,
    } = operation;
    Operation {
        kind: kind.clone(),
        primitive: primitive.clone(),
        method: method.clone(),
        request,
        owner: *owner,
    }
}

fn check_size(operation: &Operation) -> Result<(), DriverError> {
    let bytes = operation.encoded_len();
    if bytes <= MAX_OPERATION_BYTES {
        return Ok(());
    }
    Err(DriverError::new(
        ErrorKind::ResourceExhausted,
        format!(
            "the request has {bytes} bytes with all its names, keys and values; at most \
             {MAX_OPERATION_BYTES} are taken: store large data in parts"
        ),
    ))
}

fn no_method(operation: &Operation) -> DriverError {
    let Operation { kind, method, .. } = operation;
    DriverError::new(
        ErrorKind::Unsupported,
        format!("{kind} has no method {method:?}"),
    )
}

pub(crate) fn operation_error(error: OperationError) -> DriverError {
    DriverError::new(ErrorKind::from_code(error.code.to_i32()), error.message)
}
