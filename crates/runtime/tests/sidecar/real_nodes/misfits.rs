//! Nodes that are not what the configuration says.

use std::time::Duration;

use atomix_proto::runtime::counter::v1::IncrementRequest;
use atomix_proto::runtime::v1::{ConfigureRequest, GetStatusRequest};
use tonic::{Code, Status};

use super::store::TestStore;
use super::{increment, sidecar_of};
use crate::harness::{TestSidecar, id, program, route, store, until};

#[tokio::test]
async fn another_number_of_partitions_than_the_store_has_is_refused_with_both() {
    let nodes = TestStore::start(1, 2).await;
    let expect_both = |refused: &Status, configured: u32, found: &str| {
        assert_eq!(refused.code(), Code::FailedPrecondition, "{refused}");
        let names_own = format!("partitions says {configured}");
        let message = refused.message();
        assert!(
            message.contains(&names_own) && message.contains(found),
            "{message}"
        );
    };
    // Too few are seen as soon as a node is reached, too many where one is missing.
    for (configured, found, is_seen_at_once) in [
        (1, "at least 2", true),
        (63, "the highest that it hosts is 2", false),
    ] {
        let sidecar = TestSidecar::start(&[]).await;
        let mut control = sidecar.control().await;
        let timeouts = r#"{"session": "3s", "election": "500ms"}"#;
        let request = nodes.connect_request_with("store-a", configured, timeouts);
        match control.connect(request).await {
            Ok(_) => assert!(!is_seen_at_once, "{configured}"),
            Err(refused) => expect_both(&refused, configured, found),
        }
        control
            .program(program(vec![route("store-a", "*")]))
            .await
            .unwrap();
        let increment = IncrementRequest {
            id: id("visits"),
            delta: 1,
        };
        let refused = sidecar.counter().await.increment(increment).await;
        let refused = refused.expect_err("it goes to a wrong place");
        expect_both(&refused, configured, found);
        sidecar.stop().await;
    }
}

#[tokio::test]
async fn nodes_of_another_store_are_named_and_get_nothing() {
    let own = TestStore::start(1, 1).await;
    let other = TestStore::start_as("another-store", 1, 1).await;
    let sidecar = sidecar_of(&own).await;
    let mut counter = sidecar.counter().await;
    let long = Duration::from_secs(20);
    assert_eq!(increment(&mut counter, long).await, Ok(1));

    let mut control = sidecar.control().await;
    let configure = |nodes: &TestStore| ConfigureRequest {
        store_id: store("store-a"),
        config: nodes.connect_request("store-a").config,
    };
    control.configure(configure(&other)).await.unwrap();
    let refused = increment(&mut counter, Duration::from_secs(1)).await;
    assert_eq!(refused, Err(Code::DeadlineExceeded));
    until("the status to say why", || {
        let mut control = control.clone();
        async move {
            let status = control.get_status(GetStatusRequest {}).await.unwrap();
            let connections = status.into_inner().connections;
            connections[0].message.contains("another-store")
        }
    })
    .await;
    control.configure(configure(&own)).await.unwrap();
    assert_eq!(increment(&mut counter, long).await, Ok(2));
    sidecar.stop().await;
}
