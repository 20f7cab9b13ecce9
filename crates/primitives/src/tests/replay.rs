//! Determinism: the same log gives the same state, replies, events and snapshot bytes everywhere.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use atomix_proto::multiraft::v1::{CommandBatch, SetLimits, command};
use proptest::prelude::*;
use prost::Message;

use super::consistency::check;
use super::random::batches;
use super::support::*;
use crate::{Applied, OperationId, Outcome, Reply, Sequence, SessionId, StateMachine};

proptest! {
    #[test]
    fn replicas_agree_at_every_entry_also_one_that_is_restored_now_and_then(
        log in batches(60),
        restore_at in 0_usize..60,
    ) {
        replicas_agree(&log, restore_at)?;
    }

    #[test]
    fn a_snapshot_does_not_change_while_the_state_machine_goes_on(log in batches(40)) {
        let mut machine = StateMachine::new(kinds());
        let mut taken = Vec::new();
        for (position, batch) in log.iter().enumerate() {
            taken.push((machine.snapshot(), snapshot_bytes(&machine)));
            machine.apply(position as u64 + 1, batch);
        }
        for (snapshot, expected) in taken {
            let mut bytes = Vec::new();
            snapshot.write(&mut bytes).unwrap();
            prop_assert_eq!(bytes, expected);
        }
    }

    #[test]
    fn an_operation_has_at_most_one_final_answer(log in batches(60)) {
        let mut machine = StateMachine::new(kinds());
        let mut cancelled = Vec::new();
        let mut answers: BTreeMap<OperationId, Reply> = BTreeMap::new();
        for (position, batch) in log.iter().enumerate() {
            let applied = machine.apply(position as u64 + 1, batch);
            for (id, reply) in final_answers(batch, &applied, &mut cancelled) {
                // What it has acknowledged, the client no longer asks for.
                if code(&reply) == Some(crate::ErrorCode::FailedPrecondition) {
                    continue;
                }
                let first = answers.entry(id).or_insert_with(|| reply.clone());
                prop_assert!(*first == reply || cancelled.contains(&id));
            }
        }
    }

    #[test]
    fn every_operation_that_waits_is_answered_once_and_none_waits_for_nothing(log in batches(60)) {
        let mut machine = StateMachine::new(kinds());
        let mut waiting = BTreeSet::new();
        for (position, batch) in log.iter().enumerate() {
            let applied = machine.apply(position as u64 + 1, batch);
            prop_assert!(note_waiting(batch, &applied, &mut waiting));
            prop_assert_eq!(waiting_in(&machine), waiting.len() as u64);
        }
        // With every intent ended and every owner gone nothing is left to wait for.
        let sessions: Vec<SessionId> = machine.sessions().map(|(id, _)| id).collect();
        let wide = SetLimits {
            session_window_operations: 1_000,
            ..SetLimits::default()
        };
        let mut commands = vec![open_session(), set_limits(wide)];
        for session in &sessions {
            commands.extend((0..4).map(|owner| release_owner(*session, owner)));
        }
        let applied = machine.apply(1_000, &batch(Duration::ZERO, commands));
        let Some(Outcome::Session(judge)) = applied.outcomes.first() else {
            return Err(TestCaseError::fail("no session was opened"));
        };
        prop_assert!(note_waiting(&CommandBatch::default(), &applied, &mut waiting));
        let mut commands = Vec::new();
        for transaction in 1..4 {
            let end = finish(transaction, &["a", "b", "c"], true);
            commands.push(operate(*judge, transaction, 0, end));
        }
        for session in &sessions {
            commands.extend((0..4).map(|owner| release_owner(*session, owner)));
        }
        let end = batch(Duration::ZERO, commands);
        let applied = machine.apply(1_001, &end);
        prop_assert!(note_waiting(&end, &applied, &mut waiting));
        prop_assert_eq!(machine.intents().count(), 0);
        prop_assert_eq!(waiting_in(&machine), 0);
        prop_assert!(waiting.is_empty());
    }

    #[test]
    fn the_time_and_the_counter_never_go_back(log in batches(40), jump in any::<u64>()) {
        let mut machine = StateMachine::new(kinds());
        let mut before = (Duration::ZERO, machine.event_position());
        for (position, batch) in log.iter().enumerate() {
            let mut batch = batch.clone();
            if position % 7 == 3 {
                batch.time_nanos = jump;
            }
            machine.apply(position as u64 + 1, &batch);
            let now = (machine.time(), machine.event_position());
            prop_assert!(now.0 >= before.0 && now.1 >= before.1);
            prop_assert!(machine.next_timer().is_none_or(|next| next >= before.0));
            before = now;
        }
    }

    #[test]
    fn bytes_are_zero_again_when_everything_is_gone(log in batches(40)) {
        let mut machine = StateMachine::new(kinds());
        for (position, batch) in log.iter().enumerate() {
            machine.apply(position as u64 + 1, batch);
        }
        let sum: u64 = machine.primitives().map(|(_, bytes)| bytes).sum();
        prop_assert_eq!(machine.usage().primitives, sum);
        let sessions: Vec<SessionId> = machine.sessions().map(|(id, _)| id).collect();
        let end = batch(Duration::from_nanos(u64::MAX), vec![expire(&sessions)]);
        let waiting_before = sessions.len();
        let applied = machine.apply(1_000, &end);
        prop_assert_eq!(applied.ended_sessions.len(), waiting_before);
        prop_assert_eq!(machine.sessions().count(), 0);
        prop_assert_eq!(machine.next_timer(), None);
    }

    #[test]
    fn arbitrary_bytes_as_an_entry_never_panic_and_never_part_the_replicas(
        entries in proptest::collection::vec(
            proptest::collection::vec(any::<u8>(), 0..80),
            1..40,
        ),
    ) {
        let mut one = StateMachine::new(kinds());
        let mut two = StateMachine::new(kinds());
        for (position, bytes) in entries.iter().enumerate() {
            let Ok(batch) = CommandBatch::decode(bytes.as_slice()) else {
                continue;
            };
            let index = position as u64 + 1;
            prop_assert_eq!(one.apply(index, &batch), two.apply(index, &batch));
        }
        prop_assert_eq!(snapshot_bytes(&one), snapshot_bytes(&two));
    }

    #[test]
    fn a_damaged_entry_that_still_decodes_never_panics(
        log in batches(20),
        flips in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 20),
    ) {
        let mut machine = StateMachine::new(kinds());
        for (position, batch) in log.iter().enumerate() {
            let mut bytes = batch.encode_to_vec();
            if let Some((place, with)) = flips.get(position).filter(|_| !bytes.is_empty()) {
                let place = place.index(bytes.len());
                bytes[place] ^= with;
            }
            let Ok(damaged) = CommandBatch::decode(bytes.as_slice()) else {
                continue;
            };
            let applied = machine.apply(position as u64 + 1, &damaged);
            if applied.stop.is_some() {
                break;
            }
            prop_assert_eq!(applied.outcomes.len(), damaged.commands.len());
        }
        let bytes = snapshot_bytes(&machine);
        let restored = StateMachine::restore(kinds(), &mut bytes.as_slice()).unwrap();
        prop_assert_eq!(snapshot_bytes(&restored), bytes);
    }
}

/// Two replicas apply the same log, one of them restored from its own snapshot at this entry and
/// again every eight entries.
pub(crate) fn replicas_agree(log: &[CommandBatch], restore_at: usize) -> Result<(), TestCaseError> {
    let mut steady = StateMachine::new(kinds());
    let mut restarted = StateMachine::new(kinds());
    for (position, batch) in log.iter().enumerate() {
        if position >= restore_at && (position - restore_at).is_multiple_of(8) {
            let bytes = snapshot_bytes(&restarted);
            restarted = StateMachine::restore(kinds(), &mut bytes.as_slice()).unwrap();
            prop_assert_eq!(&snapshot_bytes(&restarted), &bytes);
        }
        let index = position as u64 + 1;
        prop_assert_eq!(steady.apply(index, batch), restarted.apply(index, batch));
        prop_assert_eq!(snapshot_bytes(&steady), snapshot_bytes(&restarted));
        prop_assert_eq!(steady.usage(), restarted.usage());
        check(&steady);
        check(&restarted);
    }
    Ok(())
}

/// What the clients of an entry were told for good. Cancelling may change an answer.
fn final_answers(
    batch: &CommandBatch,
    applied: &Applied,
    cancelled: &mut Vec<OperationId>,
) -> Vec<(OperationId, Reply)> {
    let mut answers = Vec::new();
    for (command, outcome) in batch.commands.iter().zip(&applied.outcomes) {
        let id = |session, sequence| OperationId {
            session: SessionId(session),
            sequence: Sequence(sequence),
        };
        match (&command.command, outcome) {
            (Some(command::Command::Operate(operate)), Outcome::Reply(reply)) => {
                answers.push((id(operate.session, operate.sequence), reply.clone()));
            }
            (Some(command::Command::Cancel(cancel)), _) => {
                cancelled.push(id(cancel.session, cancel.sequence));
            }
            _ => {}
        }
    }
    for one in &applied.completed {
        let id = OperationId {
            session: one.session,
            sequence: one.sequence,
        };
        answers.push((id, one.result.clone()));
    }
    answers
}

fn waiting_in(machine: &StateMachine) -> u64 {
    machine
        .sessions()
        .map(|(id, _)| machine.session(id).unwrap().waiting)
        .sum()
}

/// Keeps account of who waits; false when one is answered that did not wait.
fn note_waiting(
    batch: &CommandBatch,
    applied: &Applied,
    waiting: &mut BTreeSet<OperationId>,
) -> bool {
    for (command, outcome) in batch.commands.iter().zip(&applied.outcomes) {
        if let (Some(command::Command::Operate(operate)), Outcome::Pending) =
            (&command.command, outcome)
        {
            waiting.insert(OperationId {
                session: SessionId(operate.session),
                sequence: Sequence(operate.sequence),
            });
        }
    }
    applied.completed.iter().all(|one| {
        waiting.remove(&OperationId {
            session: one.session,
            sequence: one.sequence,
        })
    })
}
