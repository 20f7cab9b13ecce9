//! A Bootstrap request, and the one partition of a Join request, checked and in strong types.

use std::collections::BTreeMap;
use std::time::Duration;

use atomix_proto::multiraft::v1::{BootstrapRequest, JoinRequest, PartitionConfig, RaftTimings};
use atomix_raft::{
    GroupRecord, LogPosition, MemberAddress, MemberId, NodeId, PartitionId, Timings,
};
use bytes::Bytes;
use sha2::{Digest as _, Sha256};
use thiserror::Error;

use crate::resolver::split_host_port;

/// Ids have 63 bits: JSON and CRD fields cannot hold more.
const MAX_ID: u64 = i64::MAX.unsigned_abs();
const MIN_ELECTION_TIMEOUT: Duration = Duration::from_millis(100);
const MAX_ELECTION_TIMEOUT: Duration = Duration::from_secs(60);
/// Changes when the meaning of the digested bytes does.
const DIGEST_VERSION: &[u8] = b"atomix bootstrap plan 1";

/// A request that can never succeed.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{field}: {reason}")]
pub(crate) struct InvalidPlan {
    field: String,
    reason: String,
}

/// What one Bootstrap asks of this node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct BootstrapPlan {
    pub(crate) store_uid: String,
    pub(crate) incarnation: u64,
    /// Whom the caller takes this node for.
    pub(crate) node_id: NodeId,
    /// The records to store, at least one.
    pub(crate) partitions: BTreeMap<PartitionId, GroupRecord>,
}

impl BootstrapPlan {
    /// Checks a request.
    ///
    /// # Errors
    /// The first field that is missing, malformed, or of no use in a Bootstrap.
    pub(crate) fn parse(request: &BootstrapRequest) -> Result<Self, InvalidPlan> {
        let mut partitions = BTreeMap::new();
        let mut common = None;
        for (position, config) in request.partitions.iter().enumerate() {
            let field = Field {
                prefix: format!("partitions[{position}]"),
            };
            let record = parse_partition(config, &field)?;
            require_bootstrap(config, &field)?;
            let found = (record.store_uid.clone(), record.incarnation, config.node_id);
            let (store_uid, incarnation, node_id) = common.get_or_insert_with(|| found.clone());
            field.require(
                "store_uid",
                found.0 == *store_uid,
                "differs from another partition's",
            )?;
            field.require(
                "incarnation",
                found.1 == *incarnation,
                "differs from another partition's",
            )?;
            field.require(
                "node_id",
                found.2 == *node_id,
                "differs from another partition's",
            )?;
            let partition = record.partition_id;
            let repeated = partitions.insert(partition, record).is_some();
            field.require("partition_id", !repeated, "is listed twice")?;
        }
        let Some((store_uid, incarnation, node_id)) = common else {
            return Err(InvalidPlan {
                field: "partitions".to_owned(),
                reason: "is empty; list at least one partition".to_owned(),
            });
        };
        Ok(Self {
            store_uid,
            incarnation,
            node_id: NodeId(node_id),
            partitions,
        })
    }
}

/// Checks a Join request. Answers the record to store, and whom the caller takes this node for.
///
/// # Errors
/// The first field that is missing, malformed, or of no use in a Join.
pub(crate) fn parse_join(request: &JoinRequest) -> Result<(GroupRecord, NodeId), InvalidPlan> {
    let field = Field {
        prefix: "partition".to_owned(),
    };
    let Some(config) = &request.partition else {
        return Err(InvalidPlan {
            field: "partition".to_owned(),
            reason: "is missing".to_owned(),
        });
    };
    let mut record = parse_partition(config, &field)?;
    field.require(
        "initializer",
        config.initializer == 0,
        "belongs to Bootstrap, not to Join",
    )?;
    if config.replaces != 0 {
        field.require_id("replaces", config.replaces)?;
        field.require(
            "replaces",
            config.replaces != config.member_id,
            "is the member itself",
        )?;
    }
    field.require("members", config.members.len() > 1, "names nobody to join")?;
    record.observer = config.observer;
    record.replaces = (config.replaces != 0).then_some(MemberId(config.replaces));
    record.expected_membership = request.expected_membership.map(|expected| LogPosition {
        term: expected.term,
        index: expected.index,
    });
    Ok((record, NodeId(config.node_id)))
}

/// What a Bootstrap needs, and what it must not say.
fn require_bootstrap(config: &PartitionConfig, field: &Field) -> Result<(), InvalidPlan> {
    field.require(
        "observer",
        !config.observer,
        "belongs to Join, not to Bootstrap",
    )?;
    field.require(
        "replaces",
        config.replaces == 0,
        "belongs to Join, not to Bootstrap",
    )?;
    field.require(
        "initializer",
        config.members.contains_key(&config.initializer),
        "is not among members",
    )
}

/// Names a field in errors.
struct Field {
    prefix: String,
}

impl Field {
    fn invalid(&self, name: &str, reason: impl Into<String>) -> InvalidPlan {
        InvalidPlan {
            field: format!("{}.{name}", self.prefix),
            reason: reason.into(),
        }
    }

    fn require(&self, name: &str, holds: bool, reason: &str) -> Result<(), InvalidPlan> {
        if holds {
            return Ok(());
        }
        Err(self.invalid(name, reason))
    }

    fn require_id(&self, name: &str, id: u64) -> Result<(), InvalidPlan> {
        let known_shape = id != 0 && id <= MAX_ID;
        self.require(name, known_shape, "must have 63 bits and not be 0")
    }
}

fn parse_partition(config: &PartitionConfig, field: &Field) -> Result<GroupRecord, InvalidPlan> {
    let PartitionConfig {
        partition_id,
        members,
        store_uid,
        member_id,
        observer: _,
        replaces: _,
        raft,
        node_id,
        incarnation,
        initializer,
        node_ids,
    } = config;
    field.require("partition_id", *partition_id != 0, "must be at least 1")?;
    field.require("members", !members.is_empty(), "is empty")?;
    field.require("store_uid", !store_uid.is_empty(), "is empty")?;
    field.require(
        "store_uid",
        store_uid.len() <= 256,
        "is longer than 256 bytes",
    )?;
    field.require_id("member_id", *member_id)?;
    field.require_id("node_id", *node_id)?;
    field.require("incarnation", *incarnation != 0, "must be at least 1")?;

    let mut addresses = BTreeMap::new();
    for (member, address) in members {
        let name = format!("members[{member}]");
        field.require_id(&name, *member)?;
        split_host_port(address).map_err(|error| field.invalid(&name, error.to_string()))?;
        let name = format!("node_ids[{member}]");
        let node = *node_ids
            .get(member)
            .ok_or_else(|| field.invalid(&name, "is missing"))?;
        field.require_id(&name, node)?;
        addresses.insert(
            MemberId(*member),
            MemberAddress {
                node_id: NodeId(node),
                address: address.clone(),
            },
        );
    }
    for member in node_ids.keys() {
        field.require(
            &format!("node_ids[{member}]"),
            members.contains_key(member),
            "names no entry of members",
        )?;
    }
    let mut nodes: Vec<NodeId> = addresses.values().map(|address| address.node_id).collect();
    nodes.sort_unstable();
    nodes.dedup();
    field.require(
        "node_ids",
        nodes.len() == addresses.len(),
        "places two members on one node",
    )?;
    let own = addresses.get(&MemberId(*member_id));
    field.require("member_id", own.is_some(), "is not among members")?;
    field.require(
        "node_id",
        own.is_some_and(|own| own.node_id.0 == *node_id),
        "is not the node of member_id in node_ids",
    )?;

    Ok(GroupRecord {
        partition_id: PartitionId(*partition_id),
        member_id: MemberId(*member_id),
        store_uid: store_uid.clone(),
        incarnation: *incarnation,
        initializer: (*initializer != 0).then_some(MemberId(*initializer)),
        plan_digest: plan_digest(config),
        timings: parse_timings(raft.as_ref(), field)?,
        members: addresses,
        observer: false,
        replaces: None,
        expected_membership: None,
        admitted: false,
    })
}

fn parse_timings(raft: Option<&RaftTimings>, field: &Field) -> Result<Timings, InvalidPlan> {
    let mut timings = Timings::default();
    let Some(raft) = raft else {
        return Ok(timings);
    };
    if let Some(timeout) = raft.election_timeout {
        let name = "raft.election_timeout";
        let timeout =
            Duration::try_from(timeout).map_err(|_| field.invalid(name, "must not be negative"))?;
        field.require(
            name,
            (MIN_ELECTION_TIMEOUT..=MAX_ELECTION_TIMEOUT).contains(&timeout),
            "must be between 100 ms and 60 s",
        )?;
        timings.election_timeout = timeout;
    }
    if raft.snapshot_entry_threshold != 0 {
        timings.snapshot_entry_threshold = raft.snapshot_entry_threshold;
    }
    Ok(timings)
}

/// SHA-256 over the fields that are common to all members of a partition: all but 101 `member_id`
/// and 105 `node_id`. Maps are digested in the order of their keys.
pub(crate) fn plan_digest(config: &PartitionConfig) -> Bytes {
    let mut digest = Sha256::new();
    let mut add = |bytes: &[u8]| {
        digest.update(bytes.len().to_be_bytes());
        digest.update(bytes);
    };
    add(DIGEST_VERSION);
    add(&config.partition_id.to_be_bytes());
    add(config.store_uid.as_bytes());
    add(&[u8::from(config.observer)]);
    add(&config.replaces.to_be_bytes());
    add(&config.incarnation.to_be_bytes());
    add(&config.initializer.to_be_bytes());
    let members: BTreeMap<_, _> = config.members.iter().collect();
    for (member, address) in members {
        add(b"member");
        add(&member.to_be_bytes());
        add(address.as_bytes());
    }
    let nodes: BTreeMap<_, _> = config.node_ids.iter().collect();
    for (member, node) in nodes {
        add(b"node");
        add(&member.to_be_bytes());
        add(&node.to_be_bytes());
    }
    // As it was given: a default that changes must not turn an old plan into another one.
    let raft = config.raft.unwrap_or_default();
    let timeout = raft.election_timeout.unwrap_or_default();
    add(&timeout.seconds.to_be_bytes());
    add(&timeout.nanos.to_be_bytes());
    add(&raft.snapshot_entry_threshold.to_be_bytes());
    Bytes::copy_from_slice(&digest.finalize())
}
