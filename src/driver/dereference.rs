//! Step 1 of the driver controller: everything that a pass reads, from the caches.

use std::sync::Arc;

use kube::Resource as _;
use kube::core::DeserializeGuard;

use super::builtin;
use crate::context::Context;
use atomix_controller::ObjectKey;
use atomix_resources::{Driver, DriverReference};

/// What a pass works on.
#[derive(Debug)]
pub(super) struct Dereferenced {
    /// The object itself; `None` = it does not exist.
    pub(super) object: Option<Arc<DeserializeGuard<Driver>>>,
    /// Other Drivers with the same name and version that are older.
    pub(super) older_twin: Option<String>,
    /// Stores that use the driver, as namespace/name, sorted.
    pub(super) users: Vec<String>,
}

pub(super) fn dereference(context: &Context, key: &ObjectKey) -> Dereferenced {
    let object = context.drivers.get(key);
    let decoded = object.as_ref().and_then(|object| object.0.as_ref().ok());
    Dereferenced {
        older_twin: decoded.and_then(|driver| older_twin(context, driver)),
        users: decoded.map_or_else(Vec::new, |driver| users(context, driver)),
        object,
    }
}

fn older_twin(context: &Context, driver: &Driver) -> Option<String> {
    let is_twin = |other: &Driver| {
        other.metadata.uid != driver.metadata.uid
            && other.spec.name == driver.spec.name
            && other.spec.version == driver.spec.version
            && (&other.metadata.creation_timestamp, &other.metadata.name)
                < (&driver.metadata.creation_timestamp, &driver.metadata.name)
    };
    let twins = context
        .drivers
        .filter(|other| other.0.as_ref().is_ok_and(is_twin));
    twins
        .iter()
        .filter_map(|twin| twin.meta().name.clone())
        .min()
}

fn users(context: &Context, driver: &Driver) -> Vec<String> {
    let uses = |reference: &DriverReference| {
        builtin::resolve(reference)
            .is_ok_and(|id| id.name == driver.spec.name && id.version == driver.spec.version)
    };
    let stores = context
        .stores
        .filter(|store| store.0.as_ref().is_ok_and(|store| uses(&store.spec.driver)));
    let mut users: Vec<String> = stores
        .iter()
        .map(|store| ObjectKey::of(store.as_ref()).to_string())
        .collect();
    users.sort();
    users
}
