//! Calls to the control port that no operator of ours makes: each is answered with a code that says
//! what is wrong, and the sidecar goes on.

use atomix_proto::runtime::v1::{
    ConfigureRequest, ConnectRequest, DisconnectRequest, DriverId, GetSessionRequest,
    GetStatusRequest, PrimitiveId, Route, Service, SessionId, StoreId,
};
use tonic::{Code, Request, Status};

use crate::harness::{TestSidecar, memory_store, program, store};

#[tokio::test]
async fn whatever_the_control_port_is_asked_it_answers_with_a_code_and_goes_on() {
    let sidecar = TestSidecar::start(&[]).await;
    let mut control = sidecar.control().await;
    let nameless = || {
        Some(StoreId {
            namespace: "team".into(),
            name: String::new(),
        })
    };
    let driver = |name: &str| {
        Some(DriverId {
            name: name.into(),
            version: String::new(),
        })
    };
    let large = || vec![b' '; 5 << 20];
    let mut answers: Vec<(&str, Result<(), Status>, Code, &str)> = Vec::new();

    for (what, request, code, words) in [
        (
            "connect: no store",
            ConnectRequest {
                store_id: None,
                ..memory_store("a")
            },
            Code::InvalidArgument,
            "store_id.name",
        ),
        (
            "connect: an empty name",
            ConnectRequest {
                store_id: nameless(),
                ..memory_store("a")
            },
            Code::InvalidArgument,
            "store_id.name",
        ),
        (
            "connect: no driver",
            ConnectRequest {
                driver_id: None,
                ..memory_store("a")
            },
            Code::InvalidArgument,
            "driver_id.name",
        ),
        (
            "connect: an unknown driver",
            ConnectRequest {
                driver_id: driver("../../etc"),
                ..memory_store("a")
            },
            Code::NotFound,
            "driver",
        ),
        (
            "connect: no JSON",
            ConnectRequest {
                config: vec![0xff, 0xfe].into(),
                ..memory_store("a")
            },
            Code::InvalidArgument,
            "JSON",
        ),
        (
            "connect: too large",
            ConnectRequest {
                config: large().into(),
                ..memory_store("a")
            },
            Code::ResourceExhausted,
            "length",
        ),
    ] {
        let answer = control.connect(request).await.map(|_| ());
        answers.push((what, answer, code, words));
    }
    for (what, store_id, config, code, words) in [
        (
            "configure: no store",
            None,
            vec![],
            Code::InvalidArgument,
            "store_id.name",
        ),
        (
            "configure: an empty name",
            nameless(),
            vec![],
            Code::InvalidArgument,
            "store_id.name",
        ),
        (
            "configure: an unknown store",
            store("b"),
            vec![],
            Code::NotFound,
            "b",
        ),
        (
            "configure: too large",
            store("b"),
            large(),
            Code::ResourceExhausted,
            "length",
        ),
    ] {
        let request = ConfigureRequest {
            store_id,
            config: config.into(),
        };
        let answer = control.configure(request).await.map(|_| ());
        answers.push((what, answer, code, words));
    }
    for (what, store_id, code, words) in [
        (
            "disconnect: no store",
            None,
            Code::InvalidArgument,
            "store_id.name",
        ),
        (
            "disconnect: an empty name",
            nameless(),
            Code::InvalidArgument,
            "store_id.name",
        ),
        (
            "disconnect: an unknown store",
            store("b"),
            Code::NotFound,
            "b",
        ),
    ] {
        let answer = control
            .disconnect(DisconnectRequest { store_id })
            .await
            .map(|_| ());
        answers.push((what, answer, code, words));
    }
    let service = |name: &str, config: Vec<u8>| Service {
        name: name.into(),
        config: config.into(),
    };
    for (what, route, code, words) in [
        (
            "program: no store",
            Route::default(),
            Code::InvalidArgument,
            "routes[0].store_id.name",
        ),
        (
            "program: a nameless kind",
            Route {
                store_id: store("a"),
                services: vec![service("", vec![])],
                ..Route::default()
            },
            Code::InvalidArgument,
            "routes[0]",
        ),
        (
            "program: too large",
            Route {
                store_id: store("a"),
                services: vec![service("counter", large())],
                ..Route::default()
            },
            Code::ResourceExhausted,
            "length",
        ),
    ] {
        let answer = control.program(program(vec![route])).await.map(|_| ());
        answers.push((what, answer, code, words));
    }
    let mut termed = Request::new(DisconnectRequest {
        store_id: store("b"),
    });
    let term = "soon".parse().expect("text is a header");
    termed.metadata_mut().insert("atomix-operator-term", term);
    let answer = control.disconnect(termed).await.map(|_| ());
    let words = "atomix-operator-term";
    answers.push((
        "a term that is no number",
        answer,
        Code::InvalidArgument,
        words,
    ));

    let mut sessions = sidecar.sessions().await;
    for (what, session_id, words) in [
        ("session: no id", None, "session_id"),
        (
            "session: an empty name",
            Some(SessionId {
                name: String::new(),
                primitive: Some(PrimitiveId { id: "x".into() }),
            }),
            "session_id",
        ),
    ] {
        let request = GetSessionRequest { session_id };
        let answer = sessions.get_session(request).await.map(|_| ());
        answers.push((what, answer, Code::InvalidArgument, words));
    }

    for (what, answer, code, words) in answers {
        let status = answer.expect_err(what);
        assert_eq!(status.code(), code, "{what}: {status}");
        assert!(status.message().contains(words), "{what}: {status}");
    }
    // Nothing of it had an effect, and the sidecar serves on.
    let status = control
        .get_status(GetStatusRequest {})
        .await
        .unwrap()
        .into_inner();
    assert!(status.connections.is_empty(), "{status:?}");
    control.connect(memory_store("a")).await.unwrap();
    sidecar.stop().await;
}
