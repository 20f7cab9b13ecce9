//! Which partition a primitive, or a key of it, lives in.
//!
//! This is a promise to the data on the disks: the functions never change.

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
    hash.partition(partitions)
}

/// The partition of a key of a primitive that is spread over all of them: as [`partition_of`], with
/// a zero byte and the key behind the name.
#[must_use]
pub fn partition_of_key(kind: &str, primitive: &str, key: &[u8], partitions: u32) -> PartitionId {
    let mut hash = Fnv1a::new();
    hash.update(kind.as_bytes());
    hash.update(&[0]);
    hash.update(primitive.as_bytes());
    hash.update(&[0]);
    hash.update(key);
    hash.partition(partitions)
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

    fn partition(&self, partitions: u32) -> PartitionId {
        let folded = self.0 ^ (self.0 >> 32);
        let index = (folded & u64::from(u32::MAX)) % u64::from(partitions.max(1));
        PartitionId(u32::try_from(index).unwrap_or(0) + 1)
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

    #[test]
    fn keys_of_one_primitive_spread_evenly_and_stay_where_they_are() {
        let partitions = 8;
        let mut counts = [0_u32; 8];
        for number in 0..8_000 {
            let key = format!("key-{number}");
            let PartitionId(id) = partition_of_key("map", "table", key.as_bytes(), partitions);
            if let Some(count) = counts.get_mut(id as usize - 1) {
                *count += 1;
            }
        }
        assert_eq!(counts.iter().sum::<u32>(), 8_000);
        for count in counts {
            assert!((850..1_150).contains(&count), "{counts:?}");
        }
        // Written down: data that is on disks is looked for there.
        let known: Vec<u32> = ["", "a", "b", "key", "日本"]
            .map(|key| partition_of_key("map", "table", key.as_bytes(), 1_000).0)
            .into();
        assert_eq!(known, [248, 561, 694, 670, 46]);
        let names: Vec<u32> = ["", "a", "visits"]
            .map(|name| partition_of("counter", name, 1_000).0)
            .into();
        assert_eq!(names, [49, 493, 105]);
    }
}
