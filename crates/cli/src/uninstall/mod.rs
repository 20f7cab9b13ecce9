//! `uninstall`: what the chart does before it is deleted, by hand.
//!
//! Lets go of what the operator served, and of nothing else: another one may run beside it.

mod permissions;
mod scope;

use anyhow::{Context as _, Result, bail};
use atomix_controller::ObjectKey;
use atomix_controller::uninstall::{release_all, stop_operator};
use atomix_resources::labels::{DRIVER_FINALIZER, SESSION_FINALIZER, STORE_FINALIZER};
use atomix_resources::{Driver, Session, Store};
use clap::Args;
use k8s_openapi::api::apps::v1::Deployment;
use kube::api::ListParams;
use kube::{Api, ResourceExt};

use crate::cluster::{Cluster, OPERATOR};
use crate::store::confirm;
use scope::{Scope, scope_of};

#[derive(Debug, Args)]
pub(crate) struct Options {
    /// Does it without asking.
    #[arg(long, short)]
    yes: bool,
    /// The operator's Deployment; default: the only one in the operator's namespace.
    #[arg(long)]
    deployment: Option<String>,
    /// The one namespace that the operator served; needed only where its Deployment is gone, or does
    /// not say it.
    #[arg(long, conflicts_with = "served_everything")]
    served_namespace: Option<String>,
    /// The operator served all namespaces; needed only where its Deployment is gone, or does not say
    /// it.
    #[arg(long)]
    served_everything: bool,
}

impl Options {
    fn served(&self) -> Option<Scope> {
        let everything = self.served_everything.then_some(Scope::Cluster);
        let namespace = self.served_namespace.clone();
        everything.or(namespace.map(Scope::Namespace))
    }
}

/// # Errors
/// What could not be done; it can be run again.
pub(crate) async fn run(cluster: &Cluster, options: &Options) -> Result<()> {
    let namespace = cluster.operator_namespace();
    let client = &cluster.exact_client()?;
    let deployments: Api<Deployment> = Api::namespaced(client.clone(), namespace);
    let found = deployments
        .list(&ListParams::default().labels(OPERATOR))
        .await
        .context("cannot list Deployments")?;
    let deployment = the_operator(&found.items, options.deployment.as_deref(), namespace)?;
    let told = deployment.map(scope_of);
    let scope = served(told, options.served(), namespace)?;
    let name = deployment.map(ResourceExt::name_any);

    let needed = permissions::needed(&scope, namespace, name.as_deref());
    let missing = permissions::missing(client, &needed).await?;
    if !missing.is_empty() {
        bail!(
            "nothing was done, since you may not do all of it; let somebody run this who may\n  {}",
            missing.join("\n  ")
        );
    }
    println!(
        "stops the operator in namespace {namespace} and removes its finalizers from {scope}; storage \
         pods, volumes, sidecars and connections stay as they are"
    );
    confirm(options.yes)?;
    if let Some(name) = name {
        if !stop_operator(client, namespace, &name).await? {
            bail!("the pods of Deployment {name} do not end: look at them, then run this again");
        }
        println!("stopped Deployment {name}");
    }
    // Sessions first: a Store under deletion waits for them, and nobody is left to see them go.
    let sessions: Api<Session> = scope.api(client);
    told_of(
        "Session",
        &release_all(client, &sessions, SESSION_FINALIZER).await?,
    );
    let stores: Api<Store> = scope.api(client);
    told_of(
        "Store",
        &release_all(client, &stores, STORE_FINALIZER).await?,
    );
    if scope == Scope::Cluster {
        let drivers: Api<Driver> = Api::all(client.clone());
        told_of(
            "Driver",
            &release_all(client, &drivers, DRIVER_FINALIZER).await?,
        );
    }
    println!(
        "now delete the release: `helm uninstall`. Deleting a Store from then on deletes its pods; \
         its volumes stay"
    );
    Ok(())
}

/// The operator that is meant; `None` = its Deployment is gone already.
fn the_operator<'a>(
    found: &'a [Deployment],
    wanted: Option<&str>,
    namespace: &str,
) -> Result<Option<&'a Deployment>> {
    let name_of = |deployment: &Deployment| deployment.name_any();
    match (wanted, found) {
        (Some(wanted), _) => {
            let mut found = found.iter();
            let found = found.find(|deployment| name_of(deployment) == wanted);
            let found = found.with_context(|| {
                format!("no operator in namespace {namespace} has a Deployment {wanted}")
            });
            found.map(Some)
        }
        (None, []) => Ok(None),
        (None, [only]) => Ok(Some(only)),
        (None, several) => {
            let names: Vec<String> = several.iter().map(name_of).collect();
            bail!(
                "namespace {namespace} has several operators: name one by --deployment: {}",
                names.join(", ")
            )
        }
    }
}

/// What the operator served: as its Deployment tells, or else as a person says.
fn served(told: Option<Result<Scope>>, said: Option<Scope>, namespace: &str) -> Result<Scope> {
    match (told, said) {
        (Some(Ok(told)), Some(said)) if told != said => {
            bail!("the operator in namespace {namespace} serves {told}, and not {said}")
        }
        (Some(Ok(told)), _) => Ok(told),
        (_, Some(said)) => Ok(said),
        (Some(Err(error)), None) => Err(error.context(
            "cannot see what the operator serves: say it by --served-namespace or \
             --served-everything",
        )),
        (None, None) => bail!(
            "namespace {namespace} has no operator: give its namespace by --operator-namespace; if it \
             is gone already, say what it served by --served-namespace or --served-everything"
        ),
    }
}

fn told_of(kind: &str, released: &[ObjectKey]) {
    for key in released {
        println!("released {kind} {key}");
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use anyhow::anyhow;

    use super::*;

    fn deployment(name: &str) -> Deployment {
        let mut deployment = Deployment::default();
        deployment.metadata.name = Some(name.to_owned());
        deployment
    }

    #[test]
    fn of_several_operators_one_must_be_named() {
        let name = |found: &[&str], wanted| {
            let found: Vec<Deployment> = found.iter().map(|name| deployment(name)).collect();
            let chosen = the_operator(&found, wanted, "meadow");
            chosen.map(|chosen| chosen.map(ResourceExt::name_any))
        };
        assert_eq!(name(&[], None).unwrap(), None);
        assert_eq!(name(&["tulip"], None).unwrap().unwrap(), "tulip");
        let both = ["rose", "tulip"];
        assert_eq!(name(&both, Some("tulip")).unwrap().unwrap(), "tulip");
        let refused = name(&both, None).unwrap_err().to_string();
        assert!(refused.contains("--deployment: rose, tulip"), "{refused}");
        assert!(name(&both, Some("lily")).is_err());
    }

    #[test]
    fn what_is_let_go_of_is_what_the_operator_served() {
        let one = |name: &str| Scope::Namespace(name.to_owned());
        let served = |told, said| served(told, said, "meadow");
        assert_eq!(served(Some(Ok(one("a"))), None).unwrap(), one("a"));
        let told = Some(Ok(Scope::Cluster));
        assert_eq!(served(told, Some(Scope::Cluster)).unwrap(), Scope::Cluster);
        for said in [one("b"), Scope::Cluster] {
            let refused = served(Some(Ok(one("a"))), Some(said)).unwrap_err();
            assert!(refused.to_string().contains("namespace a"), "{refused}");
        }
        // What is not known is not guessed.
        for told in [None, Some(Err(anyhow!("it is set elsewhere")))] {
            let refused = served(told, None).unwrap_err().to_string();
            assert!(refused.contains("--served-namespace"), "{refused}");
        }
        assert_eq!(served(None, Some(one("b"))).unwrap(), one("b"));
        let unclear = Some(Err(anyhow!("it is set elsewhere")));
        assert_eq!(served(unclear, Some(one("b"))).unwrap(), one("b"));
    }
}
