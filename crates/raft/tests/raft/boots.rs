//! A restored or copied disk of another node is recognized, also after this node was restarted.

use std::sync::Arc;

use atomix_raft::{BootCounters, EngineOptions, NodeId, StaleBoot};

use crate::support::powercut::{Change, Recorder};
use crate::support::{open, options};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_highest_boot_counter_of_a_node_survives_restarts() {
    let root = tempfile::tempdir().unwrap();
    let directory = root.path().join("node");
    let recorder = Arc::new(Recorder::new(&directory));
    let engine = open(EngineOptions {
        faults: Some(recorder.clone()),
        ..options(&directory)
    })
    .await;
    let counters = engine.boot_counters();
    counters.admit(NodeId(1), 5).unwrap();
    counters.admit(NodeId(2), 9).unwrap();
    let synced = |change: &Change| matches!(change, Change::Synced(_));
    let last = recorder.changes();
    assert!(synced(last.last().unwrap()), "not on disk when admitted");
    counters.admit(NodeId(1), 5).unwrap();
    assert_eq!(recorder.position(), last.len(), "written again");
    drop((engine, counters));

    let engine = open(options(&directory)).await;
    let counters = engine.boot_counters();
    let stale = StaleBoot {
        node_id: NodeId(1),
        offered: 4,
        seen: 5,
    };
    assert_eq!(counters.admit(NodeId(1), 4), Err(stale));
    counters.admit(NodeId(1), 5).unwrap();
    counters.admit(NodeId(1), 6).unwrap();
    drop((engine, counters));

    let engine = open(options(&directory)).await;
    let counters = engine.boot_counters();
    assert!(counters.admit(NodeId(1), 5).is_err());
    assert!(counters.admit(NodeId(2), 8).is_err());
    counters.admit(NodeId(2), 9).unwrap();
    // Counters that outlive the log do not keep its directory.
    drop(engine);
    let reopened = open(options(&directory)).await;
    assert_eq!(reopened.boot_counter(), 4);
    drop(counters);
    BootCounters::default().admit(NodeId(1), 1).unwrap();
}

#[tokio::test]
async fn a_boot_counter_is_stored_on_a_runtime_with_one_thread_too() {
    let root = tempfile::tempdir().unwrap();
    let engine = open(options(root.path())).await;
    engine.boot_counters().admit(NodeId(1), 2).unwrap();
    drop(engine);
    let engine = open(options(root.path())).await;
    assert!(engine.boot_counters().admit(NodeId(1), 1).is_err());
}
