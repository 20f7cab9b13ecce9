#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test that cannot go on fails"
)]

use std::time::Duration;

use atomix_proto::multiraft::v1::PageRequest;
use atomix_proto::runtime::map::v1::*;

use crate::kinds::keyed::testing::{Fixture, seconds};
use crate::{ErrorCode, Outcome};

mod commit;
mod locks;
mod random;

fn fixture() -> Fixture {
    Fixture::new("map")
}

fn put_request(key: &str, value: &str) -> PutRequest {
    PutRequest {
        key: key.to_owned(),
        value: value.to_owned().into(),
        ..PutRequest::default()
    }
}

fn put(map: &mut Fixture, key: &str, value: &str) -> PutResponse {
    map.run("Put", &put_request(key, value)).unwrap()
}

fn get(map: &Fixture, key: &str) -> Result<VersionedValue, ErrorCode> {
    let key = key.to_owned();
    let reply: GetResponse = map.ask("Get", &GetRequest { id: None, key })?;
    Ok(reply.value.unwrap())
}

fn remove(key: &str, prev_version: u64) -> RemoveRequest {
    RemoveRequest {
        id: None,
        key: key.to_owned(),
        prev_version,
    }
}

fn size(map: &Fixture) -> u32 {
    let reply: SizeResponse = map.ask("Size", &SizeRequest { id: None }).unwrap();
    reply.size
}

/// Among them a defect of the original: removals could not be told in Set and Map watches.
#[test]
fn each_write_keeps_its_precondition_or_changes_nothing() {
    // What the key has before ("" = it does not exist), the method, how far prev_version is from the
    // present version (None = 0, unconditional), the outcome.
    let conflict = Err(ErrorCode::Aborted);
    let missing = Err(ErrorCode::NotFound);
    let table = [
        ("", "Put", None, Ok(())),
        ("", "Put", Some(0), conflict),
        ("", "Insert", None, Ok(())),
        ("", "Update", None, missing),
        ("", "Update", Some(0), missing),
        ("", "Remove", None, missing),
        ("", "Remove", Some(0), missing),
        ("old", "Put", None, Ok(())),
        ("old", "Put", Some(0), Ok(())),
        ("old", "Put", Some(1), conflict),
        ("old", "Insert", None, Err(ErrorCode::AlreadyExists)),
        ("old", "Update", None, Ok(())),
        ("old", "Update", Some(0), Ok(())),
        ("old", "Update", Some(1), conflict),
        ("old", "Remove", None, Ok(())),
        ("old", "Remove", Some(0), Ok(())),
        ("old", "Remove", Some(1), conflict),
    ];
    for (before, method, off, outcome) in table {
        let case = format!("{method} at {before:?} with {off:?}");
        let mut map = fixture();
        let mut version = 7;
        if !before.is_empty() {
            version = put(&mut map, "k", before).version;
        }
        let before = get(&map, "k");
        map.events::<Event>();
        let prev_version = off.map_or(0, |off| version + off);
        let (key, value) = ("k".to_owned(), "new".into());
        let previous = match method {
            "Put" => map
                .run(
                    method,
                    &PutRequest {
                        prev_version,
                        ..put_request("k", "new")
                    },
                )
                .map(|reply: PutResponse| reply.prev_value),
            "Insert" => map
                .run(
                    method,
                    &InsertRequest {
                        key,
                        value,
                        ..InsertRequest::default()
                    },
                )
                .map(|_: InsertResponse| None),
            "Update" => map
                .run(
                    method,
                    &UpdateRequest {
                        key,
                        value,
                        prev_version,
                        ..UpdateRequest::default()
                    },
                )
                .map(|reply: UpdateResponse| reply.prev_value),
            _ => map
                .run(method, &remove("k", prev_version))
                .map(|reply: RemoveResponse| reply.value),
        };
        assert_eq!(previous.clone().map(|_| ()), outcome, "{case}");
        let events = map.events::<Event>();
        let Ok(previous) = previous else {
            assert_eq!(get(&map, "k"), before, "{case}");
            assert_eq!(events, vec![], "{case}");
            continue;
        };
        assert_eq!(previous, before.clone().ok(), "{case}");
        let now = get(&map, "k");
        let expected = match (before.ok(), now.clone().ok()) {
            (None, value) => event::Event::Inserted(event::Inserted { value }),
            (prev_value, Some(value)) => event::Event::Updated(event::Updated {
                value: Some(value),
                prev_value,
            }),
            (value, None) => event::Event::Removed(event::Removed {
                value,
                expired: false,
            }),
        };
        assert_eq!(events.len(), 1, "{case}");
        assert_eq!(events[0].key, "k");
        assert_eq!(events[0].event, Some(expected), "{case}");
        if let Ok(now) = now {
            assert_eq!(now.value, "new", "{case}");
            assert!(now.version > previous.map_or(0, |previous| previous.version));
        } else {
            assert!(!map.exists(), "{case}: an empty map exists");
        }
    }
}

/// Defect of the original: map Put with prev_version on a missing key crashed every replica.
#[test]
fn put_with_a_previous_version_on_a_missing_key_is_a_conflict() {
    let mut map = fixture();
    let request = PutRequest {
        prev_version: 3,
        ..put_request("k", "v")
    };
    let reply = map.run::<PutResponse>("Put", &request);
    assert_eq!(reply, Err(ErrorCode::Aborted));
    assert!(!map.exists());
}

#[test]
fn versions_grow_also_when_a_key_comes_back() {
    let mut map = fixture();
    let first = put(&mut map, "k", "v").version;
    let again = put(&mut map, "k", "v");
    assert_eq!(again.prev_value.unwrap().version, first);
    assert!(again.version > first, "an equal value renews the version");
    map.run::<RemoveResponse>("Remove", &remove("k", again.version))
        .unwrap();
    map.restore();
    assert!(put(&mut map, "k", "v").version > again.version);
}

#[test]
fn a_time_to_live_ends_once_and_a_put_renews_or_takes_it() {
    let mut map = fixture();
    let short = |key: &str| PutRequest {
        ttl: Some(seconds(10)),
        ..put_request(key, "v")
    };
    for key in ["gone", "renewed", "kept"] {
        map.run::<PutResponse>("Put", &short(key)).unwrap();
    }
    map.tick(Duration::from_secs(6));
    map.run::<PutResponse>("Put", &short("renewed")).unwrap();
    put(&mut map, "kept", "v");
    map.events::<Event>();
    map.tick(Duration::from_secs(4));
    assert_eq!(get(&map, "gone"), Err(ErrorCode::NotFound));
    assert_eq!(get(&map, "renewed").unwrap().value, "v");
    let [gone] = &map.events::<Event>()[..] else {
        panic!("not one event");
    };
    assert!(matches!(
        &gone.event,
        Some(event::Event::Removed(event::Removed { expired: true, .. }))
    ));
    map.tick(Duration::from_secs(6));
    assert_eq!(get(&map, "renewed"), Err(ErrorCode::NotFound));
    assert_eq!(get(&map, "kept").unwrap().value, "v");
    assert_eq!(map.machine.next_timer(), None);
}

/// Defect of the original: timers restarted from the snapshot's time on one replica only.
#[test]
fn a_time_to_live_goes_on_where_it_was_after_a_snapshot() {
    let mut map = fixture();
    let request = PutRequest {
        ttl: Some(seconds(10)),
        ..put_request("k", "v")
    };
    map.run::<PutResponse>("Put", &request).unwrap();
    map.tick(Duration::from_secs(9));
    map.restore();
    assert!(get(&map, "k").is_ok());
    map.tick(Duration::from_secs(1));
    assert_eq!(get(&map, "k"), Err(ErrorCode::NotFound));
    assert!(!map.exists(), "primitives were never deleted");
}

/// Defect of the original: expired data was read on an idle partition.
#[test]
fn no_command_of_an_entry_sees_what_has_expired_at_its_time() {
    let mut map = fixture();
    let insert = InsertRequest {
        key: "k".to_owned(),
        ttl: Some(seconds(1)),
        ..InsertRequest::default()
    };
    map.run::<InsertResponse>("Insert", &insert).unwrap();
    let due = map.machine.next_timer().unwrap();
    assert_eq!(due, Duration::from_secs(1));
    map.tick(due);
    map.run::<InsertResponse>("Insert", &insert).unwrap();
}

#[test]
fn clear_removes_everything_in_the_order_of_the_keys() {
    let mut map = fixture();
    for key in ["c", "a", "b"] {
        put(&mut map, key, "v");
    }
    let expiring = PutRequest {
        ttl: Some(seconds(1)),
        ..put_request("d", "v")
    };
    map.run::<PutResponse>("Put", &expiring).unwrap();
    assert_eq!(size(&map), 4);
    map.events::<Event>();
    map.run::<ClearResponse>("Clear", &ClearRequest { id: None })
        .unwrap();
    let events = map.events::<Event>();
    let keys: Vec<_> = events.iter().map(|event| event.key.as_str()).collect();
    assert_eq!(keys, ["a", "b", "c", "d"]);
    assert_eq!(size(&map), 0);
    assert_eq!(map.machine.next_timer(), None);
    assert!(!map.exists());
    assert_eq!(map.machine.usage().primitives, 0);
}

/// Defect of the original: hash-map iteration order reached replies and snapshots.
#[test]
fn pages_have_every_entry_once_in_the_order_of_the_keys() {
    let mut map = fixture();
    assert_eq!(map.all::<Entry>("Page"), vec![]);
    for key in ["b", "", "a", "\u{fc}", "aa"] {
        put(&mut map, key, "0123456789");
    }
    for max_bytes in [0, 1, 30, 40, u32::MAX] {
        let pages = map.pages::<Entry>("Page", max_bytes);
        assert!(pages.iter().all(|page| !page.is_empty()));
        if max_bytes == 1 {
            assert_eq!(pages.len(), 5);
        }
        let entries: Vec<_> = pages.into_iter().flatten().collect();
        let keys: Vec<_> = entries.iter().map(|entry| entry.key.as_str()).collect();
        assert_eq!(keys, ["", "a", "aa", "b", "\u{fc}"]);
        for entry in entries {
            assert_eq!(entry.value, get(&map, &entry.key).ok());
        }
    }
}

#[test]
fn a_page_says_which_events_it_has() {
    let mut map = fixture();
    put(&mut map, "k", "v");
    let request = PageRequest::default();
    let ask = |map: &Fixture| {
        map.ask::<atomix_proto::multiraft::v1::Page>("Page", &request)
            .unwrap()
            .operation
    };
    let before = ask(&map);
    put(&mut map, "k", "w");
    let applied = map.applied.last().unwrap();
    let changed = applied.events[0].position.operation;
    assert!(before < changed && changed <= ask(&map));
}

#[test]
fn whoever_meets_a_key_with_an_intent_waits_for_it() {
    let mut map = fixture();
    for key in ["a", "b", "z"] {
        put(&mut map, key, "v");
    }
    map.place_intent("m");
    let key = "m".to_owned();
    let get_m = GetRequest { id: None, key };
    assert_eq!(map.waits_for("Get", &get_m), Some("m".into()));
    let all = SizeRequest { id: None };
    assert_eq!(map.waits_for("Size", &all), Some("m".into()));
    // A page waits only if the key is, or would be, on it.
    let page = |after: Option<&'static str>, max_bytes| PageRequest {
        after: after.map(Into::into),
        max_bytes,
    };
    for (request, waits) in [
        (page(None, 0), true),
        (page(None, 1), false),
        (page(Some("a"), 1), false),
        (page(Some("b"), 1), true),
        (page(Some("m"), 0), false),
        (page(Some("z"), 0), false),
    ] {
        let waited = map.waits_for("Page", &request);
        assert_eq!(waited.is_some(), waits, "{request:?}");
    }
    let waiting = [
        map.start(1, "Put", &put_request("m", "v")),
        map.start(1, "Remove", &remove("m", 0)),
        map.start(1, "Clear", &ClearRequest { id: None }),
        map.start(1, "Commit", &commit::of(vec![commit::put("m", "v")])),
    ];
    for (_, outcome) in waiting {
        assert_eq!(outcome, Outcome::Pending);
    }
    assert_eq!(get(&map, "a").unwrap().value, "v");
    put(&mut map, "other", "v");
    // Locks are advisory: they do not care.
    let lock = LockRequest {
        keys: vec!["m".to_owned()],
        ..LockRequest::default()
    };
    map.run::<LockResponse>("Lock", &lock).unwrap();
}

#[test]
fn bad_requests_are_refused_before_the_proposal_naming_the_field() {
    let map = fixture();
    let negative = Some(seconds(-1));
    let put = PutRequest {
        ttl: negative,
        ..put_request("k", "v")
    };
    let lock = LockRequest {
        keys: vec!["k".to_owned()],
        timeout: negative,
        id: None,
    };
    for (refused, field) in [
        (map.refused("Put", &put), "ttl: "),
        (map.refused("Lock", &lock), "timeout: "),
        (map.refused("Lock", &LockRequest::default()), "keys: "),
        (map.refused("Unlock", &UnlockRequest::default()), "keys: "),
        (
            map.refused("Commit", &commit::of(vec![commit::put("k", "v"), None])),
            "operations[1]: ",
        ),
    ] {
        assert_eq!(refused.0, ErrorCode::InvalidArgument, "{field}");
        assert!(refused.1.starts_with(field), "{}", refused.1);
    }
    let created = map.refused("Create", &CreateRequest::default());
    assert_eq!(created.0, ErrorCode::Unimplemented);
}
