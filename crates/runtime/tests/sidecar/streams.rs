//! How streams begin and end.

use std::time::Duration;

use atomix_proto::runtime::map::v1::map_client::MapClient;
use atomix_proto::runtime::map::v1::{EntriesRequest, EventsRequest, EventsResponse, PutRequest};
use atomix_proto::runtime::topic::v1::topic_client::TopicClient;
use atomix_proto::runtime::topic::v1::{PublishRequest, SubscribeRequest};
use atomix_proto::runtime::v1::DisconnectRequest;
use tonic::transport::Channel;
use tonic::{Code, Request, Status, Streaming};

use crate::harness::{TestSidecar, id, memory_store, program, route, store, within};

async fn events(sidecar: &TestSidecar) -> Streaming<EventsResponse> {
    let mut client = MapClient::new(sidecar.application().await);
    let events = EventsRequest {
        id: id("table"),
        key: String::new(),
    };
    let mut events = client.events(events).await.unwrap().into_inner();
    events.message().await.unwrap().expect("the first message");
    events
}

async fn end(mut stream: Streaming<EventsResponse>) -> Status {
    within("the end of a stream", stream.message())
        .await
        .unwrap_err()
}

#[tokio::test]
async fn a_stream_ends_with_data_loss_when_its_route_moves_and_stays_when_another_does() {
    let sidecar = TestSidecar::with_memory_store().await;
    let mut control = sidecar.control().await;
    control.connect(memory_store("store-b")).await.unwrap();
    let mut stream = events(&sidecar).await;
    let routes = vec![route("store-a", "*"), route("store-b", "counter")];
    control.program(program(routes)).await.unwrap();
    let put = PutRequest {
        id: id("table"),
        key: "k".into(),
        ..PutRequest::default()
    };
    MapClient::new(sidecar.application().await)
        .put(put)
        .await
        .unwrap();
    let told = within("an event", stream.message()).await.unwrap().unwrap();
    assert_eq!(told.event.unwrap().key, "k");
    control
        .program(program(vec![route("store-b", "*")]))
        .await
        .unwrap();
    let status = end(stream).await;
    assert_eq!(status.code(), Code::DataLoss);
    assert!(status.message().contains("store-b"), "{status}");

    // The next one reads the other store; it ends when that is disconnected.
    let stream = events(&sidecar).await;
    let disconnect = DisconnectRequest {
        store_id: store("store-b"),
    };
    control.disconnect(disconnect).await.unwrap();
    assert_eq!(end(stream).await.code(), Code::DataLoss);
    let refused = MapClient::new(sidecar.application().await)
        .entries(EntriesRequest {
            id: id("table"),
            watch: true,
        })
        .await;
    // Nothing has begun: whoever sends it again loses nothing.
    assert_eq!(refused.unwrap_err().code(), Code::Unavailable);
    sidecar.stop().await;
}

#[tokio::test]
async fn a_stream_ends_at_the_callers_deadline_and_at_the_shutdown() {
    let sidecar = TestSidecar::with_memory_store().await;
    let mut client = TopicClient::new(sidecar.application().await);
    let mut subscribe = Request::new(SubscribeRequest { id: id("news") });
    subscribe
        .metadata_mut()
        .insert("grpc-timeout", "300m".parse().unwrap());
    let mut messages = client.subscribe(subscribe).await.unwrap().into_inner();
    let ended = within("the deadline", messages.message()).await;
    assert_eq!(ended.unwrap_err().code(), Code::DeadlineExceeded);
    let stream = events(&sidecar).await;
    let stopping = tokio::spawn(sidecar.stop());
    assert_eq!(end(stream).await.code(), Code::DataLoss);
    stopping.await.unwrap();
}

async fn publish(client: &mut TopicClient<Channel>, payload: usize) {
    let publish = PublishRequest {
        id: id("news"),
        payload: vec![1; payload].into(),
    };
    client.publish(publish).await.unwrap();
}

/// The ring of events holds 16 MiB; what a connection may have under way is far less.
#[tokio::test]
async fn a_slow_reader_holds_up_nobody_and_is_told_when_it_has_lost_events() {
    const PAYLOAD: usize = 512 << 10;
    const MESSAGES: u64 = 60;
    let sidecar = TestSidecar::with_memory_store().await;
    let mut publisher = TopicClient::new(sidecar.application().await);
    let subscribe = || SubscribeRequest { id: id("news") };
    let mut slow_client = TopicClient::new(sidecar.application().await);
    let mut slow = slow_client
        .subscribe(subscribe())
        .await
        .unwrap()
        .into_inner();
    let mut quick_client = TopicClient::new(sidecar.application().await);
    let mut quick = quick_client
        .subscribe(subscribe())
        .await
        .unwrap()
        .into_inner();
    for offset in 1..=MESSAGES {
        publish(&mut publisher, PAYLOAD).await;
        let message = within("a message", quick.message()).await.unwrap().unwrap();
        assert_eq!(message.offset, offset);
    }
    let mut last = 0;
    let lost = loop {
        match within("the slow stream", slow.message()).await {
            Ok(Some(message)) => {
                assert_eq!(message.offset, last + 1);
                last = message.offset;
            }
            Ok(None) => panic!("the stream ended without a word"),
            Err(status) => break status,
        }
    };
    assert!(last < MESSAGES / 2, "{last}");
    assert_eq!(lost.code(), Code::DataLoss);
    assert!(lost.message().contains("read again"), "{lost}");
    tokio::time::timeout(Duration::from_secs(20), sidecar.stop())
        .await
        .unwrap();
}
