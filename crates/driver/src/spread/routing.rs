//! Which partition a primitive lives in.
//!
//! This is a promise to the data on the disks: the function never changes.

use atomix_proto::multiraft::v1::Operation;

/// Names a partition of a store; they count from 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PartitionId(pub u32);

/// The partition of a primitive: 64-bit FNV-1a over the kind, a zero byte and the name; its upper
/// half folded onto the lower by exclusive or; modulo the number of partitions; plus 1.
#[must_use]
pub fn partition_of(kind: &str, primitive: &str, partitions: u32) -> PartitionId {
    let mut hash = Fnv1a::new();
    hash.update(kind.as_bytes());
    hash.update(&[0]);
    hash.update(primitive.as_bytes());
    let folded = hash.0 ^ (hash.0 >> 32);
    let index = (folded & u64::from(u32::MAX)) % u64::from(partitions.max(1));
    PartitionId(u32::try_from(index).unwrap_or(0) + 1)
}

/// The partition of an operation's primitive.
#[must_use]
pub(crate) fn partition_of_operation(operation: &Operation, partitions: u32) -> PartitionId {
    partition_of(&operation.kind, &operation.primitive, partitions)
}

/// 64-bit FNV-1a (Fowler, Noll, Vo; IETF draft-eastlake-fnv).
struct Fnv1a(u64);

impl Fnv1a {
    fn new() -> Self {
        Self(0xcbf2_9ce4_8422_2325)
    }

    fn update(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = (self.0 ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hash_is_fnv_1a_by_its_published_test_vectors() {
        let hash = |text: &str| {
            let mut hash = Fnv1a::new();
            hash.update(text.as_bytes());
            hash.0
        };
        assert_eq!(hash(""), 0xcbf2_9ce4_8422_2325);
        assert_eq!(hash("a"), 0xaf63_dc4c_8601_ec8c);
        assert_eq!(hash("foobar"), 0x8594_4171_f739_67e8);
    }

    #[test]
    fn names_spread_evenly_and_kinds_differ() {
        let partitions = 8;
        let mut counts = [0_u32; 8];
        for number in 0..8_000 {
            let PartitionId(id) = partition_of("counter", &format!("name-{number}"), partitions);
            assert!((1..=partitions).contains(&id));
            if let Some(count) = counts.get_mut(id as usize - 1) {
                *count += 1;
            }
        }
        for count in counts {
            assert!((850..1_150).contains(&count), "{counts:?}");
        }
        let moved = (0..100)
            .map(|number| format!("name-{number}"))
            .filter(|name| partition_of("counter", name, 8) != partition_of("map", name, 8))
            .count();
        assert!(moved > 50, "{moved}");
    }
}
