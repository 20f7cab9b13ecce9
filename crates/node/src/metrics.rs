//! What a node counts. The only label is the partition, whose number is bounded.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64};
use std::time::Duration;

use atomix_raft::{GroupStatus, PartitionId, Role};
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::{Registry, Unit};

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Labels {
    partition: u32,
}

type Gauges = Family<Labels, Gauge<i64, AtomicI64>>;
type Counters = Family<Labels, Counter<u64, AtomicU64>>;
type Histograms = Family<Labels, Histogram, fn() -> Histogram>;

/// From a quarter of a millisecond to four seconds.
fn latencies() -> Histogram {
    Histogram::new(exponential_buckets(0.000_25, 2.0, 15))
}

/// The metrics of all partitions.
#[derive(Debug, Clone, Default)]
pub(crate) struct Metrics {
    families: Arc<Families>,
}

#[derive(Debug)]
struct Families {
    leader: Gauges,
    term: Gauges,
    committed: Gauges,
    applied: Gauges,
    snapshot: Gauges,
    entries: Counters,
    commands: Counters,
    reads: Counters,
    commits: Histograms,
}

impl Default for Families {
    fn default() -> Self {
        Self {
            leader: Gauges::default(),
            term: Gauges::default(),
            committed: Gauges::default(),
            applied: Gauges::default(),
            snapshot: Gauges::default(),
            entries: Counters::default(),
            commands: Counters::default(),
            reads: Counters::default(),
            commits: Histograms::new_with_constructor(latencies),
        }
    }
}

impl Metrics {
    pub(crate) fn register(&self, registry: &mut Registry) {
        let registry = registry.sub_registry_with_prefix("atomix_node");
        let families = &self.families;
        registry.register(
            "partition_leader",
            "1 where this node leads the partition and a quorum acknowledges it",
            families.leader.clone(),
        );
        registry.register(
            "partition_term",
            "Highest Raft term seen",
            families.term.clone(),
        );
        registry.register(
            "partition_committed_index",
            "Last log index known to be committed",
            families.committed.clone(),
        );
        registry.register(
            "partition_applied_index",
            "Last applied log index",
            families.applied.clone(),
        );
        registry.register(
            "partition_snapshot_index",
            "Last log index that a snapshot on this disk holds",
            families.snapshot.clone(),
        );
        registry.register(
            "partition_entries_proposed",
            "Log entries proposed here",
            families.entries.clone(),
        );
        registry.register(
            "partition_commands_proposed",
            "Commands proposed here; many share an entry",
            families.commands.clone(),
        );
        registry.register(
            "partition_reads",
            "Linearizable queries asked here",
            families.reads.clone(),
        );
        registry.register_with_unit(
            "partition_commit_latency",
            "Time from handing an entry to Raft until it is applied here; the disks of a quorum are in it",
            Unit::Seconds,
            families.commits.clone(),
        );
    }

    pub(crate) fn partition(&self, partition: PartitionId) -> PartitionMetrics {
        let labels = Labels {
            partition: partition.0,
        };
        PartitionMetrics {
            entries: self.families.entries.get_or_create_owned(&labels),
            commands: self.families.commands.get_or_create_owned(&labels),
            reads: self.families.reads.get_or_create_owned(&labels),
            commits: self.families.commits.get_or_create_owned(&labels),
            families: Arc::clone(&self.families),
            labels,
        }
    }
}

/// The metrics of one partition.
#[derive(Debug)]
pub(crate) struct PartitionMetrics {
    families: Arc<Families>,
    labels: Labels,
    entries: Counter<u64, AtomicU64>,
    commands: Counter<u64, AtomicU64>,
    reads: Counter<u64, AtomicU64>,
    commits: Histogram,
}

impl PartitionMetrics {
    pub(crate) fn count_proposal(&self, commands: usize) {
        self.entries.inc();
        self.commands.inc_by(commands as u64);
    }

    pub(crate) fn observe_commit(&self, latency: Duration) {
        self.commits.observe(latency.as_secs_f64());
    }

    pub(crate) fn count_reads(&self, reads: usize) {
        self.reads.inc_by(reads as u64);
    }

    pub(crate) fn observe(&self, status: &GroupStatus) {
        let Families {
            leader,
            term,
            committed,
            applied,
            snapshot,
            entries: _,
            commands: _,
            reads: _,
            commits: _,
        } = &*self.families;
        set(leader, &self.labels, u64::from(status.role == Role::Leader));
        set(term, &self.labels, status.term);
        set(committed, &self.labels, status.committed);
        set(applied, &self.labels, status.applied);
        set(snapshot, &self.labels, status.snapshot);
    }

    /// Forgets a partition that does not run here any more.
    pub(crate) fn remove(&self) {
        let Families {
            leader,
            term,
            committed,
            applied,
            snapshot,
            entries,
            commands,
            reads,
            commits,
        } = &*self.families;
        for gauges in [leader, term, committed, applied, snapshot] {
            gauges.remove(&self.labels);
        }
        for counters in [entries, commands, reads] {
            counters.remove(&self.labels);
        }
        commits.remove(&self.labels);
    }
}

fn set(gauges: &Gauges, labels: &Labels, value: u64) {
    gauges
        .get_or_create(labels)
        .set(i64::try_from(value).unwrap_or(i64::MAX));
}
