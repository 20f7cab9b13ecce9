//! The injection webhook of operators under test: where it listens, and the configuration by which
//! the API server asks it about the pods of one namespace.

use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use atomix_controller::ObjectKey;
use atomix_operator::certificates::{CertificateOptions, CertificateSource, Lifetimes};
use atomix_operator::webhook::{PATH, SidecarOptions, WebhookOptions};
use k8s_openapi::ByteString;
use k8s_openapi::api::admissionregistration::v1::MutatingWebhookConfiguration;
use k8s_openapi::api::core::v1::{Namespace, Pod};
use kube::api::{Patch, PatchParams, PostParams};
use kube::{Api, Client, ResourceExt as _};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore};
use serde_json::{Value, json};

use crate::operator_under_test::{OperatorUnderTest, Settings};
use crate::samples;
use crate::test_bed::TestBed;

/// Name of the Secret with the certificates.
pub const SECRET: &str = "lily-certificates";

/// For how long a connection is waited for.
const LIMIT: Duration = Duration::from_secs(10);

/// Where an operator serves the webhook.
#[derive(Debug)]
pub struct Served {
    /// Shared by all operators of a test: each question reaches one of them.
    pub listener: TcpListener,
    /// What they serve.
    pub options: WebhookOptions,
}

/// A webhook for the pods of one namespace. Its configuration goes with the namespace.
#[derive(Debug)]
pub struct TestWebhook {
    listener: TcpListener,
    address: SocketAddr,
    options: WebhookOptions,
    client: ClientDebug,
    namespace: String,
}

struct ClientDebug(Client);

impl std::fmt::Debug for ClientDebug {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("Client")
    }
}

impl TestWebhook {
    /// Listens, and tells the API server of it, as the chart does: without a caBundle.
    ///
    /// # Errors
    /// When the API server refuses.
    pub async fn create(bed: &TestBed, lifetimes: Lifetimes) -> Result<Self> {
        Self::create_of(bed, CertificateSource::Operator(lifetimes)).await
    }

    /// The same, of certificates that somebody else makes.
    ///
    /// # Errors
    /// As [`Self::create`].
    pub async fn create_external(bed: &TestBed) -> Result<Self> {
        Self::create_of(bed, CertificateSource::External).await
    }

    async fn create_of(bed: &TestBed, source: CertificateSource) -> Result<Self> {
        let secret = ObjectKey::new(bed.namespace(), SECRET);
        let configuration = format!("lily-{}", bed.namespace());
        Self::create_named(bed, source, secret, configuration).await
    }

    /// As [`Self::create`], with names of the caller's. Sidecars speak TLS if the operators of the
    /// bed have an authority.
    ///
    /// # Errors
    /// As [`Self::create`].
    pub async fn create_named(
        bed: &TestBed,
        source: CertificateSource,
        secret: ObjectKey,
        configuration: String,
    ) -> Result<Self> {
        let listener = TcpListener::bind((bed.server().own_address()?, 0))?;
        let address = listener.local_addr()?;
        let webhook = Self {
            listener,
            address,
            options: WebhookOptions {
                sidecar: SidecarOptions {
                    image: "atomix-runtime:test".to_owned(),
                    tls: bed.settings().identities.is_some(),
                    ..SidecarOptions::default()
                },
                certificates: CertificateOptions {
                    secret,
                    configuration,
                    names: vec![address.ip().to_string()],
                    source,
                },
            },
            client: ClientDebug(bed.client().clone()),
            namespace: bed.namespace().to_owned(),
        };
        let namespaces: Api<Namespace> = Api::all(bed.client().clone());
        let namespace = namespaces.get(bed.namespace()).await?;
        let configuration = serde_json::from_value(webhook.configuration(&namespace))?;
        let created = webhook.configurations();
        let created = created.create(&PostParams::default(), &configuration).await;
        created.context("cannot create the webhook configuration")?;
        Ok(webhook)
    }

    fn configuration(&self, namespace: &Namespace) -> Value {
        json!({
            "metadata": {
                "name": self.options.certificates.configuration,
                "ownerReferences": [{
                    "apiVersion": "v1",
                    "kind": "Namespace",
                    "name": namespace.name_any(),
                    "uid": namespace.uid(),
                }],
            },
            "webhooks": [{
                "name": "inject.atomix.io",
                "admissionReviewVersions": ["v1"],
                "clientConfig": {"url": format!("https://{}{PATH}", self.address)},
                "rules": [{
                    "apiGroups": [""],
                    "apiVersions": ["v1"],
                    "resources": ["pods"],
                    "operations": ["CREATE"],
                }],
                "objectSelector": {"matchLabels": {"atomix.io/inject": "true"}},
                "namespaceSelector": {
                    "matchLabels": {"kubernetes.io/metadata.name": namespace.name_any()},
                },
                "failurePolicy": "Fail",
                "reinvocationPolicy": "IfNeeded",
                "sideEffects": "None",
                "timeoutSeconds": 5,
            }],
        })
    }

    /// For the settings of an operator.
    ///
    /// # Errors
    /// When the socket cannot be shared.
    pub fn served(&self) -> Result<Served> {
        Ok(Served {
            listener: self.listener.try_clone()?,
            options: self.options.clone(),
        })
    }

    /// An operator that serves it.
    ///
    /// # Errors
    /// As [`Self::served`].
    pub fn operator(&self, bed: &TestBed) -> Result<OperatorUnderTest> {
        Ok(OperatorUnderTest::start(Settings {
            webhook: Some(self.served()?),
            ..bed.settings()
        }))
    }

    /// All webhook configurations.
    pub fn configurations(&self) -> Api<MutatingWebhookConfiguration> {
        Api::all(self.client.0.clone())
    }

    /// Tells the API server whom to trust, as cert-manager does.
    ///
    /// # Errors
    /// When the API server refuses.
    pub async fn trust(&self, authority: &str) -> Result<()> {
        let bundle = ByteString(authority.as_bytes().to_vec());
        self.set_bundle(Some(bundle)).await
    }

    /// Takes the caBundle away.
    ///
    /// # Errors
    /// When the API server refuses.
    pub async fn trust_nobody(&self) -> Result<()> {
        self.set_bundle(None).await
    }

    async fn set_bundle(&self, bundle: Option<ByteString>) -> Result<()> {
        let patch = json!({"webhooks": [{
            "name": "inject.atomix.io",
            "clientConfig": {"caBundle": bundle},
        }]});
        let name = &self.options.certificates.configuration;
        let patch = Patch::Strategic(patch);
        let parameters = PatchParams::default();
        self.configurations()
            .patch(name, &parameters, &patch)
            .await?;
        Ok(())
    }

    /// What the certificate is for: the address that the API server calls.
    pub fn host(&self) -> String {
        self.address.ip().to_string()
    }

    /// The authorities that the API server is told to trust.
    ///
    /// # Errors
    /// When it is told of none.
    pub async fn authorities(&self) -> Result<Vec<CertificateDer<'static>>> {
        let name = &self.options.certificates.configuration;
        let configuration = self.configurations().get(name).await?;
        let webhooks = configuration.webhooks.unwrap_or_default();
        let bundle = webhooks
            .first()
            .and_then(|webhook| webhook.client_config.ca_bundle.as_ref())
            .context("the webhook configuration has no caBundle")?;
        Ok(CertificateDer::pem_slice_iter(&bundle.0).collect::<Result<_, _>>()?)
    }

    /// Connects as the API server does when it has no connection yet, and returns the certificate
    /// that it is shown.
    ///
    /// # Errors
    /// When the certificate is not trusted or nobody answers.
    pub async fn connect(&self) -> Result<CertificateDer<'static>> {
        let authorities = self.authorities().await?;
        let address = self.address;
        tokio::task::spawn_blocking(move || handshake(address, authorities)).await?
    }

    /// Checks that a pod which asks for a sidecar would get one.
    ///
    /// # Errors
    /// When the webhook does not answer, or the API server does not ask it yet.
    pub async fn injects(&self) -> Result<()> {
        let pod = self.try_out(samples::asking_pod("bee", "hive")).await?;
        let sidecars = pod.spec.and_then(|spec| spec.init_containers);
        let has_some = sidecars.is_some_and(|sidecars| !sidecars.is_empty());
        ensure!(has_some, "the pod got no sidecar");
        Ok(())
    }

    /// Asks the API server for a pod without making it.
    ///
    /// # Errors
    /// When the webhook does not answer, or refuses.
    pub async fn try_out(&self, pod: Value) -> Result<Pod> {
        let pods: Api<Pod> = Api::namespaced(self.client.0.clone(), &self.namespace);
        let dry_run = PostParams {
            dry_run: true,
            ..PostParams::default()
        };
        Ok(pods.create(&dry_run, &serde_json::from_value(pod)?).await?)
    }
}

fn handshake(
    address: SocketAddr,
    authorities: Vec<CertificateDer<'static>>,
) -> Result<CertificateDer<'static>> {
    let mut roots = RootCertStore::empty();
    for authority in authorities {
        roots.add(authority)?;
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots)
        .with_no_client_auth();
    let mut connection = ClientConnection::new(Arc::new(config), ServerName::from(address.ip()))?;
    let mut stream = TcpStream::connect_timeout(&address, LIMIT)?;
    stream.set_read_timeout(Some(LIMIT))?;
    while connection.is_handshaking() {
        connection.complete_io(&mut stream)?;
    }
    let shown = connection.peer_certificates().unwrap_or_default();
    let [certificate] = shown else {
        bail!("the webhook shows {} certificates", shown.len());
    };
    Ok(certificate.clone().into_owned())
}
