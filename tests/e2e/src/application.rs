//! The sample application under test: what its replicas have counted.

use std::time::Duration;

use anyhow::{Context as _, ensure};
use k8s_openapi::api::core::v1::Pod;
use kube::api::ListParams;
use kube::{Api, ResourceExt as _};

use crate::cluster::Namespace;
use crate::wait::until;

/// What all replicas of the application know together.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Tally {
    /// Increments that were answered.
    pub acknowledged: i64,
    /// Increments that may or may not have been applied.
    pub unknown: i64,
    /// The highest value that any replica has seen.
    pub value: i64,
    /// Replicas that answered.
    pub replicas: i64,
}

impl Namespace {
    /// Asks every running replica with the label `app: <app>`.
    ///
    /// # Errors
    /// When one does not answer.
    pub async fn tally(&self, app: &str) -> anyhow::Result<Tally> {
        let pods: Api<Pod> = Api::namespaced(self.cluster().client(), self.name());
        let mut tally = Tally::default();
        for pod in pods
            .list(&ListParams::default().labels(&format!("app={app}")))
            .await?
        {
            let path = format!(
                "/api/v1/namespaces/{}/pods/{}:8080/proxy/",
                self.name(),
                pod.name_any()
            );
            let request = http_get(&path)?;
            let shown = self.cluster().client().request_text(request).await?;
            tally.acknowledged += field(&shown, "acknowledged")?;
            tally.unknown += field(&shown, "unknown")?;
            tally.value = tally.value.max(field(&shown, "value")?);
            tally.replicas += 1;
        }
        Ok(tally)
    }

    /// Waits until the application has acknowledged more than this many increments.
    ///
    /// # Errors
    /// When it has not within `limit`.
    pub async fn counts_beyond(
        &self,
        app: &str,
        acknowledged: i64,
        limit: Duration,
    ) -> anyhow::Result<Tally> {
        let what = format!("application {app} acknowledged more than {acknowledged} increments");
        until(&what, limit, async || {
            let tally = self.tally(app).await?;
            Ok((tally.acknowledged > acknowledged).then_some(tally))
        })
        .await
    }

    /// Checks that no acknowledged increment is missing and none was applied twice, while the
    /// application goes on counting: what was acknowledged before the value was read is a lower
    /// bound, what was sent until after it an upper one.
    ///
    /// # Errors
    /// When increments were lost or repeated.
    pub async fn nothing_lost(&self, app: &str) -> anyhow::Result<()> {
        let before = self.tally(app).await?;
        let later = self
            .counts_beyond(app, before.acknowledged, Duration::from_secs(30))
            .await?;
        let after = self.tally(app).await?;
        // One increment of each replica may be in flight.
        let sent = after.acknowledged + after.unknown + after.replicas;
        ensure!(
            before.acknowledged <= later.value,
            "lost: the counter shows {}, but {} increments had been acknowledged",
            later.value,
            before.acknowledged
        );
        ensure!(
            later.value <= sent,
            "counted twice: the counter shows {}, but at most {sent} increments were sent",
            later.value
        );
        Ok(())
    }
}

fn field(shown: &str, name: &str) -> anyhow::Result<i64> {
    shown
        .split_whitespace()
        .find_map(|part| part.strip_prefix(name)?.strip_prefix('='))
        .with_context(|| format!("the application shows no {name}: {shown}"))?
        .parse()
        .with_context(|| format!("the application shows a wrong {name}: {shown}"))
}

fn http_get(path: &str) -> anyhow::Result<http::Request<Vec<u8>>> {
    Ok(http::Request::get(path).body(Vec::new())?)
}
