//! Notices that this node's member of a group was removed, though nobody told it: it was down then,
//! or it led and removed itself. Only a leader's word counts, never what this node's own log says.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use atomix_proto::multiraft::v1::Standing;
use atomix_proto::multiraft::v1::members_request::Ask;
use atomix_raft::{PartitionId, Role};
use futures::StreamExt as _;
use futures::stream::FuturesUnordered;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::answer::Answer;
use super::asker::Asker;
use super::join::Joiner;
use crate::hosted::Hosted;
use crate::partition::Partition;

const INTERVAL: Duration = Duration::from_millis(500);
/// Less than this without a leader's message is no reason to ask.
const MIN_SILENCE: Duration = Duration::from_secs(1);
/// A group is not asked about again sooner.
const MIN_GAP: Duration = Duration::from_secs(2);
const ASK_TIMEOUT: Duration = Duration::from_secs(5);
/// Groups that are asked about at once.
const AT_ONCE: usize = 16;

/// Looks at all groups of this node again and again until `shutdown`.
///
/// # Errors
/// None; the signature is that of a supervised task.
pub(crate) async fn watch_standing(
    hosted: Arc<Hosted>,
    asker: Arc<Asker>,
    joiner: Joiner,
    shutdown: CancellationToken,
) -> Result<(), std::convert::Infallible> {
    let mut tick = tokio::time::interval(INTERVAL);
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut asked: BTreeMap<PartitionId, Instant> = BTreeMap::new();
    let looking = async {
        loop {
            let now = tick.tick().await;
            asked.retain(|_, at| now.saturating_duration_since(*at) < MIN_GAP);
            let doubtful = hosted.all().into_iter().filter(|partition| {
                let id = partition.record().partition_id;
                !asked.contains_key(&id) && !joiner.is_joining(id) && is_doubtful(partition)
            });
            let doubtful: Vec<Arc<Partition>> = doubtful.collect();
            let ids = doubtful
                .iter()
                .map(|partition| partition.record().partition_id);
            asked.extend(ids.map(|id| (id, now)));
            for some in doubtful.chunks(AT_ONCE) {
                let asking: FuturesUnordered<_> = some
                    .iter()
                    .map(|partition| check(&hosted, &asker, partition))
                    .collect();
                asking.collect::<()>().await;
            }
        }
    };
    tokio::select! {
        () = looking => {}
        () = shutdown.cancelled() => {}
    }
    Ok(())
}

/// Whether the member may have been removed: no leader talks to it, or its own log says so.
fn is_doubtful(partition: &Partition) -> bool {
    let group = partition.group();
    let record = partition.record();
    let membership = group.applied_membership();
    // One that joins and was not added yet is no member, and is not to be deleted for that.
    if membership.position.is_none() && record.initializer.is_none() {
        return false;
    }
    if group.status().role == Role::Leader {
        return false;
    }
    let silence = (record.timings.election_timeout * 2).max(MIN_SILENCE);
    !membership.contains(record.member_id) || group.since_heard() > silence
}

async fn check(hosted: &Hosted, asker: &Asker, partition: &Partition) {
    let record = partition.record();
    let (partition, member) = (record.partition_id, record.member_id);
    let ask = Ask::Standing(Standing {
        member_id: member.0,
    });
    let answered = asker.ask(record, ask, Instant::now() + ASK_TIMEOUT).await;
    let removed = match answered {
        Ok(answered) => answered.answer == Answer::NoMember && !answered.by_own_member,
        Err(reason) => {
            tracing::debug!(%partition, reason, "nobody says whether this node is a member");
            false
        }
    };
    if removed && let Err(error) = hosted.depart(partition, member).await {
        tracing::error!(%partition, %error, "cannot delete the data of a removed member");
    }
}
