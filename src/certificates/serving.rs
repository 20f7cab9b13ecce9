//! The certificate that this replica shows: the Secret's newest that the API server trusts, swapped
//! without a restart. Works without the lease.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use atomix_process::admin::Readiness;
use k8s_openapi::api::admissionregistration::v1::MutatingWebhookConfiguration;
use k8s_openapi::api::core::v1::Secret;
use parking_lot::RwLock;
use rustls::ServerConfig;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use super::material::{CHAIN, KEY, field};
use super::x509::{X509Error, check_trust, provider, unreadable};
use super::{CertificateOptions, Seen};

/// How often the certificate is looked at although nothing changed: it may have expired.
pub(super) const LOOK_EVERY: Duration = Duration::from_secs(30);

/// Holds the certificate that handshakes show. None before the first is loaded: they fail then.
#[derive(Debug, Default)]
struct Current {
    shown: RwLock<Option<Arc<CertifiedKey>>>,
}

impl ResolvesServerCert for Current {
    fn resolve(&self, _client: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        self.shown.read().clone()
    }
}

/// Keeps the certificate of this replica.
#[derive(Clone, Debug)]
pub(super) struct Serving {
    seen: Seen,
    /// What a client calls this server.
    name: String,
    current: Arc<Current>,
    readiness: Readiness,
    changed: Arc<Notify>,
}

impl Serving {
    pub(super) fn new(seen: Seen, options: &CertificateOptions, readiness: Readiness) -> Self {
        readiness.not_ready("no certificate has been loaded");
        Self {
            seen,
            name: options.names.first().cloned().unwrap_or_default(),
            current: Arc::default(),
            readiness,
            changed: Arc::default(),
        }
    }

    /// Something that [`Self::run`] looks at has changed.
    pub(super) fn changed(&self) {
        self.changed.notify_one();
    }

    /// For a server that shows the certificate.
    ///
    /// # Errors
    /// When the cryptography of this process speaks no version of TLS.
    pub(super) fn tls(&self) -> Result<Arc<ServerConfig>, rustls::Error> {
        let resolver: Arc<Current> = Arc::clone(&self.current);
        let mut tls = ServerConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()?
            .with_no_client_auth()
            .with_cert_resolver(resolver);
        tls.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(Arc::new(tls))
    }

    /// Follows Secret and webhook configuration until `shutdown`.
    pub(super) async fn run(self, shutdown: CancellationToken) {
        loop {
            self.look();
            tokio::select! {
                () = shutdown.cancelled() => return,
                () = self.changed.notified() => {}
                () = tokio::time::sleep(LOOK_EVERY) => {}
            }
        }
    }

    /// Looks whether the API server would take what is shown, and shows something better if there is.
    pub(super) fn look(&self) -> bool {
        let Some(configuration) = self.seen.configuration() else {
            self.readiness.not_ready(format!(
                "there is no MutatingWebhookConfiguration {}; install the chart with it",
                self.seen.configuration_key
            ));
            return false;
        };
        let now = SystemTime::now();
        let trust = |key: &CertifiedKey| is_trusted(&configuration, &key.cert, &self.name, now);
        let found = self.seen.secret().map(|secret| load(&secret));
        let mut missing = None;
        match found {
            None => missing = Some("there is no Secret with a certificate yet".to_owned()),
            Some(Err(error)) => missing = Some(error.to_string()),
            Some(Ok(candidate)) => self.adopt(candidate, &trust),
        }
        let shown = self.current.shown.read().clone();
        let state = match (shown, missing) {
            (Some(shown), _) => trust(&shown),
            (None, missing) => Err(missing.unwrap_or_default()),
        };
        let is_taken = state.is_ok();
        self.readiness.set(
            is_taken,
            format!(
                "the API server would not take the certificate: {}",
                state.err().unwrap_or_default()
            ),
        );
        is_taken
    }

    fn adopt(&self, candidate: CertifiedKey, trust: &impl Fn(&CertifiedKey) -> Result<(), String>) {
        let shown = self.current.shown.read().clone();
        let is_better = match &shown {
            None => true,
            Some(shown) if shown.cert == candidate.cert => false,
            // One that is not trusted yet waits until it is, unless nothing is lost.
            Some(shown) => trust(&candidate).is_ok() || trust(shown).is_err(),
        };
        if is_better {
            tracing::info!(
                replaced = shown.is_some(),
                "the webhook has a new certificate"
            );
            *self.current.shown.write() = Some(Arc::new(candidate));
        }
    }
}

/// Whether the API server would talk to a server that shows this chain, for every webhook of the
/// configuration.
fn is_trusted(
    configuration: &MutatingWebhookConfiguration,
    chain: &[CertificateDer<'static>],
    name: &str,
    now: SystemTime,
) -> Result<(), String> {
    let webhooks = configuration.webhooks.as_deref().unwrap_or_default();
    if webhooks.is_empty() {
        return Err("the MutatingWebhookConfiguration has no webhook".to_owned());
    }
    webhooks.iter().try_for_each(|webhook| {
        let Some(bundle) = &webhook.client_config.ca_bundle else {
            return Err("the MutatingWebhookConfiguration has no caBundle yet".to_owned());
        };
        check_trust(&bundle.0, chain, name, now)
    })
}

fn load(secret: &Secret) -> Result<CertifiedKey, X509Error> {
    let what = "the Secret's certificate";
    let chain = CertificateDer::pem_slice_iter(field(secret, CHAIN))
        .collect::<Result<Vec<_>, _>>()
        .map_err(|error| unreadable(what, error))?;
    let key = PrivateKeyDer::from_pem_slice(field(secret, KEY))
        .map_err(|error| unreadable(what, error))?;
    CertifiedKey::from_der(chain, key, &provider()).map_err(|error| unreadable(what, error))
}
