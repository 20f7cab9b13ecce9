//! A namespace with its pods, its observer and the operators that serve it alone.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use anyhow::{Context as _, Result};
use atomix_controller::ObjectKey;
use atomix_operator::Scope;
use atomix_operator::identities::{IdentityOptions, Lifetimes};
use atomix_operator::session::SessionOptions;
use atomix_tls::Credentials;
use k8s_openapi::api::core::v1::Pod;
use kube::api::{DeleteParams, DynamicObject, PostParams};
use kube::{Api, Client};
use serde_json::Value;
use tokio::sync::{Semaphore, SemaphorePermit};

use crate::api_server::ApiServer;
use crate::fault::{Disturbance, WatchTimeout};
use crate::identity;
use crate::namespace::TestNamespace;
use crate::observer::Observer;
use crate::operator_under_test::{OperatorUnderTest, Settings};
use crate::pod_runner::PodRunner;
use crate::resources;
use crate::wait::until;

/// A place to test in. Fields are dropped in order: processes end before the namespace does.
pub struct TestBed {
    server: ApiServer,
    client: Client,
    runner: PodRunner,
    observer: Observer,
    namespace: TestNamespace,
    /// Of its operators: with some, new Stores speak mutual TLS.
    lifetimes: Option<Lifetimes>,
    /// They take their authority over from [`identity::SOURCE`].
    has_source: bool,
    place: Option<SemaphorePermit<'static>>,
}

/// How many test beds are used at a time: more only wait for the processors.
const PLACES_VARIABLE: &str = "ATOMIX_TEST_BEDS";
const DEFAULT_PLACES: usize = 8;

fn places() -> &'static Semaphore {
    static PLACES: OnceLock<Semaphore> = OnceLock::new();
    PLACES.get_or_init(|| {
        let wanted = std::env::var(PLACES_VARIABLE).ok();
        let wanted = wanted.and_then(|text| text.parse().ok());
        Semaphore::new(wanted.unwrap_or(DEFAULT_PLACES))
    })
}

impl TestBed {
    /// A place of its own, whose namespace's name begins with `purpose`; waits while there are too
    /// many.
    ///
    /// # Errors
    /// When the API server cannot be used.
    pub async fn create(purpose: &str) -> Result<Self> {
        let place = places().acquire().await.context("no place to test in")?;
        let bed = Self::create_unqueued(purpose).await?;
        Ok(Self {
            place: Some(place),
            ..bed
        })
    }

    /// As [`Self::create`], with operators that have an authority: new Stores speak mutual TLS,
    /// and have NetworkPolicies.
    ///
    /// # Errors
    /// As [`Self::create`].
    pub async fn create_secured(purpose: &str, lifetimes: Lifetimes) -> Result<Self> {
        Ok(Self::create(purpose).await?.secured(lifetimes))
    }

    /// The same place, with operators as those of [`Self::create_secured`].
    #[must_use]
    pub fn secured(mut self, lifetimes: Lifetimes) -> Self {
        self.lifetimes = Some(lifetimes);
        self
    }

    /// The same place, with operators whose authority somebody else makes, in the Secret
    /// [`identity::SOURCE`].
    #[must_use]
    pub fn with_authority_source(mut self) -> Self {
        self.has_source = true;
        self
    }

    /// As [`Self::create`], but at once: for a test that mostly waits.
    ///
    /// # Errors
    /// As [`Self::create`].
    pub async fn create_unqueued(purpose: &str) -> Result<Self> {
        let server = ApiServer::connect().await?;
        let client = server.client();
        let namespace = TestNamespace::create(&server, purpose).await?;
        Ok(Self {
            runner: PodRunner::start(client.clone(), namespace.name())?,
            observer: Observer::start(&client, namespace.name()),
            server,
            client,
            namespace,
            lifetimes: None,
            has_source: false,
            place: None,
        })
    }

    /// A client.
    pub fn client(&self) -> &Client {
        &self.client
    }

    /// Name of the namespace.
    pub fn namespace(&self) -> &str {
        self.namespace.name()
    }

    /// The pods' processes.
    pub fn runner(&self) -> &PodRunner {
        &self.runner
    }

    /// What was created and deleted.
    pub fn observer(&self) -> &Observer {
        &self.observer
    }

    /// How the API server is reached.
    pub fn server(&self) -> &ApiServer {
        &self.server
    }

    /// Settings of an operator for this namespace.
    pub fn settings(&self) -> Settings {
        Settings {
            server: self.server.clone(),
            scope: Scope::Namespace(self.namespace().to_owned()),
            lease_namespace: self.namespace().to_owned(),
            short_lease: true,
            sessions: SessionOptions::default(),
            secret_namespaces: vec![self.namespace().to_owned()],
            disturbance: None,
            watch_timeout: WatchTimeout::None,
            identities: self.lifetimes.map(|lifetimes| IdentityOptions {
                authority: ObjectKey::new(self.namespace(), identity::AUTHORITY),
                source: self.has_source.then(|| self.authority_source()),
                lifetimes,
                credentials: Credentials::default(),
            }),
            webhook: None,
            audit: None,
            network_policies: self.lifetimes.is_some(),
            names: Arc::new(self.runner.names_handle()),
        }
    }

    /// The Secret with an authority that somebody else makes.
    pub fn authority_source(&self) -> ObjectKey {
        ObjectKey::new(self.namespace(), identity::SOURCE)
    }

    /// Starts an operator for this namespace that has to live through this.
    pub fn operator(&self, disturbance: Option<Disturbance>) -> OperatorUnderTest {
        OperatorUnderTest::start(Settings {
            disturbance,
            ..self.settings()
        })
    }

    /// The Stores of the namespace.
    pub fn stores(&self) -> Api<DynamicObject> {
        resources::stores(&self.client, self.namespace())
    }

    /// The Sessions of the namespace.
    pub fn sessions(&self) -> Api<DynamicObject> {
        resources::sessions(&self.client, self.namespace())
    }

    /// The pods of the namespace.
    pub fn pods(&self) -> Api<Pod> {
        Api::namespaced(self.client.clone(), self.namespace())
    }

    /// Creates a pod from JSON.
    ///
    /// # Errors
    /// When the API server refuses it.
    pub async fn create_pod(&self, pod: Value) -> Result<()> {
        let pod: Pod = serde_json::from_value(pod)?;
        let created = self.pods().create(&PostParams::default(), &pod).await;
        created.context("cannot create a pod")?;
        Ok(())
    }

    /// Deletes a pod and waits until it and its processes are gone.
    ///
    /// # Errors
    /// When they are not gone in time.
    pub async fn delete_pod(&self, name: &str) -> Result<()> {
        self.pods().delete(name, &DeleteParams::default()).await?;
        until("a pod to be gone", Duration::from_secs(30), async || {
            anyhow::ensure!(
                self.pods().get_opt(name).await?.is_none(),
                "{name} is there"
            );
            anyhow::ensure!(self.runner.address(name).is_none(), "{name} runs");
            Ok(())
        })
        .await
    }

    /// Removes the namespace and waits until it is gone.
    ///
    /// # Errors
    /// When it is not gone in time.
    pub async fn remove(self) -> Result<()> {
        drop(self.runner);
        drop(self.observer);
        // The namespace's end needs the controller manager's time only.
        drop(self.place);
        self.namespace.remove().await
    }
}
