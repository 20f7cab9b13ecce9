//! A namespace of a test, removed with all that is in it, also when the test fails.

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, Result};
use k8s_openapi::api::core::v1::{Namespace, Pod};
use kube::api::{DeleteParams, ListParams, Patch, PatchParams, PostParams};
use kube::{Api, Client, ResourceExt as _};
use serde_json::json;

use crate::api_server::ApiServer;
use crate::resources;
use crate::wait::until;

/// On every namespace of these tests, so that leftovers of a killed run can be found.
pub const LABEL: &str = "atomix.io/operator-tests";

/// A namespace; its deletion begins when it is dropped.
#[derive(Debug)]
pub struct TestNamespace {
    server: ApiServer,
    name: String,
    removed: bool,
}

impl TestNamespace {
    /// Makes a namespace whose name begins with `purpose`.
    ///
    /// # Errors
    /// When the API server refuses, or does not prepare it in time.
    pub async fn create(server: &ApiServer, purpose: &str) -> Result<Self> {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let seconds = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .context("the clock stands before 1970")?
            .as_secs();
        let name = format!("{purpose}-{:x}-{:x}-{number}", seconds, std::process::id());
        let namespaces: Api<Namespace> = Api::all(server.client());
        let namespace: Namespace = serde_json::from_value(json!({
            "metadata": {"name": name, "labels": {LABEL: "true"}},
        }))?;
        namespaces
            .create(&PostParams::default(), &namespace)
            .await
            .with_context(|| format!("cannot create the namespace {name}"))?;
        let created = Self {
            server: server.clone(),
            name,
            removed: false,
        };
        // Pods are refused until the controller manager has made it.
        let accounts: Api<k8s_openapi::api::core::v1::ServiceAccount> =
            Api::namespaced(server.client(), &created.name);
        until(
            "the default ServiceAccount",
            Duration::from_secs(60),
            async || Ok(accounts.get("default").await?),
        )
        .await?;
        Ok(created)
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The object itself.
    ///
    /// # Errors
    /// When it cannot be read.
    pub async fn object(&self) -> Result<Namespace> {
        let namespaces: Api<Namespace> = Api::all(self.server.client());
        Ok(namespaces.get(&self.name).await?)
    }

    /// Removes it and waits until it is gone.
    ///
    /// # Errors
    /// When it is not gone in time, with what the API server says about it.
    pub async fn remove(mut self) -> Result<()> {
        self.removed = true;
        let client = self.server.client();
        begin_removal(&client, &self.name).await?;
        let namespaces: Api<Namespace> = Api::all(client);
        until(
            "a namespace to be gone",
            Duration::from_secs(120),
            async || match namespaces.get_opt(&self.name).await? {
                None => Ok(()),
                Some(left) => anyhow::bail!(
                    "{} is still there: {}",
                    self.name,
                    serde_json::to_string(&left.status)?
                ),
            },
        )
        .await
    }
}

impl Drop for TestNamespace {
    fn drop(&mut self) {
        if self.removed {
            return;
        }
        let server = self.server.clone();
        let name = self.name.clone();
        // A thread of its own: the runtime of the test may be on its way out.
        let removal = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()?;
            runtime.block_on(async { begin_removal(&server.client(), &name).await })
        });
        match removal.join() {
            Ok(Ok(())) => {}
            Ok(Err(error)) => eprintln!("cannot remove the namespace {}: {error:#}", self.name),
            Err(_) => eprintln!("cannot remove the namespace {}: a panic", self.name),
        }
    }
}

/// Deletes the namespace; finalizers that only a running operator would take off are taken off.
async fn begin_removal(client: &Client, name: &str) -> Result<()> {
    let namespaces: Api<Namespace> = Api::all(client.clone());
    match namespaces.delete(name, &DeleteParams::default()).await {
        Ok(_) => {}
        // A test has removed it, or begun to.
        Err(kube::Error::Api(status)) if [404, 409].contains(&status.code) => {}
        Err(error) => return Err(error.into()),
    }
    // The machine of some may be one that a test played.
    let pods: Api<Pod> = Api::namespaced(client.clone(), name);
    let at_once = DeleteParams::default().grace_period(0);
    pods.delete_collection(&at_once, &ListParams::default())
        .await?;
    until(
        "finalizers to be taken off",
        Duration::from_secs(30),
        || take_off_finalizers(client, name),
    )
    .await
}

async fn take_off_finalizers(client: &Client, name: &str) -> Result<()> {
    for api in [
        resources::sessions(client, name),
        resources::stores(client, name),
    ] {
        for object in api.list(&ListParams::default()).await? {
            if object.finalizers().is_empty() {
                continue;
            }
            let patch = Patch::Merge(json!({"metadata": {"finalizers": null}}));
            let released = api
                .patch(&object.name_any(), &PatchParams::default(), &patch)
                .await;
            match released {
                Ok(_) => {}
                Err(kube::Error::Api(status)) if status.code == 404 => {}
                Err(error) => return Err(error.into()),
            }
        }
    }
    Ok(())
}
