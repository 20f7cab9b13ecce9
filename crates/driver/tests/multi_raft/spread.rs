//! What goes to several partitions, and streams, against faults that are placed exactly.

use std::sync::Arc;

use atomix_driver::{Connection, DriverError, ErrorKind, Invocation, Owner, ReplyStream};
use atomix_primitives::spread::partition_of_key;
use atomix_proto::multiraft::v1::failure::Reason;
use atomix_proto::runtime::map::v1::{LockRequest, PutRequest, SizeRequest, SizeResponse};
use atomix_proto::runtime::topic::v1::{PublishRequest, SubscribeRequest, SubscribeResponse};
use bytes::Bytes;
use futures::StreamExt as _;
use prost::Message as _;
use tokio::time::Instant;

use crate::cluster::{Cluster, Fault, until};
use crate::{LONG, connect};

const PARTITIONS: u32 = 4;

fn invocation(kind: &str, method: &str, owner: u64, request: &impl prost::Message) -> Invocation {
    Invocation {
        kind: kind.into(),
        primitive: "it".into(),
        method: method.into(),
        request: request.encode_to_vec().into(),
        owner: Owner(owner),
        deadline: Instant::now() + LONG,
    }
}

async fn lock(
    connection: &Arc<dyn Connection>,
    owner: u64,
    keys: &[String],
) -> Result<Bytes, DriverError> {
    let lock = LockRequest {
        id: None,
        keys: keys.to_vec(),
        timeout: Some(std::time::Duration::ZERO.try_into().unwrap()),
    };
    connection
        .invoke(invocation("map", "Lock", owner, &lock))
        .await
}

/// A key of each partition, in their order.
fn one_key_of_each_partition() -> Vec<String> {
    (1..=PARTITIONS)
        .map(|partition| {
            let mut names = (0..).map(|number| format!("key-{number}"));
            let is_there = |name: &String| {
                partition_of_key("map", "it", name.as_bytes(), PARTITIONS).0 == partition
            };
            names.find(is_there).unwrap()
        })
        .collect()
}

#[tokio::test]
async fn locks_that_were_taken_before_one_failed_are_given_back() {
    let cluster = Cluster::start(1, PARTITIONS).await;
    let connection = connect(&cluster).await;
    let keys = one_key_of_each_partition();
    lock(&connection, 1, &keys[2..3]).await.unwrap();
    let refused = lock(&connection, 2, &keys).await.unwrap_err();
    assert_eq!(refused.kind, ErrorKind::Conflict);
    // Those of the two partitions before; the one behind was not asked.
    until("the locks to be given back", || cluster.cancelled() == 2).await;
    lock(&connection, 3, &keys[..2]).await.unwrap();
    lock(&connection, 3, &keys[3..]).await.unwrap();
    assert_eq!(cluster.cancelled(), 2);
}

#[tokio::test]
async fn keys_are_where_the_hash_says_and_sizes_are_added_up() {
    let cluster = Cluster::start(1, PARTITIONS).await;
    let connection = connect(&cluster).await;
    for key in one_key_of_each_partition() {
        let put = PutRequest {
            key,
            ..PutRequest::default()
        };
        connection
            .invoke(invocation("map", "Put", 0, &put))
            .await
            .unwrap();
    }
    assert_eq!(cluster.sessions(), PARTITIONS as usize);
    let size = SizeRequest::default();
    let size = connection.invoke(invocation("map", "Size", 0, &size)).await;
    assert_eq!(
        SizeResponse::decode(size.unwrap()).unwrap().size,
        PARTITIONS
    );
    // What streams are read with is nothing that applications may ask for.
    let page = connection.invoke(invocation("map", "Page", 0, &())).await;
    assert_eq!(page.unwrap_err().kind, ErrorKind::Unsupported);
    let large = PutRequest {
        value: vec![0; 2 << 20].into(),
        ..PutRequest::default()
    };
    let refused = connection.invoke(invocation("map", "Put", 0, &large)).await;
    assert_eq!(refused.unwrap_err().kind, ErrorKind::ResourceExhausted);
}

async fn next(stream: &mut ReplyStream) -> Result<u64, DriverError> {
    let message = tokio::time::timeout(LONG, stream.next()).await.unwrap();
    let message = message.expect("the stream ended without a word")?;
    Ok(SubscribeResponse::decode(message).unwrap().offset)
}

#[tokio::test]
async fn a_stream_goes_on_at_another_leader_where_it_stood_and_ends_with_its_connection() {
    let cluster = Cluster::start(3, 1).await;
    let connection = connect(&cluster).await;
    let publish = async || {
        let publish = invocation("topic", "Publish", 0, &PublishRequest::default());
        connection.invoke(publish).await.unwrap();
    };
    publish().await;
    let subscribe = invocation("topic", "Subscribe", 0, &SubscribeRequest::default());
    let mut messages = connection.subscribe(subscribe).await.unwrap();
    let mut offset = 1;
    for (leader, hints) in [(1, true), (2, false), (0, true)] {
        publish().await;
        cluster.lead(leader, hints);
        publish().await;
        // Applied, and the stream to the node breaks: asked and answered again, it is told once.
        cluster.fault(Fault::BreakAfterApply);
        publish().await;
        cluster.fault(Fault::Answer(Reason::OutcomeUnknown));
        publish().await;
        for _ in 0..4 {
            offset += 1;
            assert_eq!(next(&mut messages).await, Ok(offset));
        }
    }
    connection.disconnect().await;
    assert_eq!(
        next(&mut messages).await.unwrap_err().kind,
        ErrorKind::DataLoss
    );
    let end = tokio::time::timeout(LONG, messages.next()).await.unwrap();
    assert!(end.is_none());
}
