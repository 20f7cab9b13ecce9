//! Sets, lists, multimaps and topics.

use std::time::{Duration, SystemTime};

use atomix_client::{
    Entry, Error, Item, ListChange, MultiMapEvent, SetEvent, Update, ValueChange, WriteOptions,
};

use crate::harness::{TestSidecar, all, next};

#[tokio::test]
async fn a_set_has_each_element_once_and_some_for_a_while() {
    let sidecar = TestSidecar::start().await;
    let online = sidecar.client().await.set::<String>("online");
    let mut events = online.events().await.unwrap();
    assert!(online.add("ann").await.unwrap());
    assert!(!online.add("ann").await.unwrap());
    let mut watch = online.watch().await.unwrap();
    let briefly = WriteOptions::default().ttl(Duration::from_millis(100));
    assert!(online.add_with("bob", briefly).await.unwrap());
    let versioned = online.add_with("bob", briefly.if_version(1)).await;
    assert!(matches!(versioned, Err(Error::InvalidArgument(_))));
    for expected in ["ann", "bob"] {
        assert_eq!(next(&mut watch).await, Update::Present(expected.to_owned()));
    }
    assert_eq!(next(&mut watch).await, Update::Removed("bob".to_owned()));
    assert!(!online.contains("bob").await.unwrap());
    assert!(online.contains("ann").await.unwrap());
    assert_eq!(all(online.elements().await.unwrap()).await, ["ann"]);
    assert_eq!(online.size().await.unwrap(), 1);
    assert!(online.remove("ann").await.unwrap());
    assert!(!online.remove("ann").await.unwrap());
    let removed = |element: &str, expired| SetEvent::Removed {
        element: element.to_owned(),
        expired,
    };
    let expected = [
        SetEvent::Added("ann".to_owned()),
        SetEvent::Added("bob".to_owned()),
        removed("bob", true),
        removed("ann", false),
    ];
    for expected in expected {
        assert_eq!(next(&mut events).await, expected);
    }
    // Numbers are kept by their digits.
    let numbers = sidecar.client().await.set::<u64>("numbers");
    numbers.add(&17).await.unwrap();
    let texts = sidecar.client().await.set::<String>("numbers");
    assert!(texts.contains("17").await.unwrap());
    numbers.clear().await.unwrap();
    assert_eq!(numbers.size().await.unwrap(), 0);
    sidecar.stop().await;
}

#[tokio::test]
async fn a_list_keeps_its_order_and_its_events_keep_a_copy() {
    let sidecar = TestSidecar::start().await;
    let steps = sidecar.client().await.list::<String>("steps");
    let text = |text: &str| text.to_owned();
    steps.append(&text("a")).await.unwrap();
    steps.append(&text("c")).await.unwrap();
    let mut replay = steps.replay().await.unwrap();
    let mut events = steps.events().await.unwrap();
    steps.insert(1, &text("b")).await.unwrap();
    steps.set(0, &text("A")).await.unwrap();
    assert_eq!(steps.get(1).await.unwrap(), "b");
    for beyond in [steps.get(3).await, steps.remove(3).await] {
        assert!(matches!(beyond, Err(Error::OutOfRange(_))), "{beyond:?}");
    }
    let beyond = steps.insert(4, &text("x")).await;
    assert!(matches!(beyond, Err(Error::OutOfRange(_))), "{beyond:?}");
    let mut watch = steps.watch().await.unwrap();
    for expected in ["A", "b", "c"] {
        let Update::Present(item) = next(&mut watch).await else {
            panic!("{expected} is there");
        };
        assert_eq!(item.value, expected);
    }
    assert_eq!(steps.remove(1).await.unwrap(), "b");
    let gone = Item {
        index: 1,
        value: text("b"),
    };
    assert_eq!(next(&mut watch).await, Update::Removed(gone));
    assert_eq!(steps.size().await.unwrap(), 2);

    let first = next(&mut events).await;
    assert_eq!(
        (first.index, first.change),
        (1, ListChange::Inserted(text("b")))
    );
    let mut copy = Vec::new();
    for _ in 0..5 {
        let event = next(&mut replay).await;
        let index = usize::try_from(event.index).unwrap();
        match event.change {
            ListChange::Appended(value) => copy.push(value),
            ListChange::Inserted(value) => copy.insert(index, value),
            ListChange::Updated { value, previous } => {
                assert_eq!(std::mem::replace(&mut copy[index], value), previous);
            }
            ListChange::Removed(value) => assert_eq!(copy.remove(index), value),
        }
    }
    let items = all(steps.items().await.unwrap()).await;
    let items: Vec<String> = items.into_iter().map(|item| item.value).collect();
    assert_eq!(items, ["A", "c"]);
    assert_eq!(copy, items);
    steps.clear().await.unwrap();
    assert_eq!(steps.size().await.unwrap(), 0);
    sidecar.stop().await;
}

#[tokio::test]
async fn a_multimap_has_a_set_of_values_under_each_key() {
    let sidecar = TestSidecar::start().await;
    let client = sidecar.client().await;
    let tags = client.multi_map::<String, String>("tags");
    let mut events = tags.events().await.unwrap();
    let mut of_pear = tags.events_of("pear").await.unwrap();
    assert!(tags.put("apple", "red").await.unwrap());
    assert!(!tags.put("apple", "red").await.unwrap());
    assert!(tags.put_all("apple", ["red", "round"]).await.unwrap());
    assert!(!tags.put_all("apple", ["red"]).await.unwrap());
    assert_eq!(tags.get("apple").await.unwrap(), ["red", "round"]);
    assert!(tags.contains("apple", "red").await.unwrap());
    assert!(!tags.contains("pear", "red").await.unwrap());
    assert!(tags.get("pear").await.unwrap().is_empty());
    let before = tags.replace("apple", ["green"]).await.unwrap();
    assert_eq!(before, ["red", "round"]);
    assert!(tags.remove("apple", "green").await.unwrap());
    assert!(!tags.remove("apple", "green").await.unwrap());
    assert!(!tags.remove_all("apple", ["green"]).await.unwrap());
    let entry = |key: &str, values: &[&str]| Entry {
        key: key.to_owned(),
        value: values.iter().map(ToString::to_string).collect::<Vec<_>>(),
    };
    let fruit = [entry("fig", &["sweet"]), entry("pear", &["green", "soft"])];
    assert!(tags.put_entries(&fruit).await.unwrap());
    assert!(!tags.put_entries(&fruit).await.unwrap());
    let mut listed = all(tags.entries().await.unwrap()).await;
    listed.sort_by(|one, other| one.key.cmp(&other.key));
    assert_eq!(listed, fruit);
    assert_eq!(tags.size().await.unwrap(), 2);
    let mut watch = tags.watch().await.unwrap();
    for _ in 0..2 {
        assert!(matches!(next(&mut watch).await, Update::Present(_)));
    }
    assert!(tags.remove_all("pear", ["soft", "hard"]).await.unwrap());
    let gone = entry("pear", &["soft"]);
    assert_eq!(next(&mut watch).await, Update::Removed(gone));
    assert!(tags.remove_entries(&fruit).await.unwrap());
    assert_eq!(tags.size().await.unwrap(), 0);

    let pear = |change| MultiMapEvent {
        key: "pear".to_owned(),
        change,
    };
    let text = |text: &str| text.to_owned();
    let expected = [
        ValueChange::Added(text("green")),
        ValueChange::Added(text("soft")),
        ValueChange::Removed(text("soft")),
        ValueChange::Removed(text("green")),
    ];
    for change in expected {
        assert_eq!(next(&mut of_pear).await, pear(change));
    }
    let first = next(&mut events).await;
    assert_eq!(first.change, ValueChange::Added(text("red")));
    tags.put("apple", "red").await.unwrap();
    tags.clear().await.unwrap();
    assert_eq!(tags.size().await.unwrap(), 0);
    sidecar.stop().await;
}

#[tokio::test]
async fn a_topic_tells_all_subscribers_the_same_in_the_same_order() {
    let sidecar = TestSidecar::start().await;
    let news = sidecar.client().await.topic::<(String, u32)>("news");
    let other = sidecar.client().await.topic::<(String, u32)>("news");
    news.publish(&("before".to_owned(), 0)).await.unwrap();
    let mut one = news.subscribe().await.unwrap();
    let mut two = other.subscribe().await.unwrap();
    let publishers = (1..=20).map(|number| {
        let topic = if number % 2 == 0 { &news } else { &other };
        let message = (format!("message {number}"), number);
        async move { topic.publish(&message).await }
    });
    let published = futures::future::join_all(publishers).await;
    assert!(published.iter().all(Result::is_ok));
    for offset in 2..=21 {
        let message = next(&mut one).await;
        assert_eq!(message.offset, offset);
        assert!(message.time > SystemTime::UNIX_EPOCH);
        assert_eq!(next(&mut two).await, message);
    }
    sidecar.stop().await;
}
