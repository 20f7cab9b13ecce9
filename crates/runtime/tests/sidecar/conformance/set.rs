use std::collections::BTreeSet;

use atomix_proto::runtime::set::v1::set_client::SetClient;
use atomix_proto::runtime::set::v1::{
    AddRequest, ClearRequest, ContainsRequest, Element, ElementsRequest, EventsRequest,
    RemoveRequest, SizeRequest, event,
};
use tonic::Code;

use super::{Suite, assert_invalid, code, millis, negative, next, rest};
use crate::harness::id;

const NAME: &str = "members";

fn element(value: &str) -> Option<Element> {
    Some(Element {
        value: value.into(),
    })
}

pub async fn run(suite: &Suite<'_>) {
    let mut client = SetClient::new(suite.sidecar.application().await);
    let add = |value: &str, ttl| AddRequest {
        id: id(NAME),
        element: element(value),
        ttl,
    };
    let remove = |value: &str| RemoveRequest {
        id: id(NAME),
        element: element(value),
    };
    let contains = |value: &str| ContainsRequest {
        id: id(NAME),
        element: element(value),
    };
    let mut events = client
        .events(EventsRequest { id: id(NAME) })
        .await
        .unwrap()
        .into_inner();
    assert_eq!(next(&mut events).await.event.unwrap().event, None);
    let nameless = AddRequest {
        id: id(NAME),
        ..AddRequest::default()
    };
    assert_invalid(client.add(nameless).await, "element");
    assert_invalid(client.add(add("a", negative())).await, "ttl");
    assert!(client.add(add("a", None)).await.unwrap().into_inner().added);
    assert_eq!(code(client.add(add("a", None)).await), Code::AlreadyExists);
    assert!(
        client
            .contains(contains("a"))
            .await
            .unwrap()
            .into_inner()
            .contains
    );
    assert!(
        !client
            .contains(contains("b"))
            .await
            .unwrap()
            .into_inner()
            .contains
    );
    assert_eq!(code(client.remove(remove("b")).await), Code::NotFound);
    assert!(
        client
            .remove(remove("a"))
            .await
            .unwrap()
            .into_inner()
            .removed
    );
    client.add(add("a", millis(200))).await.unwrap();
    let mut seen = Vec::new();
    for _ in 0..4 {
        seen.push(
            match next(&mut events).await.event.unwrap().event.unwrap() {
                event::Event::Added(_) => "added",
                event::Event::Removed(removed) if removed.expired => "expired",
                event::Event::Removed(_) => "removed",
            },
        );
    }
    assert_eq!(seen, ["added", "removed", "added", "expired"]);

    let names: BTreeSet<String> = (0..30).map(|number| format!("element-{number}")).collect();
    for name in &names {
        client.add(add(name, None)).await.unwrap();
    }
    let size = || SizeRequest { id: id(NAME) };
    assert_eq!(client.size(size()).await.unwrap().into_inner().size, 30);
    let elements = |watch| ElementsRequest {
        id: id(NAME),
        watch,
    };
    let listed = rest(client.elements(elements(false)).await.unwrap().into_inner()).await;
    assert_eq!(listed.len(), 30);
    let listed: BTreeSet<String> = listed
        .into_iter()
        .map(|one| one.element.unwrap().value)
        .collect();
    assert_eq!(listed, names);
    let mut watch = client.elements(elements(true)).await.unwrap().into_inner();
    for _ in 0..30 {
        next(&mut watch).await;
    }
    // Removals could not be told in Set and Map watches.
    client.remove(remove("element-3")).await.unwrap();
    let removed = next(&mut watch).await;
    assert!(removed.removed);
    assert_eq!(removed.element, element("element-3"));
    client.add(add("element-3", None)).await.unwrap();
    assert!(!next(&mut watch).await.removed);
    client.clear(ClearRequest { id: id(NAME) }).await.unwrap();
    assert_eq!(client.size(size()).await.unwrap().into_inner().size, 0);
}
