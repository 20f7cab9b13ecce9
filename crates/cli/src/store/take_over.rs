//! `store take-over`.

use anyhow::{Context as _, Result};
use atomix_proto::operator::v1::GetOperatorRequest;
use atomix_resources::Store;
use atomix_resources::labels::OPERATOR;
use clap::Args;
use kube::Api;
use kube::ResourceExt as _;
use kube::api::{Patch, PatchParams};
use serde_json::json;

use super::{Target, confirm, operator};
use crate::cluster::Cluster;

#[derive(Debug, Args)]
pub(crate) struct Options {
    #[command(flatten)]
    target: Target,
}

pub(super) async fn run(cluster: &Cluster, options: &Options) -> Result<()> {
    let name = &options.target.store;
    let stores: Api<Store> = Api::namespaced(cluster.client.clone(), &cluster.namespace);
    let store = stores
        .get(name)
        .await
        .with_context(|| format!("cannot read Store {}/{name}", cluster.namespace))?;
    let mut operator = operator(cluster).await?;
    let answer = operator.get_operator(GetOperatorRequest {}).await;
    let answer = answer.context("the operator does not say who it is")?;
    let own = answer.into_inner().id;
    let declared = store.annotations().get(OPERATOR).cloned();
    if declared.as_deref() == Some(own.as_str()) {
        println!("Store {name} is declared to be managed by {own} already");
        return Ok(());
    }
    println!(
        "Store {name} is to be managed by the operator {own} (now: {}): its nodes and sidecars will \
         refuse every other operator, and every other operator will leave it alone",
        declared.as_deref().unwrap_or("whoever its nodes met first")
    );
    confirm(options.target.yes)?;
    let patch = json!({"metadata": {"annotations": {OPERATOR: own}}});
    stores
        .patch(name, &PatchParams::default(), &Patch::Merge(&patch))
        .await
        .with_context(|| format!("cannot annotate Store {name}"))?;
    println!("annotated Store {name} with {OPERATOR}={own}");
    Ok(())
}
