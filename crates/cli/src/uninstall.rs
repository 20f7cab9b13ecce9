//! `uninstall`: what the chart does before it is deleted, by hand.

use anyhow::{Context as _, Result, bail};
use atomix_controller::ObjectKey;
use atomix_controller::uninstall::{release_all, stop_operator};
use atomix_resources::labels::{DRIVER_FINALIZER, SESSION_FINALIZER, STORE_FINALIZER};
use atomix_resources::{Driver, Session, Store};
use clap::Args;
use k8s_openapi::api::apps::v1::Deployment;
use kube::api::ListParams;
use kube::{Api, ResourceExt as _};

use crate::cluster::{Cluster, OPERATOR};
use crate::store::confirm;

#[derive(Debug, Args)]
pub(crate) struct Options {
    /// Does it without asking.
    #[arg(long, short)]
    yes: bool,
}

/// # Errors
/// What could not be done; it can be run again.
pub(crate) async fn run(cluster: &Cluster, options: &Options) -> Result<()> {
    let namespace = cluster.operator_namespace();
    let client = &cluster.client;
    println!(
        "stops the operator in namespace {namespace} and removes its finalizers from all Stores, \
         Sessions and Drivers; storage pods, volumes, sidecars and connections stay as they are"
    );
    confirm(options.yes)?;
    let deployments: Api<Deployment> = Api::namespaced(client.clone(), namespace);
    let found = deployments
        .list(&ListParams::default().labels(OPERATOR))
        .await
        .context("cannot list Deployments")?;
    for deployment in &found {
        let name = deployment.name_any();
        if !stop_operator(client, namespace, &name).await? {
            bail!("the pods of Deployment {name} do not end: look at them, then run this again");
        }
        println!("stopped Deployment {name}");
    }
    let sessions: Api<Session> = Api::all(client.clone());
    told(
        "Session",
        &release_all(client, &sessions, SESSION_FINALIZER).await?,
    );
    let stores: Api<Store> = Api::all(client.clone());
    told(
        "Store",
        &release_all(client, &stores, STORE_FINALIZER).await?,
    );
    let drivers: Api<Driver> = Api::all(client.clone());
    told(
        "Driver",
        &release_all(client, &drivers, DRIVER_FINALIZER).await?,
    );
    println!(
        "now delete the release: `helm uninstall`. Deleting a Store from then on deletes its pods; \
         its volumes stay"
    );
    Ok(())
}

fn told(kind: &str, released: &[ObjectKey]) {
    for key in released {
        println!("released {kind} {key}");
    }
}
