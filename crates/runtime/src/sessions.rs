//! The sidecar's own sessions: a session is a primitive that at least one application connection has
//! open, and the store that its route leads to.
//!
//! An application opens a primitive by Create, or by its first operation when only one store is
//! possible; it ends its use by Close or by closing its connection. When routes change, open
//! primitives follow. Not for the sessions that drivers hold with partitions.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use atomix_driver::{Owner, StoreId};
use parking_lot::Mutex;
use thiserror::Error;
use tokio::sync::watch;

use crate::routes::{Destination, RouteError, RoutingTable};

/// Names a primitive; the same name with another kind is another primitive.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PrimitiveKey {
    /// The kind: `counter`.
    pub kind: String,
    /// The name.
    pub name: String,
}

/// Why a primitive cannot be opened.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum OpenError {
    /// No store, or too many.
    #[error(transparent)]
    Route(#[from] RouteError),
    /// Other tags would move the primitive away under another application connection.
    #[error(
        "another connection has this primitive open on store {open}, these tags lead to {asked}: \
         use the same tags, or close it there first"
    )]
    OpenElsewhere {
        /// The store it is open on.
        open: StoreId,
        /// The store that was asked for.
        asked: StoreId,
    },
}

/// A session, as it is listed.
#[derive(Debug, Clone, PartialEq)]
pub struct OpenPrimitive {
    /// Which primitive.
    pub key: PrimitiveKey,
    /// Where it lives; `None` since a change of routes that left it without one.
    pub destination: Option<Destination>,
    /// Grows with each change of this session.
    pub version: u64,
}

/// All open primitives and the routes they follow.
#[derive(Debug)]
pub struct OpenPrimitives {
    inner: Mutex<Inner>,
    changes: watch::Sender<u64>,
}

#[derive(Debug, Default)]
struct Inner {
    table: RoutingTable,
    primitives: BTreeMap<PrimitiveKey, Entry>,
    by_owner: HashMap<Owner, BTreeSet<PrimitiveKey>>,
    version: u64,
}

#[derive(Debug)]
struct Entry {
    /// `None` = opened without Create.
    tags: Option<Vec<String>>,
    route: Result<Destination, RouteError>,
    owners: BTreeSet<Owner>,
    version: u64,
}

impl Default for OpenPrimitives {
    fn default() -> Self {
        Self {
            inner: Mutex::default(),
            changes: watch::channel(0).0,
        }
    }
}

impl OpenPrimitives {
    /// Follows changes; the value only grows.
    #[must_use]
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }

    /// Tells followers that something which the list shows has changed elsewhere.
    pub fn touch(&self) {
        let mut inner = self.inner.lock();
        inner.version += 1;
        self.changes.send_replace(inner.version);
    }

    /// Replaces the routes; open primitives follow.
    pub fn program(&self, table: RoutingTable) {
        let mut inner = self.inner.lock();
        inner.version += 1;
        let Inner {
            primitives,
            version,
            ..
        } = &mut *inner;
        for (key, entry) in primitives.iter_mut() {
            let route = route_of(&table, key, entry.tags.as_deref());
            if route != entry.route {
                entry.route = route;
                entry.version = *version;
            }
        }
        inner.table = table;
        self.changes.send_replace(inner.version);
    }

    /// Opens a primitive for an application connection.
    ///
    /// # Errors
    /// When it has no store, or is open elsewhere with other tags.
    pub fn create(
        &self,
        key: &PrimitiveKey,
        mut tags: Vec<String>,
        owner: Owner,
    ) -> Result<Destination, OpenError> {
        tags.sort_unstable();
        tags.dedup();
        let mut inner = self.inner.lock();
        let destination = inner.table.resolve(&key.kind, &key.name, &tags)?;
        if let Some(entry) = inner.primitives.get(key)
            && let Ok(open) = &entry.route
            && open.store != destination.store
            && entry.owners.iter().any(|other| *other != owner)
        {
            return Err(OpenError::OpenElsewhere {
                open: open.store.clone(),
                asked: destination.store,
            });
        }
        self.open(&mut inner, key, Some(tags), destination.clone(), owner);
        Ok(destination)
    }

    /// Where an operation goes. Opens the primitive if only one store is possible.
    ///
    /// # Errors
    /// When it has no store, or is not open and several stores are possible.
    pub fn destination(&self, key: &PrimitiveKey, owner: Owner) -> Result<Destination, OpenError> {
        let mut inner = self.inner.lock();
        if let Some(entry) = inner.primitives.get(key) {
            let destination = entry.route.clone()?;
            if !entry.owners.contains(&owner) {
                let tags = entry.tags.clone();
                self.open(&mut inner, key, tags, destination.clone(), owner);
            }
            return Ok(destination);
        }
        let destination = inner.table.resolve_untagged(&key.kind, &key.name)?;
        self.open(&mut inner, key, None, destination.clone(), owner);
        Ok(destination)
    }

    /// The store of an open primitive, or why it has none; `None` when it is not open.
    pub(crate) fn store_of(&self, key: &PrimitiveKey) -> Option<Result<StoreId, RouteError>> {
        let inner = self.inner.lock();
        let route = inner.primitives.get(key)?.route.clone();
        Some(route.map(|destination| destination.store))
    }

    fn open(
        &self,
        inner: &mut Inner,
        key: &PrimitiveKey,
        tags: Option<Vec<String>>,
        destination: Destination,
        owner: Owner,
    ) {
        inner.by_owner.entry(owner).or_default().insert(key.clone());
        let version = inner.version + 1;
        let route = Ok(destination);
        match inner.primitives.get_mut(key) {
            Some(entry) => {
                entry.owners.insert(owner);
                entry.tags = tags;
                if entry.route == route {
                    return;
                }
                entry.route = route;
                entry.version = version;
            }
            None => {
                let entry = Entry {
                    tags,
                    route,
                    owners: BTreeSet::from([owner]),
                    version,
                };
                inner.primitives.insert(key.clone(), entry);
            }
        }
        inner.version = version;
        self.changes.send_replace(version);
    }

    /// Ends one application connection's use of a primitive. One that is not open is no error.
    pub fn close(&self, key: &PrimitiveKey, owner: Owner) {
        let mut inner = self.inner.lock();
        if let Some(keys) = inner.by_owner.get_mut(&owner) {
            keys.remove(key);
            if keys.is_empty() {
                inner.by_owner.remove(&owner);
            }
        }
        if inner.remove_use(key, owner) {
            self.changes.send_replace(inner.version);
        }
    }

    /// Ends everything that a closed application connection used.
    pub fn connection_closed(&self, owner: Owner) {
        let mut inner = self.inner.lock();
        let keys = inner.by_owner.remove(&owner).unwrap_or_default();
        let mut changed = false;
        for key in &keys {
            changed |= inner.remove_use(key, owner);
        }
        if changed {
            self.changes.send_replace(inner.version);
        }
    }

    /// All sessions in the order of their kinds and names; of one kind, or of all when it is empty.
    #[must_use]
    pub fn list(&self, kind: &str) -> Vec<OpenPrimitive> {
        let inner = self.inner.lock();
        inner
            .primitives
            .iter()
            .filter(|(key, _)| kind.is_empty() || key.kind == kind)
            .map(|(key, entry)| OpenPrimitive {
                key: key.clone(),
                destination: entry.route.as_ref().ok().cloned(),
                version: entry.version,
            })
            .collect()
    }

    /// How many primitives are open.
    #[must_use]
    pub fn count(&self) -> usize {
        self.inner.lock().primitives.len()
    }
}

impl Inner {
    /// Returns whether the primitive is not open any more.
    fn remove_use(&mut self, key: &PrimitiveKey, owner: Owner) -> bool {
        let Some(entry) = self.primitives.get_mut(key) else {
            return false;
        };
        entry.owners.remove(&owner);
        if !entry.owners.is_empty() {
            return false;
        }
        self.primitives.remove(key);
        self.version += 1;
        true
    }
}

fn route_of(
    table: &RoutingTable,
    key: &PrimitiveKey,
    tags: Option<&[String]>,
) -> Result<Destination, RouteError> {
    match tags {
        Some(tags) => table.resolve(&key.kind, &key.name, tags),
        None => table.resolve_untagged(&key.kind, &key.name),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use atomix_proto::runtime::v1 as proto;

    use super::*;

    const ALICE: Owner = Owner(1);
    const BOB: Owner = Owner(2);

    fn table(routes: &[(&str, &[&str])]) -> RoutingTable {
        let routes: Vec<proto::Route> = routes
            .iter()
            .map(|(store, tags)| proto::Route {
                store_id: Some(proto::StoreId {
                    namespace: "team".into(),
                    name: (*store).into(),
                }),
                tags: tags.iter().map(ToString::to_string).collect(),
                services: vec![proto::Service {
                    name: "*".into(),
                    ..proto::Service::default()
                }],
                ..proto::Route::default()
            })
            .collect();
        RoutingTable::new(&routes).unwrap()
    }

    fn key() -> PrimitiveKey {
        PrimitiveKey {
            kind: "counter".into(),
            name: "visits".into(),
        }
    }

    fn store_of(destination: Result<Destination, OpenError>) -> String {
        destination.unwrap().store.name
    }

    #[test]
    fn open_primitives_follow_a_route_that_moves_with_the_tags_they_were_created_with() {
        let open = OpenPrimitives::default();
        open.program(table(&[("plain", &[]), ("tagged", &["fast"])]));
        let tags = vec!["fast".to_owned()];
        assert_eq!(store_of(open.create(&key(), tags, ALICE)), "tagged");
        assert_eq!(store_of(open.destination(&key(), ALICE)), "tagged");
        let before = open.list("").pop().unwrap().version;

        open.program(table(&[("plain", &[]), ("moved", &["fast"])]));
        assert_eq!(store_of(open.destination(&key(), ALICE)), "moved");
        assert!(open.list("").pop().unwrap().version > before);

        open.program(table(&[]));
        assert!(open.destination(&key(), ALICE).is_err());
        assert_eq!(open.list("").pop().unwrap().destination, None);

        open.program(table(&[("plain", &[])]));
        assert_eq!(store_of(open.destination(&key(), ALICE)), "plain");
    }

    #[test]
    fn a_primitive_stays_open_until_its_last_connection_has_closed_it() {
        let open = OpenPrimitives::default();
        open.program(table(&[("plain", &[])]));
        open.create(&key(), Vec::new(), ALICE).unwrap();
        open.destination(&key(), BOB).unwrap();
        open.close(&key(), ALICE);
        open.close(&key(), ALICE);
        assert_eq!(open.count(), 1);
        let changes = open.changes();
        open.connection_closed(BOB);
        assert_eq!(open.count(), 0);
        assert!(changes.has_changed().unwrap());
        open.connection_closed(BOB);
    }

    #[test]
    fn other_tags_do_not_move_a_primitive_away_under_another_connection() {
        let open = OpenPrimitives::default();
        open.program(table(&[("plain", &[]), ("tagged", &["fast"])]));
        open.create(&key(), Vec::new(), ALICE).unwrap();
        let tags = || vec!["fast".to_owned()];
        assert!(matches!(
            open.create(&key(), tags(), BOB),
            Err(OpenError::OpenElsewhere { .. })
        ));
        // Its only user may move it.
        assert_eq!(store_of(open.create(&key(), tags(), ALICE)), "tagged");
        assert_eq!(store_of(open.create(&key(), tags(), BOB)), "tagged");
        assert_eq!(store_of(open.destination(&key(), BOB)), "tagged");
    }

    #[test]
    fn listing_filters_by_kind_and_a_repeated_create_changes_nothing() {
        let open = OpenPrimitives::default();
        open.program(table(&[("plain", &[])]));
        open.create(&key(), Vec::new(), ALICE).unwrap();
        let changes = open.changes();
        open.create(&key(), Vec::new(), ALICE).unwrap();
        open.destination(&key(), ALICE).unwrap();
        assert!(!changes.has_changed().unwrap());
        assert_eq!(open.list("").len(), 1);
        assert_eq!(open.list("counter").len(), 1);
        assert_eq!(open.list("map").len(), 0);
    }
}
