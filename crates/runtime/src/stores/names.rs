//! Names of stores and drivers, here and on the wire.

use atomix_driver::StoreId;
use atomix_proto::runtime::v1 as proto;

/// Names a driver and the version of its configuration format.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DriverId {
    /// The name: `multi-raft`.
    pub name: String,
    /// The version; empty in a request = any.
    pub version: String,
}

pub(crate) fn store_id(store: proto::StoreId) -> StoreId {
    StoreId {
        namespace: store.namespace,
        name: store.name,
    }
}

pub(crate) fn driver_id(driver: proto::DriverId) -> DriverId {
    DriverId {
        name: driver.name,
        version: driver.version,
    }
}

pub(crate) fn store_proto(store: &StoreId) -> proto::StoreId {
    proto::StoreId {
        namespace: store.namespace.clone(),
        name: store.name.clone(),
    }
}

pub(crate) fn driver_proto(driver: &DriverId) -> proto::DriverId {
    proto::DriverId {
        name: driver.name.clone(),
        version: driver.version.clone(),
    }
}
