//! The Node service and the edges of the Partitions service, on real nodes.

use std::fs::write;
use std::time::Duration;

use atomix_process::panics::PANICS_AT;
use atomix_proto::multiraft::v1::failure::Reason;
use atomix_proto::multiraft::v1::watch_response::Event;
use atomix_proto::multiraft::v1::{
    BootstrapRequest, DriverHello, JoinRequest, LeaveRequest, Operate, RecoverRequest,
    TransferLeadershipRequest, WatchRequest, request,
};
use rcgen::string::Ia5String;
use rcgen::{CertificateParams, KeyPair, SanType};
use tokio::process::Command;
use tonic::{Code, Request};

use crate::support::driver::{NoReply, Stream, increment, operation};
use crate::support::eventually;
use crate::support::nodes::{Cluster, NodeProcess, PATIENCE, member_id};

#[tokio::test]
async fn a_bootstrap_is_idempotent_and_no_second_plan_is_accepted() {
    let mut cluster = Cluster::bootstrapped(2).await;
    let code = |result: Result<(), tonic::Status>| result.err().map(|status| status.code());

    for node in 0..3 {
        cluster.nodes[node]
            .bootstrap(cluster.plan(node, 2, 1))
            .await
            .expect("the same plan again is no error");
    }
    let status = cluster.nodes[0].status().await.unwrap();
    assert_eq!(status.store_uid, "a-store");
    assert_eq!(status.incarnation, 1);
    assert_eq!(status.groups.len(), 2);
    assert_eq!(status.groups[0].member_id, member_id(1, 1, 0));
    assert_eq!(status.groups[0].voters.len(), 3);

    let mut other_plan = cluster.plan(0, 2, 1);
    other_plan.partitions[1].initializer = member_id(2, 1, 1);
    assert_eq!(
        code(cluster.nodes[0].bootstrap(other_plan).await),
        Some(Code::FailedPrecondition)
    );
    let mut other_store = cluster.plan(0, 2, 2);
    for partition in &mut other_store.partitions {
        partition.store_uid = "another-store".to_owned();
    }
    assert_eq!(
        code(cluster.nodes[0].bootstrap(other_store).await),
        Some(Code::FailedPrecondition)
    );
    assert_eq!(
        code(cluster.nodes[1].bootstrap(cluster.plan(0, 2, 1)).await),
        Some(Code::FailedPrecondition),
        "a plan for another node"
    );
    let empty = cluster.nodes[0]
        .bootstrap(BootstrapRequest::default())
        .await;
    assert_eq!(code(empty), Some(Code::InvalidArgument));
    let mut incomplete = cluster.plan(0, 2, 1);
    incomplete.partitions[0].node_ids.clear();
    let refused = cluster.nodes[0].bootstrap(incomplete).await.unwrap_err();
    assert_eq!(refused.code(), Code::InvalidArgument);
    assert!(
        refused.message().starts_with("partitions[0].node_ids["),
        "{refused}"
    );

    // A fresh node at the third place: the plan that names it is another one, and a peer says so.
    cluster.nodes[2].kill().await;
    let folder = tempfile::tempdir().unwrap();
    let mut fresh = NodeProcess::new(folder.path().join("fresh"));
    let node_id = fresh.start().await.node_id;
    cluster.node_ids[2] = node_id;
    cluster.nodes[2] = fresh;
    let refused = cluster.nodes[2].bootstrap(cluster.plan(2, 2, 1)).await;
    assert_eq!(code(refused), Some(Code::FailedPrecondition));
    assert!(cluster.nodes[2].status().await.unwrap().groups.is_empty());

    // A newer incarnation replaces the old groups everywhere, and no stream of before reaches it.
    let stream = Stream::open(cluster.nodes[0].peer, "a-store").await;
    let stream = stream.unwrap();
    assert_eq!(stream.hello.incarnation, 1);
    for node in 0..3 {
        cluster.nodes[node]
            .bootstrap(cluster.plan(node, 1, 2))
            .await
            .unwrap();
    }
    cluster.leader(1).await;
    for node in &cluster.nodes {
        let status = node.status().await.unwrap();
        assert_eq!(status.incarnation, 2);
        assert_eq!(status.groups.len(), 1);
    }
    let refused = stream.open_session(1, Duration::from_secs(30)).await;
    let refused = refused.expect_err("it is another incarnation");
    assert_eq!(refused.reason(), Some(Reason::Unavailable), "{refused:?}");
    let ended = eventually("the stream of before ends", PATIENCE, || async {
        stream.ended()
    })
    .await;
    assert_eq!(ended.code(), Code::Unavailable, "{ended}");

    let hello = |incarnation| DriverHello {
        min_version: 1,
        max_version: 1,
        incarnation,
        ..DriverHello::default()
    };
    for known in [0, 1, 2] {
        let stream = Stream::open_with(cluster.nodes[0].peer, hello(known)).await;
        assert_eq!(stream.unwrap().hello.incarnation, 2, "after {known}");
    }
    let refused = Stream::open_with(cluster.nodes[0].peer, hello(3)).await;
    let refused = refused.err().expect("the driver knows newer data");
    assert_eq!(refused.code(), Code::FailedPrecondition, "{refused}");
    assert!(refused.message().contains("incarnation 2"), "{refused}");
    assert_eq!(
        code(cluster.nodes[0].bootstrap(cluster.plan(0, 2, 1)).await),
        Some(Code::FailedPrecondition),
        "an older incarnation"
    );
}

#[tokio::test]
async fn groups_survive_a_restart_of_every_node_and_sigterm_ends_a_node_in_order() {
    let mut cluster = Cluster::bootstrapped(2).await;
    let leader = cluster.leader(2).await;
    let stream = Stream::open(cluster.nodes[leader].peer, "").await.unwrap();
    let session = stream
        .open_session(2, Duration::from_secs(30))
        .await
        .unwrap();
    assert_eq!(stream.increment(2, "c", session, 1).await.unwrap(), 1);

    for node in &mut cluster.nodes {
        let ended = node.terminate().await;
        assert!(ended.success(), "{ended}");
    }
    let ended = eventually("the stream ended", PATIENCE, || async { stream.ended() }).await;
    assert_eq!(ended.code(), Code::Unavailable);
    for (number, node) in cluster.nodes.iter_mut().enumerate() {
        let status = node.start().await;
        assert_eq!(status.node_id, cluster.node_ids[number]);
        assert_eq!(status.groups.len(), 2);
        eventually("the node is ready", PATIENCE, || async {
            let answer = node.admin("/readyz").await;
            answer.starts_with("HTTP/1.1 200").then_some(())
        })
        .await;
        assert!(node.admin("/livez").await.starts_with("HTTP/1.1 200"));
    }
    let leader = cluster.leader(2).await;
    let stream = Stream::open(cluster.nodes[leader].peer, "").await.unwrap();
    let value = eventually("the counter is read", PATIENCE, || async {
        stream.get(2, "c").await.ok()
    })
    .await;
    assert_eq!(value, 1);
}

#[tokio::test]
async fn a_data_directory_in_use_ends_a_second_process_with_a_clear_message() {
    let folder = tempfile::tempdir().unwrap();
    let data_dir = folder.path().join("node");
    let mut first = NodeProcess::new(data_dir.clone());
    first.start().await;
    let mut second = NodeProcess::new(data_dir);
    second.spawn();
    let status = second.ended().await;
    assert!(!status.success(), "{status}");
    let log = std::fs::read_to_string(second.log_file()).unwrap();
    assert!(log.contains("is in use by another process"), "{log}");
    assert!(first.status().await.is_ok(), "the first goes on");
}

#[tokio::test]
async fn a_task_that_panics_ends_the_process_with_a_failure() {
    let folder = tempfile::tempdir().unwrap();
    let of_folder = |option: &str, name: &str| {
        let path = folder.path().join(name);
        format!("--{option}={}", path.display())
    };
    let mut params = CertificateParams::default();
    let identity = Ia5String::try_from("spiffe://atomix.io/node/garden/tulip").unwrap();
    params.subject_alt_names = vec![SanType::URI(identity)];
    let key = KeyPair::generate().unwrap();
    let certificate = params.self_signed(&key).unwrap().pem();
    write(folder.path().join("tls.key"), key.serialize_pem()).unwrap();
    for name in ["tls.crt", "ca.crt"] {
        write(folder.path().join(name), &certificate).unwrap();
    }
    write(folder.path().join("allowed"), "meadow\n").unwrap();

    let node = Command::new(env!("CARGO_BIN_EXE_atomix-node"))
        .args(["control", "peer", "admin"].map(|port| format!("--{port}-addr=127.0.0.1:0")))
        .arg(of_folder("data-dir", "node"))
        .arg(of_folder("tls-directory", ""))
        .arg(of_folder("allowed-namespaces", "allowed"))
        .env("RUST_LOG", "info")
        // It says which namespaces it serves.
        .env(PANICS_AT, "atomix_tls::allowed")
        .kill_on_drop(true)
        .output();
    let ended = tokio::time::timeout(PATIENCE, node).await;
    let ended = ended.expect("the process ends").unwrap();
    let said = String::from_utf8_lossy(&ended.stderr);
    assert!(!ended.status.success(), "{said}");
    let why = "task allowed namespaces panicked: the test let atomix_tls::allowed panic";
    assert!(said.contains(why), "{said}");
}

#[tokio::test]
async fn a_watch_begins_with_the_status_and_tells_of_a_new_leader() {
    let mut cluster = Cluster::bootstrapped(1).await;
    let leader = cluster.leader(1).await;
    let watched = (leader + 1) % 3;
    let mut control = cluster.nodes[watched].control().await.unwrap();
    let mut watch = control.watch(WatchRequest {}).await.unwrap().into_inner();
    let first = watch.message().await.unwrap().unwrap();
    let Some(Event::Status(status)) = first.event else {
        panic!("{first:?}");
    };
    assert_eq!(status.node_id, cluster.node_ids[watched]);
    // The watched node may not know of the first leader yet.
    let led = cluster.nodes[leader].group(1).await.unwrap();
    let term = led.term;

    cluster.nodes[leader].kill().await;
    let changed = tokio::time::timeout(PATIENCE, async {
        loop {
            let message = watch.message().await.unwrap().expect("the watch goes on");
            if let Some(Event::LeaderChanged(changed)) = message.event
                && changed.term > term
                && changed.leader != 0
            {
                return changed;
            }
        }
    })
    .await
    .expect("the new leader is told");
    assert_ne!(changed.leader, member_id(1, 1, leader));
}

#[tokio::test]
async fn what_a_node_does_not_accept_is_refused_by_name() {
    let cluster = Cluster::bootstrapped(1).await;
    let mut control = cluster.nodes[0].control().await.unwrap();
    let join = control.join(JoinRequest::default()).await.unwrap_err();
    let leave = control.leave(LeaveRequest::default()).await.unwrap_err();
    let transfer = TransferLeadershipRequest::default();
    let transfer = control.transfer_leadership(transfer).await.unwrap_err();
    for status in [join, leave, transfer] {
        assert_eq!(status.code(), Code::InvalidArgument, "{status}");
        assert!(status.message().starts_with("partition"), "{status}");
    }
    let mut plan = cluster.plan(0, 1, 1);
    plan.partitions[0].store_uid = "x".repeat(5 << 20);
    let oversized = cluster.nodes[0].bootstrap(plan).await.unwrap_err();
    assert_eq!(oversized.code(), Code::ResourceExhausted, "{oversized}");

    let leader = cluster.leader(1).await;
    let peer = cluster.nodes[leader].peer;
    let too_new = DriverHello {
        min_version: 2,
        max_version: 3,
        ..DriverHello::default()
    };
    let refused = Stream::open_with(peer, too_new).await.err().unwrap();
    assert_eq!(refused.code(), Code::FailedPrecondition);

    let stream = Stream::open(peer, "").await.unwrap();
    assert_eq!(stream.hello.store_uid, "a-store");
    assert_eq!(stream.hello.node_id, cluster.node_ids[leader]);
    let session = stream
        .open_session(1, Duration::from_secs(30))
        .await
        .unwrap();
    let refused = async |partition, operation| {
        let operate = Operate {
            session,
            sequence: 1,
            operation: Some(operation),
            ..Operate::default()
        };
        let body = request::Body::Operate(operate);
        match stream.call(partition, body).await.unwrap_err() {
            NoReply::Failed(failure) => (failure.reason(), Code::from_i32(failure.code)),
            NoReply::Lost => panic!("no answer"),
        }
    };
    let (reason, _) = refused(9, increment("c")).await;
    assert_eq!(reason, Reason::UnknownPartition);
    assert_eq!(
        refused(1, operation("c", "Explode", Vec::new())).await,
        (Reason::Operation, Code::Unimplemented)
    );
    assert_eq!(
        refused(1, operation("c", "Get", Vec::new())).await,
        (Reason::Operation, Code::InvalidArgument)
    );
    assert_eq!(
        refused(1, operation("c", "Increment", vec![0; (1 << 20) + 1])).await,
        (Reason::Operation, Code::ResourceExhausted)
    );
    assert_eq!(stream.increment(1, "c", session, 1).await.unwrap(), 1);

    let elsewhere = Stream::open(peer, "another-store").await.unwrap();
    let refused = elsewhere.get(1, "c").await.unwrap_err();
    assert_eq!(refused.reason(), Some(Reason::WrongStore));

    // A message that is too large ends the stream: what follows it cannot be told from it.
    let huge = operation("c", "Increment", vec![0; 9 << 20]);
    let operate = Operate {
        operation: Some(huge),
        ..Operate::default()
    };
    let lost = elsewhere.call(1, request::Body::Operate(operate)).await;
    assert!(matches!(lost, Err(NoReply::Lost)), "{lost:?}");
    let ended = eventually("the stream ended", PATIENCE, || async { elsewhere.ended() }).await;
    assert_eq!(ended.code(), Code::ResourceExhausted, "{ended}");
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
    let folder = tempfile::tempdir().unwrap();
    let mut node = NodeProcess::new(folder.path().join("node")).with("--require-operator");
    node.start().await;
    let mut control = node.control().await.unwrap();
    let refused = control.bootstrap(BootstrapRequest::default()).await;
    let refused = refused.unwrap_err();
    assert_eq!(refused.code(), Code::FailedPrecondition, "{refused}");
    let refused = control.leave(LeaveRequest::default()).await.unwrap_err();
    assert_eq!(refused.code(), Code::FailedPrecondition, "{refused}");
    // It looks at what an operator sends that says who it is.
    let named = sent_by(BootstrapRequest::default(), "meadow/bees", "1");
    let invalid = control.bootstrap(named).await.unwrap_err();
    assert_eq!(invalid.code(), Code::InvalidArgument, "{invalid}");
}

#[tokio::test]
async fn an_older_and_another_operator_change_nothing_also_after_a_kill() {
    let mut cluster = Cluster::start().await;
    let plan = cluster.plan(0, 1, 1);
    let mut control = cluster.nodes[0].control().await.unwrap();
    // What is refused later does not matter: the sender is remembered first.
    let nothing = BootstrapRequest::default();
    let first = sent_by(nothing, "meadow/bees", "3");
    let invalid = control.bootstrap(first).await.unwrap_err();
    assert_eq!(invalid.code(), Code::InvalidArgument, "{invalid}");
    cluster.nodes[0].kill().await;
    cluster.nodes[0].start().await;

    let mut control = cluster.nodes[0].control().await.unwrap();
    for (operator, term) in [("meadow/bees", "2"), ("meadow/ants", "9")] {
        let refusals = [
            control
                .bootstrap(sent_by(plan.clone(), operator, term))
                .await
                .err(),
            control
                .join(sent_by(JoinRequest::default(), operator, term))
                .await
                .err(),
            control
                .leave(sent_by(LeaveRequest::default(), operator, term))
                .await
                .err(),
            control
                .transfer_leadership(sent_by(
                    TransferLeadershipRequest::default(),
                    operator,
                    term,
                ))
                .await
                .err(),
            control
                .recover(sent_by(RecoverRequest::default(), operator, term))
                .await
                .err(),
        ];
        for refused in refusals {
            let refused = refused.expect("it is refused");
            assert_eq!(refused.code(), Code::FailedPrecondition, "{refused}");
            let metadata = refused.metadata();
            assert_eq!(metadata.get("atomix-operator-id").unwrap(), "meadow/bees");
            assert_eq!(metadata.get("atomix-operator-term").unwrap(), "3");
        }
    }
    let status = cluster.nodes[0].status().await.unwrap();
    assert!(status.groups.is_empty(), "a refused call changes nothing");
    assert_eq!(
        (status.operator_id.as_str(), status.operator_term),
        ("meadow/bees", 3)
    );

    control
        .bootstrap(sent_by(plan.clone(), "meadow/bees", "4"))
        .await
        .unwrap();
    let mut taking_over = sent_by(plan.clone(), "meadow/ants", "1");
    let metadata = taking_over.metadata_mut();
    metadata.insert("atomix-operator-take-over", "true".parse().unwrap());
    control.bootstrap(taking_over).await.unwrap();
    let late = control
        .bootstrap(sent_by(plan.clone(), "meadow/bees", "5"))
        .await;
    assert_eq!(late.unwrap_err().code(), Code::FailedPrecondition);
    // Whoever does not say who they are is let pass, unless the node was told otherwise.
    control.bootstrap(plan).await.unwrap();
}
