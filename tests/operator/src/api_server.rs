//! The API server that the tests use, named by `ATOMIX_TEST_KUBECONFIG`.
//! Not for starting one; `tests/cluster/cluster` does that.

use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, Result};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Api, Client, Config, ResourceExt as _};
use tokio::sync::OnceCell;
use tracing_subscriber::EnvFilter;

use crate::crds;
use crate::wait::until;

/// Names the kubeconfig file of the cluster to test in.
pub const KUBECONFIG_VARIABLE: &str = "ATOMIX_TEST_KUBECONFIG";

/// How to reach the API server, from which each part makes its own client: a client belongs to the
/// tokio runtime that it was made in.
#[derive(Clone, Debug)]
pub struct ApiServer {
    config: Config,
}

impl ApiServer {
    /// The API server, with the CRDs of this work tree installed.
    ///
    /// # Errors
    /// When no cluster is named or it does not answer.
    pub async fn connect() -> Result<Self> {
        // With RUST_LOG=atomix_operator=debug, say; an error means that another test was first.
        let _ = tracing_subscriber::fmt()
            .with_env_filter(EnvFilter::from_default_env())
            .with_test_writer()
            .try_init();
        let path = std::env::var_os(KUBECONFIG_VARIABLE).with_context(|| {
            format!(
                "{KUBECONFIG_VARIABLE} is not set; start a control plane with `tests/cluster/cluster up \
                 --control-plane-only --name operator-tests --kubeconfig /tmp/operator-tests.kubeconfig`, \
                 set {KUBECONFIG_VARIABLE} to that file and run the tests again"
            )
        })?;
        let path = PathBuf::from(path);
        let kubeconfig = Kubeconfig::read_from(&path)
            .with_context(|| format!("cannot read {KUBECONFIG_VARIABLE} = {}", path.display()))?;
        let mut config = Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default())
            .await
            .with_context(|| format!("cannot use {KUBECONFIG_VARIABLE} = {}", path.display()))?;
        config.default_retry = false;
        let server = Self { config };

        static INSTALLED: OnceCell<()> = OnceCell::const_new();
        INSTALLED
            .get_or_try_init(|| install_crds(server.client()))
            .await?;
        Ok(server)
    }

    /// A client for the tokio runtime of the caller.
    ///
    /// # Panics
    /// When the kubeconfig's certificates are unusable.
    pub fn client(&self) -> Client {
        Client::try_from(self.config.clone()).expect("the kubeconfig's credentials are usable")
    }

    /// The address of this machine at which the API server reaches it: the one from which this
    /// machine reaches the API server, which runs in a network namespace of its own.
    ///
    /// # Errors
    /// When there is no way to it.
    pub fn own_address(&self) -> Result<IpAddr> {
        let url = &self.config.cluster_url;
        let host = url.host().context("the API server has no host")?;
        // No packet is sent by this.
        let socket = UdpSocket::bind("0.0.0.0:0")?;
        socket.connect((host, url.port_u16().unwrap_or(443)))?;
        Ok(socket.local_addr()?.ip())
    }

    /// The same API server, reached by whoever this token names.
    ///
    /// # Errors
    /// When the token cannot be used.
    pub fn with_token(&self, token: &str) -> Result<Self> {
        let mut config = self.config.clone();
        config.auth_info = serde_json::from_value(serde_json::json!({"token": token}))?;
        Ok(Self { config })
    }

    /// Its host and port.
    ///
    /// # Errors
    /// When it has no host.
    pub fn authority(&self) -> Result<String> {
        let url = &self.config.cluster_url;
        let host = url.host().context("the API server has no host")?;
        Ok(format!("{host}:{}", url.port_u16().unwrap_or(443)))
    }

    /// The same API server, reached at an address that leads to it.
    ///
    /// # Errors
    /// When it has no host.
    pub fn reached_at(&self, address: SocketAddr) -> Result<Self> {
        let mut config = self.config.clone();
        let host = config.cluster_url.host();
        let host = host.context("the API server has no host")?;
        // Its certificate is for its own address. That of IPv6 is in brackets.
        let host = host.trim_matches(['[', ']']).to_owned();
        config.tls_server_name.get_or_insert(host);
        config.cluster_url = format!("https://{address}").parse()?;
        Ok(Self { config })
    }

    /// The configuration, for a client with layers of its own.
    pub fn config(&self) -> Config {
        self.config.clone()
    }
}

async fn install_crds(client: Client) -> Result<()> {
    crds::restore(&client).await?;
    let crds: Api<CustomResourceDefinition> = Api::all(client);
    for crd in atomix_resources::all() {
        let name = crd.name_any();
        until(
            "the CRD to be served",
            Duration::from_secs(30),
            async || {
                let served = crds.get(&name).await?;
                let established = served
                    .status
                    .and_then(|status| status.conditions)
                    .is_some_and(|conditions| {
                        conditions.iter().any(|condition| {
                            condition.type_ == "Established" && condition.status == "True"
                        })
                    });
                anyhow::ensure!(established, "{name} is not established");
                Ok(())
            },
        )
        .await?;
    }
    Ok(())
}
