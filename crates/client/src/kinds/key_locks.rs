//! Locks of keys, which maps and counter maps have.

use std::time::Duration;

// A counter map has the same messages under its own names.
use atomix_proto::runtime::map::v1::{LockRequest, LockResponse, UnlockRequest, UnlockResponse};
use serde::Serialize;

use crate::error::Result;
use crate::hold::{Hold, Wait};
use crate::key;
use crate::method::Method;
use crate::primitive::Primitive;

/// Locks of keys that are held.
///
/// They are advisory: they keep out other locks of these keys, not reads and writes. Dropped, they
/// are freed by the end of their connection, in the background. How they can be lost: see
/// [`LockGuard`](crate::LockGuard); there is no fencing token here.
#[derive(Debug)]
#[must_use = "the locks are freed when the guard is dropped"]
pub struct KeysGuard {
    hold: Hold,
    primitive: Primitive,
    keys: Vec<String>,
    unlock: &'static Method<UnlockRequest, UnlockResponse>,
}

impl KeysGuard {
    /// Completes when the connection that holds the locks has ended.
    pub async fn lost(&self) {
        self.hold.lost().await;
    }

    /// Whether the connection that held the locks has ended.
    #[must_use]
    pub fn is_lost(&self) -> bool {
        self.hold.is_lost()
    }

    /// Frees all of them.
    ///
    /// # Errors
    /// [`Error::Conflict`](crate::Error::Conflict) if one was lost before. After any error they are
    /// freed all the same, by the end of their connection.
    pub async fn unlock(self) -> Result<()> {
        let request = UnlockRequest {
            id: self.primitive.id(),
            keys: self.keys,
        };
        self.hold.release(self.unlock, request).await?;
        Ok(())
    }
}

pub(super) async fn lock<'a, Q: Serialize + ?Sized + 'a>(
    primitive: &Primitive,
    lock: &Method<LockRequest, LockResponse>,
    unlock: &'static Method<UnlockRequest, UnlockResponse>,
    keys: impl IntoIterator<Item = &'a Q>,
    wait: Option<Duration>,
) -> Result<KeysGuard> {
    let keys = key::encode_all(keys)?;
    let wait = wait.map_or(Wait::Endless, Wait::AtMost);
    let request = |timeout| LockRequest {
        id: primitive.id(),
        keys: keys.clone(),
        timeout,
    };
    let (hold, _) = Hold::acquire(primitive, lock, wait, request).await?;
    Ok(KeysGuard {
        hold,
        primitive: primitive.clone(),
        keys,
        unlock,
    })
}
