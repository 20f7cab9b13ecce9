//! Commit of one partition.

use atomix_proto::runtime::map::v1::commit_request::operation::Operation as Change;
use atomix_proto::runtime::map::v1::commit_request::{Insert, Operation, Put, Remove, Update};
use atomix_proto::runtime::map::v1::*;
use bytes::Bytes;
use proptest::prelude::*;

use super::{fixture, get, put as put_one, size};
use crate::ErrorCode;

pub(super) fn of(changes: Vec<Option<Change>>) -> CommitRequest {
    let operations = changes
        .into_iter()
        .map(|operation| Operation { operation })
        .collect();
    CommitRequest {
        id: None,
        operations,
    }
}

pub(super) fn put(key: &str, value: &str) -> Option<Change> {
    Some(Change::Put(Put {
        key: key.to_owned(),
        value: value.to_owned().into(),
        ..Put::default()
    }))
}

fn insert(key: &str) -> Option<Change> {
    let key = key.to_owned();
    Some(Change::Insert(Insert {
        key,
        ..Insert::default()
    }))
}

fn update(key: &str, prev_version: u64) -> Option<Change> {
    Some(Change::Update(Update {
        key: key.to_owned(),
        value: "updated".into(),
        prev_version,
        ttl: None,
    }))
}

fn remove(key: &str) -> Option<Change> {
    let key = key.to_owned();
    Some(Change::Remove(Remove {
        key,
        ..Remove::default()
    }))
}

pub(super) fn random(
    key: impl Strategy<Value = String> + Clone + 'static,
    value: impl Strategy<Value = Bytes> + 'static,
    ttl: impl Strategy<Value = Option<prost_types::Duration>> + 'static,
    version: impl Strategy<Value = u64> + 'static,
) -> impl Strategy<Value = CommitRequest> {
    let change =
        (0_u8..5, key, value, ttl, version).prop_map(|(sort, key, value, ttl, prev_version)| {
            match sort {
                0 => Some(Change::Put(Put {
                    key,
                    value,
                    ttl,
                    prev_version,
                })),
                1 => Some(Change::Insert(Insert { key, value, ttl })),
                2 => Some(Change::Update(Update {
                    key,
                    value,
                    ttl,
                    prev_version,
                })),
                3 => Some(Change::Remove(Remove { key, prev_version })),
                _ => put(&key, "v"),
            }
        });
    proptest::collection::vec(change, 0..4).prop_map(of)
}

#[test]
fn a_commit_makes_all_its_changes_and_answers_each() {
    let mut map = fixture();
    let old = put_one(&mut map, "updated", "old").version;
    put_one(&mut map, "removed", "old");
    map.events::<Event>();
    let commit = of(vec![
        put("put", "new"),
        insert("inserted"),
        update("updated", old),
        remove("removed"),
    ]);
    let reply: CommitResponse = map.run("Commit", &commit).unwrap();
    assert_eq!(map.events::<Event>().len(), 4);
    let results: Vec<_> = reply
        .results
        .into_iter()
        .map(|result| result.result.unwrap())
        .collect();
    use commit_response::result::Result;
    let [
        Result::Put(put),
        Result::Insert(insert),
        Result::Update(update),
        Result::Remove(remove),
    ] = &results[..]
    else {
        panic!("unlike results: {results:?}");
    };
    assert_eq!(put.prev_value, None);
    assert_eq!(update.prev_value.as_ref().unwrap().version, old);
    assert_eq!(remove.value.as_ref().unwrap().value, "old");
    for (key, version) in [
        ("put", put.version),
        ("inserted", insert.version),
        ("updated", update.version),
    ] {
        assert_eq!(get(&map, key).unwrap().version, version, "{key}");
    }
    assert_eq!(get(&map, "removed"), Err(ErrorCode::NotFound));
}

#[test]
fn a_commit_with_one_change_that_may_not_happen_changes_nothing() {
    for (bad, code) in [
        (insert("there"), ErrorCode::AlreadyExists),
        (update("missing", 0), ErrorCode::NotFound),
        (update("there", 1), ErrorCode::Aborted),
        (remove("missing"), ErrorCode::NotFound),
    ] {
        let mut map = fixture();
        put_one(&mut map, "there", "old");
        map.events::<Event>();
        let commit = of(vec![put("a", "v"), remove("there"), put("there", "v"), bad]);
        assert_eq!(map.run::<CommitResponse>("Commit", &commit), Err(code));
        assert_eq!(map.events::<Event>(), vec![]);
        assert_eq!(size(&map), 1);
        assert_eq!(get(&map, "there").unwrap().value, "old");
    }
}

#[test]
fn each_change_of_a_commit_sees_those_before_it() {
    let mut map = fixture();
    put_one(&mut map, "k", "old");
    let commit = of(vec![
        remove("k"),
        insert("k"),
        update("k", 0),
        put("k", "end"),
    ]);
    let reply: CommitResponse = map.run("Commit", &commit).unwrap();
    assert_eq!(reply.results.len(), 4);
    assert_eq!(get(&map, "k").unwrap().value, "end");
    let versions: Vec<u64> = reply
        .results
        .iter()
        .filter_map(|result| match result.result.as_ref().unwrap() {
            commit_response::result::Result::Put(put) => Some(put.version),
            commit_response::result::Result::Insert(insert) => Some(insert.version),
            commit_response::result::Result::Update(update) => Some(update.version),
            commit_response::result::Result::Remove(_) => None,
        })
        .collect();
    assert!(versions.is_sorted_by(|one, next| one < next));
    // It cannot know the version of what it wrote itself.
    let version = get(&map, "k").unwrap().version;
    let blind = of(vec![update("k", version), update("k", version)]);
    let reply = map.run::<CommitResponse>("Commit", &blind);
    assert_eq!(reply, Err(ErrorCode::Aborted));
    let nothing: CommitResponse = map.run("Commit", &of(vec![])).unwrap();
    assert_eq!(nothing.results, vec![]);
}
