//! A cluster of members in one process: real disks, a network that tests can cut.

pub(crate) mod machine;
pub(crate) mod network;
pub(crate) mod others;
pub(crate) mod powercut;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use atomix_raft::{
    Engine, EngineOptions, Group, GroupRecord, MemberAddress, MemberId, NodeId, OpenError,
    PartitionId, ProposeError, Role, Timings, WriteFailure,
};
use bytes::Bytes;
use tokio::time::Instant;

use machine::Journal;
use network::Network;

pub(crate) const PARTITION: PartitionId = PartitionId(7);
/// How long anything may take that must happen.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

pub(crate) fn soon() -> Instant {
    Instant::now() + PATIENCE
}

/// Between two looks at a condition.
pub(crate) async fn pause() {
    tokio::time::sleep(Duration::from_millis(5)).await;
}

/// Polls until the condition holds.
pub(crate) async fn eventually<R>(what: &str, mut check: impl FnMut() -> Option<R>) -> R {
    let deadline = soon();
    loop {
        if let Some(result) = check() {
            return result;
        }
        assert!(Instant::now() < deadline, "never: {what}");
        pause().await;
    }
}

pub(crate) fn options(directory: &Path) -> EngineOptions {
    EngineOptions {
        on_write_failure: WriteFailure::Report,
        log_retention: 0,
        ..EngineOptions::new(directory)
    }
}

/// Opens a directory that its last user may be about to close.
pub(crate) async fn open(options: EngineOptions) -> Engine {
    let deadline = soon();
    loop {
        match Engine::open(options.clone()) {
            Err(OpenError::Locked(_)) if Instant::now() < deadline => {
                pause().await;
            }
            opened => return opened.expect("the engine opens"),
        }
    }
}

/// Waits until the last user of a directory has closed it.
pub(crate) async fn closed(directory: &Path) {
    eventually("a closed directory", || {
        let lock = std::fs::File::open(directory.join("LOCK")).expect("the lock is there");
        lock.try_lock().ok()
    })
    .await;
}

/// Member 1 of three; the others are played by the test.
pub(crate) fn follower_record() -> GroupRecord {
    let members = (1..=3).map(|id| {
        let address = MemberAddress {
            node_id: NodeId(id),
            address: format!("node-{id}:5681"),
        };
        (MemberId(id), address)
    });
    GroupRecord {
        partition_id: PARTITION,
        member_id: MemberId(1),
        store_uid: "store-of-the-test".to_owned(),
        incarnation: 1,
        initializer: None,
        members: members.collect(),
        plan_digest: Bytes::new(),
        timings: Timings {
            election_timeout: Duration::from_millis(100),
            ..Timings::default()
        },
        observer: false,
        replaces: None,
        expected_membership: None,
        admitted: false,
    }
}

pub(crate) struct Member {
    pub(crate) engine: Engine,
    pub(crate) group: Group<Journal>,
}

pub(crate) struct Cluster {
    pub(crate) network: Arc<Network>,
    directories: BTreeMap<u64, PathBuf>,
    pub(crate) members: BTreeMap<u64, Member>,
    timings: Timings,
    crashes: u64,
    adjust: fn(EngineOptions) -> EngineOptions,
    root: tempfile::TempDir,
}

impl Cluster {
    /// Members 1 to `size`, initialized by member 1.
    pub(crate) async fn start(size: u64) -> Self {
        Self::start_with(size, |options| options).await
    }

    /// The same with other options.
    pub(crate) async fn start_with(size: u64, adjust: fn(EngineOptions) -> EngineOptions) -> Self {
        let timings = Timings {
            election_timeout: Duration::from_millis(500),
            ..Timings::default()
        };
        let root = tempfile::tempdir().expect("a temporary directory");
        let mut cluster = Self {
            network: Network::new(),
            directories: BTreeMap::new(),
            members: BTreeMap::new(),
            timings,
            crashes: 0,
            adjust,
            root,
        };
        let mut engines = BTreeMap::new();
        for id in 1..=size {
            let directory = cluster.root.path().join(format!("node-{id}"));
            engines.insert(id, open(adjust(options(&directory))).await);
            cluster.directories.insert(id, directory);
        }
        let members: BTreeMap<_, _> = engines
            .iter()
            .map(|(id, engine)| {
                let address = MemberAddress {
                    node_id: engine.node_id(),
                    address: format!("node-{id}:5681"),
                };
                (MemberId(*id), address)
            })
            .collect();
        for (id, engine) in engines {
            let record = cluster.record(id, &members);
            engine.create_group(&record).await.expect("a group");
            cluster.start_group(id, engine, record).await;
        }
        cluster.group(1).initialize().await.expect("initialized");
        cluster
    }

    /// Starts a member that is in no membership yet, on a node of its own.
    pub(crate) async fn prepare_member(&mut self, id: u64) -> MemberAddress {
        let directory = self.root.path().join(format!("node-{id}"));
        let engine = open((self.adjust)(options(&directory))).await;
        self.directories.insert(id, directory);
        let address = MemberAddress {
            node_id: engine.node_id(),
            address: format!("node-{id}:5681"),
        };
        let record = GroupRecord {
            initializer: None,
            ..self.record(id, &BTreeMap::from([(MemberId(id), address.clone())]))
        };
        engine.create_group(&record).await.expect("a group");
        self.start_group(id, engine, record).await;
        address
    }

    fn record(&self, id: u64, members: &BTreeMap<MemberId, MemberAddress>) -> GroupRecord {
        GroupRecord {
            partition_id: PARTITION,
            member_id: MemberId(id),
            store_uid: "store-of-the-test".to_owned(),
            incarnation: 3,
            initializer: Some(MemberId(1)),
            members: members.clone(),
            plan_digest: Bytes::from_static(b"plan"),
            timings: self.timings,
            observer: false,
            replaces: None,
            expected_membership: None,
            admitted: false,
        }
    }

    async fn start_group(&mut self, id: u64, engine: Engine, record: GroupRecord) {
        let group = Group::start(&engine, record, Journal::default(), self.network.clone())
            .await
            .expect("the group starts");
        self.network.attach(id, group.clone());
        self.members.insert(id, Member { engine, group });
    }

    pub(crate) fn group(&self, id: u64) -> &Group<Journal> {
        &self.members[&id].group
    }

    pub(crate) fn directory(&self, id: u64) -> &Path {
        &self.directories[&id]
    }

    /// Stops a member in good order.
    pub(crate) async fn stop(&mut self, id: u64) {
        self.network.detach(id);
        let member = self.members.remove(&id).expect("the member runs");
        member.group.shutdown().await;
    }

    /// Leaves of a member what a killed process leaves, and stops it.
    pub(crate) async fn crash(&mut self, id: u64) {
        self.crashes += 1;
        let image = self.root.path().join(format!("node-{id}-{}", self.crashes));
        self.network.detach(id);
        image_of_running(&self.directories[&id], &image);
        self.stop(id).await;
        self.directories.insert(id, image);
    }

    /// Starts a member on what it left.
    pub(crate) async fn restart(&mut self, id: u64) {
        let engine = open((self.adjust)(options(&self.directories[&id]))).await;
        let record = engine.groups().pop().expect("the record is on disk");
        self.start_group(id, engine, record).await;
    }

    /// The leader that a quorum acknowledges.
    pub(crate) async fn leader(&self) -> u64 {
        eventually("a leader", || self.leader_now()).await
    }

    pub(crate) fn leader_now(&self) -> Option<u64> {
        let leads = |member: &Member| member.group.status().role == Role::Leader;
        let leader = self.members.iter().find(|(_, member)| leads(member))?;
        Some(*leader.0)
    }

    /// Proposes at whoever leads until the outcome is known.
    pub(crate) async fn write(&self, text: &str) -> u64 {
        let deadline = soon();
        loop {
            let leader = self.leader().await;
            match self.propose(leader, text).await {
                Ok(index) => return index,
                Err(error) => assert!(Instant::now() < deadline, "cannot write {text}: {error}"),
            }
        }
    }

    pub(crate) async fn propose(&self, id: u64, text: &str) -> Result<u64, ProposeError> {
        let payload = Bytes::copy_from_slice(text.as_bytes());
        let deadline = Instant::now() + Duration::from_secs(2);
        self.group(id).propose(payload, deadline).await
    }

    /// Waits until all running members have applied the same.
    pub(crate) async fn converged(&self) -> Vec<String> {
        eventually("the same on all members", || {
            let mut all = self
                .members
                .values()
                .map(|member| member.group.with_machine(|journal| journal.lines.clone()));
            let first = all.next()?;
            all.all(|other| other == first).then_some(first)
        })
        .await
    }
}

/// Copies what a directory holds at one moment, although it is in use: a file that came or went
/// meanwhile makes it begin again, and else only the newest files grow.
fn image_of_running(from: &Path, to: &Path) {
    let deadline = soon();
    loop {
        let before = file_names(from);
        copy(from, to);
        if file_names(from) == before {
            return;
        }
        assert!(Instant::now() < deadline, "the files never stay the same");
        std::fs::remove_dir_all(to).expect("removed");
    }
}

fn file_names(directory: &Path) -> Vec<PathBuf> {
    let mut names = Vec::new();
    for path in sorted_paths(directory) {
        if path.is_dir() {
            names.extend(file_names(&path));
        } else {
            names.push(path);
        }
    }
    names
}

fn sorted_paths(directory: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(directory).expect("a directory");
    let mut paths: Vec<PathBuf> = entries
        .map(|entry| entry.expect("an entry").path())
        .collect();
    paths.sort();
    paths
}

/// Copies a directory, the newest file of the log first: what is behind its end is left out.
pub(crate) fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).expect("a directory");
    for path in sorted_paths(from).into_iter().rev() {
        let target = to.join(path.file_name().expect("a name"));
        if path.is_dir() {
            copy(&path, &target);
        } else {
            match std::fs::copy(&path, &target) {
                // A temporary file that was renamed meanwhile, or a file that was deleted.
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
                copied => drop(copied.expect("copied")),
            }
        }
    }
}
