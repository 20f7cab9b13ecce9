//! Carries out the plan, one write a pass. Secrets are created, or replaced with
//! the resource version that was read; the webhook configuration is patched with the resource
//! version that was seen. So two that act at once cannot mix their work.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use k8s_openapi::api::admissionregistration::v1::MutatingWebhookConfiguration;
use k8s_openapi::api::core::v1::Secret;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::api::{Patch, PatchParams, PostParams};
use kube::{Api, Client, ResourceExt as _};
use parking_lot::Mutex;
use serde_json::json;
use thiserror::Error;
use tokio::time::Instant;

use super::Seen;
use super::material::{Material, Wish};
use super::plan::{Plan, Step, plan, settle};
use super::x509::X509Error;
use atomix_controller::{
    ApiError, Category, FIELD_MANAGER, MANAGED_BY_LABEL, Next, ReconcileError, call,
};

/// The type of a Secret with a certificate and its key.
const SECRET_TYPE: &str = "kubernetes.io/tls";

/// Why the certificates are not as they should be.
#[derive(Debug, Error)]
pub(super) enum KeeperError {
    /// A call failed.
    #[error(transparent)]
    Api(#[from] ApiError),
    /// A certificate could not be made.
    #[error(transparent)]
    Making(#[from] X509Error),
}

impl ReconcileError for KeeperError {
    fn category(&self) -> Category {
        match self {
            Self::Api(error) => error.category(),
            // Tried again: what is needed for it is ours alone.
            Self::Making(_) => Category::Unavailable,
        }
    }

    fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Api(error) => error.retry_after(),
            Self::Making(_) => None,
        }
    }
}

/// Makes and renews the certificates.
#[derive(Clone)]
pub(super) struct Keeper {
    secrets: Api<Secret>,
    configurations: Api<MutatingWebhookConfiguration>,
    seen: Seen,
    wish: Wish,
    /// The authorities in the configuration, and since when we have seen them there.
    trusted: Arc<Mutex<Option<(String, Instant)>>>,
}

impl Keeper {
    pub(super) fn new(client: Client, seen: Seen, wish: Wish) -> Self {
        Self {
            secrets: Api::namespaced(client.clone(), &seen.secret_key.namespace),
            configurations: Api::all(client),
            seen,
            wish,
            trusted: Arc::default(),
        }
    }

    /// Does one step, if one is due, and says when the next may be.
    pub(super) async fn pass(&self) -> Result<Next, KeeperError> {
        // Before the Secret: every authority in a configuration was in the Secret before, so what is
        // read of the Secret afterwards is never behind it, and no authority is taken out by
        // mistake.
        let configuration = self.seen.configuration();
        let name = &self.seen.secret_key.name;
        let secret = call("read the webhook's Secret", self.secrets.get_opt(name)).await?;
        let material = secret.as_ref().and_then(|secret| match Material::of(secret) {
            Ok(material) => Some(material),
            Err(error) => {
                tracing::warn!(secret = %self.seen.secret_key, %error, "the webhook's certificates are made anew");
                None
            }
        });
        let now = SystemTime::now();
        let seen = super::plan::Seen {
            now,
            material: material.as_ref(),
            trusted_for: self.trusted_for(material.as_ref(), configuration.as_deref()),
        };
        let step = match plan(seen, &self.wish) {
            Plan::Do(step) => step,
            Plan::WaitUntil(next) => {
                // Certificates know only whole seconds.
                let wait = next.duration_since(now).unwrap_or_default();
                return Ok(Next::After(wait + Duration::from_secs(1)));
            }
        };
        let next = match (step, material) {
            (Step::Begin, _) => Material::begin(now, &self.wish)?,
            (Step::ReplaceAuthority, Some(old)) => old.replace_authority(now, &self.wish)?,
            (Step::Renew, Some(old)) => old.renew(now, &self.wish)?,
            (Step::DropExpired, Some(old)) => old.without_expired(now),
            (Step::Trust, Some(material)) => {
                return self.trust(&material, configuration.as_deref()).await;
            }
            (Step::ReplaceAuthority | Step::Renew | Step::DropExpired | Step::Trust, None) => {
                return Ok(Next::OnChange);
            }
        };
        self.write(secret, &next).await?;
        tracing::info!(secret = %self.seen.secret_key, ?step, "wrote the webhook's certificates");
        Ok(Next::After(Duration::ZERO))
    }

    /// For how long exactly these authorities have been seen in the configuration.
    fn trusted_for(
        &self,
        material: Option<&Material>,
        configuration: Option<&MutatingWebhookConfiguration>,
    ) -> Option<Duration> {
        let mut trusted = self.trusted.lock();
        let bundle = material.map(Material::bundle).filter(|bundle| {
            configuration.is_some_and(|configuration| trusts_exactly(configuration, bundle))
        });
        let Some(bundle) = bundle else {
            *trusted = None;
            return None;
        };
        match trusted.as_ref() {
            Some((known, since)) if *known == bundle => Some(since.elapsed()),
            _ => {
                *trusted = Some((bundle, Instant::now()));
                Some(Duration::ZERO)
            }
        }
    }

    async fn write(&self, old: Option<Secret>, material: &Material) -> Result<(), KeeperError> {
        let params = PostParams {
            field_manager: Some(FIELD_MANAGER.to_owned()),
            ..PostParams::default()
        };
        let data = Some(material.data());
        match old {
            None => {
                let labels =
                    BTreeMap::from([(MANAGED_BY_LABEL.to_owned(), FIELD_MANAGER.to_owned())]);
                let secret = Secret {
                    metadata: ObjectMeta {
                        name: Some(self.seen.secret_key.name.clone()),
                        namespace: Some(self.seen.secret_key.namespace.clone()),
                        labels: Some(labels),
                        ..ObjectMeta::default()
                    },
                    type_: Some(SECRET_TYPE.to_owned()),
                    data,
                    ..Secret::default()
                };
                let request = self.secrets.create(&params, &secret);
                call("create the webhook's Secret", request).await?;
            }
            Some(old) => {
                let name = old.name_any();
                let mut secret = Secret { data, ..old };
                secret.metadata.managed_fields = None;
                let request = self.secrets.replace(&name, &params, &secret);
                call("replace the webhook's Secret", request).await?;
            }
        }
        Ok(())
    }

    async fn trust(
        &self,
        material: &Material,
        configuration: Option<&MutatingWebhookConfiguration>,
    ) -> Result<Next, KeeperError> {
        let Some(configuration) = configuration else {
            // The replicas say that it is missing; its creation brings us back.
            return Ok(Next::OnChange);
        };
        let bundle = k8s_openapi::ByteString(material.bundle().into_bytes());
        let webhooks = configuration.webhooks.iter().flatten();
        let webhooks: Vec<_> = webhooks
            .map(|webhook| json!({"name": webhook.name, "clientConfig": {"caBundle": bundle}}))
            .collect();
        let patch = Patch::Strategic(json!({
            "metadata": {
                "uid": configuration.metadata.uid,
                "resourceVersion": configuration.metadata.resource_version,
            },
            "webhooks": webhooks,
        }));
        let params = PatchParams {
            field_manager: Some(FIELD_MANAGER.to_owned()),
            ..PatchParams::default()
        };
        let name = &self.seen.configuration_key.name;
        let request = self.configurations.patch(name, &params, &patch);
        call("write the caBundle of the webhook configuration", request).await?;
        tracing::info!(configuration = %name, "the API server trusts the webhook's authorities");
        // The change itself brings us back sooner, unless its event is lost.
        Ok(Next::After(settle(&self.wish) + Duration::from_secs(1)))
    }
}

/// Whether each webhook of the configuration trusts these authorities and no others.
fn trusts_exactly(configuration: &MutatingWebhookConfiguration, bundle: &str) -> bool {
    let webhooks = configuration.webhooks.as_deref().unwrap_or_default();
    webhooks.iter().all(|webhook| {
        let found = webhook.client_config.ca_bundle.as_ref();
        found.is_some_and(|found| found.0 == bundle.as_bytes())
    })
}
