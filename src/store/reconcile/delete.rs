//! A Store that is being deleted.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use super::{Reconciler, owner_of};
use crate::store::deletion::{sessions_using, waiting_message};
use crate::store::error::StoreError;
use crate::store::names;
use crate::store::reason::Reason;
use crate::store::volumes::claims::{ClaimKeeper, claims_of};
use atomix_controller::{Next, ObjectKey, finalizer};
use atomix_resources::Store;
use atomix_resources::store::RetentionPolicy;

impl Reconciler {
    /// Waits for Sessions of the own namespace, then removes the finalizer.
    pub(super) async fn delete(
        &self,
        key: &ObjectKey,
        meta: &ObjectMeta,
    ) -> Result<Next, StoreError> {
        if !finalizer::has(meta, names::FINALIZER) {
            return Ok(Next::OnChange);
        }
        let sessions = sessions_using(key, &self.context.sessions);
        if sessions.is_empty() {
            self.delete_volumes(key).await?;
            finalizer::remove::<Store>(&self.context.client, meta, names::FINALIZER)
                .await
                .map_err(StoreError::Finalizer)?;
            return Ok(Next::OnChange);
        }
        let guarded = self.context.stores.get(key);
        if let Some(store) = guarded.as_ref().and_then(|guarded| guarded.0.as_ref().ok()) {
            let message = waiting_message(&sessions);
            let previous = self.previous_status(store);
            self.halt(store, Reason::InUse, &message, &previous).await?;
            return self.keep_gates(key, store).await;
        }
        Ok(Next::OnChange)
    }

    /// Deletes the volumes of a Store that is going, if it says so. One that does not decode keeps
    /// them.
    async fn delete_volumes(&self, key: &ObjectKey) -> Result<(), StoreError> {
        let guarded = self.context.stores.get(key);
        let Some(Ok(store)) = guarded.as_ref().map(|guarded| guarded.0.as_ref()) else {
            return Ok(());
        };
        let multi_raft = store.spec.multi_raft.as_ref();
        let policy = multi_raft.and_then(|multi_raft| multi_raft.storage.retention_policy);
        if policy != Some(RetentionPolicy::Delete) {
            return Ok(());
        }
        let keeper = ClaimKeeper {
            context: &self.context,
            owner: &owner_of(key, store),
            claims: claims_of(key, &self.children.claims),
        };
        keeper.delete_all().await
    }
}
