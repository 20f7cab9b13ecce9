//! The operator's own certificate. Every replica signs one for itself and keeps it in memory: also a
//! replica without the lease asks nodes, for `kubectl atomix`. And whether a replica is of use at all:
//! not without an authority that could sign, where somebody else has to make it.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use super::IdentityOptions;
use super::authority::Authority;
use super::seen::Seen;
use atomix_process::admin::Readiness;
use atomix_tls::Identity;

/// After a failure that only a change of the authority can mend, it is tried again all the same.
const RETRY: Duration = Duration::from_secs(60);

pub(super) struct Own {
    pub(super) seen: Arc<Seen>,
    pub(super) options: IdentityOptions,
    pub(super) changed: Arc<Notify>,
    /// Where somebody else makes the authority.
    pub(super) readiness: Option<Readiness>,
}

impl Own {
    pub(super) async fn run(self, shutdown: CancellationToken) {
        tokio::select! {
            () = shutdown.cancelled() => return,
            () = self.seen.authorities_synced() => {}
        }
        loop {
            let wait = self.renew();
            self.tell_readiness();
            let again = async {
                match wait {
                    Some(wait) => tokio::time::sleep(wait).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = shutdown.cancelled() => return,
                () = self.changed.notified() => {}
                () = again => {}
            }
        }
    }

    /// When to look again; `None` = when there is an authority.
    fn renew(&self) -> Option<Duration> {
        let now = SystemTime::now();
        let authority = self.seen.authority()?;
        if !authority.can_sign(now) {
            return None;
        }
        let lifetimes = &self.options.lifetimes;
        let (material, until) = match authority.material(&Identity::Operator, now, lifetimes) {
            Ok(made) => made,
            Err(error) => {
                tracing::error!(%error, "the operator has no certificate of its own");
                return Some(RETRY);
            }
        };
        match self.options.credentials.set(&material) {
            Ok(()) => Some(until.duration_since(now).unwrap_or(RETRY)),
            Err(error) => {
                tracing::error!(%error, "the operator's own certificate is of no use");
                Some(RETRY)
            }
        }
    }

    /// An authority that is there and not taken over yet is the leader's to take over.
    fn tell_readiness(&self) {
        let Some(readiness) = &self.readiness else {
            return;
        };
        let now = SystemTime::now();
        let signs = |authority: Authority| authority.can_sign(now);
        if self.seen.authority().is_some_and(signs) {
            readiness.ready();
            return;
        }
        match self.seen.source(now, &self.options.lifetimes) {
            Some(Err(error)) => readiness.not_ready(error.to_string()),
            Some(Ok(_)) | None => readiness.ready(),
        }
    }
}
