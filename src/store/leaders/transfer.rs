//! Hands leaderships over, not too often.

use std::collections::HashMap;
use std::time::Duration;

use atomix_proto::multiraft::v1::TransferLeadershipRequest;
use atomix_proto::multiraft::v1::node_client::NodeClient;
use futures::FutureExt as _;
use futures::future::join_all;
use parking_lot::Mutex;
use tokio::time::Instant;
use tonic::Request;

use super::Transfer;
use crate::context::Context;
use crate::store::bootstrap::carry_out::Announcement;
use crate::store::dereference::Inputs;
use crate::store::names;
use crate::store::objects::build::Owner;
use atomix_controller::ObjectKey;

/// How long a node may take to hand one over.
const TIMEOUT: Duration = Duration::from_secs(5);

/// Between two rounds of one Store.
const BETWEEN_ROUNDS: Duration = Duration::from_secs(1);

/// Before the same leadership is handed over again: one that does not stay where it was put is not
/// chased.
const BEFORE_AGAIN: Duration = Duration::from_secs(60);

/// When leaderships were handed over last.
#[derive(Debug, Default)]
pub struct Pace {
    stores: Mutex<HashMap<ObjectKey, Past>>,
}

#[derive(Debug, Default)]
struct Past {
    round: Option<Instant>,
    partitions: HashMap<u32, Instant>,
}

impl Pace {
    /// Those of the transfers that may be made now, and how long to wait for the next of them;
    /// `None` = there is none to wait for.
    #[must_use]
    pub fn due(
        &self,
        store: &ObjectKey,
        transfers: Vec<Transfer>,
    ) -> (Vec<Transfer>, Option<Duration>) {
        let now = Instant::now();
        let stores = self.stores.lock();
        let Some(past) = stores.get(store) else {
            return (transfers, None);
        };
        let left = |since: Instant, limit: Duration| limit.checked_sub(now - since);
        if let Some(left) = past.round.and_then(|round| left(round, BETWEEN_ROUNDS))
            && !transfers.is_empty()
        {
            return (Vec::new(), Some(left));
        }
        let rests = |transfer: &Transfer| {
            let last = past.partitions.get(&transfer.partition)?;
            left(*last, BEFORE_AGAIN)
        };
        let wait = transfers.iter().filter_map(rests).min();
        let due = transfers
            .into_iter()
            .filter(|transfer| rests(transfer).is_none());
        (due.collect(), wait)
    }

    /// To be called before transfers are made.
    pub fn note(&self, store: &ObjectKey, transfers: &[Transfer]) {
        let now = Instant::now();
        let mut stores = self.stores.lock();
        let past = stores.entry(store.clone()).or_default();
        past.round = Some(now);
        past.partitions
            .retain(|_, since| now - *since < BEFORE_AGAIN);
        let partitions = transfers.iter().map(|transfer| (transfer.partition, now));
        past.partitions.extend(partitions);
    }

    /// To be called when a Store is gone.
    pub fn forget(&self, store: &ObjectKey) {
        self.stores.lock().remove(store);
    }
}

/// Hands leaderships of one Store over.
#[derive(Debug)]
pub struct Transferrer<'a> {
    /// Channels.
    pub context: &'a Context,
    /// The Store.
    pub owner: &'a Owner,
    /// The pods.
    pub inputs: &'a Inputs,
}

impl Transferrer<'_> {
    /// Hands these over, all at once. A refusal is no failure: a leader that does not go serves as
    /// well.
    pub async fn transfer(&self, transfers: &[Transfer]) -> Option<Announcement> {
        let calls = transfers
            .iter()
            .map(|transfer| self.transfer_one(transfer).boxed());
        let done: Vec<String> = join_all(calls).await.into_iter().flatten().collect();
        (!done.is_empty()).then(|| Announcement {
            reason: "LeadersSpread",
            action: "TransferLeadership",
            note: format!("leaders lay unevenly: {}", done.join(", ")),
        })
    }

    async fn transfer_one(&self, transfer: &Transfer) -> Option<String> {
        let pod = self.inputs.pods.get(&transfer.from)?;
        let mut client = NodeClient::new(self.context.channels.get(&pod.control()?));
        let mut request = Request::new(TransferLeadershipRequest {
            partition_id: transfer.partition,
            member_id: transfer.member,
        });
        request.set_timeout(TIMEOUT);
        let call = client.transfer_leadership(request);
        let (store, partition) = (&self.owner.name, transfer.partition);
        let to = names::pod(store, transfer.to);
        match tokio::time::timeout(TIMEOUT + Duration::from_secs(1), call).await {
            Ok(Ok(_)) => Some(format!("partition {partition} is led by {to} now")),
            Ok(Err(status)) => {
                tracing::debug!(store, partition, %to, %status, "a leadership stays");
                None
            }
            Err(_elapsed) => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn rounds_keep_a_distance_and_a_leadership_that_comes_back_is_not_chased() {
        let pace = Pace::default();
        let store = ObjectKey::new("garden", "tulip");
        let transfer = |partition| Transfer {
            partition,
            from: 0,
            to: 1,
            member: 9,
        };
        let (one, two) = (transfer(1), transfer(2));
        assert_eq!(
            pace.due(&store, vec![one.clone()]),
            (vec![one.clone()], None)
        );
        pace.note(&store, std::slice::from_ref(&one));
        assert_eq!(pace.due(&store, Vec::new()), (Vec::new(), None));
        let (now, wait) = pace.due(&store, vec![two.clone()]);
        assert!(now.is_empty() && wait.is_some_and(|wait| wait <= BETWEEN_ROUNDS));
        tokio::time::advance(BETWEEN_ROUNDS * 2).await;
        let (now, wait) = pace.due(&store, vec![one.clone(), two.clone()]);
        assert_eq!(now, [two]);
        assert!(wait.is_some_and(|wait| wait > BETWEEN_ROUNDS));
        tokio::time::advance(BEFORE_AGAIN).await;
        assert_eq!(pace.due(&store, vec![one.clone()]), (vec![one], None));
    }
}
