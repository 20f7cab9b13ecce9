#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test that cannot go on fails"
)]

use std::collections::BTreeMap;
use std::time::Duration;

use atomix_proto::runtime::countermap::v1::*;
use proptest::prelude::*;
use proptest::sample::select;
use prost::Message;

use crate::kinds::keyed::testing::{
    Fixture, edits, forged_snapshots_never_panic, replicas_agree, seconds, steps,
};
use crate::{ErrorCode, Outcome};

/// A write of one key: what it needs and does.
#[derive(Clone, Copy, Debug)]
enum Write {
    Set(i64),
    Insert(i64),
    Update(i64, i64),
    Increment(i64),
    Decrement(i64),
    Remove(i64),
}

impl Write {
    fn request(self, key: &str) -> (&'static str, Vec<u8>) {
        let (id, key) = (None, key.to_owned());
        match self {
            Write::Set(value) => ("Set", SetRequest { id, key, value }.encode_to_vec()),
            Write::Insert(value) => ("Insert", InsertRequest { id, key, value }.encode_to_vec()),
            Write::Update(prev_value, value) => {
                let update = UpdateRequest {
                    id,
                    key,
                    value,
                    prev_value,
                };
                ("Update", update.encode_to_vec())
            }
            Write::Increment(delta) => (
                "Increment",
                IncrementRequest { id, key, delta }.encode_to_vec(),
            ),
            Write::Decrement(delta) => (
                "Decrement",
                DecrementRequest { id, key, delta }.encode_to_vec(),
            ),
            Write::Remove(prev_value) => {
                let remove = RemoveRequest {
                    id,
                    key,
                    prev_value,
                };
                ("Remove", remove.encode_to_vec())
            }
        }
    }

    /// The rules once more, in 128 bits: what the key has afterwards.
    fn model(self, before: Option<i64>) -> Result<Option<i64>, ErrorCode> {
        let sum = |delta: i128| {
            let sum = i128::from(before.unwrap_or(0)) + delta;
            i64::try_from(sum)
                .map(Some)
                .map_err(|_| ErrorCode::OutOfRange)
        };
        match (self, before) {
            (Write::Set(value), _) | (Write::Insert(value), None) => Ok(Some(value)),
            (Write::Insert(_), Some(_)) => Err(ErrorCode::AlreadyExists),
            (Write::Update(..) | Write::Remove(_), None) => Err(ErrorCode::NotFound),
            (Write::Update(expected, _) | Write::Remove(expected), Some(present))
                if expected != present =>
            {
                Err(ErrorCode::Aborted)
            }
            (Write::Update(_, value), Some(_)) => Ok(Some(value)),
            (Write::Remove(_), Some(_)) => Ok(None),
            (Write::Increment(delta), _) => sum(i128::from(delta)),
            (Write::Decrement(delta), _) => sum(-i128::from(delta)),
        }
    }
}

fn fixture() -> Fixture {
    Fixture::new("countermap")
}

/// Runs a write; its reply has the previous value in field 1 (Insert has none).
fn run(map: &mut Fixture, key: &str, write: Write) -> Result<i64, ErrorCode> {
    let (method, request) = write.request(key);
    let request = Raw::decode(&*request).unwrap();
    map.run::<SetResponse>(method, &request)
        .map(|reply| reply.prev_value)
}

/// Every request of the kind as one message: their fields have the same types at the same numbers.
#[derive(Clone, PartialEq, Message)]
struct Raw {
    #[prost(string, tag = "2")]
    key: String,
    #[prost(int64, tag = "3")]
    number: i64,
    #[prost(int64, tag = "4")]
    other: i64,
}

fn get(map: &Fixture, key: &str) -> Result<i64, ErrorCode> {
    let key = key.to_owned();
    let reply: GetResponse = map.ask("Get", &GetRequest { id: None, key })?;
    Ok(reply.value)
}

#[test]
fn each_write_does_what_it_says_and_tells_the_previous_value() {
    use Write::{Decrement, Increment, Insert, Remove, Set, Update};
    let out_of_range = Err(ErrorCode::OutOfRange);
    let conflict = Err(ErrorCode::Aborted);
    let missing = Err(ErrorCode::NotFound);
    // Before, the write, its answer, after.
    let table = [
        (None, Set(5), Ok(0), Some(5)),
        (None, Set(0), Ok(0), Some(0)),
        (Some(3), Set(5), Ok(3), Some(5)),
        (None, Insert(5), Ok(0), Some(5)),
        (Some(0), Insert(5), Err(ErrorCode::AlreadyExists), Some(0)),
        (None, Update(0, 5), missing, None),
        (Some(3), Update(3, 5), Ok(3), Some(5)),
        (Some(3), Update(0, 5), conflict, Some(3)),
        (Some(0), Update(0, 5), Ok(0), Some(5)),
        (None, Increment(5), Ok(0), Some(5)),
        (None, Increment(0), Ok(0), Some(0)),
        (Some(3), Increment(-5), Ok(3), Some(-2)),
        (Some(i64::MAX), Increment(1), out_of_range, Some(i64::MAX)),
        (None, Decrement(5), Ok(0), Some(-5)),
        (Some(3), Decrement(-5), Ok(3), Some(8)),
        (None, Decrement(i64::MIN), out_of_range, None),
        (Some(i64::MIN), Decrement(1), out_of_range, Some(i64::MIN)),
        (None, Remove(0), missing, None),
        (Some(3), Remove(3), Ok(3), None),
        (Some(3), Remove(0), conflict, Some(3)),
        (Some(0), Remove(0), Ok(0), None),
    ];
    for (before, write, answer, after) in table {
        let case = format!("{write:?} at {before:?}");
        let mut map = fixture();
        if let Some(before) = before {
            run(&mut map, "k", Set(before)).unwrap();
        }
        map.events::<Event>();
        assert_eq!(run(&mut map, "k", write), answer, "{case}");
        assert_eq!(get(&map, "k").ok(), after, "{case}");
        assert_eq!(map.exists(), after.is_some(), "{case}");
        let event = match (answer, before, after) {
            (Err(_), ..) => None,
            (Ok(_), None, Some(value)) => Some(event::Event::Inserted(event::Inserted { value })),
            (Ok(_), Some(prev_value), Some(value)) => {
                Some(event::Event::Updated(event::Updated { value, prev_value }))
            }
            (Ok(_), before, None) => {
                let value = before.unwrap();
                Some(event::Event::Removed(event::Removed { value }))
            }
        };
        let key = "k".to_owned();
        let expected: Vec<Event> = event
            .map(|event| Event {
                key,
                event: Some(event),
            })
            .into_iter()
            .collect();
        assert_eq!(map.events::<Event>(), expected, "{case}");
    }
}

#[test]
fn clear_and_pages_go_in_the_order_of_the_keys() {
    let mut map = fixture();
    for (key, value) in [("b", 2), ("a", -1), ("c", 0)] {
        run(&mut map, key, Write::Set(value)).unwrap();
    }
    map.restore();
    let entries = map.pages::<Entry>("Page", 1);
    assert_eq!(entries.len(), 3);
    let entries: Vec<_> = entries.into_iter().flatten().collect();
    let entry = |key: &str, value| Entry {
        key: key.to_owned(),
        value,
    };
    assert_eq!(entries, [entry("a", -1), entry("b", 2), entry("c", 0)]);
    let size: SizeResponse = map.ask("Size", &SizeRequest { id: None }).unwrap();
    assert_eq!(size.size, 3);
    map.events::<Event>();
    map.run::<ClearResponse>("Clear", &ClearRequest { id: None })
        .unwrap();
    let keys: Vec<_> = map
        .events::<Event>()
        .into_iter()
        .map(|event| event.key)
        .collect();
    assert_eq!(keys, ["a", "b", "c"]);
    assert!(!map.exists());
    assert_eq!(map.machine.usage().primitives, 0);
}

#[test]
fn keys_are_locked_until_their_owner_gives_them_back_or_goes() {
    let mut map = fixture();
    let keys = || vec!["a".to_owned(), "b".to_owned()];
    let lock = |timeout| LockRequest {
        id: None,
        keys: keys(),
        timeout,
    };
    map.run::<LockResponse>("Lock", &lock(None)).unwrap();
    run(&mut map, "a", Write::Set(1)).unwrap();
    let (timed, outcome) = map.start(2, "Lock", &lock(Some(seconds(3))));
    assert_eq!(outcome, Outcome::Pending);
    let (patient, _) = map.start(3, "Lock", &lock(None));
    map.restore();
    map.tick(Duration::from_secs(3));
    assert_eq!(map.completed(timed), Some(Err(ErrorCode::Aborted)));
    let unlock = UnlockRequest {
        id: None,
        keys: keys(),
    };
    let stranger = map.run_for::<UnlockResponse>(3, "Unlock", &unlock);
    assert_eq!(stranger, Err(ErrorCode::Aborted));
    map.release(1);
    assert_eq!(map.completed(patient), Some(Ok(())));
    map.run_for::<UnlockResponse>(3, "Unlock", &unlock).unwrap();
    assert_eq!(get(&map, "a"), Ok(1));
    let nothing = map.refused("Lock", &LockRequest::default());
    assert!(nothing.1.starts_with("keys: "), "{}", nothing.1);
}

fn a_write() -> impl Strategy<Value = Write> {
    let number = || prop_oneof![3 => -2_i64..3, 1 => any::<i64>(), 1 => Just(i64::MAX)];
    prop_oneof![
        number().prop_map(Write::Set),
        number().prop_map(Write::Insert),
        (number(), number()).prop_map(|(expected, value)| Write::Update(expected, value)),
        number().prop_map(Write::Increment),
        number().prop_map(Write::Decrement),
        number().prop_map(Write::Remove),
    ]
}

fn requests() -> impl Strategy<Value = (&'static str, Vec<u8>)> {
    let key = || select(vec!["", "a", "b"]);
    let keys = || proptest::collection::vec(key().prop_map(str::to_owned), 0..3);
    let timeout = proptest::option::of((-1_i64..3).prop_map(seconds));
    let lock = (keys(), timeout).prop_map(|(keys, timeout)| LockRequest {
        id: None,
        keys,
        timeout,
    });
    prop_oneof![
        8 => (key(), a_write()).prop_map(|(key, write)| write.request(key)),
        1 => Just(("Clear", Vec::new())),
        1 => Just(("Size", Vec::new())),
        1 => Just(("Page", Vec::new())),
        3 => lock.prop_map(|lock| ("Lock", lock.encode_to_vec())),
        2 => keys().prop_map(|keys| ("Unlock", UnlockRequest { id: None, keys }.encode_to_vec())),
    ]
}

proptest! {
    #[test]
    fn replicas_agree_whatever_they_are_asked(steps in steps("countermap", requests())) {
        replicas_agree(&steps);
    }

    #[test]
    fn a_forged_section_never_panics(steps in steps("countermap", requests()), edits in edits()) {
        forged_snapshots_never_panic(&steps, &edits)?;
    }

    #[test]
    fn any_sequence_of_writes_does_what_the_model_does(
        writes in proptest::collection::vec((select(vec!["a", "b"]), a_write()), 1..60),
    ) {
        let mut map = fixture();
        let mut model: BTreeMap<&str, i64> = BTreeMap::new();
        for (key, write) in writes {
            let before = model.get(key).copied();
            let after = write.model(before);
            let answer = run(&mut map, key, write);
            prop_assert_eq!(answer.map(|_| ()), after.map(|_| ()), "{:?}", write);
            match after {
                Ok(Some(value)) => {
                    model.insert(key, value);
                }
                Ok(None) => {
                    model.remove(key);
                }
                Err(_) => {}
            }
            prop_assert_eq!(get(&map, key).ok(), model.get(key).copied());
        }
        let entries: Vec<_> = map.all::<Entry>("Page");
        let entries: Vec<_> = entries.iter().map(|entry| (&*entry.key, entry.value)).collect();
        prop_assert_eq!(entries, model.into_iter().collect::<Vec<_>>());
    }
}
