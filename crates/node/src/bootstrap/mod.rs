//! Bootstrap: creates this node's members of new partitions, once.

mod decision;
pub(crate) mod plan;
#[cfg(test)]
mod tests;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use atomix_proto::multiraft::v1::plans_client::PlansClient;
use atomix_proto::multiraft::v1::plans_server::Plans;
use atomix_proto::multiraft::v1::{
    BootstrapRequest, HeldPlan as HeldPlanMessage, ListPlansRequest, ListPlansResponse,
};
use atomix_raft::{NodeId, PartitionId};
use tonic::transport::Endpoint;
use tonic::{Request, Response, Status};

use crate::hosted::Hosted;
use crate::reach::Reach;
use decision::{HeldPlan, PeerReport, Refusal};
use plan::BootstrapPlan;

/// How long a peer has to say what it holds; one that does not answer is not reachable.
const PEER_TIMEOUT: Duration = Duration::from_secs(2);
/// How much of it connecting may take.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);

/// Carries out Bootstraps, one at a time.
pub(crate) struct Bootstrapper {
    hosted: Arc<Hosted>,
    reach: Reach,
}

impl Bootstrapper {
    pub(crate) fn new(hosted: Arc<Hosted>, reach: Reach) -> Self {
        Self { hosted, reach }
    }

    /// Creates and starts the groups of the plan that do not exist here yet.
    ///
    /// # Errors
    /// INVALID_ARGUMENT naming the field; FAILED_PRECONDITION or ALREADY_EXISTS with what stands
    /// against the plan; INTERNAL when the disk fails.
    pub(crate) async fn bootstrap(&self, request: &BootstrapRequest) -> Result<(), Status> {
        let plan = BootstrapPlan::parse(request)
            .map_err(|error| Status::invalid_argument(error.to_string()))?;
        let _one = self.hosted.one_at_a_time().await;

        let held: Vec<HeldPlan> = self.hosted.records().iter().map(HeldPlan::from).collect();
        let work = decision::judge_own(&plan, self.hosted.node_id(), &held).map_err(refused)?;
        if !work.create.is_empty() {
            let peers = self.ask_peers(&plan).await;
            decision::judge_peers(&plan, &peers).map_err(refused)?;
        }

        for partition in work.delete {
            tracing::info!(%partition, "deletes a group of an older incarnation");
            self.hosted.delete(partition).await.map_err(internal)?;
        }
        // All of them are stored before any of them runs.
        for partition in &work.create {
            if let Some(record) = plan.partitions.get(partition) {
                self.hosted.store(record).await.map_err(internal)?;
            }
        }
        for (partition, record) in plan.partitions {
            // Stored by an earlier Bootstrap that was interrupted, or just now.
            self.hosted.run(record).await.map_err(internal)?;
            if work.create.contains(&partition) {
                tracing::info!(%partition, "created this node's member of a partition");
            }
        }
        Ok(())
    }

    /// What the reachable members of the plan hold.
    async fn ask_peers(&self, plan: &BootstrapPlan) -> Vec<PeerReport> {
        let records = plan.partitions.values();
        let members: BTreeSet<(NodeId, &str)> = records
            .flat_map(|record| record.members.values())
            .filter(|member| member.node_id != plan.node_id)
            .map(|member| (member.node_id, member.address.as_str()))
            .collect();
        let asking = members.into_iter().map(|(node_id, address)| async move {
            match tokio::time::timeout(PEER_TIMEOUT, self.ask_peer(node_id, address)).await {
                Ok(Ok(report)) => Some(report),
                Ok(Err(reason)) => {
                    tracing::info!(
                        address,
                        reason,
                        "a member's node cannot be asked for its plans"
                    );
                    None
                }
                Err(_) => {
                    tracing::info!(address, "a member's node did not tell its plans in time");
                    None
                }
            }
        });
        let answers = futures::future::join_all(asking).await;
        answers.into_iter().flatten().collect()
    }

    /// What one node holds. Another node that sits at its address now does not count: what that one
    /// holds says nothing about this plan.
    async fn ask_peer(&self, node_id: NodeId, address: &str) -> Result<PeerReport, String> {
        let settings = |endpoint: Endpoint| endpoint.connect_timeout(CONNECT_TIMEOUT);
        let channel = self.reach.connect(address, settings).await?;
        let answer = PlansClient::new(channel)
            .list_plans(ListPlansRequest {})
            .await
            .map_err(|status| status.to_string())?;
        let answer = answer.into_inner();
        if answer.node_id != node_id.0 {
            return Err(format!(
                "node {:016x} answers there now, not {:016x}",
                answer.node_id, node_id.0
            ));
        }
        let plans = answer.plans.into_iter();
        Ok(PeerReport {
            address: address.to_owned(),
            held: plans
                .map(|plan| HeldPlan {
                    partition: PartitionId(plan.partition_id),
                    store_uid: plan.store_uid,
                    incarnation: plan.incarnation,
                    digest: plan.digest,
                    joined: plan.joined,
                })
                .collect(),
        })
    }
}

fn refused(refusal: Refusal) -> Status {
    match refusal {
        Refusal::Joined { .. } => Status::already_exists(refusal.to_string()),
        _ => Status::failed_precondition(refusal.to_string()),
    }
}

fn internal(error: impl std::fmt::Display) -> Status {
    tracing::error!(%error, "a bootstrap failed");
    Status::internal(error.to_string())
}

/// Tells other nodes what this one holds.
pub(crate) struct PlansService {
    pub(crate) hosted: Arc<Hosted>,
}

#[tonic::async_trait]
impl Plans for PlansService {
    async fn list_plans(
        &self,
        _request: Request<ListPlansRequest>,
    ) -> Result<Response<ListPlansResponse>, Status> {
        let held = self.hosted.records();
        let plans = held.iter().map(|record| HeldPlanMessage {
            partition_id: record.partition_id.0,
            store_uid: record.store_uid.clone(),
            incarnation: record.incarnation,
            digest: record.plan_digest.clone(),
            joined: record.initializer.is_none(),
        });
        Ok(Response::new(ListPlansResponse {
            node_id: self.hosted.node_id().0,
            plans: plans.collect(),
        }))
    }
}
