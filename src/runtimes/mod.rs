//! The runtime controller: brings each runtime sidecar to what the Sessions that select its pod
//! ask for, and remembers what came of it.
//!
//! Its key is the pod. Not for the status or the end of a Session; that is `session`.

mod apply;
mod changes;
mod dereference;
mod desired;
pub mod gate;
pub mod index;
mod keys_by;
pub mod plan;
pub mod pod;
pub mod report;
mod reports;
mod verdict;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use atomix_process::tasks::Tasks;
use parking_lot::Mutex;
use tokio_util::sync::CancellationToken;

use crate::context::Context;
use atomix_controller::backoff::Backoff;
use atomix_controller::queue::{self, RunError};
use atomix_controller::{Cache, Next, ObjectKey, Queue, cache};
use atomix_resources::labels::RUNTIME;

use apply::{Runtime, RuntimeError};
use gate::Gates;
use index::Index;
use plan::Desired;
use pod::{RuntimePod, Sidecar};
use report::{Failure, Outcome, Pass, PodReport};
use reports::Reports;

/// Pods that are reconciled at a time: each waits for a runtime most of the time.
const CONCURRENCY: usize = 64;

/// The runtime controller, and what it knows. Clones share everything.
#[derive(Clone, Debug)]
pub struct Runtimes {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    context: Context,
    pods: Cache<RuntimePod>,
    index: Mutex<Index>,
    reports: Mutex<Reports>,
    gates: Gates,
    /// Waiting times of pods whose runtime has not reached its stores yet.
    connecting: Mutex<Backoff<ObjectKey>>,
    queue: Queue<ObjectKey>,
    sessions: Queue<ObjectKey>,
}

/// What a Session's pods are for it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SessionView {
    /// Pods that it selects and that have not ended, with what is known of them.
    pub pods: BTreeMap<ObjectKey, Option<Outcome>>,
    /// Some of these pods no pass has looked at since the operator started.
    pub has_unseen: bool,
    /// Pods that were, or may have been, programmed for it.
    pub programmed: BTreeSet<ObjectKey>,
    /// Pods that it selects and that have no runtime, if that was looked for.
    pub not_injected: Option<u32>,
}

impl Runtimes {
    /// A controller that listens to the shared caches; make it before they run.
    #[must_use]
    pub fn new(context: &Context) -> Self {
        let runtimes = Self {
            shared: Arc::new(Shared {
                context: context.clone(),
                pods: Cache::default(),
                index: Mutex::default(),
                reports: Mutex::default(),
                gates: Gates::default(),
                connecting: Mutex::default(),
                queue: Queue::default(),
                sessions: Queue::default(),
            }),
        };
        // Caches outlive nobody: their listeners do not keep the controller alive.
        let listener = Arc::downgrade(&runtimes.shared);
        context.sessions.listen(move |change| {
            if let Some(shared) = listener.upgrade() {
                shared.session_changed(change);
            }
        });
        let listener = Arc::downgrade(&runtimes.shared);
        context.stores.listen(move |change| {
            if let Some(shared) = listener.upgrade() {
                shared.store_changed(change);
            }
        });
        let listener = Arc::downgrade(&runtimes.shared);
        context.config_sources.listen(move |store| {
            if let Some(shared) = listener.upgrade() {
                shared.ask_for_sessions_of(store);
            }
        });
        let listener = Arc::downgrade(&runtimes.shared);
        runtimes.shared.pods.listen(move |change| {
            if let Some(shared) = listener.upgrade() {
                shared.pod_changed(change);
            }
        });
        runtimes
    }

    /// The pods with a runtime, as last seen.
    #[must_use]
    pub fn pods(&self) -> &Cache<RuntimePod> {
        &self.shared.pods
    }

    /// Watches the pods with a runtime.
    pub fn watch(&self, tasks: &mut Tasks) {
        let context = &self.shared.context;
        context.follow(
            tasks,
            "pods with a runtime",
            &self.shared.pods,
            cache::objects(
                context.scope.api(&context.client),
                &format!("{RUNTIME}=true"),
            ),
            RuntimePod::prune,
        );
    }

    /// Reconciles until `shutdown`.
    ///
    /// # Errors
    /// When a reconcile panics.
    pub async fn run(self, shutdown: CancellationToken) -> Result<(), RunError> {
        tokio::select! {
            () = shutdown.cancelled() => return Ok(()),
            () = self.synced() => {}
        }
        let metrics = self.shared.context.metrics.clone();
        let queue = self.shared.queue.clone();
        queue::run(
            "runtime",
            CONCURRENCY,
            queue,
            metrics,
            shutdown,
            move |key| {
                let runtimes = self.clone();
                async move { runtimes.reconcile(&key).await }
            },
        )
        .await
    }

    /// Waits until all that a pass reads has been listed.
    pub async fn synced(&self) {
        self.shared.context.synced().await;
        self.shared.pods.synced().await;
    }

    /// The Sessions that wait for a look at their status.
    pub(crate) fn session_queue(&self) -> Queue<ObjectKey> {
        self.shared.sessions.clone()
    }

    /// What a Session's pods are for it now.
    pub(crate) fn view(&self, session: &ObjectKey) -> SessionView {
        let (selected, generation) = {
            let index = self.shared.index.lock();
            let known = index.session(session);
            let generation = known.and_then(|session| session.metadata.generation);
            (index.pods_of(session), generation)
        };
        let reports = self.shared.reports.lock();
        let programmed = reports.programmed_for(session);
        let mut has_unseen = false;
        let pods = selected
            .into_iter()
            .filter(|pod| {
                let pod = self.shared.pods.get(pod);
                pod.is_some_and(|pod| pod.sidecar() != Sidecar::Ended)
            })
            .map(|pod| {
                let report = reports.get(&pod);
                has_unseen |= report.is_none();
                let outcome = report.and_then(|report| report.outcome(session, generation));
                let outcome = outcome.cloned();
                (pod, outcome)
            })
            .collect();
        SessionView {
            pods,
            has_unseen,
            programmed,
            not_injected: None,
        }
    }

    /// Whether a pass over the pod has ended since the operator started.
    pub(crate) fn has_report(&self, pod: &ObjectKey) -> bool {
        self.shared.reports.lock().get(pod).is_some()
    }

    async fn reconcile(&self, key: &ObjectKey) -> Result<Next, RuntimeError> {
        let Some(found) = dereference::dereference(self, key) else {
            self.forget(key);
            return Ok(Next::OnChange);
        };
        let (control, has_started) = match found.pod.sidecar() {
            Sidecar::Running {
                control,
                has_started,
            } => (control, has_started),
            Sidecar::NotRunning => {
                let waiting =
                    Outcome::Connecting("the runtime's container does not run".to_owned());
                self.store_idle(key, &found.sessions, waiting);
                return Ok(Next::OnChange);
            }
            Sidecar::Absent => {
                self.store_idle(key, &found.sessions, no_runtime());
                return Ok(Next::OnChange);
            }
            Sidecar::Ended => {
                self.forget(key);
                return Ok(Next::OnChange);
            }
        };

        // Before any call: after a crash of a call the runtime may hold these Sessions.
        let reached_before = self.intend(key, &found.sessions);
        let desired = desired::desired(&found.sessions, found.has_unreadable);
        let channels = &self.shared.context.channels;
        let channel = if found.takes_over {
            channels.taking_over().get(&control)
        } else {
            channels.get(&control)
        };
        let mut pass = Pass::default();
        let result = Runtime::new(control.address, channel)
            .converge(&desired, &mut pass)
            .await;
        if let Err(error) = &result {
            pass.unreachable = Some(apply::unreachable(error, has_started));
        }
        for event in report::events(&pass, reached_before.as_deref()) {
            let pod = found.pod.as_ref();
            let events = &self.shared.context.events;
            events.publish(pod, event.severity, event.reason, event.action, event.note);
        }
        let mut report = report::report(&found.sessions, &desired, &pass);
        if result.is_err() {
            report.add_programmed(self.programmed(key));
        }
        let is_refused = !pass.refused.is_empty() || pass.routes_refused.is_some();
        let is_connecting = report
            .outcomes()
            .any(|outcome| matches!(outcome, Outcome::Connecting(_)));
        self.store(key, report);
        // A container that is starting will soon have more to say.
        if has_started || result.is_ok() {
            let observed = pass.observed.as_ref().filter(|_| result.is_ok());
            self.write_gate(key, &found, &desired, observed).await?;
        }
        match result {
            // A container that is starting does not answer yet, and the pod tells when it does.
            Err(_) if !has_started => Ok(self.next(key, true)),
            Err(error) => Err(error),
            Ok(()) => Ok(self.next(key, is_connecting || is_refused)),
        }
    }

    /// Tells the kubelet whether the pod may be ready, if the pod asks for that.
    async fn write_gate(
        &self,
        key: &ObjectKey,
        found: &dereference::Dereferenced,
        desired: &plan::Desired,
        observed: Option<&plan::Observed>,
    ) -> Result<(), RuntimeError> {
        let gates = &self.shared.gates;
        let now = gates.current(key, &found.pod);
        let mut sessions = found.sessions.iter();
        let has_sessions =
            sessions.any(|selecting| desired::is_active(&selecting.session.metadata));
        let wanted = gate::condition(now.as_ref(), desired, has_sessions, observed);
        let client = &self.shared.context.client;
        gates.write(client, key, &found.pod, wanted).await?;
        Ok(())
    }

    /// A runtime that has not reached a store yet, or refused a call, is looked at again, ever more
    /// rarely: what it lacks may come without a change of any object. One that loses a store later
    /// tells so by its pod's readiness.
    fn next(&self, key: &ObjectKey, is_unsettled: bool) -> Next {
        let mut connecting = self.shared.connecting.lock();
        if is_unsettled {
            return Next::After(connecting.failed(key.clone()));
        }
        connecting.succeeded(key);
        Next::OnChange
    }

    fn programmed(&self, pod: &ObjectKey) -> BTreeSet<ObjectKey> {
        let reports = self.shared.reports.lock();
        let report = reports.get(pod).into_iter();
        report.flat_map(PodReport::programmed).cloned().collect()
    }

    /// Notes which Sessions the pod is about to be programmed for; returns which Stores its runtime
    /// reached before, if it was looked at.
    fn intend(
        &self,
        pod: &ObjectKey,
        sessions: &[desired::SelectingSession],
    ) -> Option<Vec<ObjectKey>> {
        let active = sessions
            .iter()
            .filter(|selecting| desired::is_active(&selecting.session.metadata));
        let active: BTreeSet<ObjectKey> = active.map(|selecting| selecting.key.clone()).collect();
        let mut reports = self.shared.reports.lock();
        // Without a report the pod is looked at for the first time, and a Session under deletion
        // waits for the end of that.
        let reached = reports.get(pod)?.reached().to_vec();
        reports.extend(pod, active);
        Some(reached)
    }

    /// The report of a pod whose runtime cannot be called now.
    fn store_idle(
        &self,
        key: &ObjectKey,
        sessions: &[desired::SelectingSession],
        outcome: Outcome,
    ) {
        let pass = Pass {
            unreachable: Some(outcome),
            ..Pass::default()
        };
        let mut report = report::report(sessions, &Desired::default(), &pass);
        report.clear_programmed();
        self.shared.connecting.lock().succeeded(key);
        self.store(key, report);
    }

    fn store(&self, pod: &ObjectKey, report: PodReport) {
        let mut affected: BTreeSet<ObjectKey> = report.sessions().cloned().collect();
        let before = self.shared.reports.lock().insert(pod, report.clone());
        if before.as_ref() == Some(&report) {
            return;
        }
        affected.extend(before.iter().flat_map(PodReport::sessions).cloned());
        // A Session under deletion waits for the first report of each of its pods.
        affected.extend(self.shared.index.lock().sessions_of(pod));
        affected
            .into_iter()
            .for_each(|session| self.shared.sessions.add(session));
    }

    fn forget(&self, pod: &ObjectKey) {
        let before = self.shared.reports.lock().remove(pod);
        self.shared.connecting.lock().succeeded(pod);
        self.shared.gates.forget(pod);
        let mut affected = self.shared.index.lock().sessions_of(pod);
        affected.extend(before.iter().flat_map(PodReport::programmed).cloned());
        affected
            .into_iter()
            .for_each(|session| self.shared.sessions.add(session));
    }
}

fn no_runtime() -> Outcome {
    Outcome::Failed(Failure {
        reason: "NoRuntime",
        message: format!(
            "no container of the pod declares the port {}: add the runtime sidecar, or remove the \
             label {RUNTIME}",
            pod::CONTROL_PORT
        ),
        needs_person: true,
    })
}
