//! Locks.

use std::time::Duration;

use atomix_proto::runtime::lock::v1::{
    GetLockRequest, GetLockResponse, LockRequest, LockResponse, UnlockRequest, UnlockResponse,
};

use crate::error::{Result, found};
use crate::hold::{Hold, Wait, granted};
use crate::method::Method;
use crate::primitive::Primitive;

const LOCK: Method<LockRequest, LockResponse> = Method::own("/atomix.runtime.lock.v1.Lock/Lock");
const UNLOCK: Method<UnlockRequest, UnlockResponse> =
    Method::write("/atomix.runtime.lock.v1.Lock/Unlock");
const GET_LOCK: Method<GetLockRequest, GetLockResponse> =
    Method::read("/atomix.runtime.lock.v1.Lock/GetLock");

#[cfg(test)]
pub(super) const PATHS: [&str; 3] = [LOCK.path, UNLOCK.path, GET_LOCK.path];

/// A lock that one holds at a time, in whatever process. Whoever waits is served in the order of
/// arrival. It is not re-entrant: also the task that holds it would wait for itself.
///
/// Each guard has a connection to the sidecar of its own, and the sidecar frees the lock when that
/// ends. So a process that crashes holds nothing for long, and neither does a task that is
/// cancelled. It also means that a lock can be lost while it is held: see [`LockGuard`].
///
/// ```no_run
/// # async fn write_to_storage(_token: u64) {}
/// # async fn example() -> atomix_client::Result<()> {
/// let client = atomix_client::Client::connect().await?;
/// let guard = client.lock("migration").lock().await?;
/// tokio::select! {
///     () = write_to_storage(guard.version()) => guard.unlock().await?,
///     () = guard.lost() => println!("stop: another may hold the lock now"),
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone)]
pub struct Lock {
    primitive: Primitive,
}

impl Lock {
    pub(crate) fn new(primitive: Primitive) -> Self {
        Self { primitive }
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> &str {
        self.primitive.name()
    }

    /// Waits until it has the lock, however long others hold it. Dropping the future gives up the
    /// place in the line.
    ///
    /// # Errors
    /// When sidecar or store are away for longer than the client's deadline.
    pub async fn lock(&self) -> Result<LockGuard> {
        self.acquire(Wait::Endless).await
    }

    /// Waits so long at most; `None` if others held it all the time.
    ///
    /// # Errors
    /// When the store cannot be asked.
    pub async fn lock_within(&self, wait: Duration) -> Result<Option<LockGuard>> {
        granted(self.acquire(Wait::AtMost(wait)).await)
    }

    /// Takes the lock if it is free now.
    ///
    /// # Errors
    /// When the store cannot be asked.
    pub async fn try_lock(&self) -> Result<Option<LockGuard>> {
        self.lock_within(Duration::ZERO).await
    }

    /// The version of the present grant, whoever has it; `None` when the lock is free.
    ///
    /// # Errors
    /// When the store cannot be asked.
    pub async fn version(&self) -> Result<Option<u64>> {
        let id = self.primitive.id();
        let asked = self.primitive.call(&GET_LOCK, GetLockRequest { id });
        let reply = found(asked.await)?;
        Ok(reply.map(|reply| reply.version))
    }

    async fn acquire(&self, wait: Wait) -> Result<LockGuard> {
        let request = |timeout| LockRequest {
            id: self.primitive.id(),
            timeout,
        };
        let (hold, reply) = Hold::acquire(&self.primitive, &LOCK, wait, request).await?;
        Ok(LockGuard {
            hold,
            version: reply.version,
            lock: self.clone(),
        })
    }
}

/// A lock that is held.
///
/// Dropped, it is freed by the end of its connection, in the background;
/// [`unlock`](Self::unlock) says when it is free and keeps the connection for the next lock.
///
/// The lock is lost when the connection to the sidecar ends, which [`lost`](Self::lost) tells, and
/// when the sidecar cannot reach the store for longer than the store's session time-out, which only
/// asking the store tells ([`is_held`](Self::is_held)). No check can be up to date when its answer is
/// used. So hand [`version`](Self::version) to what the lock protects, and let that refuse a version
/// below the highest that it has seen.
#[derive(Debug)]
#[must_use = "the lock is freed when the guard is dropped"]
pub struct LockGuard {
    hold: Hold,
    version: u64,
    lock: Lock,
}

impl LockGuard {
    /// The fencing token: each grant of this lock has a higher one than those before.
    #[must_use]
    pub fn version(&self) -> u64 {
        self.version
    }

    /// Completes when the connection that holds the lock has ended. Until then the lock may be lost
    /// all the same: see the type.
    pub async fn lost(&self) {
        self.hold.lost().await;
    }

    /// Whether the connection that held the lock has ended.
    #[must_use]
    pub fn is_lost(&self) -> bool {
        self.hold.is_lost()
    }

    /// Asks the store whether it is still this grant that holds the lock.
    ///
    /// # Errors
    /// When the store cannot be asked.
    pub async fn is_held(&self) -> Result<bool> {
        Ok(self.lock.version().await? == Some(self.version))
    }

    /// Frees the lock, for the next in the line.
    ///
    /// # Errors
    /// [`Error::Conflict`](crate::Error::Conflict) if it was lost before. After any other error it is
    /// freed all the same, by the end of its connection.
    pub async fn unlock(self) -> Result<()> {
        let id = self.lock.primitive.id();
        self.hold.release(&UNLOCK, UnlockRequest { id }).await?;
        Ok(())
    }
}
