//! What a node cannot go on with ends it, and it says what that was: a log that cannot be written,
//! an entry or a snapshot that another version wrote.

use std::error::Error;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use atomix_primitives::Kinds;
use atomix_primitives::probe::{KeyRequest, PutRequest};
use atomix_proto::multiraft::v1::watch_response::Event;
use atomix_proto::multiraft::v1::{BootstrapRequest, Operate, Query, WatchRequest, request};
use atomix_raft::{DiskFaults, EngineOptions, WriteFailure};

use crate::support::driver::Stream;
use crate::support::eventually;
use crate::support::nodes::{Cluster, NodeProcess, PATIENCE};
use crate::support::services::{NodeService, probe};

const LONG: Duration = Duration::from_secs(60);

/// Makes a node the only member of a partition and opens a session there.
async fn bootstrap_alone(node: &NodeService, node_id: u64) -> (Stream, u64) {
    let plan = BootstrapRequest {
        partitions: vec![node.alone(1, node_id, 1)],
    };
    node.addresses.bootstrap(plan).await.unwrap();
    let stream = Stream::open(node.addresses.peer, "a-store").await.unwrap();
    let session = eventually("a session is opened", PATIENCE, || async {
        stream.open_session(1, LONG).await.ok()
    })
    .await;
    (stream, session)
}

/// Puts a value that only a node with the test's kind of primitive knows.
async fn put(stream: &Stream, session: u64) {
    let put = PutRequest {
        key: "k".into(),
        // More than a snapshot without it has.
        value: vec![7; 10_000].into(),
        ttl_nanos: 0,
    };
    let operate = Operate {
        session,
        sequence: 1,
        operation: Some(probe("Put", 0, &put)),
        ..Operate::default()
    };
    let put = stream.call(1, request::Body::Operate(operate)).await;
    put.unwrap();
}

/// What an operator reads: the error with its sources.
fn text(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        text = format!("{text}: {error}");
        source = error.source();
    }
    text
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_operation_that_a_node_does_not_know_ends_it_and_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let mut node = NodeService::new(folder.path().join("node"));
    let node_id = node.start(std::convert::identity).await;
    let (stream, session) = bootstrap_alone(&node, node_id).await;
    put(&stream, session).await;
    node.stop().await;

    node.kinds = Kinds::standard;
    let ended = match node.try_start(std::convert::identity).await {
        Err(refused) => text(&refused),
        Ok(_) => {
            let ended = tokio::time::timeout(LONG, node.ended()).await;
            text(&ended.expect("the node ends").unwrap_err())
        }
    };
    assert!(ended.contains("partition 1"), "{ended}");
    assert!(ended.contains("this version does not know"), "{ended}");
    assert!(ended.contains("probe") && ended.contains("Put"), "{ended}");

    // It was skipped nowhere: a version that knows it has it.
    node.kinds = Kinds::with_test_kind;
    node.continue_on_copy();
    node.start(std::convert::identity).await;
    let stream = Stream::open(node.addresses.peer, "a-store").await.unwrap();
    eventually("the value is there", PATIENCE, || async {
        let get = KeyRequest { key: "k".into() };
        let query = Query {
            session: 0,
            operation: Some(probe("Get", 0, &get)),
        };
        stream.call(1, request::Body::Query(query)).await.ok()
    })
    .await;
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_snapshot_of_a_kind_that_a_node_does_not_know_lets_it_not_start() {
    let folder = tempfile::tempdir().unwrap();
    let mut node = NodeService::new(folder.path().join("node"));
    let after_each_entry = |options| EngineOptions {
        snapshot_bytes: 0,
        ..options
    };
    let node_id = node.start(after_each_entry).await;
    let (stream, session) = bootstrap_alone(&node, node_id).await;
    let mut control = node.addresses.control().await.unwrap();
    let mut watch = control.watch(WatchRequest {}).await.unwrap().into_inner();
    put(&stream, session).await;
    let applied = node.addresses.group(1).await.unwrap().applied;
    let created = async {
        loop {
            let message = watch.message().await.unwrap().expect("the watch goes on");
            if let Some(Event::SnapshotCreated(created)) = message.event
                && created.index >= applied
            {
                return;
            }
        }
    };
    let created = tokio::time::timeout(LONG, created).await;
    created.expect("a snapshot is created");
    node.stop().await;

    node.kinds = Kinds::standard;
    let refused = node.try_start(std::convert::identity).await.unwrap_err();
    let refused = text(&refused);
    assert!(refused.contains("partition 1"), "{refused}");
    assert!(refused.contains("unknown kind \"probe\""), "{refused}");
}

/// Syncs nothing from some moment on.
#[derive(Default)]
struct Broken(AtomicBool);

impl DiskFaults for Broken {
    fn sync(&self, _path: &Path) -> io::Result<()> {
        if self.0.load(Ordering::SeqCst) {
            return Err(io::Error::other("injected: not synced"));
        }
        Ok(())
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_log_that_cannot_be_synced_ends_the_node_and_acknowledges_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let mut node = NodeService::new(folder.path().join("node"));
    let disk = Arc::new(Broken::default());
    let faults = Arc::clone(&disk);
    let node_id = node
        .start(move |options| {
            // A program ends at once, whatever else it may still be able to do.
            assert_eq!(options.on_write_failure, WriteFailure::Abort);
            EngineOptions {
                faults: Some(faults.clone()),
                on_write_failure: WriteFailure::Report,
                ..options
            }
        })
        .await;
    let (stream, session) = bootstrap_alone(&node, node_id).await;
    assert_eq!(stream.increment(1, "c", session, 1).await.unwrap(), 1);

    disk.0.store(true, Ordering::SeqCst);
    let incremented = stream.increment(1, "c", session, 2).await;
    let failure = incremented.expect_err("it is not on disk");
    assert!(!failure.is_without_effect(), "perhaps it is: {failure:?}");
    let ended = tokio::time::timeout(LONG, node.ended()).await;
    let ended = text(&ended.expect("the node ends").unwrap_err());
    assert!(ended.contains("cannot write to the log"), "{ended}");
}

#[tokio::test]
async fn a_damaged_or_missing_log_ends_the_process_and_its_message_says_what_to_do() {
    let mut cluster = Cluster::bootstrapped(2).await;
    let node = &mut cluster.nodes[0];
    node.kill().await;
    let log = node.data_dir().join("log");
    let mut files = std::fs::read_dir(&log)
        .unwrap()
        .map(|file| file.unwrap().path());
    let is_log = |path: &PathBuf| path.extension().is_some_and(|kind| kind == "raftlog");
    let file = files.find(is_log).expect("a log file");
    let mut bytes = std::fs::read(&file).unwrap();
    bytes[200] ^= 1;
    std::fs::write(&file, bytes).unwrap();
    let refused = refuses_to_start(node).await;
    assert!(refused.contains("is damaged"), "{refused}");
    assert!(refused.contains("store replace-node"), "{refused}");

    std::fs::rename(&log, node.data_dir().with_extension("gone")).unwrap();
    let refused = refuses_to_start(node).await;
    assert!(refused.contains("is incomplete"), "{refused}");
    assert!(refused.contains("store replace-node"), "{refused}");

    // The others go on without it.
    cluster.leader(1).await;
    cluster.leader(2).await;
}

/// Starts a process that ends by itself; answers what it logged.
async fn refuses_to_start(node: &mut NodeProcess) -> String {
    let before = std::fs::read_to_string(node.log_file()).unwrap();
    node.spawn();
    let status = node.ended().await;
    assert!(!status.success(), "{status}");
    let log = std::fs::read_to_string(node.log_file()).unwrap();
    log[before.len()..].to_owned()
}
