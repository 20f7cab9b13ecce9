//! Sets of object names by what leads to them. Pure.

use std::collections::{BTreeSet, HashMap};
use std::hash::Hash;

use atomix_controller::ObjectKey;

/// Sets of names, none of them empty. Most hold one name, for which a set would keep much more
/// room.
#[derive(Debug)]
pub(super) struct KeysBy<K> {
    sets: HashMap<K, Keys>,
}

#[derive(Debug)]
enum Keys {
    One(ObjectKey),
    More(BTreeSet<ObjectKey>),
}

impl<K> Default for KeysBy<K> {
    fn default() -> Self {
        Self {
            sets: HashMap::new(),
        }
    }
}

impl<K: Eq + Hash> KeysBy<K> {
    pub(super) fn insert(&mut self, at: K, key: &ObjectKey) {
        match self.sets.get_mut(&at) {
            None => {
                self.sets.insert(at, Keys::One(key.clone()));
            }
            Some(Keys::More(keys)) => {
                if !keys.contains(key) {
                    keys.insert(key.clone());
                }
            }
            Some(Keys::One(known)) if known == key => {}
            Some(found) => {
                if let Keys::One(known) = &found {
                    let keys = BTreeSet::from([known.clone(), key.clone()]);
                    *found = Keys::More(keys);
                }
            }
        }
    }

    pub(super) fn remove(&mut self, at: &K, key: &ObjectKey) {
        let is_empty = match self.sets.get_mut(at) {
            None => false,
            Some(Keys::One(known)) => known == key,
            Some(Keys::More(keys)) => {
                keys.remove(key);
                keys.is_empty()
            }
        };
        if is_empty {
            self.sets.remove(at);
        }
    }

    /// The names that `at` leads to, in no order.
    pub(super) fn get(&self, at: &K) -> impl Iterator<Item = &ObjectKey> {
        let (one, more) = match self.sets.get(at) {
            None => (None, None),
            Some(Keys::One(key)) => (Some(key), None),
            Some(Keys::More(keys)) => (None, Some(keys.iter())),
        };
        one.into_iter().chain(more.into_iter().flatten())
    }

    /// How many names `at` leads to.
    pub(super) fn count(&self, at: &K) -> usize {
        match self.sets.get(at) {
            None => 0,
            Some(Keys::One(_)) => 1,
            Some(Keys::More(keys)) => keys.len(),
        }
    }

    #[cfg(test)]
    pub(super) fn is_empty(&self) -> bool {
        self.sets.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn they_are_sets(steps in prop::collection::vec((any::<bool>(), 0..3_u8, 0..4_u8), 0..60)) {
            let mut keys = KeysBy::default();
            let mut model = BTreeMap::<u8, BTreeSet<ObjectKey>>::new();
            for (inserts, at, name) in steps {
                let key = ObjectKey::new("garden", name.to_string());
                if inserts {
                    keys.insert(at, &key);
                    model.entry(at).or_default().insert(key);
                } else {
                    keys.remove(&at, &key);
                    model.entry(at).or_default().remove(&key);
                }
                for at in 0..3 {
                    let expected = model.get(&at).cloned().unwrap_or_default();
                    prop_assert_eq!(keys.count(&at), expected.len());
                    prop_assert_eq!(keys.get(&at).cloned().collect::<BTreeSet<_>>(), expected);
                }
                let is_empty = model.values().all(BTreeSet::is_empty);
                prop_assert_eq!(keys.is_empty(), is_empty);
            }
        }
    }
}
