//! Step 1 of the session controller: everything that a pass reads, from the caches and from what
//! the runtime controller reports.

use k8s_openapi::api::core::v1::Pod;
use kube::Api;
use kube::api::ListParams;

use crate::context::Context;
use crate::runtimes::{Runtimes, SessionView};
use crate::session::resolve::{NamedStore, Target, Unresolved, resolve};
use atomix_controller::{ApiError, ObjectKey, call};
use atomix_resources::Session;
use atomix_resources::labels::RUNTIME;

/// More pods without a runtime are not counted.
const MOST_COUNTED: u32 = 100;

/// What a pass over a living Session works on.
#[derive(Debug)]
pub(super) struct Dereferenced {
    pub(super) target: Result<Target, Unresolved>,
    pub(super) view: SessionView,
}

pub(super) fn dereference(
    context: &Context,
    runtimes: &Runtimes,
    key: &ObjectKey,
    session: &Session,
) -> Dereferenced {
    let named = NamedStore::look(context, key, session);
    Dereferenced {
        target: resolve(key, &named),
        view: runtimes.view(key),
    }
}

/// How many pods the Session selects that live and have no runtime: one LIST of their metadata.
pub(super) async fn pods_without_runtime(
    context: &Context,
    key: &ObjectKey,
    session: &Session,
) -> Result<u32, ApiError> {
    let pods: Api<Pod> = Api::namespaced(context.client.clone(), &key.namespace);
    let selector = format!("{},{RUNTIME}!=true", session.spec.selector.as_text());
    let params = ListParams::default()
        .labels(&selector)
        .fields("status.phase!=Succeeded,status.phase!=Failed")
        .limit(MOST_COUNTED);
    let action = "look for selected pods without a runtime";
    let found = call(action, pods.list_metadata(&params)).await?;
    Ok(u32::try_from(found.items.len()).unwrap_or(MOST_COUNTED))
}
