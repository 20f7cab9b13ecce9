use std::collections::BTreeSet;

use atomix_proto::runtime::map::v1::commit_request::{self, operation};
use atomix_proto::runtime::map::v1::map_client::MapClient;
use atomix_proto::runtime::map::v1::{
    ClearRequest, CommitRequest, EntriesRequest, EventsRequest, GetRequest, InsertRequest,
    LockRequest, PutRequest, RemoveRequest, SizeRequest, UnlockRequest, UpdateRequest,
    commit_response, event,
};
use tonic::Code;

use super::{Suite, assert_invalid, code, millis, negative, next, rest};
use crate::harness::{id, until};

const NAME: &str = "table";

fn put(key: &str, value: &'static str, prev_version: u64) -> PutRequest {
    PutRequest {
        id: id(NAME),
        key: key.into(),
        value: value.into(),
        ttl: None,
        prev_version,
    }
}

fn get(key: &str) -> GetRequest {
    GetRequest {
        id: id(NAME),
        key: key.into(),
    }
}

fn remove(key: &str, prev_version: u64) -> RemoveRequest {
    RemoveRequest {
        id: id(NAME),
        key: key.into(),
        prev_version,
    }
}

fn events(key: &str) -> EventsRequest {
    EventsRequest {
        id: id(NAME),
        key: key.into(),
    }
}

pub async fn run(suite: &Suite<'_>) {
    let mut client = MapClient::new(suite.sidecar.application().await);
    let size = || SizeRequest { id: id(NAME) };
    let mut all = client.events(events("")).await.unwrap().into_inner();
    let mut of_key = client.events(events("a")).await.unwrap().into_inner();
    for stream in [&mut all, &mut of_key] {
        assert_eq!(next(stream).await.event.unwrap().event, None);
    }

    // Map Put with prev_version on a missing key crashed every replica.
    assert_eq!(code(client.put(put("a", "x", 7)).await), Code::Aborted);
    assert_eq!(code(client.get(get("a")).await), Code::NotFound);
    let first = client.put(put("a", "one", 0)).await.unwrap().into_inner();
    assert_eq!(first.prev_value, None);
    let second = client
        .put(put("a", "two", first.version))
        .await
        .unwrap()
        .into_inner();
    assert!(second.version > first.version);
    assert_eq!(second.prev_value.unwrap().version, first.version);
    assert_eq!(
        code(client.put(put("a", "three", first.version)).await),
        Code::Aborted
    );
    let insert = InsertRequest {
        id: id(NAME),
        key: "a".into(),
        ..InsertRequest::default()
    };
    assert_eq!(
        code(client.insert(insert.clone()).await),
        Code::AlreadyExists
    );
    let update = |key: &str, prev_version| UpdateRequest {
        id: id(NAME),
        key: key.into(),
        value: "updated".into(),
        ttl: None,
        prev_version,
    };
    assert_eq!(code(client.update(update("b", 0)).await), Code::NotFound);
    assert_eq!(
        code(client.update(update("a", first.version)).await),
        Code::Aborted
    );
    let present = client
        .get(get("a"))
        .await
        .unwrap()
        .into_inner()
        .value
        .unwrap();
    assert_eq!(
        (&*present.value, present.version),
        (&b"two"[..], second.version)
    );
    assert_eq!(code(client.remove(remove("b", 0)).await), Code::NotFound);
    assert_eq!(
        code(client.remove(remove("a", first.version)).await),
        Code::Aborted
    );
    client.remove(remove("a", second.version)).await.unwrap();
    let with_ttl = |ttl| InsertRequest {
        value: "brief".into(),
        ttl,
        ..insert.clone()
    };
    assert_invalid(client.insert(with_ttl(negative())).await, "ttl");
    client.insert(with_ttl(millis(200))).await.unwrap();
    for stream in [&mut all, &mut of_key] {
        let mut seen = Vec::new();
        for _ in 0..5 {
            let event = next(stream).await.event.unwrap();
            assert_eq!(event.key, "a");
            seen.push(match event.event.unwrap() {
                event::Event::Inserted(_) => "inserted",
                event::Event::Updated(_) => "updated",
                event::Event::Removed(removed) if removed.expired => "expired",
                event::Event::Removed(_) => "removed",
            });
        }
        assert_eq!(
            seen,
            ["inserted", "updated", "removed", "inserted", "expired"]
        );
    }
    assert_eq!(code(client.get(get("a")).await), Code::NotFound);

    let keys: BTreeSet<String> = (0..50).map(|number| format!("key-{number}")).collect();
    for key in &keys {
        client.put(put(key, "v", 0)).await.unwrap();
    }
    assert_eq!(client.size(size()).await.unwrap().into_inner().size, 50);
    let entries = |watch| EntriesRequest {
        id: id(NAME),
        watch,
    };
    let listed = rest(client.entries(entries(false)).await.unwrap().into_inner()).await;
    let listed: Vec<String> = listed
        .into_iter()
        .map(|one| one.entry.unwrap().key)
        .collect();
    assert_eq!(listed.len(), 50);
    assert_eq!(listed.into_iter().collect::<BTreeSet<_>>(), keys);
    let mut watch = client.entries(entries(true)).await.unwrap().into_inner();
    for _ in 0..50 {
        assert!(!next(&mut watch).await.removed);
    }
    client.put(put("key-7", "new", 0)).await.unwrap();
    let changed = next(&mut watch).await;
    let entry = changed.entry.unwrap();
    assert_eq!(
        (&*entry.key, &*entry.value.unwrap().value),
        ("key-7", &b"new"[..])
    );
    // Removals could not be told in Set and Map watches.
    client.remove(remove("key-7", 0)).await.unwrap();
    let removed = next(&mut watch).await;
    assert!(removed.removed && removed.entry.unwrap().value.is_some());
    client.clear(ClearRequest { id: id(NAME) }).await.unwrap();
    assert_eq!(client.size(size()).await.unwrap().into_inner().size, 0);
    commit(suite, client).await;
}

async fn commit(suite: &Suite<'_>, mut client: MapClient<tonic::transport::Channel>) {
    let put = |key: &str, prev_version| commit_request::Operation {
        operation: Some(operation::Operation::Put(commit_request::Put {
            key: key.into(),
            value: "committed".into(),
            ttl: None,
            prev_version,
        })),
    };
    let commit = |operations| CommitRequest {
        id: id(NAME),
        operations,
    };
    let twice = client
        .commit(commit(vec![put("a", 0), put("a", 0)]))
        .await
        .unwrap();
    let versions: Vec<u64> = twice
        .into_inner()
        .results
        .into_iter()
        .map(|result| match result.result.unwrap() {
            commit_response::result::Result::Put(put) => put.version,
            other => panic!("{other:?}"),
        })
        .collect();
    assert!(versions.is_sorted() && versions.len() == 2 && versions[0] < versions[1]);
    let refused = client
        .commit(commit(vec![put("a", 0), put("a", versions[0])]))
        .await;
    assert_eq!(code(refused), Code::Aborted);
    let present = client
        .get(get("a"))
        .await
        .unwrap()
        .into_inner()
        .value
        .unwrap();
    assert_eq!(present.version, versions[1]);
    let empty = commit_request::Operation::default();
    assert_invalid(
        client.commit(commit(vec![put("a", 0), empty])).await,
        "operations[1]",
    );

    let many = (0..50)
        .map(|number| put(&format!("many-{number}"), 0))
        .collect();
    let answer = client.commit(commit(many)).await;
    if suite.partitions == 1 {
        assert_eq!(answer.unwrap().into_inner().results.len(), 50);
    } else {
        let status = answer.unwrap_err();
        assert_eq!(status.code(), Code::Unimplemented);
        assert!(status.message().contains("several partitions"), "{status}");
        assert_eq!(code(client.get(get("many-1")).await), Code::NotFound);
    }
}

/// Locks of keys of two connections.
pub async fn locks(suite: &Suite<'_>) {
    let mut ann = MapClient::new(suite.sidecar.application().await);
    let mut bob = MapClient::new(suite.sidecar.application().await);
    let lock = |keys: &[String], timeout| LockRequest {
        id: id("locked"),
        keys: keys.to_vec(),
        timeout,
    };
    let unlock = |keys: &[String]| UnlockRequest {
        id: id("locked"),
        keys: keys.to_vec(),
    };
    assert_invalid(ann.lock(lock(&[], None)).await, "keys");
    let keys: Vec<String> = (0..20).map(|number| format!("key-{number}")).collect();
    assert_invalid(ann.lock(lock(&keys, negative())).await, "timeout");
    let (anns, others) = keys.split_at(1);
    ann.lock(lock(anns, millis(0))).await.unwrap();
    // Two clients in one pod counted as one lock owner.
    assert_eq!(code(bob.lock(lock(anns, millis(0))).await), Code::Aborted);
    assert_eq!(code(bob.unlock(unlock(anns)).await), Code::Aborted);
    // All or none: what was taken before the one that is not free is given back.
    assert_eq!(
        code(bob.lock(lock(&keys, millis(100))).await),
        Code::Aborted
    );
    until("the other keys to be free", || {
        let mut ann = ann.clone();
        async move { ann.lock(lock(others, millis(0))).await.is_ok() }
    })
    .await;
    let waiting = {
        let mut bob = bob.clone();
        let request = lock(&keys, None);
        tokio::spawn(async move { bob.lock(request).await })
    };
    ann.unlock(unlock(&keys)).await.unwrap();
    waiting.await.unwrap().unwrap();
    assert_eq!(
        code(ann.lock(lock(&keys[3..4], millis(0))).await),
        Code::Aborted
    );
    // The locks go with the connection that owns them.
    drop(bob);
    until("the locks of a closed connection", || {
        let mut ann = ann.clone();
        let keys = keys.clone();
        async move { ann.lock(lock(&keys, millis(0))).await.is_ok() }
    })
    .await;
}
