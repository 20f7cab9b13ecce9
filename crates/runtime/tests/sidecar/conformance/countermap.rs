use atomix_proto::runtime::countermap::v1::counter_map_client::CounterMapClient;
use atomix_proto::runtime::countermap::v1::{
    ClearRequest, DecrementRequest, EntriesRequest, EventsRequest, GetRequest, IncrementRequest,
    InsertRequest, LockRequest, RemoveRequest, SetRequest, SizeRequest, UnlockRequest,
    UpdateRequest, event,
};
use tonic::Code;

use super::{Suite, code, millis, next, rest};
use crate::harness::id;

const NAME: &str = "tallies";

pub async fn run(suite: &Suite<'_>) {
    let mut client = CounterMapClient::new(suite.sidecar.application().await);
    let key = |key: &str| GetRequest {
        id: id(NAME),
        key: key.into(),
    };
    let increment = |key: &str, delta| IncrementRequest {
        id: id(NAME),
        key: key.into(),
        delta,
    };
    let events = EventsRequest {
        id: id(NAME),
        key: "a".into(),
    };
    let mut events = client.events(events).await.unwrap().into_inner();
    assert_eq!(next(&mut events).await.event.unwrap().event, None);
    assert_eq!(code(client.get(key("a")).await), Code::NotFound);
    let previous = |answer: tonic::Response<_>| {
        let answer: atomix_proto::runtime::countermap::v1::IncrementResponse = answer.into_inner();
        answer.prev_value
    };
    assert_eq!(
        previous(client.increment(increment("a", 5)).await.unwrap()),
        0
    );
    assert_eq!(
        previous(client.increment(increment("a", 2)).await.unwrap()),
        5
    );
    let decrement = DecrementRequest {
        id: id(NAME),
        key: "a".into(),
        delta: 10,
    };
    assert_eq!(
        client
            .decrement(decrement)
            .await
            .unwrap()
            .into_inner()
            .prev_value,
        7
    );
    assert_eq!(client.get(key("a")).await.unwrap().into_inner().value, -3);
    assert_eq!(
        code(client.increment(increment("a", i64::MIN)).await),
        Code::OutOfRange
    );
    let update = |prev_value| UpdateRequest {
        id: id(NAME),
        key: "a".into(),
        value: 0,
        prev_value,
    };
    assert_eq!(code(client.update(update(0)).await), Code::Aborted);
    assert_eq!(
        client
            .update(update(-3))
            .await
            .unwrap()
            .into_inner()
            .prev_value,
        -3
    );
    let insert = InsertRequest {
        id: id(NAME),
        key: "a".into(),
        value: 1,
    };
    assert_eq!(code(client.insert(insert).await), Code::AlreadyExists);
    let remove = |prev_value| RemoveRequest {
        id: id(NAME),
        key: "a".into(),
        prev_value,
    };
    assert_eq!(code(client.remove(remove(1)).await), Code::Aborted);
    client.remove(remove(0)).await.unwrap();
    let mut seen = Vec::new();
    for _ in 0..5 {
        seen.push(
            match next(&mut events).await.event.unwrap().event.unwrap() {
                event::Event::Inserted(inserted) => ("inserted", inserted.value),
                event::Event::Updated(updated) => ("updated", updated.value),
                event::Event::Removed(removed) => ("removed", removed.value),
            },
        );
    }
    let expected = [
        ("inserted", 5),
        ("updated", 7),
        ("updated", -3),
        ("updated", 0),
        ("removed", 0),
    ];
    assert_eq!(seen, expected);

    for number in 0..30 {
        let set = SetRequest {
            id: id(NAME),
            key: format!("key-{number}"),
            value: number,
        };
        client.set(set).await.unwrap();
    }
    let size = || SizeRequest { id: id(NAME) };
    assert_eq!(client.size(size()).await.unwrap().into_inner().size, 30);
    let entries = |watch| EntriesRequest {
        id: id(NAME),
        watch,
    };
    let listed = rest(client.entries(entries(false)).await.unwrap().into_inner()).await;
    let sum: i64 = listed
        .iter()
        .map(|one| one.entry.as_ref().unwrap().value)
        .sum();
    assert_eq!((listed.len(), sum), (30, (0..30).sum()));
    let mut watch = client.entries(entries(true)).await.unwrap().into_inner();
    for _ in 0..30 {
        next(&mut watch).await;
    }
    client.clear(ClearRequest { id: id(NAME) }).await.unwrap();
    for _ in 0..30 {
        assert!(next(&mut watch).await.removed);
    }
    assert_eq!(client.size(size()).await.unwrap().into_inner().size, 0);

    let mut other = CounterMapClient::new(suite.sidecar.application().await);
    let keys = || vec!["x".to_owned(), "y".to_owned(), "z".to_owned()];
    let lock = || LockRequest {
        id: id(NAME),
        keys: keys(),
        timeout: millis(0),
    };
    client.lock(lock()).await.unwrap();
    assert_eq!(code(other.lock(lock()).await), Code::Aborted);
    let unlock = UnlockRequest {
        id: id(NAME),
        keys: keys(),
    };
    client.unlock(unlock).await.unwrap();
    other.lock(lock()).await.unwrap();
}
