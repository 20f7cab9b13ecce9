use atomix_proto::runtime::value::v1::value_client::ValueClient;
use atomix_proto::runtime::value::v1::{
    DeleteRequest, EventsRequest, GetRequest, InsertRequest, SetRequest, UpdateRequest,
    WatchRequest, event,
};
use tonic::Code;

use super::{Suite, assert_invalid, code, millis, negative, next};
use crate::harness::id;

pub async fn run(suite: &Suite<'_>) {
    let mut client = ValueClient::new(suite.sidecar.application().await);
    let name = || id("setting");
    let get = || GetRequest { id: name() };
    let set = |value: &'static [u8], ttl| SetRequest {
        id: name(),
        value: value.into(),
        ttl,
    };
    assert_eq!(code(client.get(get()).await), Code::NotFound);
    let mut watch = client
        .watch(WatchRequest { id: name() })
        .await
        .unwrap()
        .into_inner();
    let mut events = client
        .events(EventsRequest { id: name() })
        .await
        .unwrap()
        .into_inner();
    // Existing clients wait for an event of nothing.
    assert_eq!(next(&mut events).await.event.unwrap().event, None);
    let absent = next(&mut watch).await.value.unwrap();
    assert_eq!((absent.value.len(), absent.version), (0, 0));

    let insert = InsertRequest {
        id: name(),
        value: "one".into(),
        ttl: None,
    };
    let first = client
        .insert(insert.clone())
        .await
        .unwrap()
        .into_inner()
        .version;
    assert_eq!(code(client.insert(insert).await), Code::AlreadyExists);
    let update = |value: &'static [u8], prev_version| UpdateRequest {
        id: name(),
        value: value.into(),
        prev_version,
        ttl: None,
    };
    // Value Update with a wrong version answered conflict but changed the value.
    assert_eq!(
        code(client.update(update(b"two", first + 1)).await),
        Code::Aborted
    );
    let present = client.get(get()).await.unwrap().into_inner().value.unwrap();
    assert_eq!((&*present.value, present.version), (&b"one"[..], first));
    let updated = client
        .update(update(b"two", first))
        .await
        .unwrap()
        .into_inner();
    assert!(updated.version > first);
    assert_eq!(&*updated.prev_value.unwrap().value, b"one");
    assert_invalid(client.set(set(b"", negative())).await, "ttl");
    client.set(set(b"short", millis(200))).await.unwrap();

    for expected in [&b"one"[..], b"two", b"short", b""] {
        assert_eq!(&*next(&mut watch).await.value.unwrap().value, expected);
    }
    // A watch that begins sees the present first.
    let mut late = client
        .watch(WatchRequest { id: name() })
        .await
        .unwrap()
        .into_inner();
    assert_eq!(next(&mut late).await.value.unwrap().version, 0);
    assert_eq!(code(client.get(get()).await), Code::NotFound);
    let mut kinds = Vec::new();
    for _ in 0..4 {
        kinds.push(
            match next(&mut events).await.event.unwrap().event.unwrap() {
                event::Event::Created(_) => "created",
                event::Event::Updated(updated) => {
                    assert!(updated.prev_value.is_some());
                    "updated"
                }
                event::Event::Deleted(deleted) if deleted.expired => "expired",
                event::Event::Deleted(_) => "deleted",
            },
        );
    }
    assert_eq!(kinds, ["created", "updated", "updated", "expired"]);

    let version = client
        .set(set(b"last", None))
        .await
        .unwrap()
        .into_inner()
        .version;
    let delete = |prev_version| DeleteRequest {
        id: name(),
        prev_version,
    };
    assert_eq!(
        code(client.delete(delete(version + 1)).await),
        Code::Aborted
    );
    let deleted = client.delete(delete(version)).await.unwrap().into_inner();
    assert_eq!(deleted.value.unwrap().version, version);
    assert_eq!(code(client.delete(delete(0)).await), Code::NotFound);
    assert_eq!(&*next(&mut late).await.value.unwrap().value, b"last");
    assert_eq!(next(&mut late).await.value.unwrap().version, 0);
}
