//! The sidecar with real storage nodes: processes that replicate, are killed and come back.
//!
//! Needs the program `atomix-node` in the same target directory: `cargo build -p atomix-node`.

mod misfits;
mod sessions;
mod store;
mod streams;

use std::time::Duration;

use atomix_proto::runtime::counter::v1::counter_client::CounterClient;
use atomix_proto::runtime::counter::v1::{GetRequest, IncrementRequest};
use atomix_proto::runtime::v1::GetStatusRequest;
use atomix_proto::runtime::v1::connection::State;
use atomix_proto::runtime::v1::runtime_client::RuntimeClient;
use tokio::time::Instant;
use tonic::transport::Channel;
use tonic::{Code, Request};

use self::store::{SidecarProcess, TestStore};
use crate::conformance::Suite;
use crate::harness::{TestSidecar, id, program, route, until};

async fn increment(counter: &mut CounterClient<Channel>, timeout: Duration) -> Result<i64, Code> {
    let mut request = Request::new(IncrementRequest {
        id: id("visits"),
        delta: 1,
    });
    let header = format!("{}m", timeout.as_millis());
    request
        .metadata_mut()
        .insert("grpc-timeout", header.parse().unwrap());
    let answer = counter.increment(request).await;
    answer
        .map(|answer| answer.into_inner().value)
        .map_err(|status| status.code())
}

async fn value(counter: &mut CounterClient<Channel>) -> i64 {
    let get = GetRequest { id: id("visits") };
    counter.get(get).await.unwrap().into_inner().value
}

async fn sidecar_of(store: &TestStore) -> TestSidecar {
    let sidecar = TestSidecar::start(&[]).await;
    let mut control = sidecar.control().await;
    control
        .connect(store.connect_request("store-a"))
        .await
        .unwrap();
    control
        .program(program(vec![route("store-a", "*")]))
        .await
        .unwrap();
    sidecar
}

#[tokio::test]
async fn every_kind_of_the_multi_raft_driver_conforms() {
    let store = TestStore::start(3, 3).await;
    let sidecar = sidecar_of(&store).await;
    let suite = Suite {
        sidecar: &sidecar,
        partitions: 3,
    };
    suite.run().await;
    sidecar.stop().await;
}

#[tokio::test]
async fn nothing_is_lost_or_doubled_when_leaders_are_killed_under_load() {
    let mut store = TestStore::start(3, 1).await;
    let sidecar = sidecar_of(&store).await;
    let counter = sidecar.counter().await;
    let (stop, stopped) = tokio::sync::watch::channel(false);
    let clients: Vec<_> = (0..8)
        .map(|_| {
            let mut counter = counter.clone();
            let stopped = stopped.clone();
            tokio::spawn(async move {
                let (mut acknowledged, mut unknown) = (0_i64, 0_i64);
                while !*stopped.borrow() {
                    match increment(&mut counter, Duration::from_secs(10)).await {
                        Ok(_) => acknowledged += 1,
                        Err(Code::DeadlineExceeded | Code::Unknown) => unknown += 1,
                        Err(code) => panic!("{code:?}"),
                    }
                }
                (acknowledged, unknown)
            })
        })
        .collect();
    let mut counter = counter;
    for _ in 0..2 {
        let before = value(&mut counter).await;
        until("progress", || {
            let mut counter = counter.clone();
            async move { value(&mut counter).await > before + 50 }
        })
        .await;
        let killed = store.kill_leader(1).await;
        // A read that comes back has found the new leader.
        value(&mut counter).await;
        store.start_node(killed);
    }
    stop.send(true).unwrap();
    let (mut acknowledged, mut unknown) = (0, 0);
    for client in clients {
        let (one_acknowledged, one_unknown) = client.await.unwrap();
        acknowledged += one_acknowledged;
        unknown += one_unknown;
    }
    let counted = value(&mut counter).await;
    assert!(acknowledged > 100, "{acknowledged}");
    assert!(
        (acknowledged..=acknowledged + unknown).contains(&counted),
        "acknowledged {acknowledged}, unknown {unknown}, counted {counted}"
    );
    sidecar.stop().await;
}

#[tokio::test]
async fn a_deadline_is_honoured_while_no_leader_exists_and_service_comes_back() {
    let mut store = TestStore::start(3, 1).await;
    let sidecar = sidecar_of(&store).await;
    let mut counter = sidecar.counter().await;
    assert_eq!(
        increment(&mut counter, Duration::from_secs(20)).await,
        Ok(1)
    );
    store.kill_node(0);
    store.kill_node(1);
    let patience = Duration::from_millis(1_500);
    let started = Instant::now();
    let refused = increment(&mut counter, patience).await;
    let elapsed = started.elapsed();
    assert_eq!(refused, Err(Code::DeadlineExceeded));
    assert!(elapsed < patience + Duration::from_secs(5), "{elapsed:?}");
    store.start_node(0);
    store.start_node(1);
    let after = increment(&mut counter, Duration::from_secs(20))
        .await
        .unwrap();
    assert!((2..=3).contains(&after), "{after}");
    sidecar.stop().await;
}

#[tokio::test]
async fn a_killed_sidecar_comes_back_with_its_connections_and_counts_on() {
    let store = TestStore::start(3, 2).await;
    let folder = tempfile::tempdir().unwrap();
    let mut sidecar = SidecarProcess::start(folder.path());
    let mut control = RuntimeClient::new(sidecar.control().await);
    control
        .connect(store.connect_request("store-a"))
        .await
        .unwrap();
    control
        .program(program(vec![route("store-a", "*")]))
        .await
        .unwrap();
    let mut counter = CounterClient::new(sidecar.application().await);
    for expected in 1..=5 {
        assert_eq!(
            increment(&mut counter, Duration::from_secs(20)).await,
            Ok(expected)
        );
    }
    sidecar.kill_and_start_again();
    let mut control = RuntimeClient::new(sidecar.control().await);
    until("the store to be reached again", || {
        let mut control = control.clone();
        async move {
            let status = control
                .get_status(GetStatusRequest {})
                .await
                .unwrap()
                .into_inner();
            status
                .connections
                .first()
                .is_some_and(|one| one.state() == State::Connected)
        }
    })
    .await;
    let status = control
        .get_status(GetStatusRequest {})
        .await
        .unwrap()
        .into_inner();
    assert_eq!(status.connections.len(), 1);
    let mut counter = CounterClient::new(sidecar.application().await);
    assert_eq!(
        increment(&mut counter, Duration::from_secs(20)).await,
        Ok(6)
    );
    let ready = crate::harness::fetch(sidecar.admin_address(), "/readyz").await;
    assert!(ready.starts_with("HTTP/1.1 200"), "{ready}");
}
