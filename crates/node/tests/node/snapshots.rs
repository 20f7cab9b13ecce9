//! Snapshots of real nodes: each member takes them and compacts its log, and a member that was away
//! for too long is sent one. The nodes run in this process, with settings under which a few entries
//! are enough.

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use atomix_primitives::probe::{Item, KeyRequest, PutRequest};
use atomix_proto::multiraft::v1::group_status::Role;
use atomix_proto::multiraft::v1::watch_response::Event;
use atomix_proto::multiraft::v1::{
    Operate, Query, RaftTimings, WatchRequest, WatchResponse, request, response,
};
use atomix_raft::{DiskFaults, EngineOptions};
use parking_lot::{Condvar, Mutex};
use prost::Message as _;
use tokio::time::Instant;
use tonic::Streaming;

use crate::support::driver::{Follower, NoReply, Stream};
use crate::support::eventually;
use crate::support::nodes::{PATIENCE, Plan, member_id};
use crate::support::services::{NodeService, probe};

const LONG: Duration = Duration::from_secs(60);
/// Entries after which a member takes a snapshot, when it looks again.
const ENTRIES: u64 = 20;
const COUNTERS: [&str; 4] = ["bees", "ants", "wasps", "flies"];
/// Values so large that a snapshot is sent in several chunks.
const VALUES: [&str; 3] = ["a", "b", "c"];
const VALUE_LENGTH: usize = 700_000;

fn eager(options: EngineOptions) -> EngineOptions {
    EngineOptions {
        snapshot_pause: Duration::ZERO,
        log_retention: 0,
        ..options
    }
}

/// Makes snapshots that are received wait until the test has looked.
#[derive(Default)]
struct Gate {
    is_open: Mutex<bool>,
    opened: Condvar,
    writes: AtomicUsize,
}

impl Gate {
    fn open(&self) {
        *self.is_open.lock() = true;
        self.opened.notify_all();
    }
}

impl DiskFaults for Gate {
    fn write(&self, path: &Path, length: usize) -> io::Result<usize> {
        if !path.to_string_lossy().contains("receive-") {
            return Ok(length);
        }
        self.writes.fetch_add(1, Ordering::Relaxed);
        let mut is_open = self.is_open.lock();
        // A test that failed must not hang.
        self.opened
            .wait_while_for(&mut is_open, |is_open| !*is_open, LONG);
        Ok(length)
    }
}

/// Three nodes with one partition.
struct Trio {
    nodes: Vec<NodeService>,
    _folder: tempfile::TempDir,
}

impl Trio {
    async fn bootstrapped() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let mut nodes = Vec::new();
        let mut node_ids = Vec::new();
        for number in 0..3 {
            let mut node = NodeService::new(folder.path().join(format!("node-{number}")));
            node_ids.push(node.start(eager).await);
            nodes.push(node);
        }
        let peers: Vec<_> = nodes.iter().map(|node| node.addresses.peer).collect();
        let timings = RaftTimings {
            election_timeout: Some(Duration::from_secs(1).try_into().unwrap()),
            snapshot_entry_threshold: ENTRIES,
        };
        let plan = Plan {
            peers: &peers,
            node_ids: &node_ids,
            partitions: 1,
            incarnation: 1,
            timings,
        };
        for (number, node) in nodes.iter().enumerate() {
            node.addresses.bootstrap(plan.of(number)).await.unwrap();
        }
        Self {
            nodes,
            _folder: folder,
        }
    }

    async fn leader(&self) -> usize {
        eventually("the partition has a leader", PATIENCE, || async {
            for (number, node) in self.nodes.iter().enumerate() {
                if node.is_running()
                    && let Some(group) = node.addresses.group(1).await
                    && group.role() == Role::Leader
                {
                    return Some(number);
                }
            }
            None
        })
        .await
    }

    fn follower(&self) -> Follower {
        let peers = self.nodes.iter().map(|node| node.addresses.peer);
        Follower::new(peers.collect(), 1)
    }

    async fn watch(&self, node: usize) -> Streaming<WatchResponse> {
        let mut control = self.nodes[node].addresses.control().await.unwrap();
        control.watch(WatchRequest {}).await.unwrap().into_inner()
    }

    /// Puts a value as operation `sequence` of the session, whoever leads.
    async fn put(&self, session: u64, sequence: u64, key: &'static str) {
        let put = PutRequest {
            key: key.into(),
            value: value(key).into(),
            ttl_nanos: 0,
        };
        let operate = Operate {
            session,
            sequence,
            acknowledged: sequence - 1,
            operation: Some(probe("Put", 0, &put)),
            ..Operate::default()
        };
        eventually("a value is put", PATIENCE, || async {
            let leader = self.nodes[self.leader().await].addresses.peer;
            let stream = Stream::open(leader, "").await.ok()?;
            let body = request::Body::Operate(operate.clone());
            stream.call(1, body).await.ok()
        })
        .await;
    }

    /// Makes a node lead and reads all that was written there; `None` when it does not lead yet.
    async fn read_at(&self, node: usize) -> Option<(Vec<i64>, Vec<Item>)> {
        let leader = self.leader().await;
        if leader != node {
            // It may be too far behind yet.
            let transferred = self.nodes[leader].addresses;
            let _ = transferred.transfer(1, member_id(1, 1, node)).await;
            return None;
        }
        let peer = self.nodes[node].addresses.peer;
        let stream = Stream::open(peer, "").await.ok()?;
        let mut counts = Vec::new();
        for counter in COUNTERS {
            counts.push(stream.get(1, counter).await.ok()?);
        }
        let mut items = Vec::new();
        for key in VALUES {
            items.push(item(&stream, key).await.ok()?);
        }
        Some((counts, items))
    }
}

async fn item(stream: &Stream, key: &'static str) -> Result<Item, NoReply> {
    let request = KeyRequest { key: key.into() };
    let query = Query {
        session: 0,
        operation: Some(probe("Get", 0, &request)),
    };
    match stream.call(1, request::Body::Query(query)).await? {
        response::Outcome::Reply(reply) => Ok(Item::decode(reply).unwrap()),
        other => panic!("Get was answered {other:?}"),
    }
}

fn value(key: &str) -> Vec<u8> {
    key.as_bytes().repeat(VALUE_LENGTH)
}

/// What a Watch has told of snapshots.
#[derive(Default)]
struct Told {
    created: Vec<u64>,
    compacted: Vec<u64>,
}

impl Told {
    /// Takes the events that have arrived.
    async fn take(&mut self, watch: &mut Streaming<WatchResponse>) {
        let soon = Duration::from_millis(1);
        while let Ok(message) = tokio::time::timeout(soon, watch.message()).await {
            let event = message.unwrap().expect("the watch goes on").event;
            match event {
                Some(Event::SnapshotCreated(created)) => self.created.push(created.index),
                Some(Event::LogCompacted(compacted)) => self.compacted.push(compacted.index),
                Some(Event::SnapshotInstalled(_)) => panic!("nothing is installed here"),
                _ => {}
            }
        }
    }

    /// Whether a member whose log ends at `last` needs a snapshot now.
    fn is_compacted_beyond(&self, last: u64) -> bool {
        self.created.len() >= 2 && self.compacted.iter().any(|index| *index > last)
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_member_that_was_away_for_long_is_sent_a_snapshot_and_leads_with_all_of_it() {
    let mut trio = Trio::bootstrapped().await;
    let leader = trio.leader().await;
    let away = (leader + 1) % 3;
    let mut follower = trio.follower();
    let session = follower.open_session(LONG).await;
    for (sequence, key) in (1..).zip(VALUES) {
        trio.put(session, sequence, key).await;
    }
    trio.nodes[away].stop().await;

    // Snapshots and compaction, at both that stay: either may lead later.
    let mut sequence = VALUES.len() as u64;
    let mut counts = vec![0; COUNTERS.len()];
    let last = trio.nodes[leader]
        .addresses
        .group(1)
        .await
        .unwrap()
        .last_log;
    let stayed = [leader, (leader + 2) % 3];
    let mut watches = [trio.watch(stayed[0]).await, trio.watch(stayed[1]).await];
    let mut told = [Told::default(), Told::default()];
    let deadline = Instant::now() + LONG;
    let is_done = |told: &[Told]| told.iter().all(|told| told.is_compacted_beyond(last));
    // Some more, so that the snapshot is not all there is.
    let mut more = 5;
    while more > 0 {
        more -= u32::from(is_done(&told));
        sequence += 1;
        let number = usize::try_from(sequence).unwrap() % COUNTERS.len();
        counts[number] += 1;
        let incremented = follower
            .increment(COUNTERS[number], session, sequence, deadline)
            .await;
        assert_eq!(incremented.unwrap().unwrap(), counts[number]);
        for (told, watch) in told.iter_mut().zip(&mut watches) {
            told.take(watch).await;
        }
    }
    for Told { created, compacted } in &told {
        assert!(created.is_sorted_by(|before, after| before < after));
        // Back to the older of two snapshots.
        assert!(
            compacted.iter().all(|index| created.contains(index)),
            "{compacted:?} of {created:?}"
        );
    }
    let least = told.iter().filter_map(|told| told.compacted.last()).min();

    // It comes back and gets a snapshot, which its Watch tells of.
    let gate = Arc::new(Gate::default());
    let faults = Arc::clone(&gate);
    trio.nodes[away]
        .start(move |options| EngineOptions {
            faults: Some(faults.clone()),
            ..eager(options)
        })
        .await;
    let mut watch = trio.watch(away).await;
    eventually("a snapshot is being received", LONG, || async {
        (gate.writes.load(Ordering::Relaxed) > 0).then_some(())
    })
    .await;
    let before = trio.nodes[away].addresses.group(1).await.unwrap();
    assert!(before.applied <= last, "{before:?}");
    gate.open();
    let installed = tokio::time::timeout(LONG, async {
        loop {
            let message = watch.message().await.unwrap().expect("the watch goes on");
            if let Some(Event::SnapshotInstalled(installed)) = message.event {
                return installed;
            }
        }
    })
    .await
    .expect("the installation is told");
    assert_eq!(installed.partition_id, 1);
    assert!(Some(&installed.index) >= least, "{installed:?}, {least:?}");
    assert!(gate.writes.load(Ordering::Relaxed) > 2, "several chunks");

    // It leads with all of that, also after a restart, when the snapshot is read from its disk.
    for restarts in [false, true] {
        if restarts {
            trio.nodes[away].stop().await;
            trio.nodes[away].start(eager).await;
        }
        let (found, items) = eventually("the member that was away leads", LONG, || {
            trio.read_at(away)
        })
        .await;
        assert_eq!(found, counts);
        for (key, item) in VALUES.iter().zip(items) {
            assert!(item.value == value(key), "{key:?} has another value");
        }
        let deadline = Instant::now() + PATIENCE;
        let number = usize::try_from(sequence).unwrap() % COUNTERS.len();
        let repeated = follower.increment(COUNTERS[number], session, sequence, deadline);
        let repeated = repeated.await.unwrap().unwrap();
        assert_eq!(repeated, counts[number], "the reply is remembered");
    }
    for node in &mut trio.nodes {
        node.stop().await;
    }
}
