//! Streams over changes of leaders: nothing is lost, nothing comes twice.

use std::time::Duration;

use atomix_proto::runtime::map::v1::map_client::MapClient;
use atomix_proto::runtime::map::v1::{EventsRequest, PutRequest, event};
use atomix_proto::runtime::topic::v1::topic_client::TopicClient;
use atomix_proto::runtime::topic::v1::{PublishRequest, SubscribeRequest};
use tonic::{Code, Request};

use super::sidecar_of;
use super::store::TestStore;
use crate::harness::{id, within};

const KILLS: usize = 2;
const BETWEEN: usize = 40;

#[tokio::test]
async fn subscribers_see_each_message_once_and_in_order_over_killed_leaders() {
    let mut store = TestStore::start(3, 1).await;
    let sidecar = sidecar_of(&store).await;
    let client = TopicClient::new(sidecar.application().await);
    let subscribe = SubscribeRequest { id: id("news") };
    let mut messages = client
        .clone()
        .subscribe(subscribe)
        .await
        .unwrap()
        .into_inner();
    let mut sent = 0_usize;
    let mut last = 0;
    for round in 0..=KILLS {
        let until = sent + BETWEEN;
        let publishing = {
            let mut client = client.clone();
            tokio::spawn(async move {
                for number in sent..until {
                    let mut publish = Request::new(PublishRequest {
                        id: id("news"),
                        payload: number.to_string().into(),
                    });
                    publish
                        .metadata_mut()
                        .insert("grpc-timeout", "30S".parse().unwrap());
                    client.publish(publish).await.unwrap();
                }
            })
        };
        let killed = match round {
            KILLS => None,
            _ => Some(store.kill_leader(1).await),
        };
        for number in sent..until {
            let message = within("a message", messages.message())
                .await
                .unwrap()
                .unwrap();
            assert_eq!(message.offset, last + 1);
            assert_eq!(&*message.payload, number.to_string().as_bytes());
            last = message.offset;
        }
        publishing.await.unwrap();
        sent = until;
        if let Some(killed) = killed {
            store.start_node(killed);
        }
    }
    sidecar.stop().await;
}

#[tokio::test]
async fn an_idle_stream_of_several_partitions_goes_on_after_its_leaders_were_killed() {
    let mut store = TestStore::start(3, 3).await;
    let sidecar = sidecar_of(&store).await;
    let mut client = MapClient::new(sidecar.application().await);
    let events = EventsRequest {
        id: id("table"),
        key: String::new(),
    };
    let mut events = client.events(events).await.unwrap().into_inner();
    let first = within("the first message", events.message()).await;
    assert_eq!(first.unwrap().unwrap().event.unwrap().event, None);
    // Every partition's leader is another one afterwards, or the same that has come back.
    for partition in 1..=3 {
        let killed = store.kill_leader(partition).await;
        store.start_node(killed);
    }
    let mut expected = Vec::new();
    for number in 0..30 {
        let key = format!("key-{number}");
        let mut put = Request::new(PutRequest {
            id: id("table"),
            key: key.clone(),
            ..PutRequest::default()
        });
        put.metadata_mut()
            .insert("grpc-timeout", "30S".parse().unwrap());
        client.put(put).await.unwrap();
        expected.push(key);
    }
    let mut told = Vec::new();
    for _ in 0..30 {
        let message = within("an event", events.message()).await.unwrap().unwrap();
        let event = message.event.unwrap();
        assert!(matches!(event.event, Some(event::Event::Inserted(_))));
        told.push(event.key);
    }
    told.sort();
    expected.sort();
    assert_eq!(told, expected);
    let more = tokio::time::timeout(Duration::from_millis(500), events.message()).await;
    assert!(more.is_err(), "{more:?}");
    // A stream that has begun never says UNAVAILABLE.
    for node in 0..3 {
        store.kill_node(node);
    }
    let quiet = tokio::time::timeout(Duration::from_secs(3), events.message()).await;
    if let Ok(ended) = quiet {
        assert_ne!(ended.unwrap_err().code(), Code::Unavailable);
    }
    sidecar.stop().await;
}
