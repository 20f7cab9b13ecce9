use atomix_proto::runtime::topic::v1::topic_client::TopicClient;
use atomix_proto::runtime::topic::v1::{PublishRequest, SubscribeRequest};

use super::{Suite, next};
use crate::harness::id;

pub async fn run(suite: &Suite<'_>) {
    let mut client = TopicClient::new(suite.sidecar.application().await);
    let other = TopicClient::new(suite.sidecar.application().await);
    let publish = |payload: String| PublishRequest {
        id: id("news"),
        payload: payload.into(),
    };
    client.publish(publish("before".into())).await.unwrap();
    let subscribe = || SubscribeRequest { id: id("news") };
    let mut one = client.subscribe(subscribe()).await.unwrap().into_inner();
    let mut two = other
        .clone()
        .subscribe(subscribe())
        .await
        .unwrap()
        .into_inner();
    let publishers = (0..40).map(|number| {
        let mut client = if number % 2 == 0 {
            client.clone()
        } else {
            other.clone()
        };
        let publish = publish(format!("message {number}"));
        async move { client.publish(publish).await.unwrap() }
    });
    futures::future::join_all(publishers).await;
    let mut last = None;
    for _ in 0..40 {
        let message = next(&mut one).await;
        assert_eq!(next(&mut two).await, message);
        assert!(message.timestamp.unwrap().seconds > 1_600_000_000);
        // The message before the subscription is not told, and there is no gap.
        assert_eq!(message.offset, last.map_or(2, |last: u64| last + 1));
        last = Some(message.offset);
    }
}
