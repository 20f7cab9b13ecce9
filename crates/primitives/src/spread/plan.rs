//! Where an operation goes: to one partition, to several at once, or to one after the other.

use std::collections::BTreeMap;
use std::time::Duration;

// The LockRequest of a counter map is the same message.
use atomix_proto::runtime::map::v1::LockRequest;
use bytes::Bytes;
use prost::Message;

use super::routing::{PartitionId, partition_of, partition_of_key};
use super::{decode, decode_reply};
use crate::error::{OperationError, Reply};

/// What is done with an operation.
pub enum Plan {
    /// It goes to one partition as it is.
    One(PartitionId),
    /// Each partition gets its own request, all at the same time. Not one atomic step.
    Each {
        /// The requests, by partition.
        requests: Vec<(PartitionId, Bytes)>,
        /// Makes one reply of the partitions'.
        merge: fn(Vec<Bytes>) -> Reply,
    },
    /// Locks of keys, in the order in which they are to be taken.
    Locks(Vec<(PartitionId, LockRequest)>),
}

/// Where a primitive and its keys are.
pub struct Place<'a> {
    kind: &'a str,
    primitive: &'a str,
    partitions: u32,
}

impl<'a> Place<'a> {
    pub(crate) fn new(kind: &'a str, primitive: &'a str, partitions: u32) -> Self {
        Self {
            kind,
            primitive,
            partitions,
        }
    }

    pub(crate) fn is_one_partition(&self) -> bool {
        self.partitions <= 1
    }

    /// The partition of the primitive.
    pub fn primitive(&self) -> PartitionId {
        partition_of(self.kind, self.primitive, self.partitions)
    }

    /// The partition of a key, if the keys are spread.
    pub fn key(&self, key: &[u8]) -> PartitionId {
        partition_of_key(self.kind, self.primitive, key, self.partitions)
    }

    /// All partitions.
    pub fn all(&self) -> Vec<PartitionId> {
        (1..=self.partitions.max(1)).map(PartitionId).collect()
    }

    /// Sorts things by the partition of their keys, in the order in which they come.
    pub fn sorted<T>(
        &self,
        things: Vec<T>,
        key: impl Fn(&T) -> &str,
    ) -> BTreeMap<PartitionId, Vec<T>> {
        let mut sorted: BTreeMap<PartitionId, Vec<T>> = BTreeMap::new();
        for thing in things {
            let partition = self.key(key(&thing).as_bytes());
            sorted.entry(partition).or_default().push(thing);
        }
        sorted
    }
}

/// The requests of `map`, `countermap` and `multimap` that are about one key.
#[derive(Clone, PartialEq, Message)]
struct Keyed {
    #[prost(string, tag = "2")]
    key: String,
}

/// A request whose field 2 is a key.
pub(crate) fn by_key(request: &Bytes, place: &Place<'_>) -> Result<Plan, OperationError> {
    let Keyed { key } = decode(request)?;
    Ok(Plan::One(place.key(key.as_bytes())))
}

/// The same request to every partition; the sizes that they answer are added up.
pub(crate) fn size(request: &Bytes, place: &Place<'_>) -> Plan {
    everywhere(request, place, sum_of_sizes)
}

/// The same request to every partition; they answer nothing.
pub(crate) fn clear(request: &Bytes, place: &Place<'_>) -> Plan {
    everywhere(request, place, nothing)
}

fn everywhere(request: &Bytes, place: &Place<'_>, merge: fn(Vec<Bytes>) -> Reply) -> Plan {
    let partitions = place.all().into_iter();
    Plan::Each {
        requests: partitions.map(|id| (id, request.clone())).collect(),
        merge,
    }
}

/// The SizeResponse of every kind.
#[derive(Clone, PartialEq, Message)]
struct Size {
    #[prost(uint32, tag = "1")]
    size: u32,
}

fn sum_of_sizes(replies: Vec<Bytes>) -> Reply {
    let mut size: u32 = 0;
    for reply in replies {
        size = size.saturating_add(decode_reply::<Size>(reply)?.size);
    }
    Ok(Size { size }.encode_to_vec().into())
}

fn nothing(_replies: Vec<Bytes>) -> Reply {
    Ok(Bytes::new())
}

/// A Lock of keys: by partitions, ascending, and within a partition all at once.
pub(crate) fn lock(request: &Bytes, place: &Place<'_>) -> Result<Plan, OperationError> {
    let LockRequest { id, keys, timeout } = decode(request)?;
    let locks = place.sorted(keys, |key| key).into_iter();
    let locks = locks.map(|(partition, keys)| {
        let (id, timeout) = (id.clone(), timeout);
        (partition, LockRequest { id, keys, timeout })
    });
    Ok(Plan::Locks(locks.collect()))
}

/// An Unlock of keys: at all their partitions at once.
pub(crate) fn unlock(request: &Bytes, place: &Place<'_>) -> Result<Plan, OperationError> {
    let LockRequest { id, keys, .. } = decode(request)?;
    let locks = place.sorted(keys, |key| key).into_iter();
    let requests = locks.map(|(partition, keys)| {
        let (id, timeout) = (id.clone(), None);
        let unlock = LockRequest { id, keys, timeout };
        (partition, unlock.encode_to_vec().into())
    });
    Ok(Plan::Each {
        requests: requests.collect(),
        merge: nothing,
    })
}

/// A Lock whose caller has waited for so long already.
pub fn encode_remaining(mut lock: LockRequest, waited: Duration) -> Bytes {
    let timeout = lock
        .timeout
        .and_then(|timeout| Duration::try_from(timeout).ok());
    if let Some(timeout) = timeout {
        lock.timeout = timeout.saturating_sub(waited).try_into().ok();
    }
    lock.encode_to_vec().into()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

    use super::*;

    fn keys(count: usize) -> Vec<String> {
        (0..count).map(|number| format!("key-{number}")).collect()
    }

    #[test]
    fn locks_are_taken_in_the_order_of_their_partitions_whatever_order_they_are_named_in() {
        let place = Place::new("map", "table", 4);
        let plan_of = |keys: Vec<String>| {
            let request = LockRequest {
                keys,
                ..LockRequest::default()
            };
            match lock(&request.encode_to_vec().into(), &place).unwrap() {
                Plan::Locks(locks) => locks,
                Plan::One(_) | Plan::Each { .. } => panic!("not a plan for locks"),
            }
        };
        let forward = plan_of(keys(40));
        let backward = plan_of(keys(40).into_iter().rev().collect());
        let order = |locks: &[(PartitionId, LockRequest)]| -> Vec<u32> {
            locks.iter().map(|(partition, _)| partition.0).collect()
        };
        assert_eq!(order(&forward), [1, 2, 3, 4]);
        assert_eq!(order(&backward), [1, 2, 3, 4]);
        for (partition, lock) in &forward {
            let at_home = |key: &String| place.key(key.as_bytes()) == *partition;
            assert!(lock.keys.iter().all(at_home), "{partition:?}");
        }
    }

    #[test]
    fn time_that_was_waited_at_one_partition_is_missing_at_the_next() {
        let lock = |timeout: Option<Duration>| LockRequest {
            timeout: timeout.and_then(|timeout| timeout.try_into().ok()),
            ..LockRequest::default()
        };
        let remaining = |timeout, waited| {
            let encoded = encode_remaining(lock(timeout), waited);
            let decoded: LockRequest = decode(&encoded).unwrap();
            let timeout = decoded.timeout;
            timeout.map(|timeout| Duration::try_from(timeout).unwrap())
        };
        let second = Duration::from_secs(1);
        assert_eq!(remaining(None, second), None);
        assert_eq!(remaining(Some(3 * second), second), Some(2 * second));
        assert_eq!(remaining(Some(second), 2 * second), Some(Duration::ZERO));
    }

    #[test]
    fn sizes_are_added_up() {
        let size = |size| Bytes::from(Size { size }.encode_to_vec());
        let sum = |sizes: Vec<Bytes>| {
            let sum: Size = decode(&sum_of_sizes(sizes).unwrap()).unwrap();
            sum.size
        };
        assert_eq!(sum(vec![size(3), Bytes::new(), size(4)]), 7);
        assert_eq!(sum(vec![size(u32::MAX), size(1)]), u32::MAX);
    }
}
