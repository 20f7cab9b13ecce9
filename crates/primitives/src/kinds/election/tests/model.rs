//! The rules of the election once more, naively, against random steps.

use super::*;

/// What can happen to an election.
#[derive(Clone, Copy, Debug)]
enum Step {
    Ask(&'static str, &'static str, u64),
    /// The operation of the n-th step.
    Cancel(u64),
    Release(u64),
}

fn step() -> impl Strategy<Value = Step> {
    let name = || select(vec!["a", "b", "c", "d"]);
    prop_oneof![
        12 => (method(), name(), 1_u64..4)
            .prop_map(|(method, name, owner)| Step::Ask(method, name, owner)),
        1 => (1_u64..60).prop_map(Step::Cancel),
        1 => (1_u64..4).prop_map(Step::Release),
    ]
}

/// Each candidate with who entered it and in which step.
#[derive(Default)]
struct Model(Vec<(&'static str, Vec<(u64, u64)>)>);

impl Model {
    fn ask(&mut self, method: &str, name: &'static str, owner: u64, sequence: u64) {
        let line = &mut self.0;
        let Some(place) = line.iter().position(|(candidate, _)| *candidate == name) else {
            if method == "Enter" {
                line.push((name, vec![(owner, sequence)]));
            }
            return;
        };
        match method {
            // Nothing is acknowledged here, so that each may be withdrawn.
            "Enter" => line[place].1.push((owner, sequence)),
            "Withdraw" | "Evict" => {
                line.remove(place);
            }
            "Anoint" => line[..=place].rotate_right(1),
            "Promote" => line.swap(place.saturating_sub(1), place),
            _ => line[place..].rotate_left(1),
        }
    }

    fn forget(&mut self, goes: impl Fn(u64, u64) -> bool) {
        for (_, entries) in &mut self.0 {
            entries.retain(|(owner, sequence)| !goes(*owner, *sequence));
        }
        self.0.retain(|(_, entries)| !entries.is_empty());
    }

    fn line(&self) -> String {
        self.0.iter().map(|(name, _)| *name).collect()
    }
}

proptest! {
    #[test]
    fn any_steps_do_what_the_model_does(steps in proptest::collection::vec(step(), 1..60)) {
        let mut partition = Partition::new();
        let session = partition.open();
        let mut model = Model::default();
        let mut last = Term::default();
        for (sequence, step) in (1..).zip(steps) {
            let before = model.line();
            let applied: Applied = match step {
                Step::Ask(method, name, owner) => {
                    model.ask(method, name, owner, sequence);
                    partition.apply(vec![operate(session, sequence, 0, ask(method, name, owner))])
                }
                // One that has not come yet would be kept from coming.
                Step::Cancel(cancelled) if cancelled < sequence => {
                    model.forget(|_, entered| entered == cancelled);
                    partition.apply(vec![cancel(session, cancelled)])
                }
                Step::Cancel(_) => continue,
                Step::Release(owner) => {
                    model.forget(|entered, _| entered == owner);
                    partition.apply(vec![release_owner(session, owner)])
                }
            };
            prop_assert_eq!(line(&partition), model.line());
            // What watchers hear is every state in turn, with terms that never go back.
            let told = terms(&applied.events);
            prop_assert_eq!(told.len(), usize::from(before != model.line()));
            if let Some(told) = told.first() {
                let another_leads = told.leader != last.leader;
                prop_assert_eq!(told.term > last.term, another_leads);
                prop_assert!(told.term >= last.term);
                let heard = format!("{}{}", told.leader, told.candidates.concat());
                prop_assert_eq!(heard, model.line());
                last = told.clone();
            }
            partition.tick(Duration::from_millis(1));
        }
    }
}
