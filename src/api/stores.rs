//! The service `Stores`: asks the nodes of a Store what they hold. Works in every replica, since it
//! needs the caches only.

use std::sync::Arc;
use std::time::Duration;

use atomix_proto::multiraft::v1::node_client::NodeClient;
use atomix_proto::multiraft::v1::{GetStatusRequest, GetStatusResponse, TransferLeadershipRequest};
use atomix_proto::operator::v1::stores_server::Stores;
use atomix_proto::operator::v1::{
    GetOperatorRequest, GetOperatorResponse, GetPartitionsRequest, GetPartitionsResponse,
    TransferLeaderRequest, TransferLeaderResponse,
};
use atomix_proto::runtime::v1::StoreId;
use futures::future::join_all;
use kube::core::DeserializeGuard;
use tokio::sync::Semaphore;
use tonic::{Request, Response, Status};

use super::partitions::partitions;
use crate::store::names;
use crate::store::nodes::watches::{NodeState, STATUS_TIMEOUT};
use crate::store::objects::pods::StoragePodView;
use atomix_controller::dialer::Channels;
use atomix_controller::{Cache, ObjectKey};
use atomix_resources::{Store, labels};

/// Calls that ask nodes at the same time; each asks all nodes of a Store.
const CONCURRENCY: usize = 4;

/// How long handing a leadership over may take.
const TRANSFER_TIMEOUT: Duration = Duration::from_secs(10);

/// What the service reads.
pub(crate) struct StoreNodes {
    stores: Cache<DeserializeGuard<Store>>,
    pods: Cache<StoragePodView>,
    channels: Channels,
    places: Arc<Semaphore>,
}

impl StoreNodes {
    pub(crate) fn new(
        stores: &Cache<DeserializeGuard<Store>>,
        pods: &Cache<StoragePodView>,
        channels: &Channels,
    ) -> Self {
        Self {
            stores: stores.clone(),
            pods: pods.clone(),
            channels: channels.clone(),
            places: Arc::new(Semaphore::new(CONCURRENCY)),
        }
    }

    fn check(&self, key: &ObjectKey) -> Result<(), Status> {
        if !self.stores.is_synced() || !self.pods.is_synced() {
            return Err(Status::unavailable(
                "the operator has not read all Stores yet: ask again in a moment",
            ));
        }
        let store = self
            .stores
            .get(key)
            .ok_or_else(|| Status::not_found(format!("Store {key} does not exist")))?;
        let driver = match &store.0 {
            Ok(store) if store.spec.multi_raft.is_some() => return Ok(()),
            Ok(store) => &store.spec.driver.name,
            Err(_) => {
                return Err(Status::failed_precondition(format!(
                    "Store {key} cannot be read: its conditions say why"
                )));
            }
        };
        Err(Status::failed_precondition(format!(
            "Store {key} has no storage nodes: its driver is {driver}"
        )))
    }

    /// The Store's pods, by their ordinals.
    fn pods_of(&self, key: &ObjectKey) -> Vec<Arc<StoragePodView>> {
        let mut pods = self.pods.filter(|pod| {
            let store = pod
                .metadata
                .labels
                .as_ref()
                .and_then(|labels| labels.get(labels::STORE));
            pod.metadata.namespace.as_deref() == Some(&key.namespace) && store == Some(&key.name)
        });
        pods.sort_by_key(|pod| names::ordinal(&key.name, pod.name()));
        pods
    }

    /// Asks the node of the pod that is to lead: any node of a group finds its leader.
    async fn transfer(&self, key: &ObjectKey, partition: u32, to: &str) -> Result<(), Status> {
        let pods = self.pods_of(key);
        let pod = pods.iter().find(|pod| pod.name() == to);
        let pod =
            pod.ok_or_else(|| Status::not_found(format!("{to} is no storage pod of Store {key}")))?;
        let answer = self.ask(pod).await.map_err(|why| {
            Status::failed_precondition(format!("{to} cannot take a leadership over: {why}"))
        })?;
        let mut groups = answer.groups.iter();
        let group = groups.find(|group| group.partition_id == partition);
        let group = group.ok_or_else(|| {
            Status::failed_precondition(format!("{to} has no copy of partition {partition}"))
        })?;
        let control = pod
            .control()
            .ok_or_else(|| Status::unavailable("it has no address"))?;
        let channel = self.channels.get(&control);
        let mut request = Request::new(TransferLeadershipRequest {
            partition_id: partition,
            member_id: group.member_id,
        });
        request.set_timeout(TRANSFER_TIMEOUT);
        NodeClient::new(channel)
            .transfer_leadership(request)
            .await?;
        Ok(())
    }

    async fn ask(&self, pod: &StoragePodView) -> Result<GetStatusResponse, String> {
        let control = pod.control().ok_or("it has no address yet")?;
        let channel = self.channels.get(&control);
        let mut node = NodeClient::new(channel);
        let asked = node.get_status(GetStatusRequest {});
        let answer = match tokio::time::timeout(STATUS_TIMEOUT, asked).await {
            Ok(answer) => answer,
            Err(_) => Err(Status::deadline_exceeded("")),
        };
        match answer {
            Ok(answer) => Ok(answer.into_inner()),
            Err(status) => match NodeState::silent(&status) {
                NodeState::Silent(why) => Err(why),
                NodeState::Unheard | NodeState::Up(_) => Err(status.to_string()),
            },
        }
    }
}

fn key_of(id: Option<StoreId>) -> Result<ObjectKey, Status> {
    match id {
        Some(id) if !id.namespace.is_empty() && !id.name.is_empty() => {
            Ok(ObjectKey::new(id.namespace, id.name))
        }
        _ => Err(Status::invalid_argument(
            "store_id needs a namespace and a name",
        )),
    }
}

#[tonic::async_trait]
impl Stores for StoreNodes {
    async fn get_partitions(
        &self,
        request: Request<GetPartitionsRequest>,
    ) -> Result<Response<GetPartitionsResponse>, Status> {
        let key = key_of(request.into_inner().store_id)?;
        self.check(&key)?;
        let Ok(_place) = self.places.acquire().await else {
            return Err(Status::unavailable("the operator is shutting down"));
        };
        let pods = self.pods_of(&key);
        let asked = pods
            .iter()
            .map(|pod| async { (pod.name().to_owned(), self.ask(pod).await) });
        let answers = join_all(asked).await;
        Ok(Response::new(partitions(&answers)))
    }

    async fn transfer_leader(
        &self,
        request: Request<TransferLeaderRequest>,
    ) -> Result<Response<TransferLeaderResponse>, Status> {
        let request = request.into_inner();
        let key = key_of(request.store_id)?;
        if request.pod.is_empty() || request.partition_id == 0 {
            return Err(Status::invalid_argument(
                "pod names the storage pod that is to lead, and partition_id the partition, from 1",
            ));
        }
        self.check(&key)?;
        self.transfer(&key, request.partition_id, &request.pod)
            .await?;
        Ok(Response::new(TransferLeaderResponse {}))
    }

    async fn get_operator(
        &self,
        _request: Request<GetOperatorRequest>,
    ) -> Result<Response<GetOperatorResponse>, Status> {
        Ok(Response::new(GetOperatorResponse {
            id: self.channels.caller().id(),
        }))
    }
}
