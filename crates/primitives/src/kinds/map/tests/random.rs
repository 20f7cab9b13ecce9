//! Random operations on several replicas.

use atomix_proto::runtime::map::v1::*;
use proptest::prelude::*;
use proptest::sample::select;
use prost::Message;

use super::{commit, remove};
use crate::kinds::keyed::testing::{edits, forged_snapshots_never_panic, replicas_agree, steps};

fn requests() -> impl Strategy<Value = (&'static str, Vec<u8>)> {
    let key = || select(vec!["", "a", "b", "c"]).prop_map(str::to_owned);
    let keys = || proptest::collection::vec(key(), 0..4);
    let value = || proptest::collection::vec(any::<u8>(), 0..5).prop_map(bytes::Bytes::from);
    let ttl = || {
        let seconds = prop_oneof![0_i64..4, Just(i64::MAX), Just(-1)];
        let duration = (seconds, 0_i32..1_000_000_000)
            .prop_map(|(seconds, nanos)| prost_types::Duration { seconds, nanos });
        proptest::option::of(duration)
    };
    let version = || prop_oneof![2 => Just(0_u64), 1 => 0_u64..80];
    let put =
        (key(), value(), ttl(), version()).prop_map(|(key, value, ttl, prev_version)| PutRequest {
            id: None,
            key,
            value,
            ttl,
            prev_version,
        });
    let update = (key(), value(), ttl(), version()).prop_map(|(key, value, ttl, prev_version)| {
        UpdateRequest {
            id: None,
            key,
            value,
            ttl,
            prev_version,
        }
    });
    let insert = (key(), value(), ttl()).prop_map(|(key, value, ttl)| InsertRequest {
        id: None,
        key,
        value,
        ttl,
    });
    let lock = (keys(), ttl()).prop_map(|(keys, timeout)| LockRequest {
        id: None,
        keys,
        timeout,
    });
    prop_oneof![
        4 => put.prop_map(|put| ("Put", put.encode_to_vec())),
        2 => update.prop_map(|update| ("Update", update.encode_to_vec())),
        2 => insert.prop_map(|insert| ("Insert", insert.encode_to_vec())),
        2 => (key(), version()).prop_map(|(key, version)| {
            ("Remove", remove(&key, version).encode_to_vec())
        }),
        1 => key().prop_map(|key| ("Get", GetRequest { id: None, key }.encode_to_vec())),
        1 => Just(("Clear", Vec::new())),
        1 => Just(("Size", Vec::new())),
        1 => Just(("Page", Vec::new())),
        4 => lock.prop_map(|lock| ("Lock", lock.encode_to_vec())),
        3 => keys().prop_map(|keys| ("Unlock", UnlockRequest { id: None, keys }.encode_to_vec())),
        2 => commit::random(key(), value(), ttl(), version())
            .prop_map(|commit| ("Commit", commit.encode_to_vec())),
    ]
}

proptest! {
    #[test]
    fn replicas_agree_whatever_they_are_asked(steps in steps("map", requests())) {
        replicas_agree(&steps);
    }

    #[test]
    fn a_forged_section_never_panics(steps in steps("map", requests()), edits in edits()) {
        forged_snapshots_never_panic(&steps, &edits)?;
    }
}
