#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test that cannot go on fails"
)]

use std::collections::{BTreeMap, BTreeSet};

use atomix_proto::runtime::multimap::v1::*;
use proptest::prelude::*;
use proptest::sample::select;
use prost::Message;

use crate::ErrorCode;
use crate::kinds::keyed::testing::{
    Fixture, edits, forged_snapshots_never_panic, replicas_agree, steps,
};

fn fixture() -> Fixture {
    Fixture::new("multimap")
}

fn strings(values: &[&str]) -> Vec<String> {
    values.iter().map(|value| (*value).to_owned()).collect()
}

fn entry(key: &str, values: &[&str]) -> Entry {
    let (key, values) = (key.to_owned(), strings(values));
    Entry { key, values }
}

fn put_all(map: &mut Fixture, key: &str, values: &[&str]) -> bool {
    let request = PutAllRequest {
        id: None,
        key: key.to_owned(),
        values: strings(values),
    };
    let reply: PutAllResponse = map.run("PutAll", &request).unwrap();
    reply.updated
}

fn get(map: &Fixture, key: &str) -> Vec<String> {
    let key = key.to_owned();
    let reply: GetResponse = map.ask("Get", &GetRequest { id: None, key }).unwrap();
    reply.values
}

fn size(map: &Fixture) -> u32 {
    let reply: SizeResponse = map.ask("Size", &SizeRequest { id: None }).unwrap();
    reply.size
}

/// Events as `+key=value` and `-key=value`.
fn events(map: &mut Fixture) -> Vec<String> {
    let events = map.events::<Event>().into_iter();
    events
        .map(|event| match event.event.unwrap() {
            event::Event::Added(added) => format!("+{}={}", event.key, added.value),
            event::Event::Removed(removed) => format!("-{}={}", event.key, removed.value),
        })
        .collect()
}

#[test]
fn one_value_is_put_once_and_removed_once() {
    let mut map = fixture();
    let put = PutRequest {
        id: None,
        key: "k".to_owned(),
        value: "v".to_owned(),
    };
    let remove = RemoveRequest {
        id: None,
        key: "k".to_owned(),
        value: "v".to_owned(),
    };
    let contains = |map: &Fixture| {
        let request = ContainsRequest {
            id: None,
            key: "k".to_owned(),
            value: "v".to_owned(),
        };
        let reply: ContainsResponse = map.ask("Contains", &request).unwrap();
        reply.result
    };
    assert!(!contains(&map));
    let missing = map.run::<RemoveResponse>("Remove", &remove);
    assert_eq!(missing, Err(ErrorCode::NotFound));
    map.run::<PutResponse>("Put", &put).unwrap();
    assert!(contains(&map));
    let twice = map.run::<PutResponse>("Put", &put);
    assert_eq!(twice, Err(ErrorCode::AlreadyExists));
    let reply: RemoveResponse = map.run("Remove", &remove).unwrap();
    assert_eq!(reply.values, ["v"]);
    assert!(!contains(&map));
    assert_eq!(events(&mut map), ["+k=v", "-k=v"]);
    assert!(!map.exists());
    assert_eq!(map.machine.usage().primitives, 0);
}

#[test]
fn several_values_are_put_and_removed_in_their_order_and_updated_says_whether() {
    let mut map = fixture();
    assert!(put_all(&mut map, "k", &["c", "a", "c"]));
    assert!(!put_all(&mut map, "k", &["a"]));
    assert!(!put_all(&mut map, "other", &[]));
    assert_eq!(size(&map), 1, "a key without values is gone");
    assert_eq!(get(&map, "k"), ["a", "c"]);
    assert_eq!(get(&map, "other"), strings(&[]));

    let put = PutEntriesRequest {
        id: None,
        entries: vec![entry("l", &["x"]), entry("k", &["a", "b"]), entry("m", &[])],
    };
    let reply: PutEntriesResponse = map.run("PutEntries", &put).unwrap();
    assert!(reply.updated);
    let again: PutEntriesResponse = map.run("PutEntries", &put).unwrap();
    assert!(!again.updated);
    assert_eq!(events(&mut map), ["+k=a", "+k=c", "+l=x", "+k=b"]);

    let remove_all = |key: &str, values: &[&str]| RemoveAllRequest {
        id: None,
        key: key.to_owned(),
        values: strings(values),
    };
    let missing = map.run::<RemoveAllResponse>("RemoveAll", &remove_all("m", &["x"]));
    assert_eq!(missing, Err(ErrorCode::NotFound));
    for (values, updated) in [(&["x"][..], false), (&["c", "a", "x"], true)] {
        let reply: RemoveAllResponse = map.run("RemoveAll", &remove_all("k", values)).unwrap();
        assert_eq!(reply.updated, updated);
    }
    let remove = RemoveEntriesRequest {
        id: None,
        entries: vec![entry("l", &["x"]), entry("k", &["b"]), entry("m", &["x"])],
    };
    let reply: RemoveEntriesResponse = map.run("RemoveEntries", &remove).unwrap();
    assert!(reply.updated);
    let again: RemoveEntriesResponse = map.run("RemoveEntries", &remove).unwrap();
    assert!(!again.updated);
    assert_eq!(events(&mut map), ["-k=a", "-k=c", "-l=x", "-k=b"]);
    assert!(!map.exists());
}

#[test]
fn replace_tells_what_was_there_and_only_the_difference_happens() {
    let mut map = fixture();
    put_all(&mut map, "k", &["a", "b"]);
    events(&mut map);
    let replace = |values: &[&str]| ReplaceRequest {
        id: None,
        key: "k".to_owned(),
        values: strings(values),
    };
    let reply: ReplaceResponse = map.run("Replace", &replace(&["c", "b"])).unwrap();
    assert_eq!(reply.prev_values, ["a", "b"]);
    assert_eq!(get(&map, "k"), ["b", "c"]);
    assert_eq!(events(&mut map), ["-k=a", "+k=c"]);
}

/// Defect of the original: a Replace with nothing left an empty key.
#[test]
fn a_replace_with_nothing_removes_the_key() {
    let mut map = fixture();
    let replace = |key: &str| ReplaceRequest {
        id: None,
        key: key.to_owned(),
        values: Vec::new(),
    };
    let reply: ReplaceResponse = map.run("Replace", &replace("never")).unwrap();
    assert_eq!(reply.prev_values, strings(&[]));
    assert!(!map.exists());
    put_all(&mut map, "k", &["a"]);
    put_all(&mut map, "l", &["a"]);
    map.run::<ReplaceResponse>("Replace", &replace("k"))
        .unwrap();
    assert_eq!(size(&map), 1);
    assert_eq!(map.all::<Entry>("Page"), [entry("l", &["a"])]);
}

/// Defect of the original: hash-map iteration order reached replies and snapshots.
#[test]
fn pages_and_clear_go_in_the_order_of_keys_and_values() {
    let mut map = fixture();
    for (key, values) in [("b", &["y", "x"][..]), ("", &["z"]), ("a", &["x"])] {
        put_all(&mut map, key, values);
    }
    map.restore();
    for max_bytes in [0, 1, 8] {
        let pages = map.pages::<Entry>("Page", max_bytes);
        let entries: Vec<_> = pages.into_iter().flatten().collect();
        let expected = [
            entry("", &["z"]),
            entry("a", &["x"]),
            entry("b", &["x", "y"]),
        ];
        assert_eq!(entries, expected);
    }
    events(&mut map);
    map.run::<ClearResponse>("Clear", &ClearRequest { id: None })
        .unwrap();
    assert_eq!(events(&mut map), ["-=z", "-a=x", "-b=x", "-b=y"]);
    assert!(!map.exists());
    assert_eq!(map.machine.usage().primitives, 0);
}

fn values() -> impl Strategy<Value = Vec<String>> {
    let value = select(vec!["x", "y", "z"]).prop_map(str::to_owned);
    proptest::collection::vec(value, 0..4)
}

fn key() -> impl Strategy<Value = String> {
    select(vec!["", "a", "b"]).prop_map(str::to_owned)
}

fn requests() -> impl Strategy<Value = (&'static str, Vec<u8>)> {
    let value = || select(vec!["x", "y", "z"]).prop_map(str::to_owned);
    let one = || (key(), value());
    let many = || (key(), values());
    let entries = || {
        let entry = many().prop_map(|(key, values)| Entry { key, values });
        proptest::collection::vec(entry, 0..3)
    };
    prop_oneof![
        one().prop_map(|(key, value)| {
            (
                "Put",
                PutRequest {
                    id: None,
                    key,
                    value,
                }
                .encode_to_vec(),
            )
        }),
        one().prop_map(|(key, value)| {
            (
                "Remove",
                RemoveRequest {
                    id: None,
                    key,
                    value,
                }
                .encode_to_vec(),
            )
        }),
        many().prop_map(|(key, values)| {
            (
                "PutAll",
                PutAllRequest {
                    id: None,
                    key,
                    values,
                }
                .encode_to_vec(),
            )
        }),
        many().prop_map(|(key, values)| {
            (
                "RemoveAll",
                RemoveAllRequest {
                    id: None,
                    key,
                    values,
                }
                .encode_to_vec(),
            )
        }),
        many().prop_map(|(key, values)| {
            (
                "Replace",
                ReplaceRequest {
                    id: None,
                    key,
                    values,
                }
                .encode_to_vec(),
            )
        }),
        entries().prop_map(|entries| {
            (
                "PutEntries",
                PutEntriesRequest { id: None, entries }.encode_to_vec(),
            )
        }),
        entries().prop_map(|entries| {
            (
                "RemoveEntries",
                RemoveEntriesRequest { id: None, entries }.encode_to_vec(),
            )
        }),
        select(vec!["Clear", "Size", "Get", "Contains", "Page"])
            .prop_map(|method| (method, Vec::new())),
    ]
}

proptest! {
    #[test]
    fn replicas_agree_whatever_they_are_asked(steps in steps("multimap", requests())) {
        replicas_agree(&steps);
    }

    #[test]
    fn a_forged_section_never_panics(steps in steps("multimap", requests()), edits in edits()) {
        forged_snapshots_never_panic(&steps, &edits)?;
    }

    #[test]
    fn any_sequence_of_writes_does_what_the_model_does(
        writes in proptest::collection::vec((0_u8..3, key(), values()), 1..40),
    ) {
        let mut map = fixture();
        let mut model: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
        for (sort, key, values) in writes {
            let id = None;
            let entry = model.entry(key.clone()).or_default();
            let named = values.iter().cloned();
            match sort {
                0 => {
                    entry.extend(named);
                    map.run::<PutAllResponse>("PutAll", &PutAllRequest { id, key, values }).unwrap();
                }
                1 => {
                    *entry = named.collect();
                    map.run::<ReplaceResponse>("Replace", &ReplaceRequest { id, key, values })
                        .unwrap();
                }
                _ => {
                    for value in named {
                        entry.remove(&value);
                    }
                    let entries = vec![Entry { key, values }];
                    let remove = RemoveEntriesRequest { id, entries };
                    map.run::<RemoveEntriesResponse>("RemoveEntries", &remove).unwrap();
                }
            }
            model.retain(|_, values| !values.is_empty());
            let expected: Vec<Entry> = model
                .iter()
                .map(|(key, values)| Entry {
                    key: key.clone(),
                    values: values.iter().cloned().collect(),
                })
                .collect();
            prop_assert_eq!(map.all::<Entry>("Page"), expected);
            prop_assert_eq!(size(&map) as usize, model.len());
        }
    }
}
