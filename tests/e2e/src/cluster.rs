//! The cluster under test, and one namespace for each test.

use std::env;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use k8s_openapi::api::core::v1::Namespace as NamespaceObject;
use kube::api::{DeleteParams, Patch, PatchParams, PostParams};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Api, Client, Config};
use tokio::sync::OnceCell;

use crate::wait::until;

const HOW_TO_RUN: &str = "run `make test`, or start a cluster (`make cluster`), load images \
     (`make images` prints their tag) and set ATOMIX_TEST_KUBECONFIG and ATOMIX_TEST_IMAGE_TAG";

/// The namespace of the operator under test.
pub const SYSTEM_NAMESPACE: &str = "atomix-system";

static CHART: OnceCell<()> = OnceCell::const_new();

/// A real cluster in which the chart is installed.
#[derive(Debug, Clone)]
pub struct Cluster {
    kubeconfig: PathBuf,
    /// Where chart, CRDs and samples are.
    source: PathBuf,
    image_tag: String,
    image_registry: String,
    client: ClientDebug,
}

#[derive(Clone)]
struct ClientDebug(Client);

impl std::fmt::Debug for ClientDebug {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("Client")
    }
}

impl Cluster {
    /// Connects to the cluster that the environment names, and installs the chart once a process.
    ///
    /// # Errors
    /// When the environment names no cluster (this is a failure, never a skipped test) or the
    /// cluster or chart does not work.
    pub async fn with_chart() -> anyhow::Result<Self> {
        let cluster = Self::connect().await?;
        CHART
            .get_or_try_init(|| async {
                cluster.install_chart().await?;
                cluster.test_chart()
            })
            .await?;
        Ok(cluster)
    }

    /// Connects to the cluster that the environment names.
    ///
    /// # Errors
    /// When it names none, or that one does not answer.
    pub async fn connect() -> anyhow::Result<Self> {
        let kubeconfig =
            PathBuf::from(env::var("ATOMIX_TEST_KUBECONFIG").with_context(|| {
                format!("ATOMIX_TEST_KUBECONFIG names no cluster: {HOW_TO_RUN}")
            })?);
        let image_tag = env::var("ATOMIX_TEST_IMAGE_TAG")
            .with_context(|| format!("ATOMIX_TEST_IMAGE_TAG names no images: {HOW_TO_RUN}"))?;
        let image_registry = env::var("ATOMIX_TEST_IMAGE_REGISTRY")
            .unwrap_or_else(|_| "localhost/atomix".to_owned());
        let config = Config::from_custom_kubeconfig(
            Kubeconfig::read_from(&kubeconfig)
                .with_context(|| format!("cannot read {}", kubeconfig.display()))?,
            &KubeConfigOptions::default(),
        )
        .await?;
        Ok(Self {
            kubeconfig,
            source: repository_root(),
            image_tag,
            image_registry,
            client: ClientDebug(Client::try_from(config)?),
        })
    }

    /// The same cluster, with chart, CRDs, samples and images of another version.
    #[must_use]
    pub fn of_version(&self, source: PathBuf, image_tag: String) -> Self {
        Self {
            source,
            image_tag,
            ..self.clone()
        }
    }

    /// Where chart, CRDs and samples are.
    #[must_use]
    pub fn source(&self) -> &Path {
        &self.source
    }

    /// A client of the API server.
    #[must_use]
    pub fn client(&self) -> Client {
        self.client.0.clone()
    }

    /// The kubeconfig of an administrator.
    #[must_use]
    pub fn kubeconfig(&self) -> &Path {
        &self.kubeconfig
    }

    /// The whole reference of an image under test: `atomix-node` …
    #[must_use]
    pub fn image(&self, program: &str) -> String {
        format!("{}/{program}:{}", self.image_registry, self.image_tag)
    }

    /// Creates a namespace with a unique name.
    ///
    /// # Errors
    /// When the API server refuses.
    pub async fn namespace(&self, purpose: &str) -> anyhow::Result<Namespace> {
        let namespaces: Api<NamespaceObject> = Api::all(self.client());
        let wanted: NamespaceObject = serde_json::from_value(serde_json::json!({
            "metadata": {
                "generateName": format!("e2e-{purpose}-"),
                "labels": restricted(),
            },
        }))?;
        let created = namespaces.create(&PostParams::default(), &wanted).await?;
        let name = created
            .metadata
            .name
            .context("the API server named no namespace")?;
        Ok(Namespace {
            name,
            cluster: self.clone(),
        })
    }

    /// Installs the CRDs and the chart, and waits until it answers; again = nothing changes.
    ///
    /// # Errors
    /// What the API server, kubectl or helm says.
    pub async fn install_chart(&self) -> anyhow::Result<()> {
        self.apply_system_namespace().await?;
        let chart = self.source.join("charts/atomix");
        // Helm installs CRDs once and never changes them; a cluster that is used again needs today's.
        self.run(
            Command::new("kubectl")
                .arg("--kubeconfig")
                .arg(&self.kubeconfig)
                .args(["apply", "--server-side", "--force-conflicts", "-f"])
                .arg(self.source.join("crds")),
        )?;
        self.run(
            Command::new("helm")
                .arg("--kubeconfig")
                .arg(&self.kubeconfig)
                .args(["upgrade", "--install", "atomix"])
                .arg(chart)
                .args(["--namespace", SYSTEM_NAMESPACE])
                .args(["--set", &format!("image.registry={}", self.image_registry)])
                .args(["--set", &format!("image.tag={}", self.image_tag)])
                .args(["--wait", "--timeout", "3m"]),
        )
    }

    /// The release's own namespace, which may be there from a former run.
    async fn apply_system_namespace(&self) -> anyhow::Result<()> {
        let namespaces: Api<NamespaceObject> = Api::all(self.client());
        let wanted = Patch::Apply(serde_json::json!({
            "apiVersion": "v1",
            "kind": "Namespace",
            "metadata": {"name": SYSTEM_NAMESPACE, "labels": restricted()},
        }));
        let parameters = PatchParams::apply("atomix-e2e").force();
        namespaces
            .patch(SYSTEM_NAMESPACE, &parameters, &wanted)
            .await?;
        Ok(())
    }

    /// Asks the release whether it works.
    ///
    /// # Errors
    /// What helm says.
    pub fn test_chart(&self) -> anyhow::Result<()> {
        self.run(
            Command::new("helm")
                .arg("--kubeconfig")
                .arg(&self.kubeconfig)
                .args(["test", "atomix", "--namespace", SYSTEM_NAMESPACE])
                .args(["--timeout", "2m"]),
        )
    }

    /// Uninstalls the release, as people do.
    ///
    /// # Errors
    /// What helm says.
    pub fn uninstall_chart(&self) -> anyhow::Result<()> {
        self.run(
            Command::new("helm")
                .arg("--kubeconfig")
                .arg(&self.kubeconfig)
                .args(["uninstall", "atomix", "--namespace", SYSTEM_NAMESPACE])
                .args(["--wait", "--timeout", "3m"]),
        )
    }

    fn run(&self, command: &mut Command) -> anyhow::Result<()> {
        let output = command
            .output()
            .with_context(|| format!("cannot run {command:?}; is it on PATH?"))?;
        ensure!(
            output.status.success(),
            "{command:?} failed: {}",
            String::from_utf8_lossy(&output.stderr)
        );
        Ok(())
    }

    /// Everything that a person would look at first after a failure.
    #[must_use]
    pub fn describe(&self, namespace: &str) -> String {
        let mut text = String::new();
        for arguments in [
            vec![
                "get",
                "stores,sessions,drivers",
                "-n",
                namespace,
                "-o",
                "yaml",
            ],
            vec!["get", "pods,pvc", "-n", namespace, "-o", "wide"],
            vec!["get", "events", "-n", namespace, "--sort-by=.lastTimestamp"],
            vec![
                "logs",
                "-n",
                SYSTEM_NAMESPACE,
                "-l",
                "app.kubernetes.io/name=atomix-operator",
                "--tail=80",
            ],
        ] {
            let output = Command::new("kubectl")
                .arg("--kubeconfig")
                .arg(&self.kubeconfig)
                .args(&arguments)
                .output();
            match output {
                Ok(output) => {
                    text.push_str(&format!("\n$ kubectl {}\n", arguments.join(" ")));
                    text.push_str(&String::from_utf8_lossy(&output.stdout));
                    text.push_str(&String::from_utf8_lossy(&output.stderr));
                }
                Err(error) => text.push_str(&format!("cannot run kubectl: {error}\n")),
            }
        }
        text
    }
}

/// A namespace of one test.
#[derive(Debug, Clone)]
pub struct Namespace {
    name: String,
    cluster: Cluster,
}

impl Namespace {
    /// The namespace's name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The cluster that it is in.
    #[must_use]
    pub fn cluster(&self) -> &Cluster {
        &self.cluster
    }

    /// Runs a test body in this namespace. A failure carries what the cluster shows; the namespace
    /// is deleted in either case, and its deletion must come to an end.
    ///
    /// # Errors
    /// The body's failure, or that the namespace does not go away.
    pub async fn run<F>(self, body: F) -> anyhow::Result<()>
    where
        F: Future<Output = anyhow::Result<()>>,
    {
        let outcome = body
            .await
            .map_err(|error| error.context(self.cluster.describe(&self.name)));
        let deleted = self.begin_deletion().await;
        let gone = self.is_gone(Duration::from_secs(120)).await;
        outcome.and(deleted).and(gone)
    }

    /// Deletes the namespace without waiting for its end.
    ///
    /// # Errors
    /// When the API server refuses.
    pub async fn begin_deletion(&self) -> anyhow::Result<()> {
        let namespaces: Api<NamespaceObject> = Api::all(self.cluster.client());
        namespaces
            .delete(&self.name, &DeleteParams::default())
            .await?;
        Ok(())
    }

    /// Waits until the namespace is gone.
    ///
    /// # Errors
    /// When it is not within `limit`, with what it still holds.
    pub async fn is_gone(&self, limit: Duration) -> anyhow::Result<()> {
        let namespaces: Api<NamespaceObject> = Api::all(self.cluster.client());
        let what = format!("namespace {} is gone", self.name);
        let gone = until(&what, limit, async || {
            Ok(namespaces
                .get_opt(&self.name)
                .await?
                .is_none()
                .then_some(()))
        })
        .await;
        if gone.is_err() {
            bail!(
                "namespace {} does not end its deletion; what it still holds:\n{}",
                self.name,
                self.cluster.describe(&self.name)
            );
        }
        Ok(())
    }
}

/// Labels of a namespace: everything of ours runs under the strictest profile.
fn restricted() -> serde_json::Value {
    serde_json::json!({"pod-security.kubernetes.io/enforce": "restricted"})
}

/// The root of the repository that `cargo test` runs in; without cargo, of the one that was built. Two
/// clones that share a target directory run one program.
#[must_use]
pub fn repository_root() -> PathBuf {
    let package = std::env::var_os("CARGO_MANIFEST_DIR");
    let package = package.map_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")), PathBuf::from);
    package.join("../..")
}
