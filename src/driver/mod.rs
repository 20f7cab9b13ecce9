//! The driver controller: creates the built-in Drivers, says which are available, and keeps a
//! Driver while a Store uses it.
//!
//! Not for connecting runtimes; that is done by `runtimes`.

mod apply;
mod build;
pub mod builtin;
mod dereference;
mod status;
mod validate;

use std::sync::Arc;

use k8s_openapi::jiff::Timestamp;
use kube::core::DeserializeGuard;
use kube::core::error_boundary::InvalidObject;
use tokio_util::sync::CancellationToken;

use crate::context::{Context, Scope};
use atomix_controller::queue::{self, RunError};
use atomix_controller::{
    ApiError, Change, Next, ObjectKey, Queue, Severity, StatusWriter, UndecodableReports, finalizer,
};
use atomix_resources::conditions;
use atomix_resources::labels::DRIVER_FINALIZER;
use atomix_resources::{Driver, DriverStatus, Store};

use builtin::BUILTIN_DRIVERS;
use validate::FinalizerAction;

/// Driver objects that are reconciled at a time; there are few.
const CONCURRENCY: usize = 2;

/// The driver controller.
#[derive(Debug, Clone)]
pub struct DriverController {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    context: Context,
    queue: Queue<ObjectKey>,
    status: StatusWriter,
    undecodable: UndecodableReports,
}

impl DriverController {
    /// A controller that listens to the shared caches; make it before they run.
    #[must_use]
    pub fn new(context: &Context) -> Self {
        let status = StatusWriter::new(context.client.clone());
        let shared = Arc::new(Shared {
            context: context.clone(),
            queue: Queue::default(),
            undecodable: UndecodableReports::new(
                context.client.clone(),
                context.events.clone(),
                status.clone(),
                "Stores that use it go on",
            ),
            status,
        });
        // Caches outlive nobody: their listeners do not keep the controller alive.
        let listener = Arc::downgrade(&shared);
        context.drivers.listen(move |change| {
            if let Some(shared) = listener.upgrade() {
                shared.driver_changed(change);
            }
        });
        let listener = Arc::downgrade(&shared);
        context.stores.listen(move |change| {
            if let Some(shared) = listener.upgrade()
                && changes_driver(change)
            {
                shared.add_all();
            }
        });
        Self { shared }
    }

    /// Reconciles until `shutdown`. An operator of one namespace only reads Drivers.
    ///
    /// # Errors
    /// When a reconcile panics.
    pub async fn run(self, shutdown: CancellationToken) -> Result<(), RunError> {
        if matches!(self.shared.context.scope, Scope::Namespace(_)) {
            shutdown.cancelled().await;
            return Ok(());
        }
        tokio::select! {
            () = shutdown.cancelled() => return Ok(()),
            () = self.shared.context.synced() => {}
        }
        for driver in BUILTIN_DRIVERS {
            self.shared.queue.add(ObjectKey::new("", driver.name));
        }
        let metrics = self.shared.context.metrics.clone();
        let queue = self.shared.queue.clone();
        queue::run(
            "driver",
            CONCURRENCY,
            queue,
            metrics,
            shutdown,
            move |key| {
                let controller = self.clone();
                async move { controller.reconcile(&key).await }
            },
        )
        .await
    }

    async fn reconcile(&self, key: &ObjectKey) -> Result<Next, ApiError> {
        let found = dereference::dereference(&self.shared.context, key);
        match found.object.as_deref() {
            None => self.create_if_builtin(key).await?,
            Some(DeserializeGuard(Err(undecodable))) => {
                self.report_undecodable(undecodable).await?;
            }
            Some(DeserializeGuard(Ok(driver))) => {
                self.reconcile_driver(driver, found.older_twin.as_deref(), &found.users)
                    .await?;
            }
        }
        Ok(Next::OnChange)
    }

    async fn create_if_builtin(&self, key: &ObjectKey) -> Result<(), ApiError> {
        match builtin::builtin(&key.name) {
            Some(driver) => apply::create(&self.shared.context, &build::build(driver)).await,
            None => Ok(()),
        }
    }

    async fn reconcile_driver(
        &self,
        driver: &Driver,
        older_twin: Option<&str>,
        users: &[String],
    ) -> Result<(), ApiError> {
        let meta = &driver.metadata;
        let is_deleted = meta.deletion_timestamp.is_some();
        let verdict = validate::validate(&driver.spec, older_twin);
        let action = validate::finalizer_action(
            &verdict,
            !users.is_empty(),
            finalizer::has(meta, DRIVER_FINALIZER),
            is_deleted,
        );
        apply::apply_finalizer(&self.shared.context, meta, action).await?;
        if is_deleted && action == FinalizerAction::Remove {
            return Ok(());
        }
        if is_deleted && !users.is_empty() {
            self.shared.context.events.publish(
                driver,
                Severity::Warning,
                "InUse",
                "Delete",
                "deletion waits until no Store uses the driver",
            );
        }
        if action != FinalizerAction::Keep {
            // The object has a new version now; its event brings us back.
            return Ok(());
        }
        let known = driver.status.clone().unwrap_or_default();
        let previous = self
            .shared
            .status
            .pending(meta)
            .and_then(|status| serde_json::from_value::<DriverStatus>(status).ok())
            .unwrap_or_else(|| known.clone());
        let generation = meta.generation.unwrap_or_default();
        let desired = status::status(
            &driver.spec,
            generation,
            &previous,
            &verdict,
            users,
            Timestamp::now(),
        );
        self.shared.context.events.warn_of_changes::<Driver>(
            meta,
            &previous.conditions,
            &desired.conditions,
            |condition| condition.type_ == conditions::STALLED && condition.status == "True",
        );
        self.shared
            .status
            .write::<Driver, _>(meta, Some(&known), &desired)
            .await?;
        Ok(())
    }

    /// Nobody can say which Stores use it, so it is not kept either.
    async fn report_undecodable(&self, object: &InvalidObject) -> Result<(), ApiError> {
        let Shared {
            context,
            undecodable,
            ..
        } = self.shared.as_ref();
        let meta = &object.metadata;
        finalizer::remove::<Driver>(&context.client, meta, DRIVER_FINALIZER).await?;
        if meta.deletion_timestamp.is_some() {
            return Ok(());
        }
        undecodable.report::<Driver>(object).await
    }
}

/// What the caches tell.
impl Shared {
    fn driver_changed(&self, change: &Change<'_, DeserializeGuard<Driver>>) {
        let key = ObjectKey::of(change.object().as_ref());
        if let Change::Deleted(_) = change {
            self.status.forget(&key);
            self.undecodable.forget(&key);
            // It may have been the older twin of another.
            self.add_all();
        }
        self.queue.add(key);
    }

    fn add_all(&self) {
        let drivers = self.context.drivers.all();
        drivers
            .iter()
            .for_each(|driver| self.queue.add(ObjectKey::of(driver.as_ref())));
    }
}

/// Whether a Store began, changed or ended its use of a driver.
fn changes_driver(change: &Change<'_, DeserializeGuard<Store>>) -> bool {
    let driver = |store: &DeserializeGuard<Store>| {
        store.0.as_ref().ok().map(|store| store.spec.driver.clone())
    };
    match change {
        Change::Deleted(_) | Change::Applied { before: None, .. } => true,
        Change::Applied {
            before: Some(before),
            after,
        } => driver(before) != driver(after),
    }
}
