//! Step 3 of the driver controller: the Driver objects of the built-in drivers. Pure.

use super::builtin::BuiltinDriver;
use atomix_controller::{FIELD_MANAGER, MANAGED_BY_LABEL};
use atomix_resources::driver::Builtin;
use atomix_resources::{Driver, DriverSource, DriverSpec};

pub(super) fn build(driver: BuiltinDriver) -> Driver {
    let spec = DriverSpec {
        name: driver.name.to_owned(),
        version: driver.version.to_owned(),
        source: DriverSource {
            builtin: Builtin {},
        },
    };
    let mut object = Driver::new(driver.name, spec);
    object.metadata.labels = Some([(MANAGED_BY_LABEL.to_owned(), FIELD_MANAGER.to_owned())].into());
    object
}
