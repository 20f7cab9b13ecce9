//! Entries by key, in the order of their keys, with the bytes they hold.

use bytes::Bytes;
use imbl::OrdMap;

/// What an entry costs beside its key and value, in bytes; part of active version 1.
const ENTRY_OVERHEAD: u64 = 48;

/// What a table keeps under a key.
pub(crate) trait Value: Clone {
    /// The bytes of data in it.
    fn bytes(&self) -> u64;
}

/// Entries by key. A clone takes constant time.
#[derive(Clone, Debug)]
pub(crate) struct Table<V> {
    entries: OrdMap<Bytes, V>,
    bytes: u64,
}

impl<V> Default for Table<V> {
    fn default() -> Self {
        Self {
            entries: OrdMap::new(),
            bytes: 0,
        }
    }
}

impl<V: Value> Table<V> {
    pub(crate) fn get(&self, key: &[u8]) -> Option<&V> {
        self.entries.get(key)
    }

    /// Replaces what was there and hands it out.
    pub(crate) fn insert(&mut self, key: Bytes, value: V) -> Option<V> {
        let length = key.len();
        self.bytes += cost(length, &value);
        let previous = self.entries.insert(key, value)?;
        self.bytes = self.bytes.saturating_sub(cost(length, &previous));
        Some(previous)
    }

    pub(crate) fn remove(&mut self, key: &[u8]) -> Option<V> {
        let value = self.entries.remove(key)?;
        self.bytes = self.bytes.saturating_sub(cost(key.len(), &value));
        Some(value)
    }

    /// Takes all entries out.
    pub(crate) fn clear(&mut self) -> OrdMap<Bytes, V> {
        std::mem::take(self).entries
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (&Bytes, &V)> {
        self.entries.iter()
    }

    pub(crate) fn entries(&self) -> &OrdMap<Bytes, V> {
        &self.entries
    }

    pub(crate) fn len(&self) -> usize {
        self.entries.len()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    pub(crate) fn bytes(&self) -> u64 {
        self.bytes
    }
}

fn cost(key: usize, value: &impl Value) -> u64 {
    ENTRY_OVERHEAD + key as u64 + value.bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    impl Value for u64 {
        fn bytes(&self) -> u64 {
            *self
        }
    }

    #[test]
    fn the_bytes_follow_every_change() {
        let mut table = Table::default();
        assert_eq!(table.insert("key".into(), 100_u64), None);
        assert_eq!(table.bytes(), ENTRY_OVERHEAD + 103);
        assert_eq!(table.insert("key".into(), 7), Some(100));
        assert_eq!(table.bytes(), ENTRY_OVERHEAD + 10);
        table.insert("other".into(), 1);
        assert_eq!(table.remove(b"key"), Some(7));
        assert_eq!(table.remove(b"key"), None);
        assert_eq!(table.bytes(), ENTRY_OVERHEAD + 6);
        assert_eq!(table.clear().len(), 1);
        assert_eq!((table.bytes(), table.is_empty()), (0, true));
    }
}
