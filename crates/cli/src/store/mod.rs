//! `store`: what people do to a Store on bad days. Each command says what it is going to do, checks
//! that it may, and asks.

mod gone;
mod recover;
mod replace_node;
mod safety;
mod take_over;
mod transfer;

use std::io::{BufRead as _, Write as _};

use anyhow::{Context as _, Result, bail};
use atomix_proto::operator::v1::stores_client::StoresClient;
use atomix_proto::operator::v1::{GetPartitionsRequest, GetPartitionsResponse};
use atomix_proto::runtime::v1::StoreId;
use atomix_resources::Store;
use clap::{Args, Subcommand};
use kube::Api;
use tonic::transport::Channel;

use crate::cluster::Cluster;
use crate::{status, tunnel};

/// What is done to the Store.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Declares the disk of a storage pod lost: deletes its PersistentVolumeClaim and the pod. The
    /// pod comes back with an empty disk, and the operator makes its members again from the others.
    ///
    /// For a disk that is broken or gone, or a machine that will not come back. Never needed for a
    /// pod that is merely down: it comes back with its data by itself.
    ///
    /// Examples:
    ///   kubectl atomix store replace-node counts counts-2
    ///   kubectl atomix store replace-node counts 2 --yes
    #[command(verbatim_doc_comment)]
    ReplaceNode(replace_node::Options),
    /// Hands the leadership of a partition to the member on another pod. Nothing is lost, and
    /// callers hardly notice.
    ///
    /// Example:
    ///   kubectl atomix store transfer-leader counts --partition 3 --to counts-1
    #[command(verbatim_doc_comment)]
    TransferLeader(transfer::Options),
    /// Lets a partition that has lost a majority of its copies for good go on from one that is left.
    /// What only the lost copies had is gone. The operator then makes the other copies again.
    ///
    /// Before: declare the disks of pods that do not answer lost by `replace-node --give-up`, so that
    /// they cannot come back as a second group; of ephemeral storage, delete those pods. A pod or a
    /// disk that is still being deleted is not gone yet, since its node may run where nobody reaches
    /// it. Interrupted, it can be run again.
    ///
    /// Examples:
    ///   kubectl atomix store recover counts --partition 3                  from the newest copy
    ///   kubectl atomix store recover counts --partition 3 --from counts-0
    #[command(verbatim_doc_comment)]
    Recover(recover::Options),
    /// Makes the operator that this command reaches (--operator-namespace) the one that manages the
    /// Store, instead of another one. Stop the other one first.
    ///
    /// For Stores whose condition says ManagedByOther: after a move of the operator to another
    /// namespace, or when two were installed by mistake.
    ///
    /// Example:
    ///   kubectl atomix store take-over counts --operator-namespace atomix-new
    #[command(verbatim_doc_comment)]
    TakeOver(take_over::Options),
}

/// The Store that a command is about, and whether it asks.
#[derive(Debug, Args)]
pub(crate) struct Target {
    /// The Store.
    store: String,
    /// Does it without asking.
    #[arg(long, short)]
    yes: bool,
}

/// # Errors
/// Why it was not done.
pub(crate) async fn run(cluster: &Cluster, command: &Command) -> Result<()> {
    match command {
        Command::ReplaceNode(options) => replace_node::run(cluster, options).await,
        Command::TransferLeader(options) => transfer::run(cluster, options).await,
        Command::Recover(options) => recover::run(cluster, options).await,
        Command::TakeOver(options) => take_over::run(cluster, options).await,
    }
}

/// The Store, which must have storage nodes.
async fn with_nodes(cluster: &Cluster, name: &str) -> Result<(Api<Store>, Store)> {
    let stores: Api<Store> = Api::namespaced(cluster.client.clone(), &cluster.namespace);
    let store = stores
        .get(name)
        .await
        .with_context(|| format!("cannot read Store {}/{name}", cluster.namespace))?;
    if store.spec.multi_raft.is_none() {
        bail!(
            "Store {name} has no storage nodes: its driver is {}",
            store.spec.driver.name
        );
    }
    Ok((stores, store))
}

/// The operator's service.
async fn operator(cluster: &Cluster) -> Result<StoresClient<Channel>> {
    let (pods, pod) = cluster.operator().await?;
    let channel = tunnel::open(pods, &pod, status::OPERATOR_PORT).await?;
    Ok(StoresClient::new(channel))
}

fn store_id(cluster: &Cluster, name: &str) -> StoreId {
    StoreId {
        namespace: cluster.namespace.clone(),
        name: name.to_owned(),
    }
}

async fn partitions(
    cluster: &Cluster,
    operator: &mut StoresClient<Channel>,
    name: &str,
) -> Result<GetPartitionsResponse> {
    let request = GetPartitionsRequest {
        store_id: Some(store_id(cluster, name)),
    };
    let answer = operator.get_partitions(request).await;
    let answer = answer.context("the operator does not tell of the partitions")?;
    Ok(answer.into_inner())
}

/// Asks on the terminal.
///
/// # Errors
/// When the answer is not yes.
pub(crate) fn confirm(yes: bool) -> Result<()> {
    if yes {
        return Ok(());
    }
    print!("go on? Type yes: ");
    std::io::stdout().flush()?;
    let mut answer = String::new();
    std::io::stdin().lock().read_line(&mut answer)?;
    if answer.trim() != "yes" {
        bail!("nothing was done (give --yes where nobody can be asked)");
    }
    Ok(())
}
