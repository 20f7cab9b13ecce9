//! What people are told: the status of a Store and its events.

use k8s_openapi::jiff::Timestamp;
use kube::core::error_boundary::InvalidObject;

use super::Reconciler;
use crate::store::bootstrap::carry_out::Announcement;
use crate::store::error::StoreError;
use crate::store::reason::Reason;
use crate::store::status;
use atomix_controller::{Next, Severity};
use atomix_resources::{Store, StoreStatus};

impl Reconciler {
    /// Says why the Store is left alone.
    pub(super) async fn halt(
        &self,
        store: &Store,
        reason: Reason,
        message: &str,
        previous: &StoreStatus,
    ) -> Result<(), StoreError> {
        let generation = store.metadata.generation.unwrap_or_default();
        let now = Timestamp::now();
        let halted = status::of_halted(reason, message, previous, generation, now);
        self.write_status(store, previous, &halted).await
    }

    /// The newest status: what was written last, when the cache is behind.
    pub(super) fn previous_status(&self, store: &Store) -> StoreStatus {
        let pending = self.statuses.pending(&store.metadata);
        pending
            .and_then(|value| serde_json::from_value(value).ok())
            .or_else(|| store.status.clone())
            .unwrap_or_default()
    }

    /// Warns of new trouble first: a crash in between repeats the event rather than lose it.
    pub(super) async fn write_status(
        &self,
        store: &Store,
        previous: &StoreStatus,
        status: &StoreStatus,
    ) -> Result<(), StoreError> {
        self.context.events.warn_of_changes::<Store>(
            &store.metadata,
            &previous.conditions,
            &status.conditions,
            status::is_trouble,
        );
        let written = self
            .statuses
            .write::<Store, _>(&store.metadata, store.status.as_ref(), status)
            .await;
        match written {
            Ok(_) => Ok(()),
            // Deleted meanwhile.
            Err(error) if error.is_not_found() => Ok(()),
            Err(error) => Err(StoreError::Status(error)),
        }
    }

    pub(super) fn announce(&self, store: &Store, events: Vec<Announcement>) {
        for event in events {
            let (severity, to) = (Severity::Normal, &self.context.events);
            to.publish(store, severity, event.reason, event.action, event.note);
        }
    }

    pub(super) async fn report_undecodable(
        &self,
        invalid: &InvalidObject,
    ) -> Result<Next, StoreError> {
        let reported = self.undecodable.report::<Store>(invalid).await;
        reported.map_err(StoreError::Report)?;
        Ok(Next::OnChange)
    }
}
