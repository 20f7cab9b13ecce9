//! SessionService of the sidecar.

use atomix_proto::runtime::counter::v1::{CloseRequest, CreateRequest, GetRequest};
use atomix_proto::runtime::v1::session_status::State;
use atomix_proto::runtime::v1::{
    DisconnectRequest, GetSessionRequest, ListSessionsRequest, SessionId,
};
use prost::Message as _;
use prost_types::Struct;
use std::time::Duration;
use tokio::time::Instant;
use tonic::{Code, Request};

use crate::harness::{TestSidecar, id, memory_store, program, route, store, within};

fn list(kind: &str, watch: bool) -> ListSessionsRequest {
    ListSessionsRequest {
        r#type: kind.into(),
        watch,
    }
}

fn session(name: &str, primitive: &str) -> GetSessionRequest {
    GetSessionRequest {
        session_id: Some(SessionId {
            name: name.into(),
            primitive: id(primitive),
        }),
    }
}

#[tokio::test]
async fn a_session_is_an_open_primitive_with_its_store_kind_and_configuration() {
    let sidecar = TestSidecar::start(&[]).await;
    let mut control = sidecar.control().await;
    control.connect(memory_store("store-a")).await.unwrap();
    let mut configured = route("store-a", "counter");
    configured.services[0].config =
        r#"{"cache": {"enabled": true, "names": ["x", 1.5, null]}}"#.into();
    control.program(program(vec![configured])).await.unwrap();
    let mut counter = sidecar.counter().await;
    counter.get(GetRequest { id: id("visits") }).await.unwrap();

    let mut sessions = sidecar.sessions().await;
    let listed = sessions
        .list_sessions(list("counter", false))
        .await
        .unwrap()
        .into_inner();
    let [only] = listed.sessions.as_slice() else {
        panic!("{listed:?}");
    };
    let meta = only.meta.clone().unwrap();
    let name = meta.id.clone().unwrap().name;
    assert_eq!(name, "team/store-a/counter");
    assert_eq!(meta.labels["store-name"], "store-a");
    assert_eq!(only.status.as_ref().unwrap().state(), State::Opened);
    let config = only.spec.clone().unwrap().config.unwrap();
    assert_eq!(
        config.type_url,
        "type.googleapis.com/google.protobuf.Struct"
    );
    let config = Struct::decode(config.value.as_slice()).unwrap();
    assert!(
        format!("{config:?}").contains("NumberValue(1.5)"),
        "{config:?}"
    );

    for asked in [name.as_str(), "team/store-a"] {
        let found = sessions
            .get_session(session(asked, "visits"))
            .await
            .unwrap();
        assert_eq!(found.into_inner().session.as_ref(), Some(only));
    }
    for (request, code) in [
        (session("team/store-b", "visits"), Code::NotFound),
        (session(&name, "other"), Code::NotFound),
        (session("", "visits"), Code::InvalidArgument),
        (session(&name, ""), Code::InvalidArgument),
    ] {
        assert_eq!(
            sessions.get_session(request).await.unwrap_err().code(),
            code
        );
    }
    let other_kind = sessions
        .list_sessions(list("map", false))
        .await
        .unwrap()
        .into_inner();
    assert_eq!(other_kind.sessions.len(), 0);

    let disconnect = DisconnectRequest {
        store_id: store("store-a"),
    };
    control.disconnect(disconnect).await.unwrap();
    let found = sessions
        .get_session(session(&name, "visits"))
        .await
        .unwrap()
        .into_inner();
    assert_eq!(
        found.session.unwrap().status.unwrap().state(),
        State::Opening
    );
    sidecar.stop().await;
}

#[tokio::test]
async fn a_unary_watch_answers_at_the_first_change_or_shortly_before_the_deadline() {
    let sidecar = TestSidecar::with_memory_store().await;
    let mut sessions = sidecar.sessions().await;
    let mut request = Request::new(list("", true));
    request
        .metadata_mut()
        .insert("grpc-timeout", "400m".parse().unwrap());
    let started = Instant::now();
    let unchanged = sessions.list_sessions(request).await.unwrap().into_inner();
    assert_eq!(unchanged.sessions.len(), 0);
    assert!(
        started.elapsed() >= Duration::from_millis(300),
        "{:?}",
        started.elapsed()
    );

    let waiting = tokio::spawn({
        let mut sessions = sessions.clone();
        async move { sessions.list_sessions(list("", true)).await }
    });
    // Whether the watch or the change comes first, the watch must answer: this one keeps changing.
    let mut counters = sidecar.counters().await;
    let mut number = 0;
    while !waiting.is_finished() {
        number += 1;
        let create = CreateRequest {
            id: id(&format!("visits-{number}")),
            tags: Vec::new(),
        };
        counters.create(create).await.unwrap();
    }
    let changed = waiting.await.unwrap().unwrap().into_inner();
    assert!(!changed.sessions.is_empty());
    sidecar.stop().await;
}

#[tokio::test]
async fn a_watch_stream_begins_with_what_is_and_goes_on_with_each_change() {
    let sidecar = TestSidecar::with_memory_store().await;
    let mut sessions = sidecar.sessions().await;
    let mut watch = sessions
        .watch_sessions(list("", false))
        .await
        .unwrap()
        .into_inner();
    let mut next = async || {
        within("an answer", watch.message())
            .await
            .unwrap()
            .unwrap()
            .sessions
    };
    assert_eq!(next().await.len(), 0);
    let mut counters = sidecar.counters().await;
    let create = CreateRequest {
        id: id("visits"),
        tags: Vec::new(),
    };
    counters.create(create).await.unwrap();
    assert_eq!(next().await.len(), 1);
    counters
        .close(CloseRequest { id: id("visits") })
        .await
        .unwrap();
    assert_eq!(next().await.len(), 0);
    sidecar.stop().await;
}
