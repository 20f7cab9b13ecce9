//! Errors after which the process must end.
//!
//! A group that cannot write, apply or keep its log must not look alive: whoever runs groups waits
//! for [`crate::Engine::failed`] and ends the process.

use std::sync::Arc;

use tokio::sync::watch;

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
