use atomix_proto::runtime::list::v1::list_client::ListClient;
use atomix_proto::runtime::list::v1::{
    AppendRequest, ClearRequest, EventsRequest, GetRequest, InsertRequest, ItemsRequest,
    RemoveRequest, SetRequest, SizeRequest, Value, event,
};
use tonic::Code;

use super::{Suite, assert_invalid, code, next, rest};
use crate::harness::id;

const NAME: &str = "queue";

fn value(value: &'static str) -> Option<Value> {
    Some(Value {
        value: value.into(),
    })
}

fn told(event: event::Event) -> String {
    let (what, value) = match event {
        event::Event::Appended(appended) => ("appended", appended.value),
        event::Event::Inserted(inserted) => ("inserted", inserted.value),
        event::Event::Updated(updated) => {
            assert!(updated.prev_value.is_some());
            ("updated", updated.value)
        }
        event::Event::Removed(removed) => ("removed", removed.value),
    };
    format!("{what} {}", String::from_utf8_lossy(&value.unwrap().value))
}

pub async fn run(suite: &Suite<'_>) {
    let mut client = ListClient::new(suite.sidecar.application().await);
    let append = |text| AppendRequest {
        id: id(NAME),
        value: value(text),
    };
    let get = |index| GetRequest {
        id: id(NAME),
        index,
    };
    assert_invalid(
        client
            .append(AppendRequest {
                id: id(NAME),
                value: None,
            })
            .await,
        "value",
    );
    client.append(append("a")).await.unwrap();
    client.append(append("c")).await.unwrap();
    let insert = |index, text| InsertRequest {
        id: id(NAME),
        index,
        value: value(text),
    };
    client.insert(insert(1, "b")).await.unwrap();
    for status in [
        client.get(get(3)).await.unwrap_err(),
        client.insert(insert(4, "x")).await.unwrap_err(),
    ] {
        assert_eq!(status.code(), Code::OutOfRange);
        assert!(status.message().contains("index"), "{status}");
    }
    let item = client.get(get(1)).await.unwrap().into_inner().item.unwrap();
    assert_eq!((item.index, item.value), (1, value("b")));

    let events = |replay| EventsRequest {
        id: id(NAME),
        replay,
    };
    let mut from_now = client.events(events(false)).await.unwrap().into_inner();
    let mut replayed = client.events(events(true)).await.unwrap().into_inner();
    let items = |watch| ItemsRequest {
        id: id(NAME),
        watch,
    };
    let mut watch = client.items(items(true)).await.unwrap().into_inner();
    for stream in [&mut from_now, &mut replayed] {
        assert_eq!(next(stream).await.event.unwrap().event, None);
    }
    let set = SetRequest {
        id: id(NAME),
        index: 0,
        value: value("A"),
    };
    client.set(set).await.unwrap();
    let remove = |index| RemoveRequest {
        id: id(NAME),
        index,
    };
    let removed = client
        .remove(remove(1))
        .await
        .unwrap()
        .into_inner()
        .item
        .unwrap();
    assert_eq!(removed.value, value("b"));
    assert_eq!(code(client.remove(remove(2)).await), Code::OutOfRange);
    client.append(append("d")).await.unwrap();
    let later = ["updated A", "removed b", "appended d"];
    let mut seen = Vec::new();
    for _ in 0..6 {
        seen.push(told(
            next(&mut replayed).await.event.unwrap().event.unwrap(),
        ));
    }
    assert_eq!(seen[..3], ["appended a", "appended b", "appended c"]);
    assert_eq!(seen[3..], later);
    for expected in later {
        let event = next(&mut from_now).await.event.unwrap().event.unwrap();
        assert_eq!(told(event), expected);
    }
    let mut seen = Vec::new();
    for _ in 0..6 {
        let told = next(&mut watch).await;
        let item = told.item.unwrap();
        let text = String::from_utf8_lossy(&item.value.unwrap().value).into_owned();
        seen.push((item.index, text, told.removed));
    }
    let expected = [
        (0, "a", false),
        (1, "b", false),
        (2, "c", false),
        (0, "A", false),
        (1, "b", true),
        (2, "d", false),
    ];
    assert_eq!(
        seen,
        expected.map(|(index, text, removed)| (index, text.to_owned(), removed))
    );
    let listed = rest(client.items(items(false)).await.unwrap().into_inner()).await;
    let listed: Vec<_> = listed
        .into_iter()
        .map(|one| one.item.unwrap().value)
        .collect();
    assert_eq!(listed, [value("A"), value("c"), value("d")]);
    client.clear(ClearRequest { id: id(NAME) }).await.unwrap();
    for expected in ["removed d", "removed c", "removed A"] {
        let event = next(&mut from_now).await.event.unwrap().event.unwrap();
        assert_eq!(told(event), expected);
    }
    let size = client.size(SizeRequest { id: id(NAME) }).await.unwrap();
    assert_eq!(size.into_inner().size, 0);
}
