//! The rules of the value once more, naively, against random steps.

use super::*;

/// What can happen to a value.
#[derive(Clone, Copy, Debug)]
enum Step {
    Set(&'static str, Option<Duration>),
    Insert(&'static str, Option<Duration>),
    /// Whether the caller has seen the present version, another one, or none.
    Update(&'static str, Option<Duration>, Option<bool>),
    Delete(Option<bool>),
    Tick(u64),
}

fn step() -> impl Strategy<Value = Step> {
    let seen = any::<Option<bool>>;
    prop_oneof![
        (text(), ttl()).prop_map(|(text, ttl)| Step::Set(text, ttl)),
        (text(), ttl()).prop_map(|(text, ttl)| Step::Insert(text, ttl)),
        (text(), ttl(), seen()).prop_map(|(text, ttl, seen)| Step::Update(text, ttl, seen)),
        seen().prop_map(Step::Delete),
        (0_u64..600).prop_map(Step::Tick),
    ]
}

/// The rules once more: the value and when it ends.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct Model(Option<(&'static str, Option<Duration>)>);

impl Model {
    fn step(&mut self, step: Step, now: Duration) -> Result<(), ErrorCode> {
        let until = |ttl: Option<Duration>| ttl.filter(|ttl| !ttl.is_zero()).map(|ttl| now + ttl);
        match (step, self.0) {
            (Step::Insert(..), Some(_)) => return Err(ErrorCode::AlreadyExists),
            (Step::Update(..) | Step::Delete(_), None) => return Err(ErrorCode::NotFound),
            (Step::Update(_, _, Some(false)) | Step::Delete(Some(false)), _) => {
                return Err(ErrorCode::Aborted);
            }
            (Step::Set(text, ttl) | Step::Insert(text, ttl) | Step::Update(text, ttl, _), _) => {
                self.0 = Some((text, until(ttl)));
            }
            (Step::Delete(_), _) => self.0 = None,
            (Step::Tick(_), Some((_, Some(until)))) if until <= now => self.0 = None,
            (Step::Tick(_), _) => {}
        }
        Ok(())
    }
}

proptest! {
    #[test]
    fn any_steps_do_what_the_model_does(steps in proptest::collection::vec(step(), 1..80)) {
        let (mut partition, session, _) = with_value(None);
        let mut model = Model::default();
        // What somebody knows who heard of every event.
        let mut heard: Option<VersionedValue> = None;
        let mut newest = 0;
        for step in steps {
            let version = present(&partition).map_or(7, |value| value.version);
            let seen = |seen: Option<bool>| match seen {
                None => 0,
                Some(true) => version,
                Some(false) => version + 1,
            };
            let (reply, told) = match step {
                Step::Set(text, ttl) => run(&mut partition, session, set_with(text, wire(ttl))),
                Step::Insert(text, ttl) => {
                    run(&mut partition, session, insert_with(text, wire(ttl)))
                }
                Step::Update(text, ttl, version) => {
                    let update = update_with(text, seen(version), wire(ttl));
                    run(&mut partition, session, update)
                }
                Step::Delete(version) => run(&mut partition, session, delete(seen(version))),
                Step::Tick(millis) => {
                    let applied = partition.tick(Duration::from_millis(millis));
                    (Ok(Bytes::new()), events(&applied))
                }
            };
            let expected = model.step(step, partition.time);
            prop_assert_eq!(code(&reply), expected.err());
            let value = present(&partition);
            let text = value.as_ref().map(|value| value.value.clone());
            prop_assert_eq!(text, model.0.map(|(text, _)| Bytes::from(text)));
            for event in told {
                let (before, after) = match event {
                    event::Event::Created(created) => (None, created.value),
                    event::Event::Updated(updated) => (updated.prev_value, updated.value),
                    event::Event::Deleted(deleted) => (deleted.value, None),
                };
                prop_assert_eq!(before, heard);
                let grows = after.as_ref().is_none_or(|value| value.version > newest);
                prop_assert!(grows);
                newest = after.as_ref().map_or(newest, |value| value.version);
                heard = after;
            }
            prop_assert_eq!(value, heard.clone());
        }
    }
}
