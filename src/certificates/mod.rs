//! The webhook's certificates: an authority of the operator's own and a certificate signed by it,
//! kept in a Secret, made and renewed by the leader, and by another replica as long as it cannot serve
//! otherwise; every replica shows the newest one without a restart. Or somebody else, such as
//! cert-manager, writes the Secret and the webhook configuration's caBundle, and the replicas only read
//! them.
//!
//! See docs/adr/0007. Not for the identities of nodes and runtimes.

pub(crate) mod foreign_key;
mod keeper;
mod material;
mod plan;
mod serving;
pub(crate) mod x509;

use std::convert::Infallible;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use atomix_process::tasks::Tasks;
use k8s_openapi::api::admissionregistration::v1::MutatingWebhookConfiguration;
use k8s_openapi::api::core::v1::Secret;
use kube::Api;
use parking_lot::Mutex;
use rustls::ServerConfig;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::context::Context;
use atomix_controller::queue::{self, RunError};
use atomix_controller::{Cache, Next, ObjectKey, Queue, cache};

pub use material::Lifetimes;

use keeper::Keeper;
use material::Wish;
use serving::Serving;

/// How long a replica without the lease waits for the leader to make what it cannot serve without.
const STAND_IN_AFTER: Duration = Duration::from_secs(5);

/// Who makes the certificates.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CertificateSource {
    /// The operator.
    Operator(Lifetimes),
    /// Somebody else, who writes the Secret's `tls.crt` and `tls.key` and the caBundle.
    External,
}

/// Where the certificates are and what they are for.
#[derive(Clone, Debug)]
pub struct CertificateOptions {
    /// Namespace and name of the Secret.
    pub secret: ObjectKey,
    /// Name of the MutatingWebhookConfiguration.
    pub configuration: String,
    /// What the API server calls the webhook: host names and addresses, at least one.
    pub names: Vec<String>,
    /// Who makes them.
    pub source: CertificateSource,
}

/// The certificates of the webhook.
#[derive(Clone)]
pub struct Certificates {
    context: Context,
    options: CertificateOptions,
    seen: Seen,
    serving: Serving,
    queue: Queue<ObjectKey>,
    /// Whether this replica holds the lease.
    leads: Arc<AtomicBool>,
}

impl fmt::Debug for Certificates {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Certificates")
            .field("options", &self.options)
            .finish_non_exhaustive()
    }
}

/// What is known of the Secret and the webhook configuration.
#[derive(Clone, Debug)]
struct Seen {
    secrets: Cache<Secret>,
    configurations: Cache<MutatingWebhookConfiguration>,
    secret_key: ObjectKey,
    configuration_key: ObjectKey,
}

impl Seen {
    fn secret(&self) -> Option<Arc<Secret>> {
        self.secrets.get(&self.secret_key)
    }

    fn configuration(&self) -> Option<Arc<MutatingWebhookConfiguration>> {
        self.configurations.get(&self.configuration_key)
    }
}

impl Certificates {
    /// The certificates; `part` names, among the process's readiness, whether the API server would
    /// take the certificate that this replica shows.
    #[must_use]
    pub fn new(context: &Context, options: CertificateOptions, part: &'static str) -> Self {
        let seen = Seen {
            secrets: Cache::default(),
            configurations: Cache::default(),
            secret_key: options.secret.clone(),
            configuration_key: ObjectKey::new("", options.configuration.clone()),
        };
        let serving = Serving::new(seen.clone(), &options, context.admin.readiness(part));
        let queue = Queue::default();
        let key = &options.secret;
        {
            let (serving, queue, key) = (serving.clone(), Queue::clone(&queue), key.clone());
            seen.secrets.listen(move |_change| {
                serving.changed();
                queue.add(key.clone());
            });
        }
        {
            let (serving, queue, key) = (serving.clone(), Queue::clone(&queue), key.clone());
            seen.configurations.listen(move |_change| {
                serving.changed();
                queue.add(key.clone());
            });
        }
        Self {
            context: context.clone(),
            options,
            seen,
            serving,
            queue,
            leads: Arc::default(),
        }
    }

    /// To be called when this replica holds the lease.
    pub fn lead(&self) {
        self.leads.store(true, Ordering::SeqCst);
        self.queue.add(self.options.secret.clone());
    }

    /// For a server that shows the certificate.
    ///
    /// # Errors
    /// When the cryptography of this process speaks no version of TLS.
    pub fn tls(&self) -> Result<Arc<ServerConfig>, rustls::Error> {
        self.serving.tls()
    }

    /// Watches Secret and webhook configuration and shows the newest certificate; without the lease.
    pub fn watch(&self, tasks: &mut Tasks) {
        let client = &self.context.client;
        let secrets: Api<Secret> = Api::namespaced(client.clone(), &self.options.secret.namespace);
        self.context.follow(
            tasks,
            "webhook secrets",
            &self.seen.secrets,
            cache::named(secrets, &self.options.secret.name),
            cache::prune_metadata,
        );
        self.context.follow(
            tasks,
            "webhook configurations",
            &self.seen.configurations,
            cache::named(Api::all(client.clone()), &self.options.configuration),
            cache::prune_metadata,
        );
        let shutdown = tasks.shutdown().clone();
        let serving = self.serving.clone();
        tasks.spawn("webhook certificate", async move {
            serving.run(shutdown).await;
            Ok::<(), Infallible>(())
        });
    }

    /// Makes and renews the certificates until `shutdown`. Without the lease only those without which
    /// this replica cannot serve: who holds the lease may not make them, being an operator of an
    /// earlier version, or one without a webhook, that ends only when this one is ready.
    ///
    /// # Errors
    /// When a pass panics.
    pub async fn run(self, shutdown: CancellationToken) -> Result<(), RunError> {
        let CertificateSource::Operator(lifetimes) = self.options.source else {
            shutdown.cancelled().await;
            return Ok(());
        };
        tokio::select! {
            () = shutdown.cancelled() => return Ok(()),
            () = async {
                self.seen.secrets.synced().await;
                self.seen.configurations.synced().await;
            } => {}
        }
        let wish = Wish {
            names: self.options.names.iter().cloned().collect(),
            lifetimes,
        };
        let keeper = Keeper::new(self.context.client.clone(), self.seen.clone(), wish);
        self.queue.add(self.options.secret.clone());
        let metrics = self.context.metrics.clone();
        let (leads, serving) = (self.leads, self.serving);
        let unserved_since = Arc::<Mutex<Option<Instant>>>::default();
        let reconcile = move |_key| {
            let wait = match leads.load(Ordering::SeqCst) {
                true => None,
                false => leave_to_leader(serving.look(), &mut unserved_since.lock()),
            };
            let keeper = keeper.clone();
            async move {
                match wait {
                    Some(next) => Ok(next),
                    None => keeper.pass().await,
                }
            }
        };
        queue::run("certificates", 1, self.queue, metrics, shutdown, reconcile).await
    }
}

/// What a replica without the lease waits for; `None` = it must act itself.
fn leave_to_leader(serves: bool, unserved_since: &mut Option<Instant>) -> Option<Next> {
    if serves {
        *unserved_since = None;
        // The certificate may expire without a change of anything.
        return Some(Next::After(serving::LOOK_EVERY));
    }
    let since = *unserved_since.get_or_insert_with(Instant::now);
    let left = STAND_IN_AFTER.saturating_sub(since.elapsed());
    (!left.is_zero()).then_some(Next::After(left))
}
