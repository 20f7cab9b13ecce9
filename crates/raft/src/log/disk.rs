//! What of a group is kept in the engine, and how it is encoded there.
//!
//! Each group has a region of the engine, named by its partition id; region 0 is the node's own.

use atomix_proto::multiraft::v1 as pb;
use bytes::Bytes;
use prost::Message as _;
use protobuf::well_known_types::BytesValue;
use raft_engine::MessageExt;

use crate::codec;
use crate::types::{Entry, LogId, Vote};

/// The region of the node's identity and of the records of its groups.
pub(crate) const NODE_REGION: u64 = 0;
pub(crate) const KEY_IDENTITY: &[u8] = b"identity";
/// The operator that the node listens to.
pub(crate) const KEY_OPERATOR: &[u8] = b"operator";
const GROUP_KEY_PREFIX: &str = "group/";

/// The highest boot counter seen of another node.
const BOOT_KEY_PREFIX: &[u8] = b"boot/";

/// The members that this node held of a partition and that left.
const DEPARTURES_KEY_PREFIX: &str = "departures/";

/// The members that a recovered group had before.
const FORMER_KEY_PREFIX: &str = "former/";

/// The last vote.
pub(crate) const KEY_VOTE: &[u8] = b"vote";
/// The last committed log id that was known when the batch was written.
pub(crate) const KEY_COMMITTED: &[u8] = b"committed";
/// The last purged log id.
pub(crate) const KEY_PURGED: &[u8] = b"purged";
/// After a truncation, until the next append: entries from this index on do not exist.
pub(crate) const KEY_TAIL: &[u8] = b"tail";

pub(crate) fn group_key(partition: u32) -> Vec<u8> {
    format!("{GROUP_KEY_PREFIX}{partition}").into_bytes()
}

pub(crate) fn is_group_key(key: &[u8]) -> bool {
    key.starts_with(GROUP_KEY_PREFIX.as_bytes())
}

pub(crate) fn departures_key(partition: u32) -> Vec<u8> {
    format!("{DEPARTURES_KEY_PREFIX}{partition}").into_bytes()
}

/// The partition that a key of departures is about.
pub(crate) fn departures_key_partition(key: &[u8]) -> Option<u32> {
    let partition = key.strip_prefix(DEPARTURES_KEY_PREFIX.as_bytes())?;
    std::str::from_utf8(partition).ok()?.parse().ok()
}

pub(crate) fn former_key(partition: u32) -> Vec<u8> {
    format!("{FORMER_KEY_PREFIX}{partition}").into_bytes()
}

/// The partition that a key of former members is about.
pub(crate) fn former_key_partition(key: &[u8]) -> Option<u32> {
    let partition = key.strip_prefix(FORMER_KEY_PREFIX.as_bytes())?;
    std::str::from_utf8(partition).ok()?.parse().ok()
}

pub(crate) fn boot_key(node_id: u64) -> Vec<u8> {
    [BOOT_KEY_PREFIX, &node_id.to_be_bytes()].concat()
}

/// The node that a key of a boot counter is about.
pub(crate) fn boot_key_node(key: &[u8]) -> Option<u64> {
    let node_id = key.strip_prefix(BOOT_KEY_PREFIX)?.try_into().ok()?;
    Some(u64::from_be_bytes(node_id))
}

pub(crate) fn encode_boot(boot_counter: u64) -> Vec<u8> {
    boot_counter.to_le_bytes().to_vec()
}

pub(crate) fn decode_boot(value: &[u8]) -> Result<u64, String> {
    stored_index(value).ok_or_else(|| "a boot counter that is no number".to_owned())
}

/// An entry as the engine stores it: the index, little-endian, then the encoded `LogEntry`.
pub(crate) struct StoredEntry;

const INDEX_LENGTH: usize = size_of::<u64>();

impl MessageExt for StoredEntry {
    type Entry = BytesValue;

    fn index(entry: &BytesValue) -> u64 {
        stored_index(&entry.value).unwrap_or(0)
    }
}

fn stored_index(value: &[u8]) -> Option<u64> {
    value
        .first_chunk::<INDEX_LENGTH>()
        .map(|index| u64::from_le_bytes(*index))
}

pub(crate) fn encode_entry(entry: &Entry) -> BytesValue {
    let message = codec::entry_to_pb(entry);
    let mut value = Vec::with_capacity(INDEX_LENGTH + message.encoded_len());
    value.extend_from_slice(&entry.log_id.index.to_le_bytes());
    message.encode_raw(&mut value);
    let mut stored = BytesValue::new();
    stored.set_value(value);
    stored
}

pub(crate) fn decode_entry(stored: BytesValue) -> Result<Entry, String> {
    let mut value = Bytes::from(stored.value);
    let index = stored_index(&value).ok_or("an entry without an index")?;
    let message = value.split_off(INDEX_LENGTH);
    let message = pb::LogEntry::decode(message).map_err(|error| error.to_string())?;
    if message.index != index {
        return Err(format!("entry {index} says it is {}", message.index));
    }
    codec::entry_from_pb(message).map_err(|error| error.to_string())
}

pub(crate) fn encode_vote(vote: &Vote) -> Vec<u8> {
    codec::vote_to_pb(vote).encode_to_vec()
}

pub(crate) fn decode_vote(value: &[u8]) -> Result<Vote, String> {
    let vote = pb::Vote::decode(value).map_err(|error| error.to_string())?;
    Ok(codec::vote_from_pb(&vote))
}

pub(crate) fn encode_log_id(log_id: &LogId) -> Vec<u8> {
    codec::log_id_to_pb(log_id).encode_to_vec()
}

pub(crate) fn decode_log_id(value: &[u8]) -> Result<LogId, String> {
    let log_id = pb::LogId::decode(value).map_err(|error| error.to_string())?;
    Ok(codec::log_id_from_pb(&log_id))
}

pub(crate) fn encode_tail(next: u64) -> Vec<u8> {
    next.to_le_bytes().to_vec()
}

pub(crate) fn decode_tail(value: &[u8]) -> Result<u64, String> {
    stored_index(value).ok_or_else(|| "a tail that is no number".to_owned())
}
