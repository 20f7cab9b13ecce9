//! The multi-raft driver against faults of the wire, each placed exactly: streams that break after
//! an operation was applied, silence, wrong leaders, sessions that end. Real storage nodes are tested
//! in crate `runtime`; here a few servers of the real protocol share one real state machine.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "tests"
)]
#![allow(missing_docs, unreachable_pub, reason = "tests")]

mod cluster;
mod spread;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use atomix_driver::resolver::{DnsResolver, HostPort, Resolver};
use atomix_driver::{
    Connection, ConnectionState, Driver as _, DriverError, ErrorKind, Invocation, MultiRaftDriver,
    Owner, StoreId,
};
use atomix_proto::multiraft::v1::failure::Reason;
use atomix_proto::runtime::counter::v1::{
    GetRequest, GetResponse, IncrementRequest, IncrementResponse,
};
use atomix_proto::runtime::v1::PrimitiveId;
use cluster::{Cluster, Fault, until};
use prost::Message as _;
use tokio::time::Instant;

const LONG: Duration = Duration::from_secs(20);

async fn connect(cluster: &Cluster) -> Arc<dyn Connection> {
    connect_with(cluster, r#"{"session": "3s", "election": "150ms"}"#).await
}

async fn start(config: &str) -> Arc<dyn Connection> {
    let store = StoreId {
        namespace: "team".into(),
        name: "store-a".into(),
    };
    let driver = MultiRaftDriver::new(Arc::new(DnsResolver));
    driver.connect(&store, config.as_bytes()).await.unwrap()
}

async fn connect_with(cluster: &Cluster, timeouts: &str) -> Arc<dyn Connection> {
    let connection = start(&cluster.config(timeouts)).await;
    let mut state = connection.state();
    let reached = state.wait_for(|state| *state == ConnectionState::Connected);
    tokio::time::timeout(LONG, reached).await.unwrap().unwrap();
    connection
}

fn invocation(method: &str, request: &impl prost::Message, patience: Duration) -> Invocation {
    Invocation {
        kind: "counter".into(),
        primitive: "visits".into(),
        method: method.into(),
        request: request.encode_to_vec().into(),
        owner: Owner::NONE,
        deadline: Instant::now() + patience,
    }
}

fn id() -> Option<PrimitiveId> {
    Some(PrimitiveId {
        id: "visits".into(),
    })
}

async fn increment(
    connection: &Arc<dyn Connection>,
    patience: Duration,
) -> Result<i64, DriverError> {
    let request = IncrementRequest { id: id(), delta: 1 };
    let reply = connection
        .invoke(invocation("Increment", &request, patience))
        .await?;
    Ok(IncrementResponse::decode(reply).unwrap().value)
}

async fn get(connection: &Arc<dyn Connection>) -> i64 {
    let request = GetRequest { id: id() };
    let reply = connection
        .invoke(invocation("Get", &request, LONG))
        .await
        .unwrap();
    GetResponse::decode(reply).unwrap().value
}

#[tokio::test]
async fn a_mutation_whose_reply_was_lost_is_applied_once() {
    let cluster = Cluster::start(3, 1).await;
    let connection = connect(&cluster).await;
    assert_eq!(increment(&connection, LONG).await.unwrap(), 1);
    cluster.fault(Fault::BreakAfterApply);
    assert_eq!(increment(&connection, LONG).await.unwrap(), 2);
    cluster.fault(Fault::Answer(Reason::OutcomeUnknown));
    assert_eq!(increment(&connection, LONG).await.unwrap(), 3);
    assert_eq!(get(&connection).await, 3);
}

#[tokio::test]
async fn a_moved_leader_is_found_with_a_hint_and_without_one() {
    let cluster = Cluster::start(3, 1).await;
    let connection = connect(&cluster).await;
    for (leader, hints) in [(1, true), (2, false), (0, true), (2, true), (1, false)] {
        cluster.lead(leader, hints);
        increment(&connection, LONG).await.unwrap();
    }
    assert_eq!(get(&connection).await, 5);
}

/// It tells of no other leader, and neither session nor anybody who waits may hang on it.
#[tokio::test]
async fn a_leader_that_is_cut_off_from_the_others_is_left() {
    let cluster = Cluster::start(3, 1).await;
    let connection = connect(&cluster).await;
    increment(&connection, LONG).await.unwrap();
    for leader in [1, 2] {
        cluster.cut_off_leader(leader);
        increment(&connection, LONG).await.unwrap();
    }
    // Keep-alives find the leader by themselves while nobody asks for anything.
    let kept = cluster.kept_by(0);
    cluster.cut_off_leader(0);
    until("a keep-alive there", || cluster.kept_by(0) > kept).await;
    increment(&connection, LONG).await.unwrap();
    assert_eq!(cluster.opened(), 1);
    assert_eq!(get(&connection).await, 4);
}

/// One name for all nodes, as a headless Service gives it.
struct Names(parking_lot::Mutex<Vec<SocketAddr>>);

#[async_trait]
impl Resolver for Names {
    async fn resolve(&self, _name: &HostPort) -> std::io::Result<Vec<SocketAddr>> {
        Ok(self.0.lock().clone())
    }
}

#[tokio::test]
async fn a_partition_that_moved_to_a_new_node_is_found_by_looking_the_names_up_again() {
    let cluster = Cluster::start(3, 1).await;
    let addresses = cluster.addresses();
    let names = Arc::new(Names(parking_lot::Mutex::new(addresses[..2].to_vec())));
    let driver = MultiRaftDriver::new(names.clone());
    let store = StoreId {
        namespace: "team".into(),
        name: "store-a".into(),
    };
    // Its own patience with nodes that do not host the partition is two elections.
    let config =
        r#"{"nodes": ["nodes.store:5681"], "partitions": 1, "timeouts": {"election": "3s"}}"#;
    let connection = driver.connect(&store, config.as_bytes()).await.unwrap();
    assert_eq!(increment(&connection, LONG).await.unwrap(), 1);
    *names.0.lock() = addresses;
    cluster.move_to(2);
    assert_eq!(increment(&connection, LONG).await.unwrap(), 2);
    assert_eq!(get(&connection).await, 2);
}

#[tokio::test]
async fn a_silent_leader_is_passed_over_and_its_late_work_counts_once() {
    let cluster = Cluster::start(3, 1).await;
    let connection = connect(&cluster).await;
    increment(&connection, LONG).await.unwrap();
    // The old leader has applied it but says nothing; the others go on hinting at it for a while.
    cluster.fault(Fault::SilentAfterApply);
    let waiting = tokio::spawn({
        let connection = Arc::clone(&connection);
        async move { increment(&connection, LONG).await }
    });
    until("the operation to arrive", || cluster.faults_left() == 0).await;
    cluster.lead(2, true);
    assert_eq!(waiting.await.unwrap().unwrap(), 2);
    assert_eq!(get(&connection).await, 2);
}

#[tokio::test]
async fn the_deadline_holds_while_nobody_leads_and_the_operation_is_withdrawn() {
    let cluster = Cluster::start(3, 1).await;
    let connection = connect(&cluster).await;
    increment(&connection, LONG).await.unwrap();
    cluster.fault(Fault::SilentAfterApply);
    cluster.nobody_leads_after_faults();
    let patience = Duration::from_millis(700);
    let started = Instant::now();
    let error = increment(&connection, patience).await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::Timeout, "{error}");
    let elapsed = started.elapsed();
    assert!(
        elapsed >= patience && elapsed < patience + Duration::from_secs(2),
        "{elapsed:?}"
    );
    cluster.lead(1, true);
    until("the withdrawal", || cluster.cancelled() == 1).await;
    // It was applied once all the same: the outcome was unknown, not undone.
    assert_eq!(get(&connection).await, 2);
    assert_eq!(increment(&connection, LONG).await.unwrap(), 3);
}

#[tokio::test]
async fn an_operation_that_was_certainly_not_applied_is_tried_again_and_never_withdrawn() {
    let cluster = Cluster::start(1, 1).await;
    let connection = connect(&cluster).await;
    increment(&connection, LONG).await.unwrap();
    for _ in 0..4 {
        cluster.fault(Fault::Answer(Reason::Unavailable));
    }
    assert_eq!(increment(&connection, LONG).await.unwrap(), 2);
    assert_eq!(cluster.faults_left(), 0);
    for _ in 0..1_000 {
        cluster.fault(Fault::Answer(Reason::Unavailable));
    }
    let error = increment(&connection, Duration::from_millis(300))
        .await
        .unwrap_err();
    assert_eq!(error.kind, ErrorKind::Timeout, "{error}");
    cluster.clear_faults();
    assert_eq!(increment(&connection, LONG).await.unwrap(), 3);
    assert_eq!(cluster.cancelled(), 0);
}

#[tokio::test]
async fn a_session_lost_while_idle_is_opened_again_without_notice() {
    let cluster = Cluster::start(3, 1).await;
    let connection = connect(&cluster).await;
    increment(&connection, LONG).await.unwrap();
    cluster.expire_sessions();
    assert_eq!(increment(&connection, LONG).await.unwrap(), 2);
    assert_eq!(cluster.opened(), 2);
}

#[tokio::test]
async fn a_store_that_begins_again_hands_no_old_session_to_another_driver() {
    let cluster = Cluster::start(3, 1).await;
    let first = connect(&cluster).await;
    let second = connect(&cluster).await;
    for value in 1..=5 {
        assert_eq!(increment(&first, LONG).await.unwrap(), value);
    }

    cluster.begin_again();
    // This one gets the id that the other's session had.
    for value in 1..=3 {
        assert_eq!(increment(&second, LONG).await.unwrap(), value);
    }
    for value in 4..=10 {
        assert_eq!(increment(&first, LONG).await.unwrap(), value, "applied");
    }
    for value in 11..=13 {
        assert_eq!(increment(&second, LONG).await.unwrap(), value, "applied");
    }
    assert_eq!(get(&first).await, 13);
    assert_eq!(cluster.opened(), 3);
}

#[tokio::test]
async fn a_mutation_in_flight_when_the_store_begins_again_is_unknown_and_never_sent_again() {
    let cluster = Cluster::start(3, 1).await;
    let first = connect(&cluster).await;
    let second = connect(&cluster).await;
    increment(&first, LONG).await.unwrap();
    cluster.fault(Fault::SilentAfterApply);
    let waiting = tokio::spawn({
        let first = Arc::clone(&first);
        async move { increment(&first, LONG).await }
    });
    until("the operation to arrive", || cluster.faults_left() == 0).await;
    cluster.begin_again();
    assert_eq!(increment(&second, LONG).await.unwrap(), 1);
    let error = waiting.await.unwrap().unwrap_err();
    assert_eq!(error.kind, ErrorKind::Unknown, "{error}");
    assert_eq!(get(&second).await, 1);
    assert_eq!(increment(&first, LONG).await.unwrap(), 2);
}

#[tokio::test]
async fn a_node_that_missed_that_the_store_began_again_is_not_asked() {
    let cluster = Cluster::start(2, 1).await;
    // The same addresses serve, later, what they had before.
    let connection = connect(&cluster).await;
    increment(&connection, LONG).await.unwrap();
    cluster.begin_again();
    assert_eq!(increment(&connection, LONG).await.unwrap(), 1);
    cluster.go_back();
    let error = increment(&connection, Duration::from_millis(700))
        .await
        .unwrap_err();
    assert_eq!(error.kind, ErrorKind::Timeout, "{error}");
    until("the state to say why", || {
        matches!(
            &*connection.state().borrow(),
            ConnectionState::Connecting { reason } if reason.contains("incarnation 1")
        )
    })
    .await;
}

#[tokio::test]
async fn a_session_lost_with_a_mutation_in_flight_is_unknown_and_never_sent_again() {
    let cluster = Cluster::start(3, 1).await;
    let connection = connect(&cluster).await;
    increment(&connection, LONG).await.unwrap();
    cluster.fault(Fault::ExpireAfterApplyAndBreak);
    let error = increment(&connection, LONG).await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::Unknown, "{error}");
    assert_eq!(get(&connection).await, 2);
    assert_eq!(increment(&connection, LONG).await.unwrap(), 3);
}

#[tokio::test]
async fn a_caller_that_goes_away_withdraws_its_operation() {
    let cluster = Cluster::start(1, 1).await;
    let connection = connect(&cluster).await;
    increment(&connection, LONG).await.unwrap();
    cluster.fault(Fault::SilentAfterApply);
    let waiting = tokio::spawn({
        let connection = Arc::clone(&connection);
        async move { increment(&connection, LONG).await }
    });
    until("the operation to arrive", || cluster.faults_left() == 0).await;
    waiting.abort();
    until("the withdrawal", || cluster.cancelled() == 1).await;
    assert_eq!(increment(&connection, LONG).await.unwrap(), 3);
}

#[tokio::test]
async fn sessions_are_kept_alive_together_and_closed_at_the_end() {
    let cluster = Cluster::start(2, 4).await;
    let connection = connect_with(&cluster, r#"{"session": "600ms", "election": "150ms"}"#).await;
    for name in 0..64 {
        let request = IncrementRequest { id: id(), delta: 1 };
        let mut invocation = invocation("Increment", &request, LONG);
        invocation.primitive = format!("visits-{name}");
        connection.invoke(invocation).await.unwrap();
    }
    assert_eq!(cluster.opened(), 4);
    until("keep-alives of all sessions in one message", || {
        cluster.most_keep_alives_in_a_message() == 4
    })
    .await;
    connection.disconnect().await;
    assert_eq!(cluster.sessions(), 0);
    let error = increment(&connection, LONG).await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::Unavailable, "{error}");
}

#[tokio::test]
async fn a_node_of_another_store_and_other_partition_counts_are_refused() {
    let cluster = Cluster::start(1, 2).await;
    let connection = connect(&cluster).await;
    let other_count = cluster
        .config("{}")
        .replace("\"partitions\": 2", "\"partitions\": 3");
    let error = connection
        .configure(other_count.as_bytes())
        .await
        .unwrap_err();
    assert_eq!(error.kind, ErrorKind::Invalid);
    assert!(error.message.contains("partitions"), "{error}");

    let other = Cluster::start_as("another-store", 1, 2).await;
    connection
        .configure(other.config("{}").as_bytes())
        .await
        .unwrap();
    let error = increment(&connection, Duration::from_millis(500))
        .await
        .unwrap_err();
    assert_eq!(error.kind, ErrorKind::Timeout);
    until("the state to say why", || {
        matches!(
            &*connection.state().borrow(),
            ConnectionState::Connecting { reason } if reason.contains("another-store")
        )
    })
    .await;
    connection
        .configure(cluster.config("{}").as_bytes())
        .await
        .unwrap();
    increment(&connection, LONG).await.unwrap();
}

#[tokio::test]
async fn too_few_partitions_in_the_configuration_are_refused_with_both_numbers() {
    let cluster = Cluster::start(3, 4).await;
    let config = cluster
        .config(r#"{"session": "3s", "election": "150ms"}"#)
        .replace("\"partitions\": 4", "\"partitions\": 3");
    let connection = start(&config).await;
    let mut state = connection.state();
    let told = state.wait_for(|state| matches!(state, ConnectionState::Misconfigured { .. }));
    tokio::time::timeout(LONG, told).await.unwrap().unwrap();

    let started = Instant::now();
    let error = increment(&connection, LONG).await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::FailedPrecondition, "{error}");
    assert!(error.message.contains("partitions says 3"), "{error}");
    assert!(error.message.contains("at least 4"), "{error}");
    assert!(started.elapsed() < LONG / 2, "at once");
    assert_eq!(cluster.opened(), 0, "nothing went to a wrong place");
}

#[tokio::test]
async fn too_many_partitions_in_the_configuration_are_refused_where_it_shows() {
    let cluster = Cluster::start(3, 1).await;
    let config = cluster
        .config(r#"{"session": "3s", "election": "150ms"}"#)
        .replace("\"partitions\": 1", "\"partitions\": 63");
    let connection = start(&config).await;
    let error = increment(&connection, LONG).await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::FailedPrecondition, "{error}");
    assert!(error.message.contains("partitions says 63"), "{error}");
    assert!(
        error.message.contains("the highest that it hosts is 1"),
        "{error}"
    );
}

#[tokio::test]
async fn a_withdrawal_goes_on_after_an_outage_that_was_longer_than_the_session_timeout() {
    let cluster = Cluster::start(3, 1).await;
    let timeouts = r#"{"session": "450ms", "election": "150ms"}"#;
    let connection = connect_with(&cluster, timeouts).await;
    increment(&connection, LONG).await.unwrap();
    cluster.fault(Fault::SilentAfterApply);
    cluster.nobody_leads_after_faults();
    let error = increment(&connection, Duration::from_millis(200)).await;
    assert_eq!(error.unwrap_err().kind, ErrorKind::Timeout);
    let outage = Instant::now();
    until("the end of the outage", || {
        outage.elapsed() > Duration::from_millis(1_200)
    })
    .await;
    assert_eq!(cluster.cancelled(), 0);
    cluster.lead(1, true);
    until("the withdrawal", || cluster.cancelled() == 1).await;
    assert_eq!(increment(&connection, LONG).await.unwrap(), 3);
}
