//! The Runtime service: codes, persistence, readiness.

use atomix_proto::digest::{config_digest, routes_digest};
use atomix_proto::runtime::counter::v1::{GetRequest, IncrementRequest};
use atomix_proto::runtime::v1::connection::State;
use atomix_proto::runtime::v1::{
    ConfigureRequest, ConnectRequest, DisconnectRequest, DriverId, GetStatusRequest, Route,
};
use tokio::net::TcpListener;
use tonic::{Code, Request};

use crate::harness::{TestSidecar, id, memory_store, program, route, store, until};

fn multi_raft(config: &str) -> ConnectRequest {
    ConnectRequest {
        store_id: store("store-a"),
        driver_id: Some(DriverId {
            name: "multi-raft".into(),
            version: "v1".into(),
        }),
        config: config.to_owned().into(),
    }
}

#[tokio::test]
async fn every_control_call_answers_with_the_specified_code() {
    let sidecar = TestSidecar::start(&[]).await;
    let mut control = sidecar.control().await;
    let unknown_driver = ConnectRequest {
        driver_id: Some(DriverId {
            name: "nothing".into(),
            version: String::new(),
        }),
        ..memory_store("store-a")
    };
    let unknown_version = ConnectRequest {
        driver_id: Some(DriverId {
            name: "memory".into(),
            version: "v9".into(),
        }),
        ..memory_store("store-a")
    };
    let refused = ConnectRequest {
        config: r#"{"size": 1}"#.into(),
        ..memory_store("store-a")
    };
    let nameless = ConnectRequest {
        store_id: None,
        ..memory_store("store-a")
    };
    for (request, code, text) in [
        (unknown_driver, Code::NotFound, "driver \"nothing\""),
        (unknown_version, Code::NotFound, "memory v1, multi-raft v1"),
        (refused, Code::InvalidArgument, "size"),
        (nameless, Code::InvalidArgument, "store_id.name"),
        (multi_raft("{"), Code::InvalidArgument, "not JSON"),
        (
            multi_raft(r#"{"service": "x", "partitions": 1, "colour": "blue"}"#),
            Code::InvalidArgument,
            "colour",
        ),
    ] {
        let status = control.connect(request).await.unwrap_err();
        assert_eq!(status.code(), code, "{status}");
        assert!(status.message().contains(text), "{status}");
    }

    control.connect(memory_store("store-a")).await.unwrap();
    let repeated = control.connect(memory_store("store-a")).await.unwrap_err();
    assert_eq!(repeated.code(), Code::AlreadyExists);

    let configure = |name: &str, config: &str| ConfigureRequest {
        store_id: store(name),
        config: config.to_owned().into(),
    };
    control
        .configure(configure("store-a", "{ }"))
        .await
        .unwrap();
    let status = control
        .configure(configure("store-b", "{}"))
        .await
        .unwrap_err();
    assert_eq!(status.code(), Code::NotFound);
    let status = control
        .configure(configure("store-a", "7"))
        .await
        .unwrap_err();
    assert_eq!(status.code(), Code::InvalidArgument);

    let bad_route = control
        .program(program(vec![Route::default()]))
        .await
        .unwrap_err();
    assert_eq!(bad_route.code(), Code::InvalidArgument);
    assert!(
        bad_route.message().contains("routes[0].store_id.name"),
        "{bad_route}"
    );

    let disconnect = |name: &str| DisconnectRequest {
        store_id: store(name),
    };
    control.disconnect(disconnect("store-a")).await.unwrap();
    let status = control.disconnect(disconnect("store-a")).await.unwrap_err();
    assert_eq!(status.code(), Code::NotFound);
    sidecar.stop().await;
}

#[tokio::test]
async fn a_refused_configuration_leaves_the_old_connection_working() {
    let sidecar = TestSidecar::with_memory_store().await;
    let mut counter = sidecar.counter().await;
    let increment = || IncrementRequest {
        id: id("visits"),
        delta: 4,
    };
    counter.increment(increment()).await.unwrap();
    let refused = ConfigureRequest {
        store_id: store("store-a"),
        config: r#"{"x": 1}"#.into(),
    };
    let mut control = sidecar.control().await;
    assert!(control.configure(refused).await.is_err());
    let value = counter
        .increment(increment())
        .await
        .unwrap()
        .into_inner()
        .value;
    assert_eq!(value, 8);
    sidecar.stop().await;
}

#[tokio::test]
async fn get_status_reports_digests_states_and_the_operator_term() {
    let sidecar = TestSidecar::start(&[]).await;
    let mut control = sidecar.control().await;
    let routes = vec![route("store-a", "counter"), route("store-b", "*")];
    let status = |mut client: atomix_proto::runtime::v1::runtime_client::RuntimeClient<_>| async move {
        client
            .get_status(GetStatusRequest {})
            .await
            .unwrap()
            .into_inner()
    };
    let empty = status(control.clone()).await;
    assert_eq!(empty.routes_digest, routes_digest(&[]));
    assert_eq!((empty.connections.len(), empty.operator_term), (0, 0));

    control
        .connect(sent_by(memory_store("store-a"), "team/bees", "7"))
        .await
        .unwrap();
    control.program(program(routes.clone())).await.unwrap();
    let now = status(control.clone()).await;
    assert_eq!(now.routes_digest, routes_digest(&routes));
    assert_eq!(now.routes, routes);
    assert_eq!(now.operator_term, 7);
    assert_eq!(now.operator_id, "team/bees");
    let connection = &now.connections[0];
    assert_eq!(connection.store_id, store("store-a"));
    assert_eq!(connection.driver_id.as_ref().unwrap().version, "v1");
    assert_eq!(connection.config_digest, config_digest(b"{}"));
    assert_eq!(connection.state(), State::Connected);
    sidecar.stop().await;
}

#[tokio::test]
async fn a_store_that_cannot_be_reached_is_kept_and_shows_in_status_and_readiness() {
    // Nobody accepts here: the port is taken, but not by a storage node.
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let nowhere = listener.local_addr().unwrap();
    drop(listener);
    let sidecar = TestSidecar::start(&[]).await;
    assert!(sidecar.admin("/readyz").await.starts_with("HTTP/1.1 200"));

    let mut control = sidecar.control().await;
    let config = format!(r#"{{"nodes": ["{nowhere}"], "partitions": 1}}"#);
    let mut request = Request::new(multi_raft(&config));
    request.set_timeout(std::time::Duration::from_millis(400));
    let status = control.connect(request).await.unwrap_err();
    assert_eq!(status.code(), Code::Unavailable, "{status}");
    assert!(status.message().contains("keeps trying"), "{status}");

    let status = control.connect(multi_raft(&config)).await.unwrap_err();
    assert_eq!(status.code(), Code::AlreadyExists);
    let report = control
        .get_status(GetStatusRequest {})
        .await
        .unwrap()
        .into_inner();
    assert_eq!(report.connections[0].state(), State::Connecting);
    assert!(report.connections[0].message.contains(&nowhere.to_string()));
    until("readiness to fail", || async {
        let answer = sidecar.admin("/readyz").await;
        answer.starts_with("HTTP/1.1 503") && answer.contains("store team/store-a")
    })
    .await;

    let disconnect = DisconnectRequest {
        store_id: store("store-a"),
    };
    control.disconnect(disconnect).await.unwrap();
    until("readiness to come back", || async {
        sidecar.admin("/readyz").await.starts_with("HTTP/1.1 200")
    })
    .await;
    sidecar.stop().await;
}

#[tokio::test]
async fn connections_and_routes_are_there_again_after_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let sidecar = TestSidecar::start_in(folder.path()).await;
    let mut control = sidecar.control().await;
    control.connect(memory_store("store-a")).await.unwrap();
    control.connect(memory_store("store-b")).await.unwrap();
    let disconnect = DisconnectRequest {
        store_id: store("store-b"),
    };
    control.disconnect(disconnect).await.unwrap();
    control
        .program(program(vec![route("store-a", "counter")]))
        .await
        .unwrap();
    let before = control
        .get_status(GetStatusRequest {})
        .await
        .unwrap()
        .into_inner();
    sidecar.stop().await;

    let sidecar = TestSidecar::start_in(folder.path()).await;
    let mut control = sidecar.control().await;
    let after = control
        .get_status(GetStatusRequest {})
        .await
        .unwrap()
        .into_inner();
    assert_eq!(after, before);
    let mut counter = sidecar.counter().await;
    let get = GetRequest { id: id("visits") };
    assert_eq!(counter.get(get).await.unwrap().into_inner().value, 0);
    sidecar.stop().await;
}

#[tokio::test]
async fn a_damaged_state_file_counts_as_none() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(
        folder.path().join("state"),
        b"ATXRT\0\0\x01 and then rubbish",
    )
    .unwrap();
    let sidecar = TestSidecar::start_in(folder.path()).await;
    let mut control = sidecar.control().await;
    let status = control
        .get_status(GetStatusRequest {})
        .await
        .unwrap()
        .into_inner();
    assert_eq!(status.connections.len(), 0);
    control.connect(memory_store("store-a")).await.unwrap();
    sidecar.stop().await;

    let sidecar = TestSidecar::start_in(folder.path()).await;
    let mut control = sidecar.control().await;
    let status = control
        .get_status(GetStatusRequest {})
        .await
        .unwrap()
        .into_inner();
    assert_eq!(status.connections.len(), 1);
    sidecar.stop().await;
}

/// A call as an operator sends it.
fn sent_by<T>(message: T, operator: &str, term: &str) -> Request<T> {
    let mut request = Request::new(message);
    let metadata = request.metadata_mut();
    metadata.insert("atomix-operator-id", operator.parse().unwrap());
    metadata.insert("atomix-operator-term", term.parse().unwrap());
    request
}

#[tokio::test]
async fn whoever_does_not_say_who_they_are_is_refused_where_that_is_required() {
    let sidecar = TestSidecar::start(&["--require-operator"]).await;
    let mut control = sidecar.control().await;
    let refused = control.connect(memory_store("store-a")).await.unwrap_err();
    assert_eq!(refused.code(), Code::FailedPrecondition, "{refused}");
    let routes = || program(vec![route("a", "*")]);
    let refused = control.program(routes()).await.unwrap_err();
    assert_eq!(refused.code(), Code::FailedPrecondition, "{refused}");
    let now = control.get_status(GetStatusRequest {}).await.unwrap();
    assert!(now.into_inner().connections.is_empty(), "it was connected");
    let call = sent_by(routes(), "team/bees", "1");
    control.program(call).await.unwrap();
    sidecar.stop().await;
}

#[tokio::test]
async fn an_older_and_another_operator_are_refused_also_after_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let sidecar = TestSidecar::start_in(folder.path()).await;
    let routes = |name| program(vec![route(name, "*")]);
    let mut control = sidecar.control().await;
    // Whoever does not say who they are is let pass.
    control.program(routes("a")).await.unwrap();
    let first = sent_by(routes("b"), "team/bees", "3");
    control.program(first).await.unwrap();
    sidecar.stop().await;
    let sidecar = TestSidecar::start_in(folder.path()).await;

    let mut control = sidecar.control().await;
    for (operator, term, named) in [
        ("team/bees", "2", "team/bees in term 3"),
        ("team/ants", "9", "team/bees in term 3"),
    ] {
        let call = sent_by(routes("c"), operator, term);
        let refused = control.program(call).await.unwrap_err();
        assert_eq!(refused.code(), Code::FailedPrecondition, "{refused}");
        assert!(refused.message().contains(named), "{refused}");
        assert_eq!(
            refused.metadata().get("atomix-operator-term").unwrap(),
            "3",
            "the operator reads it there"
        );
        let unknown = DisconnectRequest {
            store_id: store("store-a"),
        };
        let call = sent_by(unknown, operator, term);
        let refused = control.disconnect(call).await.unwrap_err();
        assert_eq!(refused.code(), Code::FailedPrecondition, "before it looks");
        let call = sent_by(memory_store("store-c"), operator, term);
        let refused = control.connect(call).await.unwrap_err();
        assert_eq!(refused.code(), Code::FailedPrecondition, "{refused}");
        let unknown = ConfigureRequest {
            store_id: store("store-a"),
            ..ConfigureRequest::default()
        };
        let call = sent_by(unknown, operator, term);
        let refused = control.configure(call).await.unwrap_err();
        assert_eq!(refused.code(), Code::FailedPrecondition, "before it looks");
    }
    let now = control.get_status(GetStatusRequest {}).await.unwrap();
    let now = now.into_inner();
    assert_eq!(
        now.routes_digest,
        routes_digest(&[route("b", "*")]),
        "a refused call changes nothing"
    );
    assert!(now.connections.is_empty(), "{:?}", now.connections);

    let mut call = sent_by(routes("d"), "team/ants", "1");
    let metadata = call.metadata_mut();
    metadata.insert("atomix-operator-take-over", "true".parse().unwrap());
    control.program(call).await.unwrap();
    let call = sent_by(routes("e"), "team/bees", "4");
    assert!(control.program(call).await.is_err(), "it was taken over");
    sidecar.stop().await;
}
