//! Many groups on one log: nothing that was acknowledged under load is lost when all nodes lose
//! their power at once, and a failed sync stops all groups of its node.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use atomix_raft::{
    DiskFaults, Engine, EngineOptions, Group, GroupRecord, MemberAddress, MemberId, PartitionId,
    Role, Timings,
};
use bytes::Bytes;
use parking_lot::Mutex;
use tokio::time::Instant;

use crate::support::machine::Journal;
use crate::support::network::Network;
use crate::support::powercut::{Disk, Loss, Recorder, write_image};
use crate::support::{closed, eventually, open, options, pause, soon};

const NODES: usize = 3;
const PARTITIONS: u32 = 8;
/// Writers of each group.
const WRITERS: usize = 4;
/// Acknowledged writes of each group after which the power is cut.
const WRITES: usize = 150;

type Groups = BTreeMap<(PartitionId, u64), Group<Journal>>;

/// Three nodes with a member of every group.
struct Nodes {
    engines: Vec<Engine>,
    groups: Groups,
}

async fn start(options: Vec<EngineOptions>) -> Nodes {
    let network = Network::new();
    let mut engines = Vec::new();
    for options in options {
        engines.push(open(options).await);
    }
    let members: BTreeMap<_, _> = (1..)
        .zip(&engines)
        .map(|(id, engine)| {
            let address = MemberAddress {
                node_id: engine.node_id(),
                address: format!("node-{id}:5681"),
            };
            (MemberId(id), address)
        })
        .collect();
    let mut groups = Groups::new();
    for (id, engine) in (1..).zip(&engines) {
        for number in 1..=PARTITIONS {
            let record = GroupRecord {
                partition_id: PartitionId(number),
                member_id: MemberId(id),
                store_uid: "store-of-the-test".to_owned(),
                incarnation: 1,
                initializer: Some(MemberId(u64::from(number) % 3 + 1)),
                members: members.clone(),
                plan_digest: Bytes::new(),
                timings: Timings {
                    election_timeout: Duration::from_secs(1),
                    ..Timings::default()
                },
                observer: false,
                replaces: None,
                expected_membership: None,
                admitted: false,
            };
            engine.create_group(&record).await.unwrap();
            let group = Group::start(engine, record, Journal::default(), network.clone());
            let group = group.await.unwrap();
            network.attach(id, group.clone());
            groups.insert((PartitionId(number), id), group);
        }
    }
    for group in groups.values() {
        if group.record().initializer == Some(group.record().member_id) {
            group.initialize().await.unwrap();
        }
    }
    Nodes { engines, groups }
}

impl Nodes {
    fn members(&self, partition: PartitionId) -> Vec<Group<Journal>> {
        let members = self.groups.range((partition, 0)..=(partition, u64::MAX));
        members.map(|(_, group)| group.clone()).collect()
    }

    async fn stop(self) {
        let stopped = self.groups.values().map(Group::shutdown);
        futures::future::join_all(stopped).await;
    }
}

/// Proposes at whoever leads until the line is acknowledged; false when `stop` came first.
async fn write(members: &[Group<Journal>], line: &str, stop: &AtomicBool) -> bool {
    let payload = Bytes::copy_from_slice(line.as_bytes());
    while !stop.load(Ordering::Relaxed) {
        let leader = members
            .iter()
            .find(|group| group.status().role == Role::Leader);
        let Some(leader) = leader else {
            pause().await;
            continue;
        };
        let deadline = Instant::now() + Duration::from_secs(5);
        if leader.propose(payload.clone(), deadline).await.is_ok() {
            return true;
        }
    }
    false
}

type Lines = Arc<Mutex<BTreeMap<PartitionId, Vec<String>>>>;

/// Keeps all groups busy until `stop`; what is acknowledged is added to the lines.
fn load(nodes: &Nodes, stop: &Arc<AtomicBool>) -> (Lines, Vec<tokio::task::JoinHandle<()>>) {
    let acknowledged = Lines::default();
    let mut writers = Vec::new();
    for partition in (1..=PARTITIONS).map(PartitionId) {
        for writer in 0..WRITERS {
            let (members, stop) = (nodes.members(partition), stop.clone());
            let acknowledged = acknowledged.clone();
            writers.push(tokio::spawn(async move {
                for number in 0.. {
                    let line = format!("{partition}.{writer}.{number}");
                    if !write(&members, &line, &stop).await {
                        return;
                    }
                    let mut lines = acknowledged.lock();
                    lines.entry(partition).or_default().push(line);
                }
            }));
        }
    }
    (acknowledged, writers)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn writes_to_many_groups_survive_a_power_cut_of_all_nodes_under_load() {
    let root = tempfile::tempdir().unwrap();
    let directory = |name: &str, id: usize| root.path().join(format!("{name}-{id}"));
    let small = |directory: &Path| EngineOptions {
        log_file_size: 64 << 10,
        purge_threshold: 256 << 10,
        ..options(directory)
    };
    let recorders: Vec<_> = (0..NODES)
        .map(|id| Arc::new(Recorder::new(&directory("node", id))))
        .collect();
    let recorded = recorders
        .iter()
        .enumerate()
        .map(|(id, recorder)| EngineOptions {
            faults: Some(recorder.clone()),
            ..small(&directory("node", id))
        });
    let nodes = start(recorded.collect()).await;
    let stop = Arc::new(AtomicBool::new(false));
    let (acknowledged, writers) = load(&nodes, &stop);
    eventually("enough writes", || {
        let lines = acknowledged.lock();
        let is_enough = |partition| lines.get(&partition).is_some_and(|l| l.len() >= WRITES);
        (1..=PARTITIONS)
            .map(PartitionId)
            .all(is_enough)
            .then_some(())
    })
    .await;
    // All at once, in the middle of the load: first what was acknowledged, then what is on disk.
    let before = acknowledged.lock().clone();
    let cuts: Vec<_> = recorders
        .iter()
        .map(|recorder| recorder.position())
        .collect();
    stop.store(true, Ordering::Relaxed);
    for writer in writers {
        writer.await.unwrap();
    }
    let failures: Vec<_> = nodes.engines.iter().filter_map(Engine::failure).collect();
    nodes.stop().await;
    assert_eq!(failures, []);

    let images: Vec<PathBuf> = (0..NODES).map(|id| directory("image", id)).collect();
    for ((recorder, cut), image) in recorders.iter().zip(cuts).zip(&images) {
        let mut disk = Disk::default();
        for change in &recorder.changes()[..cut] {
            disk.apply(change);
        }
        write_image(&disk.image(Loss::Everything), image);
    }
    let nodes = start(images.iter().map(|image| small(image)).collect()).await;
    let go_on = AtomicBool::new(false);
    for (partition, lines) in before {
        let members = nodes.members(partition);
        assert!(write(&members, "after", &go_on).await);
        for group in members {
            let found = eventually("the last line", || {
                let found = group.with_machine(|journal| journal.lines.clone());
                found.iter().any(|line| line == "after").then_some(found)
            })
            .await;
            let lost: Vec<_> = lines.iter().filter(|line| !found.contains(line)).collect();
            assert!(lost.is_empty(), "partition {partition} lost {lost:?}");
        }
    }
    nodes.stop().await;
}

/// A disk whose syncs fail from some moment on.
#[derive(Default)]
struct Broken {
    is_broken: AtomicBool,
    /// Writes after the first sync that failed.
    written_since: AtomicU64,
    /// Syncs after that one.
    synced_since: AtomicU64,
    failed: AtomicBool,
}

impl DiskFaults for Broken {
    fn write(&self, _path: &Path, length: usize) -> io::Result<usize> {
        if self.failed.load(Ordering::SeqCst) {
            self.written_since.fetch_add(1, Ordering::SeqCst);
        }
        Ok(length)
    }

    fn sync(&self, _path: &Path) -> io::Result<()> {
        if self.failed.load(Ordering::SeqCst) {
            self.synced_since.fetch_add(1, Ordering::SeqCst);
        }
        if self.is_broken.load(Ordering::SeqCst) {
            self.failed.store(true, Ordering::SeqCst);
            return Err(io::Error::other("injected: not synced"));
        }
        Ok(())
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_failed_sync_stops_every_group_of_the_node_and_nothing_is_acknowledged_after_it() {
    let root = tempfile::tempdir().unwrap();
    let directory = root.path().join("node");
    let disk = Arc::new(Broken::default());
    let engine = open(EngineOptions {
        faults: Some(disk.clone()),
        ..options(&directory)
    })
    .await;
    let mut groups = Vec::new();
    for number in 1..=PARTITIONS {
        let mut record = crate::support::follower_record();
        record.partition_id = PartitionId(number);
        record.initializer = Some(record.member_id);
        record.members.retain(|id, _| id.0 == 1);
        engine.create_group(&record).await.unwrap();
        let group = Group::start(&engine, record, Journal::default(), Network::new());
        let group = group.await.unwrap();
        group.initialize().await.unwrap();
        assert!(
            write(
                std::slice::from_ref(&group),
                "before",
                &AtomicBool::new(false)
            )
            .await
        );
        groups.push(group);
    }
    disk.is_broken.store(true, Ordering::SeqCst);
    let deadline = Instant::now() + Duration::from_secs(2);
    let writes = groups
        .iter()
        .map(|group| group.propose(Bytes::from_static(b"lost"), deadline));
    for outcome in futures::future::join_all(writes).await {
        assert!(outcome.is_err(), "acknowledged: {outcome:?}");
    }
    let failure = tokio::time::timeout_at(soon(), engine.failed()).await;
    assert!(failure.is_ok(), "the failure is not reported");
    // A disk that works again changes nothing: what it holds, nobody knows.
    disk.is_broken.store(false, Ordering::SeqCst);
    let deadline = Instant::now() + Duration::from_millis(300);
    let writes = groups
        .iter()
        .map(|group| group.propose(Bytes::from_static(b"lost, too"), deadline));
    for outcome in futures::future::join_all(writes).await {
        assert!(outcome.is_err(), "acknowledged: {outcome:?}");
    }
    for group in groups {
        group.shutdown().await;
    }
    // Nor does closing: what a failed sync left must not become durable behind everybody's back.
    drop(engine);
    closed(&directory).await;
    let written = disk.written_since.load(Ordering::SeqCst);
    let synced = disk.synced_since.load(Ordering::SeqCst);
    assert_eq!((written, synced), (0, 0), "after a failed sync");
}
