//! Failures of background work after which the process must end, so that it is started anew.
//!
//! Not for failures that a retry mends, nor for those that [`atomix_raft::Engine::failed`] reports.

use std::future::Future;
use std::panic::AssertUnwindSafe;

use futures::FutureExt as _;
use thiserror::Error;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

/// What broke.
#[derive(Debug, Error)]
#[error("{0}")]
pub(crate) struct Fault(String);

/// Reports faults; the first one ends the process.
#[derive(Debug, Clone)]
pub(crate) struct Faults {
    sender: mpsc::UnboundedSender<Fault>,
}

impl Faults {
    pub(crate) fn new() -> (Self, mpsc::UnboundedReceiver<Fault>) {
        let (sender, receiver) = mpsc::unbounded_channel();
        (Self { sender }, receiver)
    }

    pub(crate) fn report(&self, message: impl Into<String>) {
        let fault = Fault(message.into());
        tracing::error!(%fault, "fatal");
        // Nobody listens any more only when the process ends already.
        let _ = self.sender.send(fault);
    }

    /// Starts a task whose panic is a fault.
    pub(crate) fn spawn<F>(&self, name: String, task: F) -> JoinHandle<()>
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let faults = self.clone();
        tokio::spawn(async move {
            if AssertUnwindSafe(task).catch_unwind().await.is_err() {
                faults.report(format!("task {name} panicked"));
            }
        })
    }
}
