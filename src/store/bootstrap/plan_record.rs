//! The bootstrap plan as it is stored in the ConfigMap `<store>-bootstrap`, and what each node is
//! told of it.
//!
//! Ids are 16 hex digits: JSON numbers cannot hold 63 bits.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use atomix_proto::multiraft::v1::{BootstrapRequest, PartitionConfig, RaftTimings};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use thiserror::Error;

/// A 63-bit id of a node or of a member.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct HexId(pub u64);

impl std::fmt::Debug for HexId {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "{:016x}", self.0)
    }
}

impl std::fmt::Display for HexId {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "{:016x}", self.0)
    }
}

impl Serialize for HexId {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for HexId {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        if text.len() != 16 {
            return Err(serde::de::Error::custom("an id has 16 hex digits"));
        }
        u64::from_str_radix(&text, 16)
            .map(HexId)
            .map_err(serde::de::Error::custom)
    }
}

/// Which member lies on which node. Never changed once stored, only replaced as a whole by one
/// with a higher incarnation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Plan {
    /// Whose data this is: the uid of the Store.
    pub store_uid: String,
    /// Counts the bootstraps, from 1.
    pub incarnation: u64,
    /// Raft's settings.
    pub election_timeout_millis: u64,
    /// Raft's settings; 0 = the node's default.
    pub snapshot_entry_threshold: u64,
    /// The nodes, by ordinal from 0.
    pub nodes: Vec<PlannedNode>,
    /// The partitions, by id from 1.
    pub partitions: Vec<PlannedPartition>,
}

/// A disk that takes part.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct PlannedNode {
    /// The id of the disk that was found at the ordinal.
    pub node_id: HexId,
    /// host:port of its peer port.
    pub address: String,
}

/// The members of one partition.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct PlannedPartition {
    /// Partition id.
    pub partition: u32,
    /// Member ids by ordinal.
    pub members: BTreeMap<u32, HexId>,
    /// The ordinal whose member initializes the group.
    pub initializer: u32,
}

/// A stored plan that contradicts itself.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("bootstrap plan is damaged: {0}")]
pub struct DamagedPlan(String);

impl Plan {
    /// Reads and checks a stored plan.
    ///
    /// # Errors
    /// When it is not JSON of this form, or contradicts itself.
    pub fn parse(text: &str) -> Result<Self, DamagedPlan> {
        let plan: Self =
            serde_json::from_str(text).map_err(|error| DamagedPlan(error.to_string()))?;
        plan.check()?;
        Ok(plan)
    }

    /// The plan as it is stored.
    #[must_use]
    pub fn to_json(&self) -> String {
        // Plain data with string keys: this cannot fail, and an empty text would be refused by
        // `parse`.
        serde_json::to_string(self).unwrap_or_default()
    }

    fn check(&self) -> Result<(), DamagedPlan> {
        let damaged = |text: String| Err(DamagedPlan(text));
        if self.incarnation == 0 || self.store_uid.is_empty() {
            return damaged("it names no store or incarnation".to_owned());
        }
        let nodes: BTreeSet<HexId> = self.nodes.iter().map(|node| node.node_id).collect();
        if nodes.len() != self.nodes.len() || nodes.contains(&HexId(0)) {
            return damaged("two nodes have one id".to_owned());
        }
        let mut members = BTreeSet::new();
        for (partition, number) in self.partitions.iter().zip(1_u32..) {
            if partition.partition != number || partition.members.is_empty() {
                return damaged(format!("partition {number} is not described"));
            }
            if !partition.members.contains_key(&partition.initializer) {
                return damaged(format!("partition {number} is initialized by no member"));
            }
            for (ordinal, member) in &partition.members {
                let is_known = usize::try_from(*ordinal).is_ok_and(|at| at < self.nodes.len());
                if !is_known || member.0 == 0 || !members.insert(*member) {
                    return damaged(format!("a member of partition {number} is wrong"));
                }
            }
        }
        Ok(())
    }

    /// The node with this ordinal.
    #[must_use]
    pub fn node(&self, ordinal: u32) -> Option<&PlannedNode> {
        self.nodes.get(usize::try_from(ordinal).ok()?)
    }

    /// What the node with this ordinal is told; the same bytes each time.
    #[must_use]
    pub fn request_for(&self, ordinal: u32) -> BootstrapRequest {
        let partitions = self.partitions.iter().filter_map(|partition| {
            let own = partition.members.get(&ordinal)?;
            Some(self.config_of(partition, ordinal, *own))
        });
        BootstrapRequest {
            partitions: partitions.collect(),
        }
    }

    fn config_of(&self, partition: &PlannedPartition, ordinal: u32, own: HexId) -> PartitionConfig {
        let mut config = PartitionConfig {
            partition_id: partition.partition,
            store_uid: self.store_uid.clone(),
            member_id: own.0,
            node_id: self.node(ordinal).map_or(0, |node| node.node_id.0),
            incarnation: self.incarnation,
            raft: Some(RaftTimings {
                election_timeout: prost_duration(self.election_timeout_millis),
                snapshot_entry_threshold: self.snapshot_entry_threshold,
            }),
            ..PartitionConfig::default()
        };
        for (at, member) in &partition.members {
            if let Some(node) = self.node(*at) {
                config.members.insert(member.0, node.address.clone());
                config.node_ids.insert(member.0, node.node_id.0);
            }
            if *at == partition.initializer {
                config.initializer = member.0;
            }
        }
        config
    }
}

fn prost_duration(millis: u64) -> Option<prost_types::Duration> {
    prost_types::Duration::try_from(Duration::from_millis(millis)).ok()
}
