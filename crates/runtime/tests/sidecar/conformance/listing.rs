//! Entries with watch while others write: nothing is lost and nothing told twice, over many pages.

use std::collections::{BTreeMap, BTreeSet};

use atomix_proto::runtime::map::v1::map_client::MapClient;
use atomix_proto::runtime::map::v1::{EntriesRequest, PutRequest, RemoveRequest};
use bytes::Bytes;

use super::{Suite, next};
use crate::harness::id;

const NAME: &str = "busy";
/// So that a partition's share has several pages, of 128 KiB.
const KEYS: usize = 240;
const VALUE: usize = 8 << 10;
const ROUNDS: usize = 3;
const LAST: &str = "last";

fn put(key: String, value: Bytes) -> PutRequest {
    PutRequest {
        id: id(NAME),
        key,
        value,
        ..PutRequest::default()
    }
}

pub async fn run(suite: &Suite<'_>) {
    let client = MapClient::new(suite.sidecar.application().await);
    let value = Bytes::from(vec![7; VALUE]);
    for number in 0..KEYS {
        let put = put(format!("key-{number:04}"), value.clone());
        client.clone().put(put).await.unwrap();
    }
    let list = EntriesRequest {
        id: id(NAME),
        watch: true,
    };
    let reading = client.clone().entries(list).await.unwrap().into_inner();
    let writing = {
        let mut client = client.clone();
        tokio::spawn(async move {
            let mut versions = BTreeMap::new();
            for round in [1_u8, 2, 3] {
                for number in (0..KEYS).rev().step_by(3) {
                    let key = format!("key-{number:04}");
                    let put = put(key.clone(), Bytes::from(vec![round; 64]));
                    let version = client.put(put).await.unwrap().into_inner().version;
                    versions.insert(key, version);
                }
            }
            for number in (0..KEYS).step_by(6) {
                let key = format!("key-{number:04}");
                let remove = RemoveRequest {
                    id: id(NAME),
                    key: key.clone(),
                    prev_version: 0,
                };
                client.remove(remove).await.unwrap();
                versions.insert(key, 0);
            }
            versions
        })
    };
    // Keys of other partitions than the last one's are told of independently: each has an end mark.
    let mut reading = reading;
    let (mut state, mut told) = (BTreeMap::new(), BTreeSet::new());
    let mut changes = 0;
    let expected_changes = KEYS / 3 * ROUNDS + KEYS / 6;
    let written = writing.await.unwrap();
    let last = put(LAST.into(), Bytes::new());
    client.clone().put(last).await.unwrap();
    let is_settled = |state: &BTreeMap<String, u64>| {
        let as_written = |(key, version): (&String, &u64)| match version {
            0 => !state.contains_key(key),
            version => state.get(key) == Some(version),
        };
        state.contains_key(LAST)
            && state.len() == KEYS - KEYS / 6 + 1
            && written.iter().all(as_written)
    };
    while !is_settled(&state) {
        let message = next(&mut reading).await;
        let entry = message.entry.unwrap();
        let version = entry.value.unwrap().version;
        let is_new = told.insert((entry.key.clone(), version, message.removed));
        assert!(is_new, "{} version {version} was told twice", entry.key);
        let before = if message.removed {
            state.remove(&entry.key)
        } else {
            state.insert(entry.key.clone(), version)
        };
        assert!(
            before.is_none_or(|before| before <= version),
            "{} goes back",
            entry.key
        );
        changes += 1;
    }
    assert!(changes >= KEYS, "{changes}");
    assert!(changes <= KEYS + expected_changes + 1, "{changes}");
}
