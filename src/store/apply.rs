//! Carries out what was decided, in order: children, healing, bootstrap.

use std::sync::Arc;
use std::time::Duration;

use atomix_proto::multiraft::v1::node_client::NodeClient;
use futures::FutureExt as _;
use futures::future::join_all;
use kube::Api;
use kube::api::{DeleteParams, Preconditions};
use std::net::SocketAddr;

use super::bootstrap::{Action, Decision, Desired, Phase, StoredPlan, decide};
use super::build::{Owner, StoreObjects};
use super::dereference::{Inputs, StatefulSetView};
use super::error::StoreError;
use super::heal::pods_to_replace;
use super::names;
use super::plan_record::Plan;
use super::plan_store::{PlanStore, ReadPlan};
use super::pods::StoragePodView;
use crate::context::Context;
use crate::controller::{Observed, Severity, call};
use crate::crd::Store;

/// How long a node may take to accept its part of the plan.
const BOOTSTRAP_TIMEOUT: Duration = Duration::from_secs(10);

/// Objects that are ready to be applied.
#[derive(Debug)]
pub struct Prepared {
    objects: StoreObjects,
}

/// Objects that the API server has accepted; only with them pods are healed and nodes told.
#[derive(Debug)]
pub struct Applied {
    _accepted: (),
}

impl Prepared {
    /// What was built.
    #[must_use]
    pub fn new(objects: StoreObjects) -> Self {
        Self { objects }
    }

    /// Applies what differs: the ConfigMap before the StatefulSet whose pods mount it.
    ///
    /// # Errors
    /// The first child that is not accepted.
    pub async fn apply(self, context: &Context, inputs: &Inputs) -> Result<Applied, StoreError> {
        let StoreObjects {
            service,
            config_map,
            stateful_set,
        } = self.objects;
        let applier = &context.applier;
        applier
            .apply(
                "apply the Service",
                &service,
                Observed::of(inputs.service.as_ref()),
            )
            .await?;
        applier
            .apply(
                "apply the ConfigMap",
                &config_map,
                Observed::of(inputs.config_map.as_ref()),
            )
            .await?;
        applier
            .apply(
                "apply the StatefulSet",
                &stateful_set,
                Observed::of(inputs.stateful_set.as_ref()),
            )
            .await?;
        Ok(Applied { _accepted: () })
    }
}

impl Applied {
    /// Deletes pods of an old revision whose node never ran, and before the mark any old pod.
    ///
    /// # Errors
    /// The first call that fails; a pod that is gone or replaced is no failure.
    pub async fn heal(
        &self,
        context: &Context,
        owner: &Owner,
        inputs: &Inputs,
        store: &Store,
    ) -> Result<(), StoreError> {
        let is_bootstrapped = inputs.is_bootstrapped();
        let seen = inputs.stateful_set.as_deref();
        let seen_revision = seen.and_then(StatefulSetView::newest_revision);
        if pods_to_replace(&inputs.pods, seen_revision, is_bootstrapped).is_empty() {
            return Ok(());
        }
        // The watch of pods may be ahead of the watch of StatefulSets: ask before deleting.
        let sets: Api<StatefulSetView> = Api::namespaced(context.client.clone(), &owner.namespace);
        let read = call("read the StatefulSet", sets.get(&owner.name)).await;
        let current = read.map_err(StoreError::Heal)?;
        let replaced = pods_to_replace(&inputs.pods, current.newest_revision(), is_bootstrapped);
        for pod in &replaced {
            delete_pod(context, owner, pod).await?;
        }
        if !replaced.is_empty() {
            let names: Vec<&str> = replaced.iter().map(|pod| pod.name()).collect();
            let note = format!("deleted pods of an old revision: {}", names.join(", "));
            context
                .events
                .publish(store, Severity::Normal, "PodsReplaced", "DeletePods", note);
        }
        Ok(())
    }

    /// Decides on the bootstrap and carries the decision out. Returns where it stands.
    ///
    /// # Errors
    /// The first action that fails; the next pass decides anew.
    pub async fn bootstrap(
        &self,
        context: &Context,
        plans: &PlanStore,
        owner: &Owner,
        desired: &Desired,
        inputs: &mut Inputs,
        pass: &mut BootstrapPass<'_>,
    ) -> Result<(), StoreError> {
        // At most: make the plan, then send it. Anything after that needs new answers.
        for _ in 0..2 {
            let observed = inputs.observed(pass.cluster, pass.was_bootstrapped);
            let Decision { actions, phase } = decide(desired, &observed, &mut mint);
            pass.phase = phase;
            let wrote_plan = carry_out(context, plans, owner, inputs, pass, actions).await?;
            if !wrote_plan {
                break;
            }
        }
        Ok(())
    }
}

/// What one pass of the bootstrap knows and finds out.
#[derive(Debug)]
pub struct BootstrapPass<'a> {
    /// The Store, for events.
    pub store: &'a Store,
    /// The validated spec.
    pub cluster: &'a super::validate::Cluster,
    /// Whether the status says that the mark was written.
    pub was_bootstrapped: bool,
    /// Where the bootstrap stands.
    pub phase: Phase,
    /// Another operator was first, or new answers are needed: run again soon.
    pub again: bool,
    /// A marked plan was replaced because all data was gone.
    pub data_lost: bool,
}

fn mint() -> u64 {
    rand::random()
}

/// Returns whether a plan was written.
async fn carry_out(
    context: &Context,
    plans: &PlanStore,
    owner: &Owner,
    inputs: &mut Inputs,
    pass: &mut BootstrapPass<'_>,
    actions: Vec<Action>,
) -> Result<bool, StoreError> {
    let mut ordinals = Vec::new();
    for action in actions {
        let written = match action {
            Action::Bootstrap { ordinal } => {
                ordinals.push(ordinal);
                continue;
            }
            Action::CreatePlan(plan) => plans.create(owner, &plan).await,
            Action::ReplacePlan(plan) => {
                pass.data_lost |= inputs.is_bootstrapped();
                plans.replace(owner, &inputs.plan, &plan, false).await
            }
            Action::MarkBootstrapped => {
                return mark(context, plans, owner, inputs, pass)
                    .await
                    .map(|()| false);
            }
        };
        let Some(written) = written.map_err(StoreError::Plan)? else {
            pass.again = true;
            return Ok(false);
        };
        announce_plan(context, pass, &written);
        inputs.plan = written;
        return Ok(true);
    }
    if ordinals.is_empty() {
        return Ok(false);
    }
    let StoredPlan::Ours { plan, .. } = &inputs.plan.stored else {
        return Ok(false);
    };
    send_plan(context, inputs, plan, &ordinals).await?;
    pass.again = true;
    Ok(false)
}

fn announce_plan(context: &Context, pass: &BootstrapPass<'_>, written: &ReadPlan) {
    let StoredPlan::Ours { plan, .. } = &written.stored else {
        return;
    };
    if pass.data_lost {
        context.events.publish(
            pass.store,
            Severity::Warning,
            "DataLost",
            "ReplacePlan",
            format!(
                "every ephemeral disk was empty: starting incarnation {} without the old data",
                plan.incarnation
            ),
        );
        return;
    }
    let count = plan.partitions.len();
    context.events.publish(
        pass.store,
        Severity::Normal,
        "BootstrapPlanned",
        "WritePlan",
        format!(
            "planned {count} partitions, incarnation {}",
            plan.incarnation
        ),
    );
}

async fn mark(
    context: &Context,
    plans: &PlanStore,
    owner: &Owner,
    inputs: &mut Inputs,
    pass: &mut BootstrapPass<'_>,
) -> Result<(), StoreError> {
    let StoredPlan::Ours { plan, .. } = inputs.plan.stored.clone() else {
        return Ok(());
    };
    let written = plans.replace(owner, &inputs.plan, &plan, true).await;
    match written.map_err(StoreError::Plan)? {
        Some(written) => {
            inputs.plan = written;
            pass.phase = Phase::Done {
                lost_disks: Vec::new(),
            };
            context.events.publish(
                pass.store,
                Severity::Normal,
                "Bootstrapped",
                "MarkBootstrapped",
                format!("all {} partitions have committed", plan.partitions.len()),
            );
        }
        None => pass.again = true,
    }
    Ok(())
}

/// Sends their part of the stored plan to several nodes at once.
async fn send_plan(
    context: &Context,
    inputs: &Inputs,
    plan: &Plan,
    ordinals: &[u32],
) -> Result<(), StoreError> {
    let calls = ordinals.iter().filter_map(|ordinal| {
        let pod = inputs.pods.get(ordinal)?;
        let address = SocketAddr::new(pod.address()?, names::CONTROL_PORT);
        let channel = context.channels.get(address);
        let request = plan.request_for(*ordinal);
        let call = async move {
            let mut client = NodeClient::new(channel);
            let answer = tokio::time::timeout(BOOTSTRAP_TIMEOUT, client.bootstrap(request)).await;
            let answer = answer.unwrap_or_else(|_elapsed| {
                let message = format!("no answer within {BOOTSTRAP_TIMEOUT:?}");
                Err(tonic::Status::deadline_exceeded(message))
            });
            answer.map_err(|status| StoreError::Node {
                pod: pod.name().to_owned(),
                status,
            })
        };
        Some(call.boxed())
    });
    for answer in join_all(calls).await {
        answer?;
    }
    Ok(())
}

async fn delete_pod(
    context: &Context,
    owner: &Owner,
    pod: &Arc<StoragePodView>,
) -> Result<(), StoreError> {
    let pods: Api<StoragePodView> = Api::namespaced(context.client.clone(), &owner.namespace);
    let parameters = DeleteParams::default().preconditions(Preconditions {
        uid: pod.metadata.uid.clone(),
        resource_version: None,
    });
    let deleted = call("delete a pod", pods.delete(pod.name(), &parameters)).await;
    match deleted {
        Ok(_) => Ok(()),
        // Gone, or another pod has the name by now.
        Err(error) if error.is_not_found() || error.is_conflict() => Ok(()),
        Err(error) => Err(StoreError::Heal(error)),
    }
}
