//! The lease that lets one operator act at a time.
//!
//! Every change is a PUT with the resource version that was read, so two processes cannot both
//! take or renew it. Expiry is judged by the local clock from when a renewal was *seen*, never by
//! comparing clocks of machines. A holder that could not renew in time ends its process before
//! another may take over.
//!
//! The lease saves work; it does not guard data. That is done by the stored bootstrap plan and by
//! the resource versions and uids in every change.

use std::future::Future;
use std::time::Duration;

use atomix_process::admin::Readiness;
use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta};
use k8s_openapi::jiff::Timestamp;
use kube::api::PostParams;
use kube::{Api, Client};
use thiserror::Error;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::FIELD_MANAGER;
use crate::caller::Caller;
use crate::error::describe;
use crate::metrics::Metrics;

/// Name of this part of the process's readiness: whether the lease was looked at within its duration. A
/// holder ends before it has not renewed for so long.
pub const READINESS: &str = "lease";

/// How long one attempt to look or to renew may take: a hung connection must leave time for another one.
const ATTEMPT: Duration = Duration::from_secs(3);

/// Where the lease lies, who wants it, and its times.
#[derive(Debug, Clone)]
pub struct LeaseOptions {
    /// Namespace of the Lease object.
    pub namespace: String,
    /// Name of the Lease object; also the operator's id.
    pub name: String,
    /// Names this process; never used by another process, nor by this one after a restart.
    pub identity: String,
    /// How long others wait after the last renewal that they saw.
    pub duration: Duration,
    /// After this time without a successful renewal the holder stops; shorter than `duration`.
    pub renew_deadline: Duration,
    /// How often the holder renews.
    pub renew_every: Duration,
    /// How often the others look.
    pub look_every: Duration,
}

impl LeaseOptions {
    /// By which name nodes and runtimes know the operator that holds this lease.
    #[must_use]
    pub fn operator_id(&self) -> String {
        format!("{}/{}", self.namespace, self.name)
    }

    /// Failover within 15 s of a crash and within 2 s of a release.
    #[must_use]
    pub fn new(namespace: String, name: String, identity: String) -> Self {
        Self {
            namespace,
            name,
            identity,
            duration: Duration::from_secs(13),
            renew_deadline: Duration::from_secs(11),
            renew_every: Duration::from_secs(2),
            look_every: Duration::from_secs(1),
        }
    }
}

/// The lease is no longer ours; the process must end at once.
#[derive(Debug, Error)]
pub enum LeaseLost {
    /// Somebody else holds it.
    #[error("lease {name} was taken by {holder}")]
    Taken {
        /// The lease.
        name: String,
        /// Its holder.
        holder: String,
    },
    /// It could not be renewed in time.
    #[error("lease {name} could not be renewed for {limit:?}: {reason}")]
    NotRenewed {
        /// The lease.
        name: String,
        /// The time that ran out.
        limit: Duration,
        /// The last failure.
        reason: String,
    },
}

/// A lease that this process holds.
#[derive(Debug)]
pub struct HeldLease {
    api: Api<Lease>,
    options: LeaseOptions,
    metrics: Metrics,
    lease: Lease,
    renewed: Instant,
}

/// Waits until this process holds the lease; errors are tried again, and are told by `readiness` when
/// they last. `None` after `shutdown`.
pub async fn acquire(
    client: Client,
    options: LeaseOptions,
    metrics: Metrics,
    readiness: Readiness,
    shutdown: CancellationToken,
) -> Option<HeldLease> {
    let api: Api<Lease> = Api::namespaced(client, &options.namespace);
    let mut seen: Option<(Option<String>, Instant)> = None;
    let mut looked: Option<Instant> = None;
    loop {
        let started = Instant::now();
        let attempt = bounded(
            options.renew_deadline.min(ATTEMPT),
            try_acquire(&api, &options, &mut seen),
        );
        match attempt.await {
            Ok(Some(lease)) => {
                tracing::info!(lease = %options.name, identity = %options.identity, "lease acquired");
                metrics.lease_held(true);
                readiness.ready();
                return Some(HeldLease {
                    api,
                    options,
                    metrics,
                    lease,
                    renewed: started,
                });
            }
            Ok(None) => {
                readiness.ready();
                looked = Some(started);
            }
            Err(reason) => {
                tracing::warn!(lease = %options.name, %reason, "cannot acquire the lease");
                if looked.is_none_or(|looked| looked.elapsed() >= options.duration) {
                    readiness.not_ready(format!(
                        "cannot look at lease {} in namespace {}: {reason}",
                        options.name, options.namespace
                    ));
                }
            }
        }
        tokio::select! {
            () = shutdown.cancelled() => return None,
            () = tokio::time::sleep(options.look_every) => {}
        }
    }
}

async fn bounded<T>(
    limit: Duration,
    request: impl Future<Output = kube::Result<T>>,
) -> Result<T, String> {
    match tokio::time::timeout(limit, request).await {
        Ok(Ok(answer)) => Ok(answer),
        Ok(Err(error)) => Err(describe(&error)),
        Err(_elapsed) => Err(format!("no answer of the API server within {limit:?}")),
    }
}

async fn try_acquire(
    api: &Api<Lease>,
    options: &LeaseOptions,
    seen: &mut Option<(Option<String>, Instant)>,
) -> kube::Result<Option<Lease>> {
    let Some(current) = api.get_opt(&options.name).await? else {
        let lease = taken_over(None, options, Timestamp::now());
        return accepted(api.create(&post_params(), &lease).await);
    };
    let version = current.metadata.resource_version.clone();
    let unchanged_since = match seen {
        Some((known, since)) if *known == version => *since,
        _ => {
            let now = Instant::now();
            *seen = Some((version, now));
            now
        }
    };
    if !is_free(&current, options, unchanged_since.elapsed()) {
        return Ok(None);
    }
    let lease = taken_over(Some(current), options, Timestamp::now());
    accepted(api.replace(&options.name, &post_params(), &lease).await)
}

/// Another process being first is no error.
fn accepted(answer: kube::Result<Lease>) -> kube::Result<Option<Lease>> {
    match answer {
        Ok(lease) => Ok(Some(lease)),
        Err(kube::Error::Api(status)) if status.code == 409 => Ok(None),
        Err(error) => Err(error),
    }
}

/// A lease is free when it was released, or not renewed for its duration while we watched.
fn is_free(lease: &Lease, options: &LeaseOptions, unchanged_for: Duration) -> bool {
    let spec = lease.spec.as_ref();
    let holder = spec.and_then(|spec| spec.holder_identity.as_deref());
    if holder.is_none_or(str::is_empty) {
        return true;
    }
    let promised = spec
        .and_then(|spec| spec.lease_duration_seconds)
        .and_then(|seconds| u64::try_from(seconds).ok())
        .map_or(options.duration, Duration::from_secs);
    unchanged_for > promised.max(options.duration)
}

fn taken_over(current: Option<Lease>, options: &LeaseOptions, now: Timestamp) -> Lease {
    let current = current.unwrap_or_default();
    let transitions = current
        .spec
        .and_then(|spec| spec.lease_transitions)
        .map_or(0, |transitions| transitions.saturating_add(1));
    Lease {
        metadata: ObjectMeta {
            name: Some(options.name.clone()),
            namespace: Some(options.namespace.clone()),
            managed_fields: None,
            ..current.metadata
        },
        spec: Some(LeaseSpec {
            holder_identity: Some(options.identity.clone()),
            acquire_time: Some(MicroTime(now)),
            renew_time: Some(MicroTime(now)),
            lease_duration_seconds: i32::try_from(options.duration.as_secs()).ok(),
            lease_transitions: Some(transitions),
            ..LeaseSpec::default()
        }),
    }
}

fn post_params() -> PostParams {
    PostParams {
        field_manager: Some(FIELD_MANAGER.to_owned()),
        ..PostParams::default()
    }
}

impl HeldLease {
    /// How often the lease changed its holder: a number that grows with each new holder.
    #[must_use]
    pub fn term(&self) -> u64 {
        let spec = self.lease.spec.as_ref();
        let transitions = spec.and_then(|spec| spec.lease_transitions).unwrap_or(0);
        u64::try_from(transitions).unwrap_or(0)
    }

    /// Renews the lease until `release` is cancelled, then gives it back. Calls are named by
    /// `caller`. Where somebody knows of a higher term than ours, the API server says at once
    /// whether we still hold the lease: then our term is raised above that one, since the Lease
    /// object must have been deleted in between.
    ///
    /// # Errors
    /// When the lease is lost. The caller must stop acting at once.
    pub async fn keep(
        mut self,
        caller: Caller,
        release: CancellationToken,
    ) -> Result<(), LeaseLost> {
        let mut outranked = false;
        let mut next = self.renewed + self.options.renew_every;
        let mut reason = "no attempt was made".to_owned();
        loop {
            tokio::select! {
                () = release.cancelled() => {
                    self.give_back().await;
                    return Ok(());
                }
                () = tokio::time::sleep_until(next) => {}
                seen = caller.outranked(), if !outranked => {
                    tracing::warn!(own = self.term(), seen, "somebody knows a higher term");
                    raise_above(seen, &mut self.lease);
                    outranked = true;
                }
            }
            let started = Instant::now();
            let left =
                (self.renewed + self.options.renew_deadline).saturating_duration_since(started);
            match bounded(left.min(ATTEMPT), self.renew()).await {
                Ok(Renewal::Renewed(lease)) => {
                    self.lease = *lease;
                    caller.act_in(self.term());
                    outranked = false;
                    self.renewed = started;
                    next = started + self.options.renew_every;
                    continue;
                }
                Ok(Renewal::Taken { holder }) => {
                    self.metrics.lease_held(false);
                    let name = self.options.name.clone();
                    return Err(LeaseLost::Taken { name, holder });
                }
                Ok(Renewal::Changed(lease)) => {
                    self.lease = *lease;
                    outranked = false;
                    "another writer changed it".clone_into(&mut reason);
                }
                Err(error) => reason = error,
            }
            if self.renewed.elapsed() >= self.options.renew_deadline {
                self.metrics.lease_held(false);
                return Err(LeaseLost::NotRenewed {
                    name: self.options.name.clone(),
                    limit: self.options.renew_deadline,
                    reason,
                });
            }
            tracing::warn!(lease = %self.options.name, %reason, "lease not renewed yet");
            next = Instant::now() + self.options.look_every.min(Duration::from_millis(500));
        }
    }

    async fn renew(&self) -> kube::Result<Renewal> {
        let lease = renewed(self.lease.clone(), Timestamp::now());
        let answer = self
            .api
            .replace(&self.options.name, &post_params(), &lease)
            .await;
        match answer {
            Ok(lease) => return Ok(Renewal::Renewed(Box::new(lease))),
            Err(kube::Error::Api(status)) if status.code == 409 => {}
            Err(error) => return Err(error),
        }
        let current = self.api.get(&self.options.name).await?;
        let holder = current
            .spec
            .as_ref()
            .and_then(|spec| spec.holder_identity.clone());
        if holder.as_deref() == Some(self.options.identity.as_str()) {
            return Ok(Renewal::Changed(Box::new(current)));
        }
        Ok(Renewal::Taken {
            holder: holder
                .filter(|name| !name.is_empty())
                .unwrap_or_else(|| "nobody".to_owned()),
        })
    }

    /// A failed release costs the next holder the lease's duration, nothing else.
    async fn give_back(mut self) {
        self.metrics.lease_held(false);
        let mut lease = renewed(self.lease.clone(), Timestamp::now());
        if let Some(spec) = &mut lease.spec {
            spec.holder_identity = Some(String::new());
        }
        let parameters = post_params();
        let request = self.api.replace(&self.options.name, &parameters, &lease);
        match bounded(Duration::from_secs(2), request).await {
            Ok(lease) => {
                self.lease = lease;
                tracing::info!(lease = %self.options.name, "lease released");
            }
            Err(reason) => {
                tracing::warn!(lease = %self.options.name, %reason, "lease not released");
            }
        }
    }
}

enum Renewal {
    Renewed(Box<Lease>),
    Changed(Box<Lease>),
    Taken { holder: String },
}

/// The next renewal writes it.
fn raise_above(seen: u64, lease: &mut Lease) {
    let raised = i32::try_from(seen.saturating_add(1)).unwrap_or(i32::MAX);
    if let Some(spec) = &mut lease.spec {
        spec.lease_transitions = spec.lease_transitions.max(Some(raised));
    }
}

fn renewed(mut lease: Lease, now: Timestamp) -> Lease {
    lease.metadata.managed_fields = None;
    if let Some(spec) = &mut lease.spec {
        spec.renew_time = Some(MicroTime(now));
    }
    lease
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use super::*;

    fn options() -> LeaseOptions {
        LeaseOptions::new("meadow".to_owned(), "gardener".to_owned(), "me".to_owned())
    }

    #[test]
    fn a_lease_is_free_only_when_released_or_silent_for_its_duration() {
        let options = options();
        let held = taken_over(None, &options, Timestamp::UNIX_EPOCH);
        // The renewal time of another machine's clock is long past and must not matter.
        assert!(!is_free(&held, &options, options.duration));
        assert!(is_free(
            &held,
            &options,
            options.duration + Duration::from_millis(1)
        ));
        let mut released = held.clone();
        released.spec.as_mut().unwrap().holder_identity = Some(String::new());
        assert!(is_free(&released, &options, Duration::ZERO));
        let mut longer = held;
        longer.spec.as_mut().unwrap().lease_duration_seconds = Some(60);
        assert!(!is_free(&longer, &options, Duration::from_secs(59)));
    }

    #[test]
    fn each_take_over_raises_the_term_and_keeps_the_resource_version() {
        let options = options();
        let mut lease = taken_over(None, &options, Timestamp::UNIX_EPOCH);
        assert_eq!(lease.spec.as_ref().unwrap().lease_transitions, Some(0));
        lease.metadata.resource_version = Some("41".to_owned());
        let next = taken_over(Some(lease), &options, Timestamp::UNIX_EPOCH);
        assert_eq!(next.spec.unwrap().lease_transitions, Some(1));
        assert_eq!(next.metadata.resource_version.as_deref(), Some("41"));
    }

    #[test]
    fn a_raised_term_never_falls_and_does_not_overflow() {
        let mut lease = taken_over(None, &options(), Timestamp::UNIX_EPOCH);
        for (seen, expected) in [(6, 7), (3, 7), (u64::MAX, 2_147_483_647)] {
            raise_above(seen, &mut lease);
            let term = lease.spec.as_ref().unwrap().lease_transitions;
            assert_eq!(term, Some(expected), "after {seen}");
        }
    }

    #[test]
    fn the_holder_stops_before_another_may_take_over() {
        let options = options();
        assert!(options.renew_deadline < options.duration);
        assert!(options.renew_every * 2 < options.renew_deadline);
    }
}
