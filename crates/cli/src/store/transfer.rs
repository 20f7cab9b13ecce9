//! `store transfer-leader`.

use anyhow::{Context as _, Result};
use atomix_proto::operator::v1::TransferLeaderRequest;
use clap::Args;

use super::{operator, store_id, with_nodes};
use crate::cluster::Cluster;

#[derive(Debug, Args)]
pub(crate) struct Options {
    /// The Store.
    store: String,
    /// The partition.
    #[arg(long)]
    partition: u32,
    /// The pod whose member is to lead.
    #[arg(long)]
    to: String,
}

pub(super) async fn run(cluster: &Cluster, options: &Options) -> Result<()> {
    let Options {
        store,
        partition,
        to,
    } = options;
    with_nodes(cluster, store).await?;
    let request = TransferLeaderRequest {
        store_id: Some(store_id(cluster, store)),
        partition_id: *partition,
        pod: to.clone(),
    };
    let mut operator = operator(cluster).await?;
    operator
        .transfer_leader(request)
        .await
        .with_context(|| format!("the leadership of partition {partition} was not handed over"))?;
    println!("{to} leads partition {partition}");
    Ok(())
}
