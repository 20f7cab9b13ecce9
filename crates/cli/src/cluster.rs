//! The cluster that the user's kubeconfig names, and pods in it.

use anyhow::{Context as _, Result, bail};
use atomix_controller::metrics::Metrics;
use k8s_openapi::api::core::v1::Pod;
use kube::api::ListParams;
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Api, Client, Config, ResourceExt};

use crate::Target;

/// What every pod of an operator is labelled with.
pub(crate) const OPERATOR: &str = "app.kubernetes.io/name=atomix-operator";

const UNUSABLE: &str =
    "cannot use the kubeconfig: set KUBECONFIG, or --context to one of its contexts";

/// A cluster and a namespace in it.
pub(crate) struct Cluster {
    pub(crate) client: Client,
    config: Config,
    pub(crate) namespace: String,
    operator_namespace: String,
}

impl Cluster {
    /// # Errors
    /// When there is no such context, or the kubeconfig cannot be read.
    pub(crate) async fn connect(target: &Target) -> Result<Self> {
        let kubeconfig = Kubeconfig::read().context(UNUSABLE)?;
        let config = config(kubeconfig, target).await?;
        let namespace = target.namespace.clone();
        let namespace = namespace.unwrap_or_else(|| config.default_namespace.clone());
        Ok(Self {
            client: Client::try_from(config.clone())?,
            config,
            namespace,
            operator_namespace: target.operator_namespace.clone(),
        })
    }

    /// A client as the operator has it: one that is told that there is no such page, by a proxy say,
    /// does not take what it asked for as gone.
    ///
    /// # Errors
    /// As [`Self::connect`].
    pub(crate) fn exact_client(&self) -> Result<Client> {
        let client = atomix_controller::client::connect(self.config.clone(), &Metrics::default());
        client.context(UNUSABLE)
    }

    /// Where the operator is.
    pub(crate) fn operator_namespace(&self) -> &str {
        &self.operator_namespace
    }

    /// Pods of a namespace.
    pub(crate) fn pods(&self, namespace: &str) -> Api<Pod> {
        Api::namespaced(self.client.clone(), namespace)
    }

    /// A pod of the operator that is ready; every replica tells the same.
    ///
    /// # Errors
    /// When there is none.
    pub(crate) async fn operator(&self) -> Result<(Api<Pod>, String)> {
        let pods = self.pods(&self.operator_namespace);
        let name = first_ready(&pods, OPERATOR).await?.with_context(|| {
            format!(
                "no operator is ready in namespace {}: give its namespace by --operator-namespace, or look at its pods",
                self.operator_namespace
            )
        })?;
        Ok((pods, name))
    }
}

/// What the kubeconfig says of the context that is meant.
async fn config(kubeconfig: Kubeconfig, target: &Target) -> Result<Config> {
    let options = KubeConfigOptions {
        context: target.context.clone(),
        ..KubeConfigOptions::default()
    };
    let config = Config::from_custom_kubeconfig(kubeconfig, &options).await;
    config.context(UNUSABLE)
}

/// The first pod, by name, that is ready.
///
/// # Errors
/// When the pods cannot be listed.
pub(crate) async fn first_ready(pods: &Api<Pod>, selector: &str) -> Result<Option<String>> {
    let list = pods.list(&ListParams::default().labels(selector)).await?;
    let mut ready: Vec<String> = list
        .iter()
        .filter(|pod| is_ready(pod))
        .map(ResourceExt::name_any)
        .collect();
    ready.sort();
    Ok(ready.into_iter().next())
}

fn is_ready(pod: &Pod) -> bool {
    let conditions = pod.status.iter().flat_map(|status| &status.conditions);
    let mut conditions = conditions.flatten();
    pod.metadata.deletion_timestamp.is_none()
        && conditions.any(|condition| condition.type_ == "Ready" && condition.status == "True")
}

/// A label selector as the API server takes it.
///
/// # Errors
/// When it has expressions that this tool does not know how to write.
pub(crate) fn selector_text(selector: &atomix_resources::session::PodSelector) -> Result<String> {
    if selector
        .match_expressions
        .as_ref()
        .is_some_and(|expressions| !expressions.is_empty())
    {
        bail!("the Session selects by expressions: name a pod by --pod");
    }
    let pairs = selector.match_labels.iter();
    let pairs: Vec<String> = pairs.map(|(key, value)| format!("{key}={value}")).collect();
    Ok(pairs.join(","))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use clap::Parser as _;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpListener;

    use super::*;
    use crate::Cli;

    const TWO_CONTEXTS: &str = r"
apiVersion: v1
kind: Config
current-context: east
contexts:
- name: east
  context: {cluster: east, user: gardener, namespace: meadow}
- name: west
  context: {cluster: west, user: gardener}
clusters:
- name: east
  cluster: {server: 'http://127.0.0.2:6443'}
- name: west
  cluster: {server: 'http://127.0.0.3:6443'}
users:
- name: gardener
  user: {}
";

    #[tokio::test]
    async fn the_context_says_which_cluster_and_which_namespace() {
        let chosen = async |arguments: &[&str]| {
            let arguments = ["kubectl-atomix"].iter().chain(arguments);
            let target = Cli::try_parse_from(arguments).unwrap().target;
            let kubeconfig = Kubeconfig::from_yaml(TWO_CONTEXTS).unwrap();
            let config = config(kubeconfig, &target).await;
            config.map(|config| (config.cluster_url.to_string(), config.default_namespace))
        };
        let east = ("http://127.0.0.2:6443/".to_owned(), "meadow".to_owned());
        let west = ("http://127.0.0.3:6443/".to_owned(), "default".to_owned());
        assert_eq!(chosen(&["status"]).await.unwrap(), east);
        let before = chosen(&["--context", "west", "status"]).await;
        assert_eq!(before.unwrap(), west);
        let behind = ["counter", "get", "visits", "--context", "west"];
        assert_eq!(chosen(&behind).await.unwrap(), west);
        let refused = chosen(&["status", "--context", "north"]).await;
        let refused = format!("{:#}", refused.unwrap_err());
        assert!(refused.contains("--context to one of its"), "{refused}");
        assert!(refused.contains("north"), "{refused}");
    }
    #[tokio::test]
    async fn a_page_that_is_not_served_says_nothing_of_an_object() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let proxy = tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut request = [0; 4096];
            assert!(stream.read(&mut request).await.unwrap() > 0);
            let answer = "HTTP/1.1 404 Not Found\r\ncontent-length: 19\r\n\r\n404 page not found\n";
            stream.write_all(answer.as_bytes()).await.unwrap();
        });
        let config = Config::new(format!("http://{address}").parse().unwrap());
        let cluster = Cluster {
            client: Client::try_from(config.clone()).unwrap(),
            config,
            namespace: "meadow".to_owned(),
            operator_namespace: "garden".to_owned(),
        };
        let pods: Api<Pod> = Api::namespaced(cluster.exact_client().unwrap(), "garden");
        let found = pods.get_opt("tulip").await;
        assert!(found.is_err(), "{found:?}");
        proxy.await.unwrap();
    }
}
