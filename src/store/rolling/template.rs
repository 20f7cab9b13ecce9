//! The StatefulSet as it is after our last apply, also while the cache is behind: else a change that
//! was just made would look like one that is done.

use std::collections::HashMap;
use std::sync::Arc;

use kube::Api;
use parking_lot::Mutex;

use crate::context::Context;
use crate::store::dereference::{Inputs, StatefulSetView};
use crate::store::error::StoreError;
use atomix_controller::apply::{Outcome, is_older};
use atomix_controller::{ObjectKey, call};

/// The version of each Store's StatefulSet after its last apply.
#[derive(Debug, Default)]
pub struct AppliedSets(Mutex<HashMap<ObjectKey, Option<String>>>);

impl AppliedSets {
    /// Reads the StatefulSet anew when it was applied just now, or the cache shows an older one.
    ///
    /// # Errors
    /// When the API server does not answer.
    pub async fn renew(
        &self,
        context: &Context,
        key: &ObjectKey,
        inputs: &mut Inputs,
        outcome: Outcome,
    ) -> Result<(), StoreError> {
        let seen = inputs.stateful_set.as_ref();
        let seen = seen.and_then(|set| set.metadata.resource_version.as_deref());
        let is_behind = match outcome {
            Outcome::Applied => true,
            Outcome::Unchanged => {
                let known = self.0.lock();
                let version = known.get(key);
                version.is_some_and(|version| is_older(seen, version.as_deref()))
            }
        };
        if !is_behind {
            return Ok(());
        }
        let sets: Api<StatefulSetView> = Api::namespaced(context.client.clone(), &key.namespace);
        let read = call("read the StatefulSet", sets.get(&key.name)).await;
        let set = read.map_err(StoreError::Roll)?;
        let version = set.metadata.resource_version.clone();
        self.0.lock().insert(key.clone(), version);
        inputs.stateful_set = Some(Arc::new(set));
        Ok(())
    }

    /// To be called when a Store is gone.
    pub fn forget(&self, key: &ObjectKey) {
        self.0.lock().remove(key);
    }
}
