//! The first part of an orderly end: other nodes take over what this one leads.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use atomix_raft::{MemberId, Role};
use futures::future::join_all;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::hosted::Hosted;
use crate::partition::Partition;

/// How long a node that is to end goes on for the sake of its groups.
const PATIENCE: Duration = Duration::from_secs(10);
const PAUSE: Duration = Duration::from_millis(50);

/// Waits for `shutdown`, hands every leadership to a voter that is caught up, and then cancels
/// `stop`, which ends everything else. Whoever cancels `stop` before ends it, too.
///
/// # Errors
/// None; the signature is that of a supervised task.
pub(crate) async fn drain_at_shutdown(
    hosted: Arc<Hosted>,
    shutdown: CancellationToken,
    stop: CancellationToken,
) -> Result<(), std::convert::Infallible> {
    let drain = async {
        shutdown.cancelled().await;
        let deadline = Instant::now() + PATIENCE;
        let partitions = hosted.all();
        let draining = partitions
            .iter()
            .map(|partition| hand_over(partition, deadline));
        join_all(draining).await;
    };
    tokio::select! {
        () = drain => stop.cancel(),
        () = stop.cancelled() => {}
    }
    Ok(())
}

/// Hands one leadership over. Ends when this member does not lead, or there is nobody to lead
/// instead.
async fn hand_over(partition: &Partition, deadline: Instant) {
    let group = partition.group();
    let record = partition.record();
    loop {
        let status = group.status();
        if status.role != Role::Leader {
            return;
        }
        let others: BTreeSet<MemberId> = status
            .voters
            .into_iter()
            .filter(|voter| *voter != record.member_id)
            .collect();
        if others.is_empty() {
            return;
        }
        match group.hand_over(&others, deadline).await {
            Ok(()) => return,
            Err(error) if Instant::now() >= deadline => {
                let partition = record.partition_id;
                tracing::warn!(%partition, %error, "nobody takes the leadership over");
                return;
            }
            Err(error) => {
                tracing::debug!(partition = %record.partition_id, %error, "tries again");
                tokio::time::sleep(PAUSE).await;
            }
        }
    }
}
