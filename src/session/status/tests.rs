//! What a Session's status says, case by case.

#![allow(clippy::unwrap_used, reason = "tests")]

use atomix_proto::runtime::v1::DriverId;

use super::*;
use crate::runtimes::plan::WantedConnection;
use atomix_controller::ObjectKey;
use atomix_resources::conditions::holds;

fn open() -> Phase {
    Phase::Open {
        target: Ok(Target {
            store: ObjectKey::new("garden", "meadow"),
            connection: WantedConnection {
                driver: DriverId::default(),
                config: String::new(),
                config_digest: String::new(),
                has_secrets: false,
            },
        }),
        is_paused: false,
    }
}

fn failed(needs_person: bool) -> Option<Outcome> {
    Some(Outcome::Failed(Failure {
        reason: if needs_person {
            "ConfigRefused"
        } else {
            "PodUnreachable"
        },
        message: "because".to_owned(),
        needs_person,
    }))
}

fn view(outcomes: &[Option<Outcome>]) -> SessionView {
    let pods = outcomes.iter().enumerate().map(|(number, outcome)| {
        (
            ObjectKey::new("garden", format!("pod-{number:03}")),
            outcome.clone(),
        )
    });
    SessionView {
        pods: pods.collect(),
        ..SessionView::default()
    }
}

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(second).unwrap()
}

#[test]
fn the_conditions_name_the_cause_and_whether_a_person_is_needed() {
    let connected = Some(Outcome::Connected);
    let connecting = Some(Outcome::Connecting("soon".to_owned()));
    let unresolved = |unresolved| Phase::Open {
        target: Err(unresolved),
        is_paused: false,
    };
    let paused = Phase::Open {
        target: Err(Unresolved::StoreNotFound("counts".to_owned())),
        is_paused: true,
    };
    let store_paused = || unresolved(Unresolved::StorePaused);
    // phase, pods, state, Ready, Progressing, Stalled, reason
    let cases = [
        (
            open(),
            vec![],
            SessionState::Opened,
            (true, false, false),
            "NoPods",
        ),
        (
            open(),
            vec![connected.clone()],
            SessionState::Opened,
            (true, false, false),
            "Connected",
        ),
        (
            open(),
            vec![connected.clone(), connecting],
            SessionState::Opening,
            (false, true, false),
            "Connecting",
        ),
        (
            open(),
            vec![None],
            SessionState::Opening,
            (false, true, false),
            "Connecting",
        ),
        (
            open(),
            vec![connected.clone(), failed(false)],
            SessionState::Opening,
            (false, true, false),
            "PodUnreachable",
        ),
        (
            open(),
            vec![failed(false), failed(true)],
            SessionState::Opening,
            (false, false, true),
            "ConfigRefused",
        ),
        (
            unresolved(Unresolved::StoreNotFound("counts".to_owned())),
            vec![],
            SessionState::None,
            (false, false, true),
            "StoreNotFound",
        ),
        (
            unresolved(Unresolved::StoreNotBootstrapped),
            vec![],
            SessionState::None,
            (false, true, false),
            "StoreNotReady",
        ),
        (
            paused.clone(),
            vec![connected.clone()],
            SessionState::Opened,
            (true, false, false),
            "Paused",
        ),
        (
            paused.clone(),
            vec![connected.clone(), None],
            SessionState::Opening,
            (false, false, true),
            "Paused",
        ),
        (
            paused,
            vec![],
            SessionState::None,
            (false, false, true),
            "Paused",
        ),
        (
            store_paused(),
            vec![connected],
            SessionState::Opened,
            (true, false, false),
            "StorePaused",
        ),
        (
            store_paused(),
            vec![None],
            SessionState::None,
            (false, false, true),
            "StorePaused",
        ),
        (
            Phase::Closing { waiting_for: 2 },
            vec![],
            SessionState::Closing,
            (false, true, false),
            "Disconnecting",
        ),
        (
            Phase::Closed,
            vec![],
            SessionState::Closed,
            (false, false, false),
            "Disconnected",
        ),
    ];
    for (phase, pods, state, (ready, progressing, stalled), reason) in cases {
        let found = status(4, &SessionStatus::default(), &phase, &view(&pods), at(1));
        assert_eq!(found.state, Some(state), "{phase:?}");
        assert_eq!(holds(&found.conditions, READY), ready, "{phase:?}");
        assert_eq!(
            holds(&found.conditions, PROGRESSING),
            progressing,
            "{phase:?}"
        );
        assert_eq!(holds(&found.conditions, STALLED), stalled, "{phase:?}");
        let first = found.conditions.first().unwrap();
        assert_eq!(
            (first.reason.as_str(), first.observed_generation),
            (reason, Some(4))
        );
    }
}

#[test]
fn a_status_names_at_most_twenty_pods_and_stays_the_same_while_nothing_changes() {
    let outcomes: Vec<_> = (0..50).map(|_| failed(false)).collect();
    let first = status(
        1,
        &SessionStatus::default(),
        &open(),
        &view(&outcomes),
        at(1),
    );
    assert_eq!(first.failing_pods.len(), 20);
    assert_eq!(first.pods.unwrap().failed, 50);
    let second = status(1, &first, &open(), &view(&outcomes), at(2));
    assert_eq!(second, first);
}

#[test]
fn pods_without_a_sidecar_are_told_until_one_with_it_is_matched_or_the_specification_changes() {
    let found = |number: Option<u32>| SessionView {
        not_injected: number,
        ..SessionView::default()
    };
    let told = |status: &SessionStatus| {
        let ready = status.conditions.iter().find(|one| one.type_ == READY);
        let reason = ready.map(|one| one.reason.clone()).unwrap_or_default();
        (reason, status.pods.and_then(|pods| pods.not_injected))
    };
    let not_injected = ("NotInjected".to_owned(), Some(2));
    let no_pods = ("NoPods".to_owned(), None);
    let first = status(
        1,
        &SessionStatus::default(),
        &open(),
        &found(Some(2)),
        at(1),
    );
    assert_eq!(told(&first), not_injected);
    // Another operator has not looked, and need not.
    let kept = status(1, &first, &open(), &found(None), at(2));
    assert_eq!((told(&kept), &kept), (not_injected, &first));
    let changed = status(2, &kept, &open(), &found(Some(0)), at(3));
    assert_eq!(told(&changed), no_pods);
    let matched = status(1, &kept, &open(), &view(&[Some(Outcome::Connected)]), at(3));
    assert_eq!(told(&matched).1, None);
    let gone = status(1, &matched, &open(), &found(None), at(4));
    assert_eq!(told(&gone), no_pods);
}
