use atomix_proto::runtime::multimap::v1::multi_map_client::MultiMapClient;
use atomix_proto::runtime::multimap::v1::{
    ClearRequest, ContainsRequest, EntriesRequest, Entry, EventsRequest, GetRequest, PutAllRequest,
    PutEntriesRequest, PutRequest, RemoveAllRequest, RemoveEntriesRequest, RemoveRequest,
    ReplaceRequest, SizeRequest, event,
};
use tonic::Code;

use super::{Suite, code, next, rest};
use crate::harness::id;

const NAME: &str = "tags";

fn texts(values: &[&str]) -> Vec<String> {
    values.iter().map(ToString::to_string).collect()
}

pub async fn run(suite: &Suite<'_>) {
    let mut client = MultiMapClient::new(suite.sidecar.application().await);
    let put = |key: &str, value: &str| PutRequest {
        id: id(NAME),
        key: key.into(),
        value: value.into(),
    };
    let get = |key: &str| GetRequest {
        id: id(NAME),
        key: key.into(),
    };
    let size = || SizeRequest { id: id(NAME) };
    let events = EventsRequest {
        id: id(NAME),
        key: "a".into(),
    };
    let mut events = client.events(events).await.unwrap().into_inner();
    assert_eq!(next(&mut events).await.event.unwrap().event, None);
    client.put(put("a", "1")).await.unwrap();
    assert_eq!(code(client.put(put("a", "1")).await), Code::AlreadyExists);
    let put_all = |values: &[&str]| PutAllRequest {
        id: id(NAME),
        key: "a".into(),
        values: texts(values),
    };
    assert!(
        client
            .put_all(put_all(&["1", "2"]))
            .await
            .unwrap()
            .into_inner()
            .updated
    );
    assert!(
        !client
            .put_all(put_all(&["1", "2"]))
            .await
            .unwrap()
            .into_inner()
            .updated
    );
    let contains = ContainsRequest {
        id: id(NAME),
        key: "a".into(),
        value: "2".into(),
    };
    assert!(client.contains(contains).await.unwrap().into_inner().result);
    assert_eq!(
        client.get(get("a")).await.unwrap().into_inner().values,
        ["1", "2"]
    );
    let remove = |value: &str| RemoveRequest {
        id: id(NAME),
        key: "a".into(),
        value: value.into(),
    };
    assert_eq!(code(client.remove(remove("9")).await), Code::NotFound);
    client.remove(remove("1")).await.unwrap();
    // A Replace with nothing left an empty key.
    let replace = |values: &[&str]| ReplaceRequest {
        id: id(NAME),
        key: "a".into(),
        values: texts(values),
    };
    let replaced = client
        .replace(replace(&["3", "4"]))
        .await
        .unwrap()
        .into_inner();
    assert_eq!(replaced.prev_values, ["2"]);
    client.replace(replace(&[])).await.unwrap();
    assert_eq!(client.size(size()).await.unwrap().into_inner().size, 0);
    let mut seen = Vec::new();
    for _ in 0..8 {
        seen.push(
            match next(&mut events).await.event.unwrap().event.unwrap() {
                event::Event::Added(added) => format!("+{}", added.value),
                event::Event::Removed(removed) => format!("-{}", removed.value),
            },
        );
    }
    assert_eq!(seen, ["+1", "+2", "-1", "-2", "+3", "+4", "-3", "-4"]);

    let entries = || -> Vec<Entry> {
        let entry = |number| Entry {
            key: format!("key-{number}"),
            values: texts(&["x", "y"]),
        };
        (0..20).map(entry).collect()
    };
    let put_entries = || PutEntriesRequest {
        id: id(NAME),
        entries: entries(),
    };
    assert!(
        client
            .put_entries(put_entries())
            .await
            .unwrap()
            .into_inner()
            .updated
    );
    assert!(
        !client
            .put_entries(put_entries())
            .await
            .unwrap()
            .into_inner()
            .updated
    );
    assert_eq!(client.size(size()).await.unwrap().into_inner().size, 20);
    let list = |watch| EntriesRequest {
        id: id(NAME),
        watch,
    };
    let listed = rest(client.entries(list(false)).await.unwrap().into_inner()).await;
    let mut listed: Vec<Entry> = listed.into_iter().map(|one| one.entry.unwrap()).collect();
    let mut expected = entries();
    listed.sort_by(|one, other| one.key.cmp(&other.key));
    expected.sort_by(|one, other| one.key.cmp(&other.key));
    assert_eq!(listed, expected);
    let mut watch = client.entries(list(true)).await.unwrap().into_inner();
    for _ in 0..20 {
        next(&mut watch).await;
    }
    let remove_all = RemoveAllRequest {
        id: id(NAME),
        key: "key-4".into(),
        values: texts(&["y"]),
    };
    assert!(
        client
            .remove_all(remove_all)
            .await
            .unwrap()
            .into_inner()
            .updated
    );
    let removed = next(&mut watch).await;
    let entry = removed.entry.unwrap();
    assert!(removed.removed);
    assert_eq!((&*entry.key, entry.values), ("key-4", texts(&["y"])));
    let remove_entries = || RemoveEntriesRequest {
        id: id(NAME),
        entries: entries().split_off(1),
    };
    assert!(
        client
            .remove_entries(remove_entries())
            .await
            .unwrap()
            .into_inner()
            .updated
    );
    assert!(
        !client
            .remove_entries(remove_entries())
            .await
            .unwrap()
            .into_inner()
            .updated
    );
    assert_eq!(client.size(size()).await.unwrap().into_inner().size, 1);
    client.clear(ClearRequest { id: id(NAME) }).await.unwrap();
    assert_eq!(client.size(size()).await.unwrap().into_inner().size, 0);
}
