//! The open log of a data directory: raft-engine, its threads, and the lock on the directory.

use std::collections::HashMap;
use std::fs::File as StdFile;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, Sender};
use std::thread::JoinHandle;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::oneshot;

use super::{Completion, LogEngine, Operation, Request, Span, Writer, purge_loop};
use crate::error::StorageError;
use crate::fatal::FatalReporter;
use crate::options::WriteFailure;

/// Closes with its last `Arc`: what was submitted is written first.
pub(crate) struct LogCore {
    pub(crate) engine: Arc<LogEngine>,
    running: Mutex<Option<Running>>,
    closing: Arc<AtomicBool>,
    _lock: StdFile,
}

struct Running {
    requests: Sender<Request>,
    writer: JoinHandle<()>,
    stop_purging: Sender<()>,
    purger: JoinHandle<()>,
}

impl LogCore {
    pub(crate) fn start(
        engine: Arc<LogEngine>,
        spans: HashMap<u64, Span>,
        lock: StdFile,
        fatal: FatalReporter,
        on_failure: WriteFailure,
        purge_interval: Duration,
    ) -> io::Result<Self> {
        let (requests, receiver) = mpsc::channel();
        let closing = Arc::new(AtomicBool::new(false));
        let moving = Arc::new(Mutex::new(()));
        let writer = Writer {
            engine: engine.clone(),
            spans,
            requests: receiver,
            fatal: fatal.clone(),
            on_failure,
            moving: moving.clone(),
            closing: closing.clone(),
        };
        let writer = fatal.spawn_thread("log-writer", || writer.run())?;
        let (stop_purging, stop) = mpsc::channel();
        let purged = engine.clone();
        let reporter = fatal.clone();
        let purger = fatal.spawn_thread("log-purger", move || {
            let fatal = &reporter;
            purge_loop(&purged, &stop, purge_interval, &moving, fatal, on_failure);
        })?;
        Ok(Self {
            engine,
            running: Mutex::new(Some(Running {
                requests,
                writer,
                stop_purging,
                purger,
            })),
            closing,
            _lock: lock,
        })
    }

    /// Queues a request behind all that were queued before.
    pub(crate) fn submit(&self, request: Request) {
        // The writer outlives `running`, and only a panic of its own code ends it; its requests
        // are dropped then, which every waiter sees.
        if let Some(running) = self.running.lock().as_ref() {
            let _ = running.requests.send(request);
        }
    }

    /// Queues operations DURING the call; the future waits until they are on disk.
    pub(crate) fn write(
        &self,
        region: u64,
        operations: Vec<Operation>,
    ) -> impl Future<Output = Result<(), StorageError>> + Send + 'static + use<> {
        let (sender, receiver) = oneshot::channel();
        self.submit(Request {
            region,
            operations,
            completion: Completion::Reply(sender),
        });
        async move {
            receiver
                .await
                .unwrap_or_else(|_| Err(StorageError("the log writer ended".to_owned())))
        }
    }
}

impl Drop for LogCore {
    fn drop(&mut self) {
        self.closing.store(true, Ordering::Relaxed);
        let Some(running) = self.running.lock().take() else {
            return;
        };
        drop(running.requests);
        drop(running.stop_purging);
        for thread in [running.writer, running.purger] {
            if thread.join().is_err() {
                tracing::error!("a thread of the log panicked");
            }
        }
    }
}
