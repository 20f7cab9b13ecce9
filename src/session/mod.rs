//! The session controller: finalizer and status of each Session.
//!
//! Not for connecting pods; that is done by `runtimes`, which reports to this controller.

mod close;
mod dereference;
pub mod resolve;
mod status;
mod strays;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use k8s_openapi::jiff::Timestamp;
use parking_lot::Mutex;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::context::Context;
use crate::runtimes::{Runtimes, SessionView};
use atomix_controller::queue::{self, RunError};
use atomix_controller::{
    ApiError, Next, ObjectKey, Severity, StatusWriter, UndecodableReports, finalizer,
};
use atomix_resources::conditions::STALLED;
use atomix_resources::labels::SESSION_FINALIZER;
use atomix_resources::{Session, SessionStatus};

use close::Closing;
use status::Phase;
use strays::Strays;

/// Sessions that are reconciled at a time.
const CONCURRENCY: usize = 16;

/// How long an operator that has just begun waits for a first look at every pod before it writes
/// what it knows of them into a status that another operator wrote.
const FIRST_LOOKS: Duration = Duration::from_secs(60);

/// Least time between two status writes of one Session.
const STATUS_PACE: Duration = Duration::from_secs(1);

/// What becomes of pods while a Session cannot be read: nor can its selector be.
const UNREADABLE: &str = "pods keep the connections and routes that they have of it, so an operator \
                          that is started meanwhile takes none from any pod of this namespace";

/// Settings of the session controller.
#[derive(Clone, Copy, Debug)]
pub struct SessionOptions {
    /// How long the finalizer of a Session waits for its pods to disconnect, all at the same time.
    pub longest_wait: Duration,
}

impl Default for SessionOptions {
    fn default() -> Self {
        Self {
            longest_wait: Duration::from_secs(30),
        }
    }
}

/// The session controller. Clones share everything.
#[derive(Clone, Debug)]
pub struct SessionController {
    context: Context,
    runtimes: Runtimes,
    options: SessionOptions,
    status: StatusWriter,
    undecodable: Arc<UndecodableReports>,
    memory: Arc<Mutex<HashMap<ObjectKey, Memory>>>,
    strays: Strays,
    /// Since when pods are looked at.
    begun: Instant,
}

/// What is remembered of a Session between passes.
#[derive(Clone, Debug, Default)]
struct Memory {
    uid: Option<String>,
    status_written: Option<Instant>,
    deletion_seen: Option<Instant>,
}

impl SessionController {
    /// A controller that follows what `runtimes` sees.
    #[must_use]
    pub fn new(context: &Context, runtimes: &Runtimes, options: SessionOptions) -> Self {
        let status = StatusWriter::new(context.client.clone());
        let reports = UndecodableReports::new(
            context.client.clone(),
            context.events.clone(),
            status.clone(),
            UNREADABLE,
        );
        let strays = Strays::new(context, &status);
        Self {
            context: context.clone(),
            runtimes: runtimes.clone(),
            options,
            status,
            undecodable: Arc::new(reports),
            memory: Arc::default(),
            strays,
            begun: Instant::now(),
        }
    }

    /// Reconciles until `shutdown`.
    ///
    /// # Errors
    /// When a reconcile panics.
    pub async fn run(mut self, shutdown: CancellationToken) -> Result<(), RunError> {
        tokio::select! {
            () = shutdown.cancelled() => return Ok(()),
            () = self.runtimes.synced() => {}
        }
        self.begun = Instant::now();
        let metrics = self.context.metrics.clone();
        let queue = self.runtimes.session_queue();
        queue::run(
            "session",
            CONCURRENCY,
            queue,
            metrics,
            shutdown,
            move |key| {
                let controller = self.clone();
                async move { controller.reconcile(&key).await }
            },
        )
        .await
    }

    async fn reconcile(&self, key: &ObjectKey) -> Result<Next, ApiError> {
        let Some(object) = self.context.sessions.get(key) else {
            self.memory.lock().remove(key);
            self.status.forget(key);
            self.strays.forget(key);
            self.undecodable.forget(key);
            return Ok(Next::OnChange);
        };
        let meta = match &object.0 {
            Ok(session) => &session.metadata,
            Err(undecodable) => &undecodable.metadata,
        };
        self.remember(key, meta);
        if meta.deletion_timestamp.is_some() {
            return self.close(key, meta, object.0.as_ref().ok()).await;
        }
        match &object.0 {
            Ok(session) => self.open(key, session).await,
            // Pods keep what the last form that decoded asked for.
            Err(undecodable) => {
                self.undecodable.report::<Session>(undecodable).await?;
                Ok(Next::OnChange)
            }
        }
    }

    /// Another object of the same name starts anew.
    fn remember(&self, key: &ObjectKey, meta: &ObjectMeta) {
        let mut memories = self.memory.lock();
        let memory = memories.entry(key.clone()).or_default();
        if memory.uid != meta.uid {
            *memory = Memory {
                uid: meta.uid.clone(),
                ..Memory::default()
            };
        }
    }

    fn with_memory<T>(&self, key: &ObjectKey, change: impl FnOnce(&mut Memory) -> T) -> T {
        change(self.memory.lock().entry(key.clone()).or_default())
    }

    async fn open(&self, key: &ObjectKey, session: &Session) -> Result<Next, ApiError> {
        let meta = &session.metadata;
        if !finalizer::has(meta, SESSION_FINALIZER) {
            // Its event brings us back; until then no pod is connected.
            finalizer::add::<Session>(&self.context.client, meta, SESSION_FINALIZER).await?;
            return Ok(Next::OnChange);
        }
        let mut found = dereference::dereference(&self.context, &self.runtimes, key, session);
        if let Some(rest) = self.first_looks(session, &found.view) {
            // The last look brings us back sooner.
            return Ok(Next::After(rest));
        }
        found.view.not_injected = self.strays.number(key, session).await?;
        let phase = Phase::Open {
            target: found.target,
            is_paused: session.is_paused(),
        };
        self.write_status(key, session, &phase, &found.view).await
    }

    /// How long the status may still stay as an earlier operator left it, because pods have not been
    /// looked at yet: otherwise every start would write that they are not connected, and soon after
    /// that they are.
    fn first_looks(&self, session: &Session, view: &SessionView) -> Option<Duration> {
        let status = session.status.as_ref()?;
        let is_of_this_generation = status.observed_generation == session.metadata.generation;
        let rest = FIRST_LOOKS.checked_sub(self.begun.elapsed())?;
        (is_of_this_generation && view.has_unseen).then_some(rest)
    }

    /// Waits for the pods, then lets go.
    async fn close(
        &self,
        key: &ObjectKey,
        meta: &ObjectMeta,
        session: Option<&Session>,
    ) -> Result<Next, ApiError> {
        if !finalizer::has(meta, SESSION_FINALIZER) {
            return match session {
                Some(session) => {
                    let view = SessionView::default();
                    self.write_status(key, session, &Phase::Closed, &view).await
                }
                None => Ok(Next::OnChange),
            };
        }
        let waited = self.with_memory(key, |memory| {
            memory
                .deletion_seen
                .get_or_insert_with(Instant::now)
                .elapsed()
        });
        let view = self.runtimes.view(key);
        let has_report = |pod: &ObjectKey| self.runtimes.has_report(pod);
        let longest_wait = self.options.longest_wait;
        let closing = close::closing(&view, has_report, waited, longest_wait);
        match closing {
            Closing::Wait { pods, at_most } => {
                let Some(session) = session else {
                    return Ok(Next::After(at_most));
                };
                let phase = Phase::Closing {
                    waiting_for: pods.len(),
                };
                match self.write_status(key, session, &phase, &view).await? {
                    Next::OnChange => Ok(Next::After(at_most)),
                    Next::After(delay) => Ok(Next::After(delay.min(at_most))),
                }
            }
            Closing::Release { dropped } => {
                if let (Some(session), Some(first)) = (session, dropped.first()) {
                    let note = format!(
                        "{} pods did not disconnect within {:?} and are no longer waited for, \
                         first {}; they are disconnected when their runtimes answer again",
                        dropped.len(),
                        self.options.longest_wait,
                        first.name
                    );
                    let events = &self.context.events;
                    let severity = Severity::Warning;
                    events.publish(session, severity, "DisconnectTimedOut", "Disconnect", note);
                }
                finalizer::remove::<Session>(&self.context.client, meta, SESSION_FINALIZER).await?;
                Ok(Next::OnChange)
            }
        }
    }

    /// Writes the status if it differs, at most once a second.
    async fn write_status(
        &self,
        key: &ObjectKey,
        session: &Session,
        phase: &Phase,
        view: &SessionView,
    ) -> Result<Next, ApiError> {
        let meta = &session.metadata;
        let known = session.status.clone().unwrap_or_default();
        let pending = self.status.pending(meta);
        let previous = pending
            .and_then(|status| serde_json::from_value::<SessionStatus>(status).ok())
            .unwrap_or_else(|| known.clone());
        let generation = meta.generation.unwrap_or_default();
        let desired = status::status(generation, &previous, phase, view, Timestamp::now());
        if desired == previous {
            return Ok(Next::OnChange);
        }
        let last = self.with_memory(key, |memory| memory.status_written);
        let rest = last.and_then(|last| STATUS_PACE.checked_sub(last.elapsed()));
        if let Some(rest) = rest.filter(|rest| !rest.is_zero()) {
            return Ok(Next::After(rest));
        }
        self.context.events.warn_of_changes::<Session>(
            meta,
            &previous.conditions,
            &desired.conditions,
            |condition| condition.type_ == STALLED && condition.status == "True",
        );
        if self
            .status
            .write::<Session, _>(meta, Some(&known), &desired)
            .await?
        {
            self.with_memory(key, |memory| memory.status_written = Some(Instant::now()));
        }
        Ok(Next::OnChange)
    }
}
