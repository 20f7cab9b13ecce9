//! From findings to conditions: the first cause is named, with the pod and what to do.

#![allow(clippy::unwrap_used, reason = "tests")]

mod advice;
mod changes;
mod serving;

use std::time::Duration;

use serde_json::json;

use super::*;
use crate::store::bootstrap::plan_record::{HexId, PlannedNode, PlannedPartition};
use crate::store::members::placement::{Action, Join, Potential, Purpose};
use crate::store::nodes::node_view::{GroupView, NodeView};
use crate::store::rolling::Step;
use crate::store::spec::validate::{ClusterStorage, Timings};

fn cluster() -> Cluster {
    Cluster {
        replicas: 3,
        partitions: 2,
        replication_factor: 3,
        timings: Timings {
            election_timeout: Duration::from_secs(1),
            snapshot_entry_threshold: 0,
        },
        storage: ClusterStorage::Ephemeral,
        pod: Default::default(),
        allow_data_loss: false,
        driver_timeouts: Default::default(),
    }
}

fn plan() -> Plan {
    let partition = |partition: u32| PlannedPartition {
        partition,
        members: (0..3)
            .map(|ordinal| (ordinal, HexId(u64::from(partition * 10 + ordinal))))
            .collect(),
        initializer: 0,
    };
    Plan {
        store_uid: "u".to_owned(),
        incarnation: 1,
        election_timeout_millis: 1000,
        snapshot_entry_threshold: 0,
        nodes: (1..=3)
            .map(|id| PlannedNode {
                node_id: HexId(id),
                address: format!("a{id}"),
            })
            .collect(),
        partitions: vec![partition(1), partition(2)],
    }
}

/// A node with its members; `leads` are the partitions that it leads.
fn node(ordinal: u32, leads: &[u32]) -> NodeState {
    let groups = [1_u32, 2].map(|partition| {
        let view = GroupView {
            member_id: u64::from(partition * 10 + ordinal),
            leads: leads.contains(&partition),
            has_committed: true,
            ..GroupView::default()
        };
        (partition, view)
    });
    NodeState::Up(NodeView {
        node_id: u64::from(ordinal + 1),
        store_uid: "u".to_owned(),
        incarnation: 1,
        version: "0.1.0".to_owned(),
        operator: String::new(),
        groups: groups.into(),
    })
}

/// A node on a new disk.
fn replaced(ordinal: u32) -> NodeState {
    NodeState::Up(NodeView {
        node_id: u64::from(ordinal + 100),
        store_uid: String::new(),
        incarnation: 0,
        version: "0.1.0".to_owned(),
        operator: String::new(),
        groups: BTreeMap::new(),
    })
}

fn silent() -> NodeState {
    NodeState::Silent("connection refused".to_owned())
}

fn pod(name: &str, status: serde_json::Value) -> Arc<StoragePodView> {
    let pod = json!({
        "metadata": {"name": name, "labels": {"controller-revision-hash": "r1"}},
        "spec": {"containers": [{"name": "node", "image": "garden/node:9"}]},
        "status": status,
    });
    Arc::new(serde_json::from_value(pod).unwrap())
}

fn ready_pods() -> BTreeMap<u32, Arc<StoragePodView>> {
    let status = json!({"conditions": [{"type": "Ready", "status": "True"}]});
    (0..3)
        .map(|ordinal| (ordinal, pod(&format!("tulip-{ordinal}"), status.clone())))
        .collect()
}

struct Case {
    phase: Phase,
    bootstrapped: bool,
    pods: BTreeMap<u32, Arc<StoragePodView>>,
    nodes: [NodeState; 3],
    placement: Option<Decision>,
    error: Option<StoreError>,
    missing_driver: Option<UnknownDriver>,
    paused: bool,
    incarnation: u64,
    roll: Option<Roll>,
    eviction_refused: bool,
}

impl Case {
    fn healthy() -> Self {
        Self {
            phase: Phase::Done,
            bootstrapped: true,
            pods: ready_pods(),
            nodes: [node(0, &[1]), node(1, &[2]), node(2, &[])],
            placement: None,
            error: None,
            missing_driver: None,
            paused: false,
            incarnation: 1,
            roll: None,
            eviction_refused: false,
        }
    }

    /// Before the mark, with one node that does not answer.
    fn starting() -> Self {
        let mut case = Self::healthy();
        case.bootstrapped = false;
        case.phase = Phase::WaitingForNodes(vec![1]);
        case.nodes[1] = silent();
        case
    }

    fn status(&self, previous: &StoreStatus) -> StoreStatus {
        let config = DriverConfig {
            json: "{}".to_owned(),
            digest: "d".to_owned(),
        };
        let stored = StoredPlan::Ours {
            plan: Box::new(Plan {
                incarnation: self.incarnation,
                ..plan()
            }),
            bootstrapped: self.bootstrapped,
        };
        let nodes = (0..).zip(self.nodes.iter().cloned()).collect();
        let cluster = cluster();
        let findings = Findings {
            name: "tulip",
            cluster: &cluster,
            config: Ok(&config),
            missing_driver: self.missing_driver.as_ref(),
            paused: self.paused,
            plan: &stored,
            phase: &self.phase,
            pods: &self.pods,
            nodes: &nodes,
            placement: self.placement.as_ref(),
            roll: self.roll.as_ref(),
            eviction_refused: self.eviction_refused,
            error: self.error.as_ref(),
        };
        of_cluster(&findings, previous, 4, Timestamp::UNIX_EPOCH)
    }
}

/// `Type=Status/Reason` of a condition, and its message.
fn told(status: &StoreStatus, type_: &str) -> (String, String) {
    let mut conditions = status.conditions.iter();
    let condition = conditions
        .find(|condition| condition.type_ == type_)
        .unwrap();
    assert_eq!(condition.observed_generation, Some(4));
    assert!(!condition.reason.is_empty());
    (
        format!("{}/{}", condition.status, condition.reason),
        condition.message.clone(),
    )
}

fn rolling(step: Step) -> Option<Roll> {
    Some(Roll {
        updated: 1,
        total: 3,
        step,
    })
}

/// All members lie where they should.
fn settled() -> Decision {
    Decision {
        replicas: 3,
        holding: [0, 1, 2].into(),
        ..Decision::default()
    }
}

/// A member changes its place.
fn moving(purpose: Purpose) -> Decision {
    let join = Join {
        partition: 2,
        ordinal: 0,
        node_id: 1,
        member_id: 5,
        replaces: Some(6),
        from: Some(4),
        expected: (1, 2),
        purpose,
    };
    Decision {
        actions: vec![Action::Join(join)],
        replicas: 5,
        potential: Potential {
            displaced: 7,
            ..Potential::default()
        },
        ..settled()
    }
}
