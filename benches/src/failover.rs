//! How long nobody reconciles when the operator dies, and when it is told to end: two operators with one
//! lease, and the time until the other one has made a new Store ready.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::bail;
use clap::Args;
use k8s_openapi::api::coordination::v1::Lease;
use kube::Api;
use kube::api::{DeleteParams, PostParams};
use serde_json::json;
use tokio::time::Instant;

use crate::bed::Bed;
use crate::process::{self, Process};
use crate::report;
use crate::servers::free_port;

const NAMES: [&str; 2] = ["first", "second"];
const LEASE: &str = "atomix-operator";
const LIMIT: Duration = Duration::from_secs(60);
const BETWEEN_LOOKS: Duration = Duration::from_millis(5);

/// What to measure and with which program.
#[derive(Debug, Args)]
pub(crate) struct Options {
    /// A control plane; kubelets are not needed.
    #[arg(long)]
    kubeconfig: PathBuf,
    /// The program atomix-operator.
    #[arg(long)]
    operator: PathBuf,
    /// Failovers of each kind.
    #[arg(long, default_value_t = 5)]
    runs: usize,
}

pub(crate) async fn run(options: &Options) -> anyhow::Result<()> {
    let bed = Bed::make(&options.kubeconfig, "failover").await?;
    let failover = Failover {
        bed,
        options,
        logs: tempfile::tempdir()?,
    };
    let outcome = failover.measure().await;
    let removed = failover.bed.remove().await;
    outcome.and(removed)
}

/// How the holder of the lease ends.
#[derive(Debug, Clone, Copy)]
enum End {
    Killed,
    Told,
}

struct Failover<'a> {
    bed: Bed,
    options: &'a Options,
    logs: tempfile::TempDir,
}

impl Failover<'_> {
    async fn measure(&self) -> anyhow::Result<()> {
        let mut operators = Vec::new();
        for name in NAMES {
            operators.push(self.start(name).await?);
        }
        println!("| what | median | all |");
        println!("|---|---|---|");
        let mut stores = 0;
        for (end, what) in [
            (
                End::Killed,
                "operator killed to a new Store ready by the other one",
            ),
            (
                End::Told,
                "operator told to end to a new Store ready by the other one",
            ),
        ] {
            let mut times = Vec::new();
            for run in 0..self.options.runs {
                let holder = self.holder().await?;
                let Some(dying) = operators.get_mut(holder) else {
                    bail!("no operator {holder} was started");
                };
                eprintln!("run {}: {} is {end:?}", run + 1, NAMES[holder]);
                let began = Instant::now();
                match end {
                    End::Killed => dying.kill()?,
                    End::Told => dying.tell().await?,
                }
                stores += 1;
                self.ready_store(&format!("store-{stores}")).await?;
                times.push(began.elapsed().as_secs_f64());
                dying.ended().await?;
                *dying = self.start(NAMES[holder]).await?;
            }
            report::row(what, "s", &times);
        }
        for operator in operators {
            operator.terminate().await?;
        }
        Ok(())
    }

    /// Starts an operator and waits until its caches are filled.
    async fn start(&self, name: &str) -> anyhow::Result<Process> {
        let (admin, api) = (free_port()?, free_port()?);
        let process = Process::start(
            &self.options.operator,
            &[
                format!("--namespace={}", self.bed.namespace),
                format!("--lease-namespace={}", self.bed.namespace),
                format!("--admin-addr=127.0.0.1:{admin}"),
                format!("--api-addr=127.0.0.1:{api}"),
            ],
            &[
                ("KUBECONFIG", self.options.kubeconfig.as_os_str()),
                ("HOSTNAME", name.as_ref()),
            ],
            &self.logs.path().join(format!("{name}.log")),
        )?;
        let address = format!("127.0.0.1:{admin}");
        let deadline = Instant::now() + LIMIT;
        while process::get(&address, "/readyz").await.is_err() {
            if Instant::now() > deadline {
                bail!("the operator is not ready within {LIMIT:?}");
            }
            tokio::time::sleep(BETWEEN_LOOKS).await;
        }
        Ok(process)
    }

    /// Which operator has the lease.
    async fn holder(&self) -> anyhow::Result<usize> {
        let leases: Api<Lease> = Api::namespaced(self.bed.client.clone(), &self.bed.namespace);
        let deadline = Instant::now() + LIMIT;
        loop {
            let lease = leases.get_opt(LEASE).await?;
            let holder = lease.and_then(|lease| lease.spec?.holder_identity);
            let found = NAMES.iter().position(|name| {
                let holder = holder.as_deref().unwrap_or_default();
                holder.starts_with(&format!("{name}-"))
            });
            if let Some(found) = found {
                return Ok(found);
            }
            if Instant::now() > deadline {
                bail!("nobody takes the lease within {LIMIT:?}");
            }
            tokio::time::sleep(BETWEEN_LOOKS).await;
        }
    }

    async fn ready_store(&self, name: &str) -> anyhow::Result<()> {
        let stores = self.bed.ours("Store");
        let store = serde_json::from_value(json!({
            "apiVersion": "atomix.io/v1beta1", "kind": "Store",
            "metadata": {"name": name},
            "spec": {"driver": {"name": "memory"}},
        }))?;
        stores.create(&PostParams::default(), &store).await?;
        let deadline = Instant::now() + LIMIT;
        loop {
            let store = stores.get(name).await?;
            let conditions = store.data["status"]["conditions"].as_array();
            let mut conditions = conditions.into_iter().flatten();
            if conditions.any(|found| found["type"] == "Ready" && found["status"] == "True") {
                break;
            }
            if Instant::now() > deadline {
                bail!("Store {name} is not ready within {LIMIT:?}");
            }
            tokio::time::sleep(BETWEEN_LOOKS).await;
        }
        // Its finalizer must not outlive the operators.
        stores.delete(name, &DeleteParams::default()).await?;
        while stores.get_opt(name).await?.is_some() {
            if Instant::now() > deadline {
                bail!("Store {name} does not go");
            }
            tokio::time::sleep(BETWEEN_LOOKS).await;
        }
        Ok(())
    }
}
