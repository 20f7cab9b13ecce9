#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test that cannot go on fails"
)]

use std::time::Duration;

use atomix_proto::multiraft::v1::PageRequest;
use atomix_proto::runtime::indexedmap::v1::*;
use proptest::prelude::*;
use proptest::sample::select;
use prost::Message;

use crate::ErrorCode;
use crate::kinds::keyed::testing::{
    Fixture, edits, forged_snapshots_never_panic, replicas_agree, seconds, steps,
};

mod model;

fn fixture() -> Fixture {
    Fixture::new("indexedmap")
}

fn append_request(key: &str) -> AppendRequest {
    AppendRequest {
        key: key.to_owned(),
        value: "v".into(),
        ..AppendRequest::default()
    }
}

fn try_append(map: &mut Fixture, key: &str) -> Result<Entry, ErrorCode> {
    let reply: AppendResponse = map.run("Append", &append_request(key))?;
    Ok(reply.entry.unwrap())
}

fn append(map: &mut Fixture, key: &str) -> Entry {
    try_append(map, key).unwrap()
}

fn get(map: &Fixture, key: &str, index: u64) -> Result<Entry, ErrorCode> {
    let request = GetRequest {
        id: None,
        key: key.to_owned(),
        index,
    };
    let reply: GetResponse = map.ask("Get", &request)?;
    Ok(reply.entry.unwrap())
}

fn update(map: &mut Fixture, key: &str, index: u64, prev: u64) -> Result<Entry, ErrorCode> {
    let request = UpdateRequest {
        key: key.to_owned(),
        index,
        value: "new".into(),
        prev_version: prev,
        ..UpdateRequest::default()
    };
    let reply: UpdateResponse = map.run("Update", &request)?;
    Ok(reply.entry.unwrap())
}

fn remove(map: &mut Fixture, key: &str, index: u64, prev: u64) -> Result<Entry, ErrorCode> {
    let request = RemoveRequest {
        id: None,
        key: key.to_owned(),
        index,
        prev_version: prev,
    };
    let reply: RemoveResponse = map.run("Remove", &request)?;
    Ok(reply.entry.unwrap())
}

fn keys(map: &Fixture) -> Vec<String> {
    let entries = map.all::<Entry>("Page").into_iter();
    entries.map(|entry| entry.key).collect()
}

#[test]
fn an_index_grows_and_is_never_given_twice() {
    let mut map = fixture();
    assert_eq!(append(&mut map, "a").index, 1);
    assert_eq!(append(&mut map, "b").index, 2);
    assert_eq!(try_append(&mut map, "a"), Err(ErrorCode::AlreadyExists));
    remove(&mut map, "b", 0, 0).unwrap();
    assert_eq!(append(&mut map, "b").index, 3);
    map.run::<ClearResponse>("Clear", &ClearRequest { id: None })
        .unwrap();
    assert!(map.exists(), "an empty map keeps its last index");
    map.restore();
    assert_eq!(append(&mut map, "c").index, 4);
    let size: SizeResponse = map.ask("Size", &SizeRequest { id: None }).unwrap();
    assert_eq!(size.size, 1);
}

#[test]
fn an_entry_is_named_by_its_key_its_index_or_both() {
    // The key and index that name the entry "b" at 2, and whether they do.
    let table = [
        ("b", 0, Ok(())),
        ("", 2, Ok(())),
        ("b", 2, Ok(())),
        ("a", 2, Err(ErrorCode::NotFound)),
        ("b", 1, Err(ErrorCode::NotFound)),
        ("x", 0, Err(ErrorCode::NotFound)),
        ("", 9, Err(ErrorCode::NotFound)),
        ("", u64::MAX, Err(ErrorCode::NotFound)),
    ];
    for (key, index, named) in table {
        let mut map = fixture();
        append(&mut map, "a");
        let entry = append(&mut map, "b");
        append(&mut map, "c");
        let case = format!("{key:?} and {index}");
        let version = entry.value.clone().unwrap().version;
        assert_eq!(get(&map, key, index), named.map(|()| entry), "{case}");
        let conflict = named.and(Err(ErrorCode::Aborted));
        assert_eq!(update(&mut map, key, index, version + 1), conflict.clone());
        assert_eq!(remove(&mut map, key, index, version + 1), conflict);
        let updated = update(&mut map, key, index, version);
        assert_eq!(updated.clone().map(|_| ()), named, "{case}");
        if let Ok(updated) = &updated {
            assert_eq!((&*updated.key, updated.index), ("b", 2));
            assert!(updated.value.as_ref().unwrap().version > version);
        }
        assert_eq!(remove(&mut map, key, index, 0), updated, "{case}");
        let left = if named.is_ok() { 2 } else { 3 };
        assert_eq!(keys(&map).len(), left, "{case}");
    }
}

#[test]
fn neighbours_are_found_from_any_index() {
    let mut map = fixture();
    let first = |map: &Fixture| {
        map.ask::<FirstEntryResponse>("FirstEntry", &FirstEntryRequest { id: None })
            .map(|reply| reply.entry.unwrap().index)
    };
    let last = |map: &Fixture| {
        map.ask::<LastEntryResponse>("LastEntry", &LastEntryRequest { id: None })
            .map(|reply| reply.entry.unwrap().index)
    };
    assert_eq!(first(&map), Err(ErrorCode::NotFound));
    assert_eq!(last(&map), Err(ErrorCode::NotFound));
    for key in ["a", "b", "c", "d", "e"] {
        append(&mut map, key);
    }
    remove(&mut map, "a", 0, 0).unwrap();
    remove(&mut map, "", 3, 0).unwrap();
    // 2, 4 and 5 are left.
    assert_eq!((first(&map), last(&map)), (Ok(2), Ok(5)));
    let missing = Err(ErrorCode::NotFound);
    for (index, before, after) in [
        (0, missing, Ok(2)),
        (1, missing, Ok(2)),
        (2, missing, Ok(4)),
        (3, Ok(2), Ok(4)),
        (4, Ok(2), Ok(5)),
        (5, Ok(4), missing),
        (6, Ok(5), missing),
        (u64::MAX, Ok(5), missing),
    ] {
        let request = PrevEntryRequest { id: None, index };
        let found = map
            .ask::<PrevEntryResponse>("PrevEntry", &request)
            .map(|reply| reply.entry.unwrap().index);
        assert_eq!(found, before, "before {index}");
        let request = NextEntryRequest { id: None, index };
        let found = map
            .ask::<NextEntryResponse>("NextEntry", &request)
            .map(|reply| reply.entry.unwrap().index);
        assert_eq!(found, after, "after {index}");
    }
}

/// Defect of the original: IndexedMap's snapshot wrote the first entry n times.
#[test]
fn a_snapshot_has_every_entry_in_its_place() {
    let mut map = fixture();
    for key in ["c", "a", "b"] {
        append(&mut map, key);
    }
    let before = map.all::<Entry>("Page");
    map.restore();
    assert_eq!(map.all::<Entry>("Page"), before);
    assert_eq!(keys(&map), ["c", "a", "b"]);
    assert_eq!(get(&map, "a", 2).unwrap().index, 2);
}

/// Defect of the original: remove by index left the timer.
#[test]
fn remove_by_index_takes_the_timer_too() {
    let mut map = fixture();
    let short = AppendRequest {
        ttl: Some(seconds(5)),
        ..append_request("k")
    };
    map.run::<AppendResponse>("Append", &short).unwrap();
    remove(&mut map, "", 1, 0).unwrap();
    assert_eq!(map.machine.next_timer(), None);
    append(&mut map, "k");
    map.tick(Duration::from_secs(60));
    assert_eq!(keys(&map), ["k"]);
}

/// Defect of the original: the updated event came without the previous value.
#[test]
fn each_event_has_the_value_and_an_update_the_previous_one_too() {
    let mut map = fixture();
    let first = append(&mut map, "k").value;
    let second = update(&mut map, "", 1, 0).unwrap().value;
    remove(&mut map, "k", 0, 0).unwrap();
    let events = map.events::<Event>();
    for event in &events {
        assert_eq!((&*event.key, event.index), ("k", 1));
    }
    let events: Vec<_> = events
        .into_iter()
        .map(|event| event.event.unwrap())
        .collect();
    let expected = [
        event::Event::Inserted(event::Inserted {
            value: first.clone(),
        }),
        event::Event::Updated(event::Updated {
            value: second.clone(),
            prev_value: first,
        }),
        event::Event::Removed(event::Removed {
            value: second,
            expired: false,
        }),
    ];
    assert_eq!(events, expected);
}

#[test]
fn a_time_to_live_ends_once_and_an_update_renews_or_takes_it() {
    let mut map = fixture();
    for key in ["gone", "renewed", "kept"] {
        let short = AppendRequest {
            ttl: Some(seconds(10)),
            ..append_request(key)
        };
        map.run::<AppendResponse>("Append", &short).unwrap();
    }
    map.tick(Duration::from_secs(6));
    let renew = UpdateRequest {
        key: "renewed".to_owned(),
        value: "v".into(),
        ttl: Some(seconds(10)),
        ..UpdateRequest::default()
    };
    map.run::<UpdateResponse>("Update", &renew).unwrap();
    update(&mut map, "kept", 0, 0).unwrap();
    map.restore();
    map.events::<Event>();
    map.tick(Duration::from_secs(4));
    assert_eq!(keys(&map), ["renewed", "kept"]);
    let [gone] = &map.events::<Event>()[..] else {
        panic!("not one event");
    };
    assert!(matches!(
        &gone.event,
        Some(event::Event::Removed(event::Removed { expired: true, .. }))
    ));
    map.tick(Duration::from_secs(6));
    assert_eq!(keys(&map), ["kept"]);
    assert_eq!(map.machine.next_timer(), None);
}

#[test]
fn pages_and_clear_go_in_the_order_of_the_indexes() {
    let mut map = fixture();
    for key in ["c", "a", "b"] {
        append(&mut map, key);
    }
    for max_bytes in [0, 1, 20] {
        let pages = map.pages::<Entry>("Page", max_bytes);
        let indexes: Vec<_> = pages
            .into_iter()
            .flatten()
            .map(|entry| entry.index)
            .collect();
        assert_eq!(indexes, [1, 2, 3]);
    }
    map.events::<Event>();
    map.run::<ClearResponse>("Clear", &ClearRequest { id: None })
        .unwrap();
    let removed: Vec<_> = map
        .events::<Event>()
        .iter()
        .map(|event| event.index)
        .collect();
    assert_eq!(removed, [1, 2, 3]);
    assert_eq!(keys(&map), Vec::<String>::new());
}

#[test]
fn bad_requests_are_refused_before_the_proposal_naming_the_field() {
    let map = fixture();
    let negative = AppendRequest {
        ttl: Some(seconds(-1)),
        ..append_request("k")
    };
    let page = PageRequest {
        after: Some("short".into()),
        max_bytes: 0,
    };
    assert_eq!(
        map.ask::<EntriesResponse>("Page", &page),
        Err(ErrorCode::InvalidArgument)
    );
    for (refused, field) in [
        (map.refused("Append", &negative), "ttl: "),
        (map.refused("Append", &AppendRequest::default()), "key: "),
        (map.refused("Update", &UpdateRequest::default()), "key: "),
        (map.refused("Remove", &RemoveRequest::default()), "key: "),
        (map.refused("Get", &GetRequest::default()), "key: "),
    ] {
        assert_eq!(refused.0, ErrorCode::InvalidArgument, "{field}");
        assert!(refused.1.starts_with(field), "{}", refused.1);
    }
}

fn requests() -> impl Strategy<Value = (&'static str, Vec<u8>)> {
    let key = || select(vec!["", "a", "b", "c"]).prop_map(str::to_owned);
    let index = || prop_oneof![2 => Just(0_u64), 4 => 0_u64..9, 1 => any::<u64>()];
    let version = || prop_oneof![2 => Just(0_u64), 1 => 0_u64..80];
    let ttl = || proptest::option::of((-1_i64..4).prop_map(seconds));
    let append = (key(), ttl()).prop_map(|(key, ttl)| AppendRequest {
        ttl,
        ..append_request(&key)
    });
    let update =
        (key(), index(), ttl(), version()).prop_map(|(key, index, ttl, version)| UpdateRequest {
            id: None,
            key,
            index,
            value: "w".into(),
            ttl,
            prev_version: version,
        });
    let remove = (key(), index(), version()).prop_map(|(key, index, prev_version)| RemoveRequest {
        id: None,
        key,
        index,
        prev_version,
    });
    let next = index().prop_map(|index| NextEntryRequest { id: None, index });
    prop_oneof![
        6 => append.prop_map(|append| ("Append", append.encode_to_vec())),
        4 => update.prop_map(|update| ("Update", update.encode_to_vec())),
        3 => remove.prop_map(|remove| ("Remove", remove.encode_to_vec())),
        1 => next.prop_map(|next| ("NextEntry", next.encode_to_vec())),
        2 => select(vec!["Clear", "Size", "FirstEntry", "LastEntry", "PrevEntry", "Page"])
            .prop_map(|method| (method, Vec::new())),
    ]
}

proptest! {
    #[test]
    fn replicas_agree_whatever_they_are_asked(steps in steps("indexedmap", requests())) {
        replicas_agree(&steps);
    }

    #[test]
    fn a_forged_section_never_panics(steps in steps("indexedmap", requests()), edits in edits()) {
        forged_snapshots_never_panic(&steps, &edits)?;
    }
}
