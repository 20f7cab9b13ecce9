//! The intents of one primitive: which transaction claims which key.

use std::ops::Bound;
use std::time::Duration;

use bytes::Bytes;
use imbl::OrdMap;

use crate::context::{Busy, Intent, Transaction};
use crate::ids::Key;

/// What an intent costs beside its key and payload, in bytes; part of active version 1.
const INTENT_OVERHEAD: u64 = 64;

#[derive(Clone, Debug, Default)]
pub(crate) struct Intents {
    by_key: OrdMap<Key, Intent>,
    bytes: u64,
}

impl Intents {
    pub(crate) fn get(&self, key: &[u8]) -> Option<&Intent> {
        self.by_key.get(key)
    }

    /// The first key with an intent in this range.
    pub(crate) fn first_between(&self, from: Bound<&[u8]>, to: Bound<&[u8]>) -> Option<&Key> {
        let range = self.by_key.range::<_, [u8]>((from, to));
        range.map(|(key, _)| key).next()
    }

    pub(crate) fn place(
        &mut self,
        key: Bytes,
        transaction: Transaction,
        payload: Bytes,
        now: Duration,
    ) -> Result<(), Busy> {
        let present = self.by_key.get(&key);
        if present.is_some_and(|intent| intent.transaction != transaction) {
            return Err(Busy);
        }
        let intent = Intent {
            transaction,
            placed_at: present.map_or(now, |intent| intent.placed_at),
            payload,
        };
        self.restore(key, intent);
        Ok(())
    }

    pub(crate) fn restore(&mut self, key: Bytes, intent: Intent) {
        self.bytes += cost(&key, &intent);
        if let Some(previous) = self.by_key.insert(key.clone(), intent) {
            self.bytes = self.bytes.saturating_sub(cost(&key, &previous));
        }
    }

    pub(crate) fn finish(&mut self, key: &[u8], transaction: Transaction) -> Option<(Key, Intent)> {
        if self.by_key.get(key)?.transaction != transaction {
            return None;
        }
        let (key, intent) = self.by_key.remove_with_key(key)?;
        self.bytes = self.bytes.saturating_sub(cost(&key, &intent));
        Some((key, intent))
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.by_key.is_empty()
    }

    pub(crate) fn bytes(&self) -> u64 {
        self.bytes
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (&Key, &Intent)> {
        self.by_key.iter()
    }
}

fn cost(key: &Key, intent: &Intent) -> u64 {
    INTENT_OVERHEAD + (key.len() + intent.payload.len()) as u64
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

    use std::ops::Bound::{Excluded, Included, Unbounded};

    use super::*;
    use crate::ids::{OperationId, Sequence, SessionId};

    #[test]
    fn the_first_intent_of_a_range_of_keys_is_found() {
        let mut intents = Intents::default();
        let transaction = Transaction {
            coordinator: 1,
            operation: OperationId {
                session: SessionId(1),
                sequence: Sequence(1),
            },
        };
        for key in ["m", "c"] {
            intents
                .place(key.into(), transaction, Bytes::new(), Duration::ZERO)
                .unwrap();
        }
        for (from, to, found) in [
            (Unbounded, Unbounded, Some("c")),
            (Excluded("c"), Unbounded, Some("m")),
            (Excluded("c"), Included("l"), None),
            (Unbounded, Included("c"), Some("c")),
            (Excluded("m"), Unbounded, None),
            (Unbounded, Included(""), None),
        ] {
            let (from, to) = (from.map(str::as_bytes), to.map(str::as_bytes));
            let first = intents.first_between(from, to);
            assert_eq!(first.map(|key| &**key), found.map(str::as_bytes));
        }
    }
}
