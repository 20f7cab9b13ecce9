//! Looks at where members lie and plans the next changes; how many pods the StatefulSet keeps.
//!
//! What the watches told says whether there is anything to do: at rest nobody is asked. What is to
//! be done is planned on answers that are fresh.

use std::collections::BTreeSet;
use std::time::Duration;

use crate::context::Context;
use crate::store::bootstrap::StoredPlan;
use crate::store::bootstrap::plan_record::Plan;
use crate::store::dereference::Inputs;
use crate::store::error::StoreError;
use crate::store::members::placement::{self, Decision, HeldState, Observed, Seen};
use crate::store::nodes::watches::Watches;
use crate::store::objects::budget::Groups;
use crate::store::objects::build::Owner;
use crate::store::spec::validate::Cluster;
use crate::store::volumes::claims::still_never_bound;
use atomix_controller::Next;

/// How soon something that is waited for is looked at again when no event comes first.
const LOOK: Duration = Duration::from_secs(2);

/// What is to become of the members, and what that was planned on.
#[derive(Debug)]
pub struct Placed {
    /// The plan.
    pub decision: Decision,
    /// What it was planned on.
    pub observed: Observed,
    /// Whose data it is.
    pub plan: Plan,
}

impl Placed {
    /// What leaders told of the sizes of their groups.
    #[must_use]
    pub fn groups(&self) -> Groups {
        let groups = self.observed.groups.values();
        Groups::of(groups.map(|group| group.as_ref().map(|group| group.voters.len())))
    }

    /// Whether members are to be changed now.
    #[must_use]
    pub fn has_actions(&self) -> bool {
        !self.decision.actions.is_empty()
    }

    /// When to look again if nothing is changed now.
    #[must_use]
    pub fn next(&self, cluster: &Cluster) -> Next {
        let keeps_pods = self.decision.replicas != cluster.replicas;
        if self.decision.asks_for_a_look() || keeps_pods {
            Next::After(LOOK)
        } else {
            Next::OnChange
        }
    }
}

/// Plans changes of the members of a Store.
#[derive(Debug)]
pub struct Placer<'a> {
    /// Clients and channels.
    pub context: &'a Context,
    /// The Store.
    pub owner: &'a Owner,
    /// Its validated spec.
    pub cluster: &'a Cluster,
    /// Through which nodes are asked.
    pub watches: &'a Watches,
    /// Ordinals whose claims have never had a volume, as last seen.
    pub never_bound: BTreeSet<u32>,
}

impl Placer<'_> {
    /// Plans; asks all nodes anew when there is something to do, unless `is_paused`. `None` before
    /// the mark.
    ///
    /// # Errors
    /// When the API server does not tell of the StatefulSet.
    pub async fn place(
        &self,
        inputs: &mut Inputs,
        is_paused: bool,
    ) -> Result<Option<Placed>, StoreError> {
        let StoredPlan::Ours {
            plan,
            bootstrapped: true,
        } = inputs.plan.stored.clone()
        else {
            return Ok(None);
        };
        let leaders = inputs.views();
        let without_disk = self.without_disk(inputs);
        let observed = self.see(&plan, inputs, &leaders, None, &without_disk);
        let decision = self.decide(&observed);
        let live = inputs.live_replicas();
        let is_sized = live == self.cluster.replicas && live == decision.replicas;
        if is_paused || (is_sized && !decision.asks_for_a_look()) {
            return Ok(Some(placed(decision, observed, *plan)));
        }

        inputs
            .refresh(self.context, self.owner, self.watches)
            .await?;
        // After the answers: a member that they tell of was on an earlier claim than one that has no
        // volume now.
        let without_disk = still_never_bound(self.context, self.owner, &without_disk).await?;
        let limit = Some(contact_limit(&plan));
        let leaders = inputs.views();
        let observed = self.see(&plan, inputs, &leaders, limit, &without_disk);
        // What a node has begun must be newer than what the leader knows: else a member that was
        // removed in between would look like one that is yet to come.
        let begun = nodes_with_a_begun_join(&observed);
        if begun.is_empty() {
            return Ok(Some(placed(self.decide(&observed), observed, *plan)));
        }
        inputs.ask(begun, self.watches).await;
        let observed = self.see(&plan, inputs, &leaders, limit, &without_disk);
        Ok(Some(placed(self.decide(&observed), observed, *plan)))
    }

    /// Ordinals that have no disk until a machine takes their pods.
    fn without_disk(&self, inputs: &Inputs) -> BTreeSet<u32> {
        let waiting = inputs.pods.iter();
        let waiting = waiting.filter(|(_, pod)| pod.is_unschedulable());
        let waiting: BTreeSet<u32> = waiting.map(|(ordinal, _)| *ordinal).collect();
        waiting.intersection(&self.never_bound).copied().collect()
    }

    fn see(
        &self,
        plan: &Plan,
        inputs: &Inputs,
        leaders: &std::collections::BTreeMap<u32, crate::store::NodeView>,
        contact_limit: Option<Duration>,
        without_disk: &BTreeSet<u32>,
    ) -> Observed {
        let seen = Seen {
            store: &self.owner.name,
            plan,
            leaders,
            holders: &inputs.views(),
            zones: &inputs.zones(),
            without_disk,
            live_replicas: inputs.live_replicas(),
            contact_limit,
        };
        seen.observed()
    }

    fn decide(&self, observed: &Observed) -> Decision {
        let desired = placement::Desired {
            replicas: self.cluster.replicas,
            replication_factor: self.cluster.replication_factor,
        };
        placement::plan(&desired, observed, &mut mint)
    }
}

fn placed(decision: Decision, observed: Observed, plan: Plan) -> Placed {
    Placed {
        decision,
        observed,
        plan,
    }
}

/// 63 random bits, never 0: that means "none" on the wire.
fn mint() -> u64 {
    (rand::random::<u64>() >> 1).max(1)
}

/// A follower that has not answered for two election timeouts is not counted on.
fn contact_limit(plan: &Plan) -> Duration {
    Duration::from_millis(plan.election_timeout_millis.saturating_mul(2))
}

fn nodes_with_a_begun_join(observed: &Observed) -> Vec<u32> {
    let mut ordinals = BTreeSet::new();
    for (ordinal, node) in &observed.nodes {
        let is_begun = node.held.iter().any(|(partition, held)| {
            let group = observed.groups.get(partition).and_then(Option::as_ref);
            held.state == HeldState::Joining
                && group.is_some_and(|group| !group.has(held.member_id))
        });
        if is_begun {
            ordinals.insert(*ordinal);
        }
    }
    ordinals.into_iter().collect()
}

/// How many pods there are before the mark: those of the plan, which all take part.
#[must_use]
pub fn pods_before_the_mark(cluster: &Cluster, inputs: &Inputs, was_bootstrapped: bool) -> u32 {
    match &inputs.plan.stored {
        StoredPlan::Ours { plan, .. } => {
            let planned = u32::try_from(plan.nodes.len()).unwrap_or(u32::MAX);
            cluster.replicas.max(planned)
        }
        StoredPlan::Absent | StoredPlan::OfEarlierStore if !was_bootstrapped => cluster.replicas,
        StoredPlan::Absent
        | StoredPlan::OfEarlierStore
        | StoredPlan::NameTaken(_)
        | StoredPlan::Damaged(_) => cluster.replicas.max(inputs.live_replicas()),
    }
}
