//! The rules of the lock once more, naively, against random steps.

use super::*;
use crate::Applied;

/// What can happen to a lock.
#[derive(Clone, Copy, Debug)]
enum Step {
    Lock(u64, Option<u64>),
    Unlock(u64),
    /// The operation that was the n-th to ask.
    Cancel(usize),
    Release(u64),
    Tick(u64),
}

fn step() -> impl Strategy<Value = Step> {
    let owner = || 1_u64..4;
    prop_oneof![
        5 => (owner(), proptest::option::of(0_u64..900))
            .prop_map(|(owner, wait)| Step::Lock(owner, wait)),
        3 => owner().prop_map(Step::Unlock),
        2 => (0_usize..20).prop_map(Step::Cancel),
        1 => owner().prop_map(Step::Release),
        2 => (0_u64..400).prop_map(Step::Tick),
    ]
}

/// The rules once more: the first of the line holds the lock.
#[derive(Default)]
struct Model {
    now: u64,
    /// Sequence, owner, and until when.
    line: Vec<(u64, u64, Option<u64>)>,
}

impl Model {
    fn holder(&self) -> Option<u64> {
        self.line.first().map(|(sequence, ..)| *sequence)
    }

    /// Keeps the first, whose time does not count any more, and those whose time has not come.
    fn tick(&mut self, after: u64) {
        self.now += after;
        let now = self.now;
        let mut place = 0;
        self.line.retain(|(_, _, until)| {
            place += 1;
            place == 1 || until.is_none_or(|until| until > now)
        });
    }
}

/// The sequence that holds the lock, by what the machine has told its clients.
fn note_grants(applied: &Applied, granted: &mut Vec<(u64, u64)>) {
    for one in &applied.completed {
        if let Ok(reply) = &one.result {
            granted.push((version(Ok(reply.clone())), one.sequence.0));
        }
    }
}

proptest! {
    #[test]
    fn any_steps_do_what_the_model_does(steps in proptest::collection::vec(step(), 1..80)) {
        let mut partition = Partition::new();
        let session = partition.open();
        let mut model = Model::default();
        let mut granted: Vec<(u64, u64)> = Vec::new();
        let mut asked = Vec::new();
        for (position, step) in steps.into_iter().enumerate() {
            let sequence = position as u64 + 1;
            match step {
                Step::Lock(owner, wait) => {
                    let timeout = wait.map(Duration::from_millis);
                    let outcome =
                        partition.one(operate(session, sequence, 0, lock_within(owner, timeout)));
                    asked.push(sequence);
                    match (model.line.is_empty(), wait) {
                        (true, _) => {
                            let Outcome::Reply(reply) = outcome else {
                                panic!("a free lock was not granted");
                            };
                            granted.push((version(reply), sequence));
                        }
                        (false, Some(0)) => {
                            prop_assert!(matches!(outcome, Outcome::Reply(Err(_))));
                            continue;
                        }
                        (false, _) => prop_assert_eq!(outcome, Outcome::Pending),
                    }
                    let until = wait.map(|wait| model.now + wait);
                    model.line.push((sequence, owner, until));
                }
                Step::Unlock(owner) => {
                    let applied =
                        partition.apply(vec![operate(session, sequence, 0, unlock(owner))]);
                    note_grants(&applied, &mut granted);
                    let holds = model.line.first().is_some_and(|first| first.1 == owner);
                    let Outcome::Reply(reply) = &applied.outcomes[0] else {
                        panic!("Unlock did not answer");
                    };
                    prop_assert_eq!(reply.is_ok(), holds);
                    if holds {
                        model.line.remove(0);
                    }
                }
                Step::Cancel(nth) => {
                    let Some(sequence) = asked.get(nth) else {
                        continue;
                    };
                    let applied = partition.apply(vec![cancel(session, *sequence)]);
                    note_grants(&applied, &mut granted);
                    model.line.retain(|(waiter, ..)| waiter != sequence);
                }
                Step::Release(owner) => {
                    let applied = partition.apply(vec![release_owner(session, owner)]);
                    note_grants(&applied, &mut granted);
                    model.line.retain(|(_, waiter, _)| *waiter != owner);
                }
                Step::Tick(after) => {
                    partition.tick(Duration::from_millis(after));
                    model.tick(after);
                }
            }
            let holder = model.holder().map(|_| granted.last().copied().unwrap());
            prop_assert_eq!(holder.map(|(_, sequence)| sequence), model.holder());
            prop_assert_eq!(held(&partition), holder.map(|(version, _)| version));
            let waiting = partition.machine.session(session).unwrap().waiting;
            prop_assert_eq!(waiting, model.line.len().saturating_sub(1) as u64);
        }
        prop_assert!(granted.windows(2).all(|two| two[0].0 < two[1].0));
    }
}
