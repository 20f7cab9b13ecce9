//! Supervised tasks: when one that the process needs ends or panics, the process ends, so that a
//! supervisor starts it anew. A half-dead process that looks ready is worse than a restart.

use std::collections::HashMap;
use std::error::Error;
use std::future::Future;
use std::time::Duration;

use thiserror::Error as ThisError;
use tokio::task::{Id, JoinError, JoinSet};
use tokio_util::sync::CancellationToken;

type BoxError = Box<dyn Error + Send + Sync>;

/// How long tasks may take to end after the shutdown began, unless said otherwise.
pub const DEFAULT_GRACE: Duration = Duration::from_secs(10);

/// Why a set of tasks ended before it was asked to.
#[derive(Debug, ThisError)]
pub enum TaskError {
    /// A task returned although the process was not shutting down.
    #[error("task {name} ended unexpectedly")]
    Ended {
        /// The task.
        name: &'static str,
    },
    /// A task failed.
    #[error("task {name} failed")]
    Failed {
        /// The task.
        name: &'static str,
        /// Why.
        source: BoxError,
    },
    /// A task panicked.
    #[error("task {name} panicked: {message}")]
    Panicked {
        /// The task.
        name: &'static str,
        /// The panic's message.
        message: String,
    },
    /// Tasks were still running when the grace period ended.
    #[error("tasks did not end within {grace:?} of the shutdown: {names}")]
    Stuck {
        /// The grace period.
        grace: Duration,
        /// The tasks, separated by commas.
        names: String,
    },
}

/// A set of tasks that live and end together.
#[derive(Debug)]
pub struct Tasks {
    shutdown: CancellationToken,
    grace: Duration,
    running: JoinSet<Result<(), BoxError>>,
    names: HashMap<Id, &'static str>,
}

impl Tasks {
    /// An empty set. Its tasks watch `shutdown` themselves and return `Ok` once it is cancelled.
    #[must_use]
    pub fn new(shutdown: CancellationToken) -> Self {
        Self {
            shutdown,
            grace: DEFAULT_GRACE,
            running: JoinSet::new(),
            names: HashMap::new(),
        }
    }

    /// Sets how long tasks may take to end after the shutdown began.
    #[must_use]
    pub fn with_grace(mut self, grace: Duration) -> Self {
        self.grace = grace;
        self
    }

    /// The token that ends these tasks.
    #[must_use]
    pub fn shutdown(&self) -> &CancellationToken {
        &self.shutdown
    }

    /// Starts a task that the process cannot do without.
    pub fn spawn<F, E>(&mut self, name: &'static str, task: F)
    where
        F: Future<Output = Result<(), E>> + Send + 'static,
        E: Into<BoxError> + Send + 'static,
    {
        let handle = self
            .running
            .spawn(async move { task.await.map_err(Into::into) });
        self.names.insert(handle.id(), name);
    }

    /// Waits until all tasks have ended. The first one that ends before the shutdown begins, in
    /// whatever way, starts the shutdown and is the error.
    ///
    /// # Errors
    /// The first failure.
    pub async fn join(mut self) -> Result<(), TaskError> {
        let shutdown = self.shutdown.clone();
        let mut first_failure = None;
        while !shutdown.is_cancelled() {
            tokio::select! {
                () = shutdown.cancelled() => {}
                ended = self.running.join_next_with_id() => {
                    let Some(ended) = ended else { break };
                    let during_shutdown = shutdown.is_cancelled();
                    first_failure = self.failure_of(ended, during_shutdown);
                    shutdown.cancel();
                }
            }
        }

        let deadline = tokio::time::sleep(self.grace);
        tokio::pin!(deadline);
        loop {
            tokio::select! {
                ended = self.running.join_next_with_id() => {
                    let Some(ended) = ended else { break };
                    let failure = self.failure_of(ended, true);
                    first_failure = first_failure.or(failure);
                }
                () = &mut deadline => {
                    let mut names: Vec<_> = self.names.values().copied().collect();
                    names.sort_unstable();
                    let stuck = TaskError::Stuck { grace: self.grace, names: names.join(", ") };
                    self.running.abort_all();
                    return Err(first_failure.unwrap_or(stuck));
                }
            }
        }
        first_failure.map_or(Ok(()), Err)
    }

    fn failure_of(
        &mut self,
        ended: Result<(Id, Result<(), BoxError>), JoinError>,
        during_shutdown: bool,
    ) -> Option<TaskError> {
        match ended {
            Ok((id, result)) => {
                let name = self.names.remove(&id).unwrap_or("unknown");
                match result {
                    Ok(()) if during_shutdown => None,
                    Ok(()) => Some(TaskError::Ended { name }),
                    Err(source) => Some(TaskError::Failed { name, source }),
                }
            }
            Err(error) => {
                let name = self.names.remove(&error.id()).unwrap_or("unknown");
                if error.is_cancelled() && during_shutdown {
                    return None;
                }
                Some(TaskError::Panicked {
                    name,
                    message: panic_message(error),
                })
            }
        }
    }
}

fn panic_message(error: JoinError) -> String {
    match error.try_into_panic() {
        Ok(payload) => payload
            .downcast_ref::<&str>()
            .map(|text| (*text).to_owned())
            .or_else(|| payload.downcast_ref::<String>().cloned())
            .unwrap_or_else(|| "without a message".to_owned()),
        Err(error) => error.to_string(),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

    use super::*;

    fn waits_for(token: &CancellationToken) -> impl Future<Output = Result<(), BoxError>> + use<> {
        let token = token.clone();
        async move {
            token.cancelled().await;
            Ok(())
        }
    }

    #[tokio::test]
    async fn a_task_that_panics_ends_the_others_and_is_named() {
        let token = CancellationToken::new();
        let mut tasks = Tasks::new(token.clone());
        tasks.spawn("steady", waits_for(&token));
        tasks.spawn("broken", async {
            if true {
                panic!("out of cheese");
            }
            Ok::<(), BoxError>(())
        });
        let error = tasks.join().await.unwrap_err();
        assert_eq!(error.to_string(), "task broken panicked: out of cheese");
        assert!(token.is_cancelled());
    }

    #[tokio::test]
    async fn a_task_that_ends_early_ends_the_others() {
        let token = CancellationToken::new();
        let mut tasks = Tasks::new(token.clone());
        tasks.spawn("steady", waits_for(&token));
        tasks.spawn("short", async { Ok::<(), BoxError>(()) });
        let error = tasks.join().await.unwrap_err();
        assert!(
            matches!(error, TaskError::Ended { name: "short" }),
            "{error}"
        );
    }

    #[tokio::test]
    async fn a_shutdown_in_order_is_no_error() {
        let token = CancellationToken::new();
        let mut tasks = Tasks::new(token.clone());
        tasks.spawn("steady", waits_for(&token));
        token.cancel();
        tasks.join().await.unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn a_task_that_ignores_the_shutdown_is_reported() {
        let token = CancellationToken::new();
        let mut tasks = Tasks::new(token.clone()).with_grace(Duration::from_secs(1));
        tasks.spawn("deaf", std::future::pending::<Result<(), BoxError>>());
        token.cancel();
        let error = tasks.join().await.unwrap_err();
        assert_eq!(
            error.to_string(),
            "tasks did not end within 1s of the shutdown: deaf"
        );
    }
}
