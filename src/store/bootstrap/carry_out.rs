//! Carries out what `bootstrap` decided: writes the plan, sends it to the nodes, marks it.

use std::time::Duration;

use atomix_proto::multiraft::v1::node_client::NodeClient;
use futures::FutureExt as _;
use futures::future::join_all;

use crate::context::Context;
use crate::store::bootstrap::plan_record::Plan;
use crate::store::bootstrap::plan_store::{PlanStore, ReadPlan};
use crate::store::bootstrap::{Action, Decision, Desired, Phase, StoredPlan, decide};
use crate::store::dereference::Inputs;
use crate::store::error::StoreError;
use crate::store::names;
use crate::store::objects::build::Owner;
use crate::store::spec::validate::Cluster;
use atomix_controller::{ApplyError, Next, ObjectKey};

/// How long a node may take to accept its part of the plan.
const BOOTSTRAP_TIMEOUT: Duration = Duration::from_secs(10);

/// How soon an unfinished bootstrap is looked at again when no event comes first.
const BOOTSTRAP_LOOK: Duration = Duration::from_millis(500);

/// How soon a pass that needs new answers, or was overtaken by another operator, is repeated.
const AGAIN: Duration = Duration::from_millis(20);

/// What a pass did about the bootstrap, and where it left it.
#[derive(Debug)]
pub struct Outcome {
    /// Where the bootstrap stands.
    pub phase: Phase,
    /// When to look again if nothing changes.
    pub next: Next,
    /// What was done, for people.
    pub events: Vec<Announcement>,
    /// What ended the pass early.
    pub error: Option<StoreError>,
}

/// A step that succeeded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Announcement {
    /// CamelCase reason of the event.
    pub reason: &'static str,
    /// What was done, CamelCase.
    pub action: &'static str,
    /// Sentence for people.
    pub note: String,
}

impl Outcome {
    /// Nothing was done.
    #[must_use]
    pub fn at(phase: Phase) -> Self {
        Self {
            phase,
            next: Next::OnChange,
            events: Vec::new(),
            error: None,
        }
    }

    /// The pass ended before anything was done about the bootstrap.
    #[must_use]
    pub fn stopped(phase: Phase, error: StoreError) -> Self {
        Self {
            error: Some(error),
            ..Self::at(phase)
        }
    }
}

/// What the actions of one decision came to.
enum Step {
    Nothing,
    PlanWritten(Announcement),
    /// Another operator was first.
    Overtaken,
    Sent,
    Marked(Announcement),
}

/// Bootstraps one Store.
#[derive(Debug)]
pub struct Bootstrapper<'a> {
    /// Clients and channels.
    pub context: &'a Context,
    /// Access to the plan.
    pub plans: &'a PlanStore,
    /// The Store.
    pub owner: &'a Owner,
    /// Its validated spec.
    pub cluster: &'a Cluster,
    /// What it asks for.
    pub desired: &'a Desired,
    /// Whether the status says that the mark was written once.
    pub was_bootstrapped: bool,
}

impl Bootstrapper<'_> {
    /// What to do about what was read.
    #[must_use]
    pub fn decide(&self, inputs: &Inputs) -> Decision {
        let observed = inputs.observed(self.cluster, self.was_bootstrapped);
        decide(self.desired, &observed, &mut mint)
    }

    /// Carries a decision out; the next pass decides anew.
    pub async fn carry_out(&self, inputs: &mut Inputs, decision: Decision) -> Outcome {
        let Decision {
            mut actions,
            mut phase,
        } = decision;
        let mut events = Vec::new();
        if let Phase::NameTaken(owner) = &phase {
            let error = self.name_taken(owner);
            return Outcome::stopped(phase, error);
        }
        // At most: make the plan, then send it. Anything after that needs new answers.
        for _ in 0..2 {
            let next = match self.step(inputs, actions).await {
                Err(error) => {
                    return Outcome {
                        events,
                        ..Outcome::stopped(phase, error)
                    };
                }
                Ok(Step::PlanWritten(event)) => {
                    events.push(event);
                    Decision { actions, phase } = self.decide(inputs);
                    continue;
                }
                Ok(Step::Marked(event)) => {
                    events.push(event);
                    phase = Phase::Done;
                    Next::OnChange
                }
                Ok(Step::Overtaken | Step::Sent) => Next::After(AGAIN),
                Ok(Step::Nothing) => next_look(&phase),
            };
            return Outcome {
                phase,
                next,
                events,
                error: None,
            };
        }
        Outcome {
            next: next_look(&phase),
            events,
            ..Outcome::at(phase)
        }
    }

    fn name_taken(&self, by: &str) -> StoreError {
        let name = names::bootstrap_plan(&self.owner.name);
        StoreError::Apply(ApplyError::NotOurs {
            kind: "ConfigMap".to_owned(),
            key: ObjectKey::new(&self.owner.namespace, name),
            owner: by.to_owned(),
        })
    }

    async fn step(&self, inputs: &mut Inputs, actions: Vec<Action>) -> Result<Step, StoreError> {
        let mut ordinals = Vec::new();
        for action in actions {
            match action {
                Action::Bootstrap { ordinal } => ordinals.push(ordinal),
                Action::CreatePlan(plan) => {
                    let written = self.plans.create(self.owner, &plan, false).await;
                    return self.plan_written(inputs, written.map_err(StoreError::Plan)?);
                }
                Action::AdoptPlan(plan) => {
                    let written = self.plans.create(self.owner, &plan, true).await;
                    return self.adopted(inputs, written.map_err(StoreError::Plan)?);
                }
                Action::ReplacePlan(plan) => {
                    let plans = self.plans;
                    let written = plans.replace(self.owner, &inputs.plan, &plan, false).await;
                    return self.plan_written(inputs, written.map_err(StoreError::Plan)?);
                }
                Action::MarkBootstrapped => return self.mark(inputs).await,
            }
        }
        let StoredPlan::Ours { plan, .. } = &inputs.plan.stored else {
            return Ok(Step::Nothing);
        };
        if ordinals.is_empty() {
            return Ok(Step::Nothing);
        }
        send_plan(self.context, inputs, plan, &ordinals).await?;
        Ok(Step::Sent)
    }

    fn plan_written(
        &self,
        inputs: &mut Inputs,
        written: Option<ReadPlan>,
    ) -> Result<Step, StoreError> {
        let Some(written) = written else {
            return Ok(Step::Overtaken);
        };
        inputs.plan = written;
        let StoredPlan::Ours { plan, .. } = &inputs.plan.stored else {
            return Ok(Step::Nothing);
        };
        let count = plan.partitions.len();
        Ok(Step::PlanWritten(Announcement {
            reason: "BootstrapPlanned",
            action: "WritePlan",
            note: format!(
                "planned {count} partitions, incarnation {}",
                plan.incarnation
            ),
        }))
    }

    fn adopted(&self, inputs: &mut Inputs, written: Option<ReadPlan>) -> Result<Step, StoreError> {
        let Some(written) = written else {
            return Ok(Step::Overtaken);
        };
        inputs.plan = written;
        let StoredPlan::Ours { plan, .. } = &inputs.plan.stored else {
            return Ok(Step::Nothing);
        };
        Ok(Step::Marked(Announcement {
            reason: "DataAdopted",
            action: "WritePlan",
            note: format!(
                "found {} partitions of store {} on the disks and goes on with them",
                plan.partitions.len(),
                plan.store_uid
            ),
        }))
    }

    async fn mark(&self, inputs: &mut Inputs) -> Result<Step, StoreError> {
        let StoredPlan::Ours { plan, .. } = &inputs.plan.stored else {
            return Ok(Step::Nothing);
        };
        let written = self
            .plans
            .replace(self.owner, &inputs.plan, plan, true)
            .await;
        let note = format!("all {} partitions have committed", plan.partitions.len());
        let Some(written) = written.map_err(StoreError::Plan)? else {
            return Ok(Step::Overtaken);
        };
        inputs.plan = written;
        Ok(Step::Marked(Announcement {
            reason: "Bootstrapped",
            action: "MarkBootstrapped",
            note,
        }))
    }
}

fn mint() -> u64 {
    rand::random()
}

fn next_look(phase: &Phase) -> Next {
    match phase {
        Phase::Bootstrapping { .. } => Next::After(BOOTSTRAP_LOOK),
        Phase::WaitingForNodes(_)
        | Phase::WaitingForEarlierPlan
        | Phase::NameTaken(_)
        | Phase::Done
        | Phase::ExistingData(_)
        | Phase::Unadoptable(_)
        | Phase::PlanMissing
        | Phase::PlanDamaged(_) => Next::OnChange,
    }
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
        let channel = context.channels.get(&pod.control()?);
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
