//! What the frame keeps twice must agree: counts, sums and reverse indexes.

use std::collections::BTreeSet;

use crate::session::Entry;
use crate::{OperationId, PrimitiveKey, SessionId, StateMachine};

/// Panics with what disagrees.
pub(crate) fn check(machine: &StateMachine) {
    let state = &machine.state;

    let mut touched: BTreeSet<(SessionId, PrimitiveKey)> = BTreeSet::new();
    for (key, instance) in &state.primitives {
        assert!(!instance.is_void(), "{key} exists and holds nothing");
        assert_eq!(
            instance.charged_bytes,
            instance.bytes(key),
            "bytes of {key}"
        );
        let timers = state
            .timers
            .iter()
            .filter(|(_, timer)| timer.primitive == *key);
        assert_eq!(instance.timers, timers.count() as u64, "timers of {key}");
        touched.extend(
            instance
                .sessions
                .iter()
                .map(|session| (*session, key.clone())),
        );
    }
    let indexed: BTreeSet<_> = state.touched.iter().cloned().collect();
    assert_eq!(indexed, touched, "who touched what");
    let charged: u64 = state
        .primitives
        .values()
        .map(|instance| instance.charged_bytes)
        .sum();
    assert_eq!(state.primitive_bytes, charged, "bytes of all primitives");
    let counted: u64 = state
        .primitives
        .values()
        .map(|instance| instance.timers)
        .sum();
    assert_eq!(
        state.timers.len() as u64,
        counted,
        "timers of all primitives"
    );

    let mut lines = BTreeSet::new();
    for (id, session) in &state.sessions {
        let held: u64 = session.entries().map(|(_, entry)| entry.bytes()).sum();
        assert_eq!(session.held_bytes(), held, "bytes of session {}", id.0);
        let waiting = session.entries().filter(|(_, entry)| entry.is_held());
        let waiting = waiting.count() as u64;
        assert_eq!(session.waiting_count(), waiting, "waiting, {}", id.0);
        for (sequence, entry) in session.entries() {
            let acknowledged = sequence.0 <= session.floor();
            assert!(!acknowledged || session.open().any(|open| open == sequence.0));
            if let Entry::Waiting(waiting) = entry
                && let Some(parked) = &waiting.parked
            {
                let session = *id;
                let operation = OperationId { session, sequence };
                let place = (parked.key.clone(), parked.number);
                lines.insert((waiting.primitive.clone(), place, operation));
            }
        }
    }
    let mut parked = BTreeSet::new();
    for (key, instance) in &state.primitives {
        for (place, operation) in &instance.parked {
            assert!(
                instance.intents.get(&place.0).is_some(),
                "{key} parks for nothing"
            );
            parked.insert((key.clone(), place.clone(), *operation));
        }
    }
    assert_eq!(parked, lines, "who waits for keys");
}
