//! Step 5 of the runtime controller: what a pass over a pod means for each Session, and which
//! events tell of it. Pure; the session controller reads it.

use std::collections::BTreeMap;

use super::desired::{SelectingSession, is_active};
use super::index::store_of;
use super::plan::{Action, Desired, Observed, is_programmed};
use atomix_controller::{ObjectKey, Severity};

/// Why a pod's runtime does not do what it should.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// CamelCase word for programs.
    pub reason: &'static str,
    /// What went wrong and what to do.
    pub message: String,
    /// Whether only a person can go on.
    pub needs_person: bool,
}

/// What a pod is for one Session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Its runtime reaches the Store, and routes lead there.
    Connected,
    /// It is on its way; why it is not there yet.
    Connecting(String),
    /// It failed.
    Failed(Failure),
}

/// What is known of a pod's runtime. In memory only: a new operator asks again. There is one for each
/// pod and little in each, so lists: a B-tree has room for eleven entries.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PodReport {
    /// Sorted by the Session's name.
    sessions: Vec<SessionInPod>,
    /// Stores that the runtime reached at the last look, sorted by name.
    reached: Vec<ObjectKey>,
}

/// One Session of a pod.
#[derive(Clone, Debug, PartialEq, Eq)]
struct SessionInPod {
    key: ObjectKey,
    /// The runtime was, or may have been, programmed for it.
    is_programmed: bool,
    /// What the pod is for it, if it selects the pod and there is anything to say.
    outcome: Option<Outcome>,
    /// Which generation of it that is about.
    generation: Option<i64>,
}

/// What a pass did and saw.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Pass {
    /// What the runtime has now; `None` = it did not answer.
    pub observed: Option<Observed>,
    /// Calls that succeeded.
    pub done: Vec<Action>,
    /// Stores whose connection or configuration was refused.
    pub refused: BTreeMap<ObjectKey, Refusal>,
    /// Why the routing table was refused.
    pub routes_refused: Option<Failure>,
    /// Why the runtime could not be asked.
    pub unreachable: Option<Outcome>,
}

/// A call for one Store that a runtime refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// The event that tells of it.
    pub event: &'static str,
    /// Why.
    pub failure: Failure,
}

/// An event about a pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PodEvent {
    /// Whether it is trouble.
    pub severity: Severity,
    /// Connected, ConnectFailed, Configured, ConfigureFailed or Disconnected.
    pub reason: &'static str,
    /// What was done.
    pub action: &'static str,
    /// For people.
    pub note: String,
}

/// The report after a pass for what the runtime should have.
pub fn report(sessions: &[SelectingSession], desired: &Desired, pass: &Pass) -> PodReport {
    let active = sessions
        .iter()
        .filter(|selecting| is_active(&selecting.session.metadata));
    let mut report = PodReport::default();
    for selecting in active {
        let store = store_of(&selecting.key, &selecting.session);
        // What a Session lacks itself is said by its own conditions, not by each pod.
        let is_resolved = selecting.target.is_ok();
        let session = report.session(selecting.key.clone());
        session.is_programmed = true;
        session.outcome = outcome(&store, is_resolved, desired, pass);
        session.generation = selecting.session.metadata.generation;
    }
    if let Some(observed) = &pass.observed {
        let reached = observed
            .connections
            .iter()
            .filter(|(_, connection)| connection.trouble.is_none());
        report.reached = reached.map(|(store, _)| store.clone()).collect();
    }
    report
}

fn outcome(
    store: &ObjectKey,
    is_resolved: bool,
    desired: &Desired,
    pass: &Pass,
) -> Option<Outcome> {
    if let Some(unreachable) = &pass.unreachable {
        return Some(unreachable.clone());
    }
    if let Some(refusal) = pass.refused.get(store) {
        return Some(Outcome::Failed(refusal.failure.clone()));
    }
    if let Some(failure) = &pass.routes_refused {
        return Some(Outcome::Failed(failure.clone()));
    }
    let connected = pass.observed.as_ref().and_then(|observed| {
        let connection = observed.connections.get(store)?;
        Some((connection, is_programmed(observed, desired)))
    });
    match connected {
        Some((connection, is_programmed)) => Some(match &connection.trouble {
            Some(trouble) => Outcome::Connecting(trouble.clone()),
            None if is_programmed => Outcome::Connected,
            None => Outcome::Connecting(
                "the runtime does not have the routes of this pod's Sessions yet".to_owned(),
            ),
        }),
        None if is_resolved => Some(Outcome::Connecting(
            "the runtime is not connected yet".to_owned(),
        )),
        None => None,
    }
}

impl PodReport {
    /// What the pod is for this form of a Session; `None` = the last pass was about another form.
    pub fn outcome(&self, key: &ObjectKey, generation: Option<i64>) -> Option<&Outcome> {
        let position = self.position(key).ok()?;
        let session = self.sessions.get(position)?;
        let is_current = session.generation == generation;
        session.outcome.as_ref().filter(|_| is_current)
    }

    /// What the pod is for the Sessions that select it.
    pub fn outcomes(&self) -> impl Iterator<Item = &Outcome> {
        let outcomes = self.sessions.iter();
        outcomes.filter_map(|session| session.outcome.as_ref())
    }

    /// Sessions that the runtime was, or may have been, programmed for.
    pub fn programmed(&self) -> impl Iterator<Item = &ObjectKey> {
        let sessions = self.sessions.iter();
        let programmed = sessions.filter(|session| session.is_programmed);
        programmed.map(|session| &session.key)
    }

    /// All Sessions that it says anything about.
    pub fn sessions(&self) -> impl Iterator<Item = &ObjectKey> {
        self.sessions.iter().map(|session| &session.key)
    }

    /// Stores that the runtime reached at the last look.
    pub fn reached(&self) -> &[ObjectKey] {
        &self.reached
    }

    /// Notes that the runtime may be programmed for these Sessions too.
    pub fn add_programmed(&mut self, sessions: impl IntoIterator<Item = ObjectKey>) {
        for key in sessions {
            self.session(key).is_programmed = true;
        }
    }

    /// Notes that the runtime is programmed for nothing: it does not run.
    pub fn clear_programmed(&mut self) {
        for session in &mut self.sessions {
            session.is_programmed = false;
        }
    }

    /// What is said of a Session, from now on if it was nothing.
    fn session(&mut self, key: ObjectKey) -> &mut SessionInPod {
        let position = match self.position(&key) {
            Ok(position) => position,
            Err(position) => {
                let session = SessionInPod {
                    key,
                    is_programmed: false,
                    outcome: None,
                    generation: None,
                };
                self.sessions.reserve_exact(1);
                self.sessions.insert(position, session);
                position
            }
        };
        #[allow(clippy::indexing_slicing, reason = "it was found or inserted there")]
        &mut self.sessions[position]
    }

    fn position(&self, key: &ObjectKey) -> Result<usize, usize> {
        self.sessions
            .binary_search_by(|session| session.key.cmp(key))
    }
}

/// The events of a pass, given which Stores the runtime reached before, if that is known.
pub fn events(pass: &Pass, reached_before: Option<&[ObjectKey]>) -> Vec<PodEvent> {
    let normal = |reason, action, note| PodEvent {
        severity: Severity::Normal,
        reason,
        action,
        note,
    };
    let mut events = Vec::new();
    for action in &pass.done {
        match action {
            Action::Configure { store, .. } => events.push(normal(
                "Configured",
                "Configure",
                format!("gave the runtime the new configuration of Store {store}"),
            )),
            Action::Disconnect { store } => events.push(normal(
                "Disconnected",
                "Disconnect",
                format!("disconnected the runtime from Store {store}"),
            )),
            Action::Connect { .. } | Action::Program { .. } => {}
        }
    }
    for (store, connection) in pass
        .observed
        .iter()
        .flat_map(|observed| &observed.connections)
    {
        let was_made = pass
            .done
            .iter()
            .any(|action| matches!(action, Action::Connect { store: made, .. } if made == store));
        let was_missing = reached_before.is_some_and(|reached| !reached.contains(store));
        if connection.trouble.is_none() && (was_made || was_missing) {
            events.push(normal(
                "Connected",
                "Connect",
                format!("connected the runtime with Store {store}"),
            ));
        }
    }
    for (store, refusal) in &pass.refused {
        events.push(PodEvent {
            severity: Severity::Warning,
            reason: refusal.event,
            action: "Connect",
            note: format!("Store {store}: {}", refusal.failure.message),
        });
    }
    let pod_failure = match &pass.unreachable {
        Some(Outcome::Failed(failure)) => Some(failure),
        Some(Outcome::Connected | Outcome::Connecting(_)) | None => pass.routes_refused.as_ref(),
    };
    if let Some(failure) = pod_failure {
        events.push(PodEvent {
            severity: Severity::Warning,
            reason: "ConnectFailed",
            action: "Connect",
            note: failure.message.clone(),
        });
    }
    events
}

#[cfg(test)]
mod tests {
    use atomix_proto::digest::routes_digest;
    use atomix_proto::runtime::v1::{DriverId, Route, StoreId};

    use super::*;
    use crate::runtimes::plan::{ObservedConnection, WantedConnection};

    fn key() -> ObjectKey {
        ObjectKey::new("garden", "meadow")
    }

    fn observed(trouble: Option<&str>) -> Option<Observed> {
        let connection = ObservedConnection {
            driver: DriverId::default(),
            config_digest: String::new(),
            trouble: trouble.map(str::to_owned),
        };
        Some(Observed {
            connections: [(key(), connection)].into(),
            routes_digest: routes_digest(&[]),
            routes: Some(Vec::new()),
        })
    }

    fn reasons(pass: &Pass, before: Option<&[ObjectKey]>) -> Vec<&'static str> {
        events(pass, before)
            .into_iter()
            .map(|event| event.reason)
            .collect()
    }

    #[test]
    fn connected_is_said_once_when_it_becomes_true_and_never_because_of_a_restart() {
        let connect = Action::Connect {
            store: key(),
            connection: WantedConnection {
                driver: DriverId::default(),
                config: String::new(),
                config_digest: String::new(),
                has_secrets: false,
            },
        };
        let reached = [key()];
        let pass = |trouble, done: &[Action]| Pass {
            observed: observed(trouble),
            done: done.to_vec(),
            ..Pass::default()
        };
        let made = [connect];
        assert_eq!(reasons(&pass(None, &made), None), ["Connected"]);
        assert!(reasons(&pass(Some("no leader"), &made), None).is_empty());
        assert_eq!(reasons(&pass(None, &[]), Some(&[])), ["Connected"]);
        assert!(reasons(&pass(None, &[]), Some(&reached)).is_empty());
        assert!(reasons(&pass(None, &[]), None).is_empty());
    }

    #[test]
    fn a_report_about_another_form_of_a_session_tells_nothing_of_it() {
        let mut report = PodReport::default();
        let session = report.session(key());
        session.outcome = Some(Outcome::Connected);
        session.generation = Some(3);
        assert_eq!(report.outcome(&key(), Some(3)), Some(&Outcome::Connected));
        assert_eq!(report.outcome(&key(), Some(4)), None);
        assert_eq!(
            report.outcome(&ObjectKey::new("garden", "x"), Some(3)),
            None
        );
    }

    #[test]
    fn the_nearest_trouble_is_the_outcome() {
        let failure = |reason| Failure {
            reason,
            message: String::new(),
            needs_person: false,
        };
        let desired = Desired::default();
        let outcome = |pass: &Pass| outcome(&key(), true, &desired, pass);
        let mut pass = Pass {
            observed: observed(None),
            ..Pass::default()
        };
        assert_eq!(outcome(&pass), Some(Outcome::Connected));
        pass.routes_refused = Some(failure("RoutesRefused"));
        assert_eq!(
            outcome(&pass),
            Some(Outcome::Failed(failure("RoutesRefused")))
        );
        let refusal = Refusal {
            event: "ConnectFailed",
            failure: failure("ConfigRefused"),
        };
        pass.refused.insert(key(), refusal);
        assert_eq!(
            outcome(&pass),
            Some(Outcome::Failed(failure("ConfigRefused")))
        );
        pass.unreachable = Some(Outcome::Connecting("starting".to_owned()));
        assert_eq!(
            outcome(&pass),
            Some(Outcome::Connecting("starting".to_owned()))
        );
    }

    #[test]
    fn a_pod_is_connected_only_with_its_routes() {
        let outcome = |desired: &Desired, pass: &Pass| {
            outcome(&key(), desired.kept.is_empty(), desired, pass)
        };
        let route = Route {
            store_id: Some(StoreId {
                namespace: key().namespace.clone(),
                name: key().name.clone(),
            }),
            ..Route::default()
        };
        let kept = Desired {
            kept: [key()].into(),
            routes: vec![route.clone()],
            ..Desired::default()
        };
        let mut pass = Pass {
            observed: observed(None),
            ..Pass::default()
        };
        assert!(matches!(
            outcome(&kept, &pass),
            Some(Outcome::Connecting(why)) if why.contains("routes")
        ));
        if let Some(observed) = &mut pass.observed {
            observed.routes_digest = routes_digest(&[route]);
        }
        assert_eq!(outcome(&kept, &pass), Some(Outcome::Connected));
        assert_eq!(outcome(&kept, &Pass::default()), None);
    }
}
