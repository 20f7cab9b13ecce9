//! The work queue: which objects to reconcile, and the loop that does it.
//!
//! A key that is added while it waits is reconciled once; one that is added while it is being
//! reconciled is reconciled once more afterwards, never twice at the same time.

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::fmt::{Debug, Display};
use std::future::Future;
use std::hash::Hash;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use thiserror::Error as ThisError;
use tokio::sync::Notify;
use tokio::task::{Id, JoinSet};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::field::Empty;
use tracing::{Instrument as _, Span};

use super::backoff::Backoff;
use super::error::ReconcileError;
use crate::metrics::Metrics;

/// How long reconciles may go on after the shutdown began.
const LAST_SECOND: Duration = Duration::from_secs(1);

/// Room for so many keys is kept when fewer wait.
const ROOM: usize = 256;

/// When a reconcile that succeeded wants to run again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Next {
    /// When something changes.
    OnChange,
    /// After this time at the latest.
    After(Duration),
}

/// A kind of key that a queue holds.
pub trait Key: Clone + Eq + Hash + Ord + Debug + Display + Send + 'static {}
impl<K: Clone + Eq + Hash + Ord + Debug + Display + Send + 'static> Key for K {}

/// Why a controller ended.
#[derive(Debug, ThisError)]
pub enum RunError {
    /// A reconcile panicked.
    #[error("controller {controller} panicked while reconciling {key}")]
    Panicked {
        /// The controller.
        controller: &'static str,
        /// The object.
        key: String,
    },
}

/// Keys that wait for a reconcile. Clones share one queue.
#[derive(Debug)]
pub struct Queue<K> {
    shared: Arc<Shared<K>>,
}

impl<K> Clone for Queue<K> {
    fn clone(&self) -> Self {
        Self {
            shared: Arc::clone(&self.shared),
        }
    }
}

#[derive(Debug)]
struct Shared<K> {
    waiting: Mutex<Waiting<K>>,
    changed: Notify,
}

#[derive(Debug)]
struct Waiting<K> {
    due: VecDeque<K>,
    queued: HashSet<K>,
    running: HashSet<K>,
    /// Keys by the time at which they become due; the number keeps equal times apart.
    later: BTreeMap<(Instant, u64), K>,
    later_of: HashMap<K, (Instant, u64)>,
    next_number: u64,
}

impl<K: Key> Default for Queue<K> {
    fn default() -> Self {
        Self {
            shared: Arc::new(Shared {
                waiting: Mutex::new(Waiting {
                    due: VecDeque::new(),
                    queued: HashSet::new(),
                    running: HashSet::new(),
                    later: BTreeMap::new(),
                    later_of: HashMap::new(),
                    next_number: 0,
                }),
                changed: Notify::new(),
            }),
        }
    }
}

impl<K: Key> Queue<K> {
    /// Asks for a reconcile now.
    pub fn add(&self, key: K) {
        self.shared.waiting.lock().add(key);
        self.shared.changed.notify_one();
    }

    /// Asks for a reconcile after `delay`; an earlier request stays.
    pub fn add_after(&self, key: K, delay: Duration) {
        self.shared
            .waiting
            .lock()
            .add_at(key, Instant::now() + delay);
        self.shared.changed.notify_one();
    }

    /// How many keys are due and not being reconciled.
    #[must_use]
    pub fn depth(&self) -> usize {
        self.shared.waiting.lock().due.len()
    }

    /// Takes the next due key that is not running; otherwise says when one becomes due.
    fn take(&self) -> Result<K, Option<Instant>> {
        self.shared.waiting.lock().take(Instant::now())
    }

    fn finished(&self, key: &K) {
        let mut waiting = self.shared.waiting.lock();
        waiting.running.remove(key);
        // Its key may have been skipped while it ran.
        drop(waiting);
        self.shared.changed.notify_one();
    }
}

impl<K: Key> Waiting<K> {
    fn add(&mut self, key: K) {
        if let Some(at) = self.later_of.remove(&key) {
            self.later.remove(&at);
        }
        if self.queued.insert(key.clone()) {
            self.due.push_back(key);
        }
    }

    fn add_at(&mut self, key: K, at: Instant) {
        if self.queued.contains(&key) {
            return;
        }
        if let Some(earlier) = self.later_of.get(&key).copied() {
            if earlier.0 <= at {
                return;
            }
            self.later.remove(&earlier);
        }
        let position = (at, self.next_number);
        self.next_number += 1;
        self.later.insert(position, key.clone());
        self.later_of.insert(key, position);
    }

    fn take(&mut self, now: Instant) -> Result<K, Option<Instant>> {
        while let Some(entry) = self.later.first_entry() {
            if entry.key().0 > now {
                break;
            }
            let key = entry.remove();
            self.add(key);
        }
        let free = self.due.iter().position(|key| !self.running.contains(key));
        let Some(key) = free.and_then(|position| self.due.remove(position)) else {
            self.shrink();
            return Err(self.later.first_key_value().map(|((at, _), _)| *at));
        };
        self.queued.remove(&key);
        self.running.insert(key.clone());
        Ok(key)
    }

    /// Gives back the room that a great many keys needed, such as all at a start.
    fn shrink(&mut self) {
        if self.due.len() < ROOM && self.due.capacity() > 2 * ROOM {
            self.due.shrink_to(ROOM);
            self.queued.shrink_to(ROOM);
            self.later_of.shrink_to(ROOM);
        }
    }
}

/// Reconciles the keys of `queue`, at most `concurrency` at a time and never one key twice at a
/// time, until `shutdown` is cancelled. Reconciles that run then may end within a second; the others
/// are dropped wherever they wait, which is what a crash does to them: whoever acts next goes on from
/// what they have written. So nobody waits for a slow peer before another operator may act.
///
/// # Errors
/// When a reconcile panics: its object's state is unknown, so the process should end.
pub async fn run<K, E, F, R>(
    controller: &'static str,
    concurrency: usize,
    queue: Queue<K>,
    metrics: Metrics,
    shutdown: CancellationToken,
    reconcile: F,
) -> Result<(), RunError>
where
    K: Key,
    E: ReconcileError,
    F: Fn(K) -> R,
    R: Future<Output = Result<Next, E>> + Send + 'static,
{
    let mut backoff = Backoff::default();
    let mut running: JoinSet<(K, Duration, Result<Next, E>)> = JoinSet::new();
    let mut keys: HashMap<Id, K> = HashMap::new();
    let drained = async {
        shutdown.cancelled().await;
        tokio::time::sleep(LAST_SECOND).await;
    };
    tokio::pin!(drained);
    loop {
        let mut next_due = None;
        while running.len() < concurrency && !shutdown.is_cancelled() {
            match queue.take() {
                Ok(key) => {
                    let work = reconcile(key.clone());
                    let spawned = key.clone();
                    let span =
                        tracing::info_span!("reconcile", controller, object = %key, error = Empty);
                    let traced = async move {
                        let started = Instant::now();
                        let result = work.await;
                        if let Err(error) = &result {
                            Span::current().record("error", tracing::field::display(error));
                        }
                        (spawned, started.elapsed(), result)
                    };
                    let handle = running.spawn(traced.instrument(span));
                    keys.insert(handle.id(), key);
                }
                Err(at) => {
                    next_due = at;
                    break;
                }
            }
        }
        metrics.queue_depth(controller, queue.depth());
        if shutdown.is_cancelled() && running.is_empty() {
            return Ok(());
        }

        let timer = async {
            match next_due {
                Some(at) => tokio::time::sleep_until(at).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = shutdown.cancelled(), if !shutdown.is_cancelled() => {}
            () = queue.shared.changed.notified(), if !shutdown.is_cancelled() => {}
            () = timer, if !shutdown.is_cancelled() => {}
            () = &mut drained => {
                for key in keys.values() {
                    tracing::warn!(controller, object = %key, "dropped at the shutdown");
                }
                running.shutdown().await;
                return Ok(());
            }
            Some(ended) = running.join_next_with_id() => {
                let (key, duration, result) = match ended {
                    Ok((id, finished)) => {
                        keys.remove(&id);
                        finished
                    }
                    Err(error) => {
                        let key = keys.remove(&error.id());
                        let key = key.map(|key| key.to_string()).unwrap_or_default();
                        return Err(RunError::Panicked { controller, key });
                    }
                };
                settle(controller, &queue, &metrics, &mut backoff, key, duration, result);
            }
        }
    }
}

/// Decides when a key comes back.
fn settle<K: Key, E: ReconcileError>(
    controller: &'static str,
    queue: &Queue<K>,
    metrics: &Metrics,
    backoff: &mut Backoff<K>,
    key: K,
    duration: Duration,
    result: Result<Next, E>,
) {
    metrics.reconciled(controller, duration);
    queue.finished(&key);
    match result {
        Ok(Next::OnChange) => backoff.succeeded(&key),
        Ok(Next::After(delay)) => {
            backoff.succeeded(&key);
            queue.add_after(key, delay);
        }
        Err(error) => {
            let category = error.category();
            metrics.reconcile_error(controller, category);
            if !category.is_retried() {
                tracing::warn!(controller, object = %key, %category, error = %chain(&error), "waits for a change of the object");
                backoff.succeeded(&key);
                return;
            }
            let delay = backoff.failed(key.clone());
            let delay = delay.max(error.retry_after().unwrap_or_default());
            tracing::warn!(controller, object = %key, %category, retry_in = ?delay, error = %chain(&error), "reconcile failed");
            queue.add_after(key, delay);
        }
    }
}

/// An error and its causes in one line; a cause that its parent's text already ends with is not
/// repeated.
#[must_use]
pub fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let message = error.to_string();
        if !text.ends_with(&message) {
            text.push_str(": ");
            text.push_str(&message);
        }
        cause = error.source();
    }
    text
}

#[cfg(test)]
mod tests;
