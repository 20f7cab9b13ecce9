//! The claims of storage pods, which nobody provisions here: tests do what a provisioner and the volume
//! controller would.

use anyhow::{Result, ensure};
use k8s_openapi::api::core::v1::PersistentVolumeClaim;
use k8s_openapi::api::storage::v1::StorageClass;
use kube::api::{DeleteParams, ListParams, Patch, PatchParams, PostParams};
use kube::{Api, ResourceExt as _};
use serde_json::json;

use crate::test_bed::TestBed;

/// All claims of the test.
pub fn of(bed: &TestBed) -> Api<PersistentVolumeClaim> {
    Api::namespaced(bed.client().clone(), bed.namespace())
}

/// The names of those that are to stay, sorted.
///
/// # Errors
/// When they cannot be listed.
pub async fn names(bed: &TestBed) -> Result<Vec<String>> {
    let found = of(bed).list(&ListParams::default()).await?;
    let kept = found
        .iter()
        .filter(|claim| claim.metadata.deletion_timestamp.is_none());
    let mut names: Vec<String> = kept.map(kube::ResourceExt::name_any).collect();
    names.sort();
    Ok(names)
}

/// Binds them all, so that they may grow.
///
/// # Errors
/// When the API server refuses.
pub async fn bind_all(bed: &TestBed) -> Result<()> {
    for name in names(bed).await? {
        let bound = json!({"status": {"phase": "Bound", "capacity": {"storage": "64Mi"}}});
        let (parameters, patch) = (PatchParams::default(), Patch::Merge(bound));
        of(bed).patch_status(&name, &parameters, &patch).await?;
    }
    Ok(())
}

/// Checks that so many claims, all that there are, ask for so much.
///
/// # Errors
/// When they do not.
pub async fn ask_for(bed: &TestBed, count: usize, size: &str) -> Result<()> {
    let found = of(bed).list(&ListParams::default()).await?;
    ensure!(found.items.len() == count, "{} claims", found.items.len());
    for claim in found {
        let name = claim.name_any();
        let asked = claim.spec.and_then(|spec| spec.resources?.requests);
        let asked = asked.and_then(|asked| asked.get("storage").cloned());
        let asked = asked.map(|asked| asked.0);
        ensure!(asked.as_deref() == Some(size), "{name} asks for {asked:?}");
    }
    Ok(())
}

/// Does something with a StorageClass, named as the namespace, that lets volumes grow.
///
/// # Errors
/// That of `act`, or when the class cannot be made or removed.
pub async fn with_class_that_grows(
    bed: &TestBed,
    act: impl AsyncFnOnce() -> Result<()>,
) -> Result<()> {
    let classes: Api<StorageClass> = Api::all(bed.client().clone());
    let class: StorageClass = serde_json::from_value(json!({
        "metadata": {"name": bed.namespace()},
        "provisioner": "atomix.io/nobody",
        "allowVolumeExpansion": true,
    }))?;
    classes.create(&PostParams::default(), &class).await?;
    let done = act().await;
    classes
        .delete(bed.namespace(), &DeleteParams::default())
        .await?;
    done
}
