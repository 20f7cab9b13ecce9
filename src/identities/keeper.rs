//! The leader's part: one write a pass. Secrets are created, or replaced with the resource version
//! that was read; so two that act at once cannot mix their work.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use k8s_openapi::api::core::v1::Secret;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::api::{DeleteParams, PostParams, Preconditions};
use kube::{Api, Client, ResourceExt as _};
use parking_lot::Mutex;
use thiserror::Error;
use tokio::time::Instant;

use super::authority::{AUTHORITIES, Authority, Data, Origin, Plan, field, plan};
use super::leaves::{Wanted, renew};
use super::source::{SourceError, shown};
use super::{IdentityOptions, NODES_SECRET, RUNTIME_SECRET, Seen};
use crate::certificates::x509::{Pair, X509Error};
use crate::context::Context;
use atomix_controller::{
    ApiError, Category, Events, FIELD_MANAGER, MANAGED_BY_LABEL, Next, ObjectKey, ReconcileError,
    Severity, call,
};

/// Why certificates are not as they should be.
#[derive(Debug, Error)]
pub(super) enum KeeperError {
    /// A call failed.
    #[error(transparent)]
    Api(#[from] ApiError),
    /// A certificate could not be made.
    #[error(transparent)]
    Making(#[from] X509Error),
    /// The name is taken.
    #[error(
        "the Secret {0} exists and is not the operator's: its pods cannot get certificates; delete \
         or rename it"
    )]
    NotOurs(ObjectKey),
}

impl ReconcileError for KeeperError {
    fn category(&self) -> Category {
        match self {
            Self::Api(error) => error.category(),
            // Tried again: what is needed for it is ours alone.
            Self::Making(_) => Category::Unavailable,
            Self::NotOurs(_) => Category::Conflict,
        }
    }

    fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Api(error) => error.retry_after(),
            Self::Making(_) | Self::NotOurs(_) => None,
        }
    }
}

/// Makes and renews the certificates of all but the operator itself.
#[derive(Clone)]
pub(super) struct Keeper {
    client: Client,
    events: Events,
    seen: Arc<Seen>,
    options: IdentityOptions,
    /// The authorities that every Secret names, and since when we have seen that.
    trusted: Arc<Mutex<Option<(String, Instant)>>>,
    /// What was last warned of, if it is not over: reason and sentence.
    told: Arc<Mutex<Option<(&'static str, String)>>>,
}

impl Keeper {
    pub(super) fn new(context: &Context, seen: Arc<Seen>, options: IdentityOptions) -> Self {
        Self {
            client: context.client.clone(),
            events: context.events.clone(),
            seen,
            options,
            trusted: Arc::default(),
            told: Arc::default(),
        }
    }

    /// One pass over the authority, or over the Secrets of a namespace.
    pub(super) async fn pass(&self, key: &ObjectKey) -> Result<Next, KeeperError> {
        let result = if *key == self.options.authority {
            self.keep_authority().await
        } else {
            self.keep_namespace(&key.namespace).await
        };
        match result {
            Err(KeeperError::Api(error)) if error.is_namespace_terminating() => Ok(Next::OnChange),
            result => result,
        }
    }

    async fn keep_authority(&self) -> Result<Next, KeeperError> {
        let key = &self.options.authority;
        let secrets: Api<Secret> = Api::namespaced(self.client.clone(), &key.namespace);
        let found = call("read the authority's Secret", secrets.get_opt(&key.name)).await?;
        let authority = found.as_ref().and_then(|secret| {
            let read = Authority::of(secret.data.as_ref()?);
            read.inspect_err(|error| {
                tracing::warn!(secret = %key, %error, "the authority is made anew");
            })
            .ok()
        });
        let now = SystemTime::now();
        let lifetimes = &self.options.lifetimes;
        let source = self.seen.source(now, lifetimes);
        let origin = match &source {
            None => Origin::Own,
            Some(found) => Origin::Source(found.as_ref().ok()),
        };
        self.tell_of_source(source.as_ref(), authority.as_ref(), now);
        let trusted_for = authority.as_ref().and_then(|known| self.trusted_for(known));
        let step = match plan(now, authority.as_ref(), origin, trusted_for, lifetimes) {
            Plan::Do(step) => step,
            // Its Secret's change brings us back.
            Plan::WaitForSource => return Ok(Next::OnChange),
            Plan::WaitUntil(next) => {
                // Certificates know only whole seconds.
                let wait = next.duration_since(now).unwrap_or_default();
                return Ok(Next::After(wait + Duration::from_secs(1)));
            }
        };
        let authority = Authority::after(step, authority, origin, now, lifetimes)?;
        self.write(key, found.as_ref(), authority.data()).await?;
        tracing::info!(secret = %key, ?step, "wrote the authority of nodes and runtimes");
        Ok(Next::After(Duration::ZERO))
    }

    /// Warns, of each thing once, when somebody else has to do something about the authority that
    /// they make.
    fn tell_of_source(
        &self,
        source: Option<&Result<Pair, SourceError>>,
        authority: Option<&Authority>,
        now: SystemTime,
    ) {
        let Some((key, found)) = self.options.source.as_ref().zip(source) else {
            return;
        };
        let overdue = authority.filter(|authority| {
            let at = authority.overdue_at(&self.options.lifetimes);
            at.is_some_and(|at| at <= now)
        });
        let warning = match (found, overdue) {
            (Err(error), None) => Some(("AuthorityUnusable", error.to_string())),
            (Err(error), Some(authority)) => Some((
                "AuthorityUnusable",
                format!("{error}; {}", expiry(authority)),
            )),
            (Ok(_), Some(authority)) => Some((
                "AuthorityNotRenewed",
                format!(
                    "the Secret {key} has no later authority: renew it; {}",
                    expiry(authority)
                ),
            )),
            (Ok(_), None) => None,
        };
        let mut told = self.told.lock();
        if *told == warning {
            return;
        }
        if let Some((reason, note)) = &warning {
            tracing::warn!(secret = %key, "{note}");
            let named = Secret {
                metadata: ObjectMeta {
                    name: Some(key.name.clone()),
                    namespace: Some(key.namespace.clone()),
                    ..ObjectMeta::default()
                },
                ..Secret::default()
            };
            let secret = self.seen.sources.get(key);
            let about = secret.as_deref().unwrap_or(&named);
            let action = "TakeOverAuthority";
            self.events
                .publish(about, Severity::Warning, reason, action, note);
        }
        *told = warning;
    }

    /// For how long every Secret has been seen to name exactly these authorities.
    fn trusted_for(&self, authority: &Authority) -> Option<Duration> {
        let mut trusted = self.trusted.lock();
        let bundle = authority.bundle();
        let names_all = |secret: &Secret| {
            let data = secret.data.as_ref();
            data.is_some_and(|data| field(data, AUTHORITIES) == bundle.as_bytes())
        };
        if !self.seen.ours().iter().all(|secret| names_all(secret)) {
            *trusted = None;
            return None;
        }
        match trusted.as_ref() {
            Some((known, since)) if *known == bundle => {
                Some(Instant::now().saturating_duration_since(*since))
            }
            _ => {
                *trusted = Some((bundle, Instant::now()));
                Some(Duration::ZERO)
            }
        }
    }

    async fn keep_namespace(&self, namespace: &str) -> Result<Next, KeeperError> {
        let now = SystemTime::now();
        let authority = self.seen.authority();
        let Some(authority) = authority.filter(|authority| authority.can_sign(now)) else {
            // The next one brings us back.
            return Ok(Next::OnChange);
        };
        let mut until: Option<SystemTime> = None;
        let mut failed = None;
        for (name, wanted) in [
            (NODES_SECRET, self.seen.nodes_of(namespace)),
            (RUNTIME_SECRET, self.seen.runtime_of(namespace)),
        ] {
            let key = ObjectKey::new(namespace, name);
            match self.keep_secret(&key, &wanted, &authority).await {
                Ok(next) => until = until.into_iter().chain(next).min(),
                Err(error) => failed = failed.or(Some(error)),
            }
        }
        // The one must not wait for the other: nodes and applications are different people's.
        if let Some(error) = failed {
            return Err(error);
        }
        let now = SystemTime::now();
        Ok(match until {
            Some(until) => {
                let wait = until.duration_since(now).unwrap_or_default();
                Next::After(wait + Duration::from_secs(1))
            }
            None => Next::OnChange,
        })
    }

    async fn keep_secret(
        &self,
        key: &ObjectKey,
        wanted: &Wanted,
        authority: &Authority,
    ) -> Result<Option<SystemTime>, KeeperError> {
        let found = self.seen.secret(key);
        if wanted.is_empty() {
            if let Some(secret) = found.filter(|secret| is_ours(secret)) {
                self.delete(key, &secret).await?;
            }
            return Ok(None);
        }
        if let Some(foreign) = found.as_ref().filter(|secret| !is_ours(secret)) {
            let error = KeeperError::NotOurs(key.clone());
            self.events.publish(
                foreign.as_ref(),
                Severity::Warning,
                "NameTaken",
                "KeepCertificates",
                error.to_string(),
            );
            return Err(error);
        }
        let empty = Data::new();
        let data = found.as_ref().and_then(|secret| secret.data.as_ref());
        let now = SystemTime::now();
        let lifetimes = &self.options.lifetimes;
        let renewed = renew(data.unwrap_or(&empty), wanted, authority, now, lifetimes)?;
        if let Some(data) = renewed.data {
            self.write(key, found.as_deref(), data).await?;
            tracing::info!(secret = %key, "wrote certificates");
        }
        Ok(Some(renewed.until))
    }

    async fn write(
        &self,
        key: &ObjectKey,
        old: Option<&Secret>,
        data: Data,
    ) -> Result<(), KeeperError> {
        let secrets: Api<Secret> = Api::namespaced(self.client.clone(), &key.namespace);
        let params = PostParams {
            field_manager: Some(FIELD_MANAGER.to_owned()),
            ..PostParams::default()
        };
        match old {
            None => {
                let labels =
                    BTreeMap::from([(MANAGED_BY_LABEL.to_owned(), FIELD_MANAGER.to_owned())]);
                let secret = Secret {
                    metadata: ObjectMeta {
                        name: Some(key.name.clone()),
                        namespace: Some(key.namespace.clone()),
                        labels: Some(labels),
                        ..ObjectMeta::default()
                    },
                    data: Some(data),
                    ..Secret::default()
                };
                let request = secrets.create(&params, &secret);
                call("create a Secret with certificates", request).await?;
            }
            Some(old) => {
                let mut secret = Secret {
                    data: Some(data),
                    ..old.clone()
                };
                secret.metadata.managed_fields = None;
                let request = secrets.replace(&key.name, &params, &secret);
                call("replace a Secret with certificates", request).await?;
            }
        }
        Ok(())
    }

    async fn delete(&self, key: &ObjectKey, secret: &Secret) -> Result<(), KeeperError> {
        let secrets: Api<Secret> = Api::namespaced(self.client.clone(), &key.namespace);
        // One that was written meanwhile is wanted again.
        let params = DeleteParams::default().preconditions(Preconditions {
            uid: secret.uid(),
            resource_version: secret.resource_version(),
        });
        let request = secrets.delete(&key.name, &params);
        match call("delete a Secret with certificates", request).await {
            Ok(_) => Ok(()),
            Err(error) if error.is_not_found() => Ok(()),
            Err(error) => Err(error.into()),
        }
    }
}

fn expiry(authority: &Authority) -> String {
    let at = shown(authority.expires());
    format!("at {at} the last authority and every certificate expire")
}

/// Made by an operator, so that it may be changed.
pub(super) fn is_ours(secret: &Secret) -> bool {
    let labels = secret.metadata.labels.as_ref();
    let manager = labels.and_then(|labels| labels.get(MANAGED_BY_LABEL));
    manager.is_some_and(|manager| manager == FIELD_MANAGER)
}
