//! The only reads of a reconcile: children from the caches, the plan, the nodes.

use std::collections::BTreeMap;
use std::sync::Arc;

use futures::FutureExt as _;
use futures::future::join_all;
use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::api::core::v1::{ConfigMap, Service};
use k8s_openapi::api::networking::v1::NetworkPolicy;
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::core::PartialObjectMeta;
use kube::{Api, Resource, ResourceExt as _};
use serde::Deserialize;

use super::bootstrap::{Observed, StoredPlan};
use super::error::StoreError;
use super::names;
use crate::context::Context;
use crate::store::bootstrap::plan_store::{PlanStore, ReadPlan};
use crate::store::nodes::node_view::NodeView;
use crate::store::nodes::watches::{NodeState, Watches};
use crate::store::objects::build::Owner;
use crate::store::objects::pods::StoragePodView;
use crate::store::spec::validate::Cluster;
use crate::store::volumes::claims::{ClaimSpecView, ClaimView};
use atomix_controller::{Cache, ObjectKey, call};

/// The fields of a StatefulSet that are read.
#[derive(Debug, Clone, PartialEq, Deserialize, Resource)]
#[resource(inherit = "StatefulSet")]
pub struct StatefulSetView {
    /// Standard metadata.
    pub metadata: ObjectMeta,
    /// What is asked of it.
    #[serde(default)]
    pub spec: StatefulSetSpecView,
    /// What its controller says.
    #[serde(default)]
    pub status: StatefulSetStatusView,
}

/// See [`StatefulSetView`].
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct StatefulSetSpecView {
    /// How many pods there are meant to be.
    pub replicas: Option<u32>,
    /// What claims are made from.
    pub volume_claim_templates: Option<Vec<ClaimTemplateView>>,
}

/// See [`StatefulSetView`].
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
pub struct ClaimTemplateView {
    /// What is asked for.
    #[serde(default)]
    pub spec: ClaimSpecView,
}

/// See [`StatefulSetView`].
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct StatefulSetStatusView {
    /// The generation that the status is about.
    pub observed_generation: Option<i64>,
    /// The revision that new pods get.
    pub update_revision: Option<String>,
}

impl StatefulSetView {
    /// The revision of the newest template, if its controller has seen that template.
    #[must_use]
    pub fn newest_revision(&self) -> Option<&str> {
        let is_current = self.status.observed_generation == self.metadata.generation;
        let revision = self.status.update_revision.as_deref();
        revision.filter(|_| is_current)
    }
}

/// The caches of what belongs to Stores.
#[derive(Debug, Clone, Default)]
pub struct Children {
    /// Headless Services.
    pub services: Cache<PartialObjectMeta<Service>>,
    /// ConfigMaps, with those of the bootstrap plans.
    pub config_maps: Cache<PartialObjectMeta<ConfigMap>>,
    /// NetworkPolicies; empty when none are made.
    pub network_policies: Cache<PartialObjectMeta<NetworkPolicy>>,
    /// StatefulSets.
    pub stateful_sets: Cache<StatefulSetView>,
    /// Storage pods.
    pub pods: Cache<StoragePodView>,
    /// Disruption budgets.
    pub budgets: Cache<PartialObjectMeta<PodDisruptionBudget>>,
    /// Claims of their volumes.
    pub claims: Cache<ClaimView>,
}

/// Everything that a reconcile of storage nodes reads.
#[derive(Debug)]
pub struct Inputs {
    /// The headless Service.
    pub service: Option<Arc<PartialObjectMeta<Service>>>,
    /// The ConfigMap.
    pub config_map: Option<Arc<PartialObjectMeta<ConfigMap>>>,
    /// The NetworkPolicy.
    pub network_policy: Option<Arc<PartialObjectMeta<NetworkPolicy>>>,
    /// The StatefulSet.
    pub stateful_set: Option<Arc<StatefulSetView>>,
    /// The disruption budget.
    pub budget: Option<Arc<PartialObjectMeta<PodDisruptionBudget>>>,
    /// The pods by ordinal, without those that are going.
    pub pods: BTreeMap<u32, Arc<StoragePodView>>,
    /// Whether a pod is going.
    pub has_going_pods: bool,
    /// The bootstrap plan.
    pub plan: ReadPlan,
    /// The nodes by ordinal; an ordinal without a pod is missing.
    pub nodes: BTreeMap<u32, NodeState>,
    /// A node that was up left a question unanswered. Its stream goes on, so no event says when to
    /// ask again.
    pub is_owed_an_answer: bool,
}

impl Inputs {
    /// What the bootstrap decision looks at. Ordinals of the plan are always covered.
    #[must_use]
    pub fn observed(&self, cluster: &Cluster, was_bootstrapped: bool) -> Observed {
        let planned = match &self.plan.stored {
            StoredPlan::Ours { plan, .. } => u32::try_from(plan.nodes.len()).unwrap_or(u32::MAX),
            StoredPlan::Absent
            | StoredPlan::OfEarlierStore
            | StoredPlan::NameTaken(_)
            | StoredPlan::Damaged(_) => 0,
        };
        let view = |ordinal: u32| self.nodes.get(&ordinal)?.view().cloned();
        Observed {
            stored: self.plan.stored.clone(),
            was_bootstrapped,
            nodes: (0..cluster.replicas.max(planned).max(self.live_replicas()))
                .map(view)
                .collect(),
            live_replicas: self.live_replicas(),
            zones: self.zones(),
        }
    }

    /// How many pods there are meant to be; 0 = there is no StatefulSet.
    #[must_use]
    pub fn live_replicas(&self) -> u32 {
        let set = self.stateful_set.as_ref();
        set.and_then(|set| set.spec.replicas).unwrap_or(0)
    }

    /// The nodes that answered.
    #[must_use]
    pub fn views(&self) -> BTreeMap<u32, NodeView> {
        let nodes = self.nodes.iter();
        nodes
            .filter_map(|(ordinal, state)| Some((*ordinal, state.view()?.clone())))
            .collect()
    }

    /// The zone of each pod, where its machine's label has been copied to it.
    #[must_use]
    pub fn zones(&self) -> BTreeMap<u32, String> {
        let pods = self.pods.iter();
        pods.filter_map(|(ordinal, pod)| Some((*ordinal, pod.zone()?.to_owned())))
            .collect()
    }

    /// Asks every node anew, and the API server for the StatefulSet: what is done next must not
    /// rest on what the watches have not told yet.
    ///
    /// # Errors
    /// When the API server does not answer.
    pub async fn refresh(
        &mut self,
        context: &Context,
        owner: &Owner,
        watches: &Watches,
    ) -> Result<(), StoreError> {
        let sets: Api<StatefulSetView> = Api::namespaced(context.client.clone(), &owner.namespace);
        let read = call("read the StatefulSet", sets.get_opt(&owner.name)).await;
        if let Some(set) = read.map_err(StoreError::Dereference)? {
            self.stateful_set = Some(Arc::new(set));
        }
        self.ask(self.pods.keys().copied().collect(), watches).await;
        Ok(())
    }

    /// Asks these nodes anew.
    pub async fn ask(&mut self, ordinals: Vec<u32>, watches: &Watches) {
        let asked = ordinals.into_iter().filter_map(|ordinal| {
            let pod = self.pods.get(&ordinal)?;
            let control = pod.control().filter(|_| !pod.never_started())?;
            Some(async move { (ordinal, watches.ask(&control).await) }.boxed())
        });
        for (ordinal, answer) in join_all(asked.collect::<Vec<_>>()).await {
            let state = match answer {
                Ok(view) => NodeState::Up(view),
                Err(error) => NodeState::silent(&error),
            };
            let is_silent = state.view().is_none();
            let before = self.nodes.insert(ordinal, state);
            let was_up = before.is_some_and(|before| before.view().is_some());
            self.is_owed_an_answer |= was_up && is_silent;
        }
        self.place_as_planned();
    }

    fn place_as_planned(&mut self) {
        let StoredPlan::Ours { plan, .. } = &self.plan.stored else {
            return;
        };
        for state in self.nodes.values_mut() {
            if let NodeState::Up(view) = state {
                view.place_as_planned(plan);
            }
        }
    }

    /// Whether the mark is written.
    #[must_use]
    pub fn is_bootstrapped(&self) -> bool {
        matches!(
            self.plan.stored,
            StoredPlan::Ours {
                bootstrapped: true,
                ..
            }
        )
    }
}

/// Reads everything.
///
/// # Errors
/// When the plan cannot be read. A node that does not answer is an input, not an error.
pub async fn dereference(
    owner: &Owner,
    children: &Children,
    plans: &PlanStore,
    watches: &Watches,
) -> Result<Inputs, StoreError> {
    let key = ObjectKey::new(&owner.namespace, &owner.name);
    let plan_key = ObjectKey::new(&owner.namespace, names::bootstrap_plan(&owner.name));
    let config_map_key = ObjectKey::new(&owner.namespace, names::config_map(&owner.name));
    let seen_plan = children.config_maps.get(&plan_key);
    let seen_version = seen_plan
        .as_ref()
        .and_then(|object| object.resource_version());
    let plan = plans
        .read(owner, seen_version.as_deref())
        .await
        .map_err(StoreError::Dereference)?;
    let is_marked = matches!(
        plan.stored,
        StoredPlan::Ours {
            bootstrapped: true,
            ..
        }
    );

    let (going, pods): (BTreeMap<_, _>, BTreeMap<_, _>) = all_pods_of(owner, children)
        .into_iter()
        .partition(|(_, pod)| pod.is_terminating());
    let states = pods.iter().map(|(ordinal, pod)| {
        let key = &key;
        async move { (*ordinal, node_state(key, pod, watches, is_marked).await) }.boxed()
    });
    let nodes = join_all(states).await.into_iter().collect();
    let mut inputs = Inputs {
        service: children.services.get(&key),
        config_map: children.config_maps.get(&config_map_key),
        network_policy: children.network_policies.get(&key),
        stateful_set: children.stateful_sets.get(&key),
        budget: children.budgets.get(&key),
        pods,
        has_going_pods: !going.is_empty(),
        plan,
        nodes,
        is_owed_an_answer: false,
    };
    inputs.place_as_planned();
    Ok(inputs)
}

fn all_pods_of(owner: &Owner, children: &Children) -> BTreeMap<u32, Arc<StoragePodView>> {
    // At most 63 look-ups by name, whatever else is in the cache.
    (0..64)
        .filter_map(|ordinal| {
            let name = names::pod(&owner.name, ordinal);
            let pod = children.pods.get(&ObjectKey::new(&owner.namespace, name))?;
            Some((ordinal, pod))
        })
        .collect()
}

/// Before the mark a node is asked anew each time: the bootstrap is decided on fresh answers.
/// After it, what its stream said last is enough.
async fn node_state(
    store: &ObjectKey,
    pod: &StoragePodView,
    watches: &Watches,
    is_marked: bool,
) -> NodeState {
    let Some(control) = pod.control() else {
        return NodeState::Silent("it has no address yet".to_owned());
    };
    let uid = pod.metadata.uid.as_deref().unwrap_or_default();
    let followed = watches.follow(store, uid, &control);
    match followed {
        Some(state) if is_marked => state,
        // Nothing listens before the container runs.
        _ if pod.never_started() => NodeState::Silent("its container has not started".to_owned()),
        _ => match watches.ask(&control).await {
            Ok(view) => NodeState::Up(view),
            Err(error) => NodeState::silent(&error),
        },
    }
}
