//! What a Counter must do, whatever the driver.

use atomix_proto::runtime::counter::v1::counter_client::CounterClient;
use atomix_proto::runtime::counter::v1::{
    DecrementRequest, GetRequest, IncrementRequest, SetRequest, UpdateRequest,
};
use tonic::Code;
use tonic::transport::Channel;

use crate::harness::id;

/// Runs the whole suite. `prefix` keeps its primitives apart from those of other runs.
pub async fn run(counter: CounterClient<Channel>, prefix: &str) {
    arithmetic(counter.clone(), &format!("{prefix}-arithmetic")).await;
    overflow(counter.clone(), &format!("{prefix}-overflow")).await;
    compare_and_set(counter.clone(), &format!("{prefix}-update")).await;
    concurrent_increments(counter, &format!("{prefix}-concurrent")).await;
}

async fn value(counter: &mut CounterClient<Channel>, name: &str) -> i64 {
    let get = GetRequest { id: id(name) };
    counter.get(get).await.unwrap().into_inner().value
}

async fn set(counter: &mut CounterClient<Channel>, name: &str, value: i64) -> i64 {
    let set = SetRequest {
        id: id(name),
        value,
    };
    counter.set(set).await.unwrap().into_inner().value
}

async fn arithmetic(mut counter: CounterClient<Channel>, name: &str) {
    assert_eq!(value(&mut counter, name).await, 0);
    let increment = IncrementRequest {
        id: id(name),
        delta: 5,
    };
    assert_eq!(
        counter
            .increment(increment)
            .await
            .unwrap()
            .into_inner()
            .value,
        5
    );
    let decrement = DecrementRequest {
        id: id(name),
        delta: 7,
    };
    assert_eq!(
        counter
            .decrement(decrement)
            .await
            .unwrap()
            .into_inner()
            .value,
        -2
    );
    assert_eq!(set(&mut counter, name, 40).await, 40);
    assert_eq!(value(&mut counter, name).await, 40);
}

async fn overflow(mut counter: CounterClient<Channel>, name: &str) {
    set(&mut counter, name, i64::MAX).await;
    let increment = IncrementRequest {
        id: id(name),
        delta: 1,
    };
    let status = counter.increment(increment).await.unwrap_err();
    assert_eq!(status.code(), Code::OutOfRange, "{status}");
    assert_eq!(value(&mut counter, name).await, i64::MAX);
    set(&mut counter, name, i64::MIN).await;
    let decrement = DecrementRequest {
        id: id(name),
        delta: 1,
    };
    let status = counter.decrement(decrement).await.unwrap_err();
    assert_eq!(status.code(), Code::OutOfRange, "{status}");
    assert_eq!(value(&mut counter, name).await, i64::MIN);
}

async fn compare_and_set(mut counter: CounterClient<Channel>, name: &str) {
    let update = |check, update| UpdateRequest {
        id: id(name),
        check,
        update,
    };
    // A check of 0 compares too.
    assert_eq!(
        counter
            .update(update(0, 3))
            .await
            .unwrap()
            .into_inner()
            .value,
        3
    );
    let status = counter.update(update(0, 9)).await.unwrap_err();
    assert_eq!(status.code(), Code::Aborted, "{status}");
    assert_eq!(value(&mut counter, name).await, 3);
    assert_eq!(
        counter
            .update(update(3, -9))
            .await
            .unwrap()
            .into_inner()
            .value,
        -9
    );
}

async fn concurrent_increments(counter: CounterClient<Channel>, name: &str) {
    let increments = (0..200).map(|_| {
        let mut counter = counter.clone();
        let increment = IncrementRequest {
            id: id(name),
            delta: 1,
        };
        async move {
            counter
                .increment(increment)
                .await
                .unwrap()
                .into_inner()
                .value
        }
    });
    let mut values = futures::future::join_all(increments).await;
    values.sort_unstable();
    let expected: Vec<i64> = (1..=200).collect();
    assert_eq!(values, expected);
}
