//! Errors after which the process must end.
//!
//! A group that cannot write, apply or keep its log must not look alive: whoever runs groups waits
//! for [`crate::Engine::failed`] and ends the process. The same holds for a task or a thread that a
//! group or the log cannot do without, when it ends or panics.

use std::future::Future;
use std::io;
use std::sync::Arc;
use std::thread;

use tokio::sync::watch;
use tokio::task;
use tokio_util::sync::CancellationToken;

use crate::ids::PartitionId;

/// What broke.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}{message}", partition.map(|id| format!("partition {id}: ")).unwrap_or_default())]
pub struct FatalError {
    /// The group; `None` when it is the log of all groups.
    pub partition: Option<PartitionId>,
    /// What happened.
    pub message: String,
}

/// Where fatal errors are reported; the first one counts.
#[derive(Debug, Clone)]
pub(crate) struct FatalReporter {
    first: Arc<watch::Sender<Option<FatalError>>>,
}

impl FatalReporter {
    pub(crate) fn new() -> Self {
        Self {
            first: Arc::new(watch::Sender::new(None)),
        }
    }

    pub(crate) fn report(&self, partition: Option<PartitionId>, message: impl Into<String>) {
        let error = FatalError {
            partition,
            message: message.into(),
        };
        tracing::error!(%error, "fatal");
        self.first.send_if_modified(|first| {
            if first.is_some() {
                return false;
            }
            *first = Some(error);
            true
        });
    }

    /// Starts a task of a group, which is to return once `stopping` is cancelled. Whatever else ends
    /// it is reported.
    pub(crate) fn spawn(
        &self,
        partition: PartitionId,
        name: &'static str,
        stopping: CancellationToken,
        work: impl Future<Output = Result<(), String>> + Send + 'static,
    ) -> task::JoinHandle<()> {
        let fatal = self.clone();
        tokio::spawn(async move {
            let _guard = fatal.panic_guard(Some(partition), name);
            let ended = work.await;
            if stopping.is_cancelled() {
                return;
            }
            let reason = ended.err().unwrap_or_else(|| format!("{name} ended"));
            fatal.report(Some(partition), reason);
        })
    }

    /// Starts a thread of the log, whose panic is reported.
    pub(crate) fn spawn_thread(
        &self,
        name: &'static str,
        work: impl FnOnce() + Send + 'static,
    ) -> io::Result<thread::JoinHandle<()>> {
        let fatal = self.clone();
        thread::Builder::new().name(name.to_owned()).spawn(move || {
            let _guard = fatal.panic_guard(None, name);
            work();
        })
    }

    /// Reports a panic of whoever holds the guard.
    pub(crate) fn panic_guard(
        &self,
        partition: Option<PartitionId>,
        name: &'static str,
    ) -> PanicGuard {
        PanicGuard {
            fatal: self.clone(),
            partition,
            name,
        }
    }

    pub(crate) fn first(&self) -> Option<FatalError> {
        self.first.borrow().clone()
    }

    pub(crate) async fn wait(&self) -> FatalError {
        let mut receiver = self.first.subscribe();
        loop {
            if let Some(error) = receiver.borrow_and_update().clone() {
                return error;
            }
            if receiver.changed().await.is_err() {
                // The sender is held by `self`; without it nothing can fail any more.
                std::future::pending::<()>().await;
            }
        }
    }
}

/// Reports a panic of whoever holds it: a task, thread or blocking call would otherwise end without
/// a word.
#[must_use]
pub(crate) struct PanicGuard {
    fatal: FatalReporter,
    partition: Option<PartitionId>,
    name: &'static str,
}

impl Drop for PanicGuard {
    fn drop(&mut self) {
        if thread::panicking() {
            let reason = format!("{} panicked", self.name);
            self.fatal.report(self.partition, reason);
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::panic, reason = "panics are what is tested")]

    use super::*;

    const PARTITION: PartitionId = PartitionId(7);

    fn error(partition: Option<PartitionId>, message: &str) -> Option<FatalError> {
        Some(FatalError {
            partition,
            message: message.to_owned(),
        })
    }

    /// What is reported of a task of which nobody wants that it stops.
    async fn report_of(
        work: impl Future<Output = Result<(), String>> + Send + 'static,
    ) -> Option<FatalError> {
        let fatal = FatalReporter::new();
        let task = fatal.spawn(PARTITION, "the inbox", CancellationToken::new(), work);
        // However it ended.
        let _ = task.await;
        fatal.first()
    }

    #[tokio::test]
    async fn a_task_that_panics_ends_or_fails_is_reported() {
        let panicked = report_of(async {
            tokio::task::yield_now().await;
            panic!("out of cheese");
        });
        assert_eq!(panicked.await, error(Some(PARTITION), "the inbox panicked"));
        let ended = report_of(async { Ok(()) }).await;
        assert_eq!(ended, error(Some(PARTITION), "the inbox ended"));
        let failed = report_of(async { Err("out of cheese".to_owned()) }).await;
        assert_eq!(failed, error(Some(PARTITION), "out of cheese"));
    }

    #[tokio::test]
    async fn a_task_that_ends_when_it_is_to_stop_or_is_aborted_is_not_reported() {
        let fatal = FatalReporter::new();
        for outcome in [Ok(()), Err("stopped".to_owned())] {
            let stopping = CancellationToken::new();
            let stopped = stopping.clone().cancelled_owned();
            let work = async move {
                stopped.await;
                outcome
            };
            let task = fatal.spawn(PARTITION, "the inbox", stopping.clone(), work);
            stopping.cancel();
            assert!(task.await.is_ok());
        }
        let forever = std::future::pending();
        let task = fatal.spawn(PARTITION, "the inbox", CancellationToken::new(), forever);
        task.abort();
        assert!(task.await.is_err());
        assert_eq!(fatal.first(), None);
    }

    #[test]
    fn a_thread_that_panics_is_reported_and_one_that_returns_is_not() {
        let fatal = FatalReporter::new();
        let returned = fatal.spawn_thread("log-writer", || {});
        assert!(returned.is_ok_and(|thread| thread.join().is_ok()));
        assert_eq!(fatal.first(), None);
        let panicked = fatal.spawn_thread("log-writer", || panic!("out of cheese"));
        assert!(panicked.is_ok_and(|thread| thread.join().is_err()));
        assert_eq!(fatal.first(), error(None, "log-writer panicked"));
    }
}
