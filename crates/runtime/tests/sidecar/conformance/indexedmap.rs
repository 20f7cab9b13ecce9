use atomix_proto::runtime::indexedmap::v1::indexed_map_client::IndexedMapClient;
use atomix_proto::runtime::indexedmap::v1::{
    AppendRequest, ClearRequest, EntriesRequest, Entry, EventsRequest, FirstEntryRequest,
    GetRequest, LastEntryRequest, NextEntryRequest, PrevEntryRequest, RemoveRequest, SizeRequest,
    UpdateRequest, event,
};
use tonic::Code;

use super::{Suite, assert_invalid, code, millis, negative, next, rest};
use crate::harness::id;

const NAME: &str = "journal";

pub async fn run(suite: &Suite<'_>) {
    let mut client = IndexedMapClient::new(suite.sidecar.application().await);
    let append = |key: &str, ttl| AppendRequest {
        id: id(NAME),
        key: key.into(),
        value: "v".into(),
        ttl,
    };
    let get = |key: &str, index| GetRequest {
        id: id(NAME),
        key: key.into(),
        index,
    };
    let events = EventsRequest {
        id: id(NAME),
        key: String::new(),
    };
    let mut events = client.events(events).await.unwrap().into_inner();
    assert_eq!(next(&mut events).await.event.unwrap().event, None);
    assert_eq!(
        code(client.first_entry(FirstEntryRequest { id: id(NAME) }).await),
        Code::NotFound
    );
    assert_invalid(client.append(append("", None)).await, "key");
    assert_invalid(client.append(append("a", negative())).await, "ttl");
    assert_invalid(client.get(get("", 0)).await, "key");
    let mut entries: Vec<Entry> = Vec::new();
    for key in ["c", "a", "b"] {
        let appended = client.append(append(key, None)).await.unwrap();
        entries.push(appended.into_inner().entry.unwrap());
    }
    assert!(entries.is_sorted_by(|one, other| one.index < other.index));
    assert_eq!(
        code(client.append(append("a", None)).await),
        Code::AlreadyExists
    );
    let [c, a, b] = [&entries[0], &entries[1], &entries[2]];
    for asked in [get("a", 0), get("", a.index), get("a", a.index)] {
        let found = client.get(asked).await.unwrap().into_inner().entry.unwrap();
        assert_eq!(found, *a);
    }
    assert_eq!(code(client.get(get("d", 0)).await), Code::NotFound);
    let first = client
        .first_entry(FirstEntryRequest { id: id(NAME) })
        .await
        .unwrap();
    assert_eq!(first.into_inner().entry.as_ref(), Some(c));
    let last = client
        .last_entry(LastEntryRequest { id: id(NAME) })
        .await
        .unwrap();
    assert_eq!(last.into_inner().entry.as_ref(), Some(b));
    let index = a.index;
    let after = client
        .next_entry(NextEntryRequest {
            id: id(NAME),
            index,
        })
        .await
        .unwrap();
    assert_eq!(after.into_inner().entry.as_ref(), Some(b));
    let before = client
        .prev_entry(PrevEntryRequest {
            id: id(NAME),
            index,
        })
        .await
        .unwrap();
    assert_eq!(before.into_inner().entry.as_ref(), Some(c));

    // IndexedMap Entries(watch) ended at once.
    let list = |watch| EntriesRequest {
        id: id(NAME),
        watch,
    };
    let mut watch = client.entries(list(true)).await.unwrap().into_inner();
    for expected in &entries {
        assert_eq!(next(&mut watch).await.entry.as_ref(), Some(expected));
    }
    let version = a.value.as_ref().unwrap().version;
    let update = |prev_version| UpdateRequest {
        id: id(NAME),
        key: "a".into(),
        index: 0,
        value: "w".into(),
        ttl: None,
        prev_version,
    };
    assert_eq!(
        code(client.update(update(version + 1_000)).await),
        Code::Aborted
    );
    let updated = client
        .update(update(version))
        .await
        .unwrap()
        .into_inner()
        .entry
        .unwrap();
    assert_eq!(
        (updated.index, &*updated.value.clone().unwrap().value),
        (a.index, &b"w"[..])
    );
    assert_eq!(next(&mut watch).await.entry, Some(updated));
    let remove = |index, prev_version| RemoveRequest {
        id: id(NAME),
        key: String::new(),
        index,
        prev_version,
    };
    assert_eq!(
        code(client.remove(remove(a.index, version)).await),
        Code::Aborted
    );
    client.remove(remove(a.index, 0)).await.unwrap();
    let removed = next(&mut watch).await;
    assert!(removed.removed && removed.entry.unwrap().key == "a");
    client.append(append("brief", millis(200))).await.unwrap();
    assert!(!next(&mut watch).await.removed);
    assert!(next(&mut watch).await.removed);
    let mut seen = Vec::new();
    for _ in 0..7 {
        let event = next(&mut events).await.event.unwrap();
        assert!(event.index > 0 && !event.key.is_empty());
        seen.push(match event.event.unwrap() {
            event::Event::Inserted(_) => "inserted",
            event::Event::Updated(updated) => {
                // The updated event came without the previous value.
                assert_eq!(updated.prev_value.unwrap().version, version);
                "updated"
            }
            event::Event::Removed(removed) if removed.expired => "expired",
            event::Event::Removed(_) => "removed",
        });
    }
    let expected = [
        "inserted", "inserted", "inserted", "updated", "removed", "inserted", "expired",
    ];
    assert_eq!(seen, expected);
    let listed = rest(client.entries(list(false)).await.unwrap().into_inner()).await;
    let listed: Vec<Entry> = listed.into_iter().map(|one| one.entry.unwrap()).collect();
    assert_eq!(listed, [c.clone(), b.clone()]);
    client.clear(ClearRequest { id: id(NAME) }).await.unwrap();
    let size = client.size(SizeRequest { id: id(NAME) }).await.unwrap();
    assert_eq!(size.into_inner().size, 0);
}
