//! The application port: opening and closing, codes, sizes, health and reflection.

use std::time::Duration;

use atomix_proto::runtime::counter::v1::{
    CacheConfig, CloseRequest, Config, CreateRequest, GetRequest, IncrementRequest,
};
use atomix_proto::runtime::lock::v1::lock_client::LockClient;
use atomix_proto::runtime::lock::v1::{LockRequest, UnlockRequest};
use atomix_proto::runtime::v1::{DisconnectRequest, ListSessionsRequest, Route};
use tokio::net::TcpListener;
use tokio::time::Instant;
use tokio_stream::StreamExt as _;
use tonic::{Code, Request};
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_client::HealthClient;
use tonic_reflection::pb::v1::ServerReflectionRequest;
use tonic_reflection::pb::v1::server_reflection_client::ServerReflectionClient;
use tonic_reflection::pb::v1::server_reflection_request::MessageRequest;
use tonic_reflection::pb::v1::server_reflection_response::MessageResponse;

use crate::conformance::Suite;
use crate::harness::{
    TestSidecar, channel, id, memory_store, program, route, store, until, within,
};

fn get(name: &str) -> GetRequest {
    GetRequest { id: id(name) }
}

fn increment(name: &str, delta: i64) -> IncrementRequest {
    IncrementRequest {
        id: id(name),
        delta,
    }
}

#[tokio::test]
#[allow(deprecated, reason = "existing clients call the deprecated duplicates")]
async fn both_creates_answer_with_the_routes_configuration_and_both_closes_end_the_use() {
    let sidecar = TestSidecar::start(&[]).await;
    let mut control = sidecar.control().await;
    control.connect(memory_store("store-a")).await.unwrap();
    let mut configured = route("store-a", "counter");
    configured.services[0].config = r#"{"cache": {"enabled": true}}"#.into();
    control.program(program(vec![configured])).await.unwrap();

    let application = sidecar.application().await;
    let mut counter =
        atomix_proto::runtime::counter::v1::counter_client::CounterClient::new(application.clone());
    let mut counters =
        atomix_proto::runtime::counter::v1::counters_client::CountersClient::new(application);
    let create = || CreateRequest {
        id: id("visits"),
        tags: vec!["any".into()],
    };
    let expected = Some(Config {
        cache: Some(CacheConfig { enabled: true }),
    });
    assert_eq!(
        counters.create(create()).await.unwrap().into_inner().config,
        expected
    );
    assert_eq!(
        counter.create(create()).await.unwrap().into_inner().config,
        expected
    );

    let mut sessions = sidecar.sessions().await;
    let open = sessions
        .list_sessions(ListSessionsRequest::default())
        .await
        .unwrap();
    assert_eq!(open.into_inner().sessions.len(), 1);
    let close = || CloseRequest { id: id("visits") };
    counters.close(close()).await.unwrap();
    counter.close(close()).await.unwrap();
    let open = sessions
        .list_sessions(ListSessionsRequest::default())
        .await
        .unwrap();
    assert_eq!(open.into_inner().sessions.len(), 0);
    sidecar.stop().await;
}

#[tokio::test]
async fn without_create_one_matching_store_is_opened_and_none_or_several_are_refused() {
    let sidecar = TestSidecar::start(&[]).await;
    let mut counter = sidecar.counter().await;
    let none = counter.get(get("visits")).await.unwrap_err();
    assert_eq!(none.code(), Code::Unavailable);
    assert!(
        none.message().contains("no route for counter \"visits\""),
        "{none}"
    );

    let mut control = sidecar.control().await;
    let one = route("store-a", "counter");
    control.program(program(vec![one.clone()])).await.unwrap();
    let unconnected = counter.get(get("visits")).await.unwrap_err();
    assert_eq!(unconnected.code(), Code::Unavailable);
    assert!(
        unconnected
            .message()
            .contains("store team/store-a is not connected")
    );

    control.connect(memory_store("store-a")).await.unwrap();
    counter.increment(increment("visits", 1)).await.unwrap();

    let other = Route {
        tags: vec!["fast".into()],
        ..route("store-b", "counter")
    };
    control.program(program(vec![one, other])).await.unwrap();
    let several = counter.get(get("other")).await.unwrap_err();
    assert_eq!(several.code(), Code::FailedPrecondition);
    assert!(
        several.message().contains("team/store-a, team/store-b"),
        "{several}"
    );
    sidecar.stop().await;
}

#[tokio::test]
async fn an_open_primitive_follows_its_route_to_another_store() {
    let sidecar = TestSidecar::with_memory_store().await;
    let mut control = sidecar.control().await;
    control.connect(memory_store("store-b")).await.unwrap();
    let mut counter = sidecar.counter().await;
    counter.increment(increment("visits", 5)).await.unwrap();
    control
        .program(program(vec![route("store-b", "*")]))
        .await
        .unwrap();
    // Data is not copied.
    assert_eq!(
        counter.get(get("visits")).await.unwrap().into_inner().value,
        0
    );
    control
        .program(program(vec![route("store-a", "*")]))
        .await
        .unwrap();
    assert_eq!(
        counter.get(get("visits")).await.unwrap().into_inner().value,
        5
    );

    let disconnect = DisconnectRequest {
        store_id: store("store-a"),
    };
    control.disconnect(disconnect).await.unwrap();
    let status = counter.get(get("visits")).await.unwrap_err();
    assert_eq!(status.code(), Code::Unavailable);
    sidecar.stop().await;
}

#[tokio::test]
async fn bad_requests_name_the_field() {
    let sidecar = TestSidecar::with_memory_store().await;
    let mut counter = sidecar.counter().await;
    let status = counter.get(GetRequest { id: None }).await.unwrap_err();
    assert_eq!(status.code(), Code::InvalidArgument);
    assert!(status.message().contains("id.name"), "{status}");
    let status = counter.increment(increment("", 1)).await.unwrap_err();
    assert_eq!(status.code(), Code::InvalidArgument);
    let endless = counter.get(get(&"x".repeat(2_000))).await.unwrap_err();
    assert_eq!(endless.code(), Code::InvalidArgument);
    sidecar.stop().await;
}

#[tokio::test]
async fn oversized_messages_answer_resource_exhausted_on_both_ports() {
    let sidecar = TestSidecar::with_memory_store().await;
    let mut counter = sidecar.counter().await;
    let status = counter
        .get(get(&"x".repeat(5 * 1024 * 1024)))
        .await
        .unwrap_err();
    assert_eq!(status.code(), Code::ResourceExhausted, "{status}");
    let mut control = sidecar.control().await;
    let mut large = memory_store("store-b");
    large.config = vec![b' '; 5 * 1024 * 1024].into();
    let status = control.connect(large).await.unwrap_err();
    assert_eq!(status.code(), Code::ResourceExhausted, "{status}");
    sidecar.stop().await;
}

#[tokio::test]
async fn a_deadline_is_honoured_while_the_store_cannot_be_reached() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let nowhere = listener.local_addr().unwrap();
    drop(listener);
    let sidecar = TestSidecar::start(&["--default-deadline=1"]).await;
    let mut control = sidecar.control().await;
    let mut connect = memory_store("store-a");
    connect.driver_id.as_mut().unwrap().name = "multi-raft".into();
    connect.config = format!(r#"{{"nodes": ["{nowhere}"], "partitions": 2}}"#).into();
    let mut request = Request::new(connect);
    request.set_timeout(Duration::from_millis(100));
    control.connect(request).await.unwrap_err();
    control
        .program(program(vec![route("store-a", "*")]))
        .await
        .unwrap();

    let mut counter = sidecar.counter().await;
    for timeout in [Some(Duration::from_millis(300)), None] {
        let mut request = Request::new(increment("visits", 1));
        if let Some(timeout) = timeout {
            // As a client that waits for the server's answer sends it.
            let header = format!("{}m", timeout.as_millis());
            request
                .metadata_mut()
                .insert("grpc-timeout", header.parse().unwrap());
        }
        let started = Instant::now();
        let status = counter.increment(request).await.unwrap_err();
        let elapsed = started.elapsed();
        assert_eq!(status.code(), Code::DeadlineExceeded, "{status}");
        assert!(status.message().contains(&nowhere.to_string()), "{status}");
        let expected = timeout.unwrap_or(Duration::from_secs(1));
        assert!(elapsed >= expected / 2, "{elapsed:?} for {expected:?}");
        assert!(
            elapsed <= expected + Duration::from_secs(2),
            "{elapsed:?} for {expected:?}"
        );
    }
    sidecar.stop().await;
}

#[tokio::test]
async fn a_lock_without_a_deadline_waits_longer_than_other_calls_may() {
    let sidecar = TestSidecar::start(&["--default-deadline=1"]).await;
    let mut control = sidecar.control().await;
    control.connect(memory_store("store-a")).await.unwrap();
    let routes = program(vec![route("store-a", "*")]);
    control.program(routes).await.unwrap();
    let mut ann = LockClient::new(sidecar.application().await);
    let mut bob = LockClient::new(sidecar.application().await);
    let lock = |timeout: Option<Duration>| LockRequest {
        id: id("door"),
        timeout: timeout.map(|timeout| timeout.try_into().unwrap()),
    };
    ann.lock(lock(None)).await.unwrap();
    let waiting = tokio::spawn(async move { bob.lock(lock(None)).await.map(|_| bob) });
    let started = Instant::now();
    let refused = ann.lock(lock(Some(Duration::from_millis(1_500)))).await;
    assert_eq!(refused.unwrap_err().code(), Code::Aborted);
    assert!(started.elapsed() >= Duration::from_millis(1_400));
    let unlock = UnlockRequest { id: id("door") };
    ann.unlock(unlock).await.unwrap();
    within("the lock", waiting).await.unwrap().unwrap();
    sidecar.stop().await;
}

#[tokio::test]
async fn a_closed_application_connection_ends_its_use_of_primitives() {
    let sidecar = TestSidecar::with_memory_store().await;
    let mut sessions = sidecar.sessions().await;
    let mut counter = sidecar.counter().await;
    counter.increment(increment("visits", 1)).await.unwrap();
    let list = || ListSessionsRequest::default();
    let open = sessions.list_sessions(list()).await.unwrap().into_inner();
    assert_eq!(open.sessions.len(), 1);
    drop(counter);
    until("the session to end", || {
        let mut sessions = sessions.clone();
        async move {
            let open = sessions.list_sessions(list()).await.unwrap().into_inner();
            open.sessions.is_empty()
        }
    })
    .await;
    sidecar.stop().await;
}

#[tokio::test]
async fn both_ports_serve_health_and_reflection_of_their_own_services() {
    let sidecar = TestSidecar::start(&[]).await;
    let application = sidecar.addresses.application[0];
    for (address, service, other) in [
        (
            application,
            "atomix.runtime.counter.v1.Counter",
            "atomix.runtime.v1.Runtime",
        ),
        (
            sidecar.addresses.control,
            "atomix.runtime.v1.Runtime",
            "atomix.runtime.counter.v1.Counter",
        ),
    ] {
        let channel = channel(address).await;
        let mut health = HealthClient::new(channel.clone());
        for (asked, known) in [("", true), (service, true), (other, false)] {
            let check = HealthCheckRequest {
                service: asked.into(),
            };
            assert_eq!(health.check(check).await.is_ok(), known, "{asked}");
        }
        let mut reflection = ServerReflectionClient::new(channel);
        let list = ServerReflectionRequest {
            host: String::new(),
            message_request: Some(MessageRequest::ListServices(String::new())),
        };
        let answers = reflection
            .server_reflection_info(tokio_stream::once(list))
            .await
            .unwrap();
        let answer = within("the answer", answers.into_inner().next())
            .await
            .unwrap()
            .unwrap();
        let Some(MessageResponse::ListServicesResponse(listed)) = answer.message_response else {
            panic!("no list of services");
        };
        let names: Vec<&str> = listed
            .service
            .iter()
            .map(|service| service.name.as_str())
            .collect();
        assert!(names.contains(&service), "{names:?}");
        assert!(!names.contains(&other), "{names:?}");
    }
    sidecar.stop().await;
}

#[tokio::test]
async fn metrics_count_calls_by_kind_and_code() {
    let sidecar = TestSidecar::with_memory_store().await;
    let mut counter = sidecar.counter().await;
    counter
        .increment(increment("visits", i64::MAX))
        .await
        .unwrap();
    let status = counter.increment(increment("visits", 1)).await.unwrap_err();
    assert_eq!(status.code(), Code::OutOfRange);
    let metrics = sidecar.admin("/metrics").await;
    for line in [
        r#"atomix_runtime_application_calls_total{kind="counter",code="Ok"} 1"#,
        r#"atomix_runtime_application_calls_total{kind="counter",code="OutOfRange"} 1"#,
        "atomix_runtime_stores_reached 1",
    ] {
        assert!(metrics.contains(line), "{line} in {metrics}");
    }
    assert!(sidecar.admin("/livez").await.starts_with("HTTP/1.1 200"));
    sidecar.stop().await;
}

#[tokio::test]
async fn every_kind_of_the_memory_driver_conforms() {
    let sidecar = TestSidecar::with_memory_store().await;
    let suite = Suite {
        sidecar: &sidecar,
        partitions: 1,
    };
    suite.run().await;
    sidecar.stop().await;
}
