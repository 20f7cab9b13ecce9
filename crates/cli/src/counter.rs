//! `counter`: a counter by hand, as an application of the namespace sees it.

use anyhow::{Context as _, Result, bail};
use atomix_proto::runtime::counter::v1::counter_client::CounterClient;
use atomix_proto::runtime::counter::v1::counters_client::CountersClient;
use atomix_proto::runtime::counter::v1::{
    CreateRequest, DecrementRequest, GetRequest, IncrementRequest, SetRequest,
};
use atomix_proto::runtime::v1::PrimitiveId;
use atomix_resources::Session;
use clap::{Args, Subcommand};
use kube::api::ListParams;
use kube::{Api, ResourceExt};

use crate::cluster::{Cluster, first_ready, selector_text};
use crate::tunnel;

/// Where a sidecar serves the application API.
const APPLICATION_PORT: u16 = 5678;
/// What every pod with a sidecar is labelled with.
const RUNTIME: &str = "atomix.io/runtime=true";

#[derive(Debug, Args)]
pub(crate) struct Options {
    #[command(subcommand)]
    operation: Operation,
    /// The pod whose sidecar is used; default: one that the Session selects.
    #[arg(long, global = true)]
    pod: Option<String>,
    /// The Session whose pods are used; default: the only one that serves counters.
    #[arg(long, global = true, conflicts_with = "pod")]
    session: Option<String>,
}

#[derive(Debug, Subcommand)]
enum Operation {
    /// Prints what it counts.
    Get {
        /// The counter's name.
        name: String,
    },
    /// Adds to it, and prints what it counts then.
    Increment {
        /// The counter's name.
        name: String,
        /// How much.
        #[arg(default_value_t = 1, allow_negative_numbers = true)]
        by: i64,
    },
    /// Takes from it, and prints what it counts then.
    Decrement {
        /// The counter's name.
        name: String,
        /// How much.
        #[arg(default_value_t = 1, allow_negative_numbers = true)]
        by: i64,
    },
    /// Sets it, and prints what it counts then.
    Set {
        /// The counter's name.
        name: String,
        /// The new value.
        #[arg(allow_negative_numbers = true)]
        value: i64,
    },
}

impl Operation {
    fn name(&self) -> &str {
        match self {
            Self::Get { name }
            | Self::Increment { name, .. }
            | Self::Decrement { name, .. }
            | Self::Set { name, .. } => name,
        }
    }
}

/// # Errors
/// When no pod can be used, or the sidecar refuses.
pub(crate) async fn run(cluster: &Cluster, options: &Options) -> Result<()> {
    let pods = cluster.pods(&cluster.namespace);
    let pod = match &options.pod {
        Some(pod) => pod.clone(),
        None => pod_of_session(cluster, options.session.as_deref()).await?,
    };
    let channel = tunnel::open(pods, &pod, APPLICATION_PORT).await?;
    let id = Some(PrimitiveId {
        id: options.operation.name().to_owned(),
    });
    let create = CreateRequest {
        id: id.clone(),
        tags: Vec::new(),
    };
    CountersClient::new(channel.clone()).create(create).await?;
    let mut counter = CounterClient::new(channel);
    let value = match &options.operation {
        Operation::Get { .. } => counter.get(GetRequest { id }).await?.into_inner().value,
        Operation::Increment { by, .. } => {
            let request = IncrementRequest { id, delta: *by };
            counter.increment(request).await?.into_inner().value
        }
        Operation::Decrement { by, .. } => {
            let request = DecrementRequest { id, delta: *by };
            counter.decrement(request).await?.into_inner().value
        }
        Operation::Set { value, .. } => {
            let request = SetRequest { id, value: *value };
            counter.set(request).await?.into_inner().value
        }
    };
    println!("{value}");
    Ok(())
}

async fn pod_of_session(cluster: &Cluster, name: Option<&str>) -> Result<String> {
    let sessions: Api<Session> = Api::namespaced(cluster.client.clone(), &cluster.namespace);
    let session = match name {
        Some(name) => sessions
            .get(name)
            .await
            .with_context(|| format!("cannot read Session {name}"))?,
        None => only_session(sessions.list(&ListParams::default()).await?.items)?,
    };
    let selector = format!("{},{RUNTIME}", selector_text(&session.spec.selector)?);
    let pods = cluster.pods(&cluster.namespace);
    first_ready(&pods, &selector).await?.with_context(|| {
        format!(
            "no pod of Session {} is ready: name one by --pod",
            session.name_any()
        )
    })
}

fn only_session(mut sessions: Vec<Session>) -> Result<Session> {
    sessions.retain(|session| session.spec.kind.unwrap_or_default().includes("counter"));
    let names: Vec<String> = sessions.iter().map(ResourceExt::name_any).collect();
    match sessions.pop() {
        Some(session) if names.len() == 1 => Ok(session),
        Some(_) => bail!(
            "several Sessions serve counters, choose one by --session: {}",
            names.join(", ")
        ),
        None => bail!("no Session of the namespace serves counters: give another --namespace"),
    }
}
