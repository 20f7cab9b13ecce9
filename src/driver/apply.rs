//! Step 4 of the driver controller: creates built-in Drivers and keeps finalizers.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::api::{Api, Patch, PatchParams};

use super::validate::FinalizerAction;
use crate::context::Context;
use atomix_controller::{ApiError, FIELD_MANAGER, call, finalizer};
use atomix_resources::{Driver, labels::DRIVER_FINALIZER};

/// Creates a built-in Driver that is not there.
pub(super) async fn create(context: &Context, driver: &Driver) -> Result<(), ApiError> {
    let api: Api<Driver> = Api::all(context.client.clone());
    let name = driver.metadata.name.as_deref().unwrap_or_default();
    let parameters = PatchParams::apply(FIELD_MANAGER).force();
    let patch = Patch::Apply(driver);
    call(
        "create the built-in Driver",
        api.patch(name, &parameters, &patch),
    )
    .await?;
    Ok(())
}

pub(super) async fn apply_finalizer(
    context: &Context,
    meta: &ObjectMeta,
    action: FinalizerAction,
) -> Result<(), ApiError> {
    match action {
        FinalizerAction::Keep => Ok(()),
        FinalizerAction::Add => {
            finalizer::add::<Driver>(&context.client, meta, DRIVER_FINALIZER).await
        }
        FinalizerAction::Remove => {
            finalizer::remove::<Driver>(&context.client, meta, DRIVER_FINALIZER).await
        }
    }
}
