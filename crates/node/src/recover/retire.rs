//! Tells the former members of a recovered group, should they come back, that they are none.
//!
//! One that comes back alone elects nobody and learns it by itself (`members::standing`). A majority
//! of them would go on as if nothing had happened: its nodes are told to delete it.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use atomix_proto::multiraft::v1::members_request::Ask;
use atomix_proto::multiraft::v1::{MembersRequest, Retirement};
use atomix_raft::{GroupRecord, PartitionId};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tonic::Code;

use crate::hosted::Hosted;
use crate::members::{Answer, Asker};

const INTERVAL: Duration = Duration::from_secs(1);
const PATIENCE: Duration = Duration::from_secs(5);
/// An address where nobody answers is asked again later and later, up to this.
const LONGEST_PAUSE: Duration = Duration::from_secs(30);

/// When an address is asked again; `None` = it has answered that no former member is there.
type Asked = HashMap<(PartitionId, String), Option<(Instant, Duration)>>;

/// Tells them until `shutdown`.
///
/// # Errors
/// None; the signature is that of a supervised task.
pub(crate) async fn retire_former(
    hosted: Arc<Hosted>,
    asker: Arc<Asker>,
    shutdown: CancellationToken,
) -> Result<(), std::convert::Infallible> {
    let mut tick = tokio::time::interval(INTERVAL);
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut asked = Asked::new();
    let telling = async {
        loop {
            tick.tick().await;
            for record in hosted.records() {
                tell(&hosted, &asker, &record, &mut asked).await;
            }
        }
    };
    tokio::select! {
        () = telling => {}
        () = shutdown.cancelled() => {}
    }
    Ok(())
}

async fn tell(hosted: &Hosted, asker: &Asker, record: &GroupRecord, asked: &mut Asked) {
    let partition = record.partition_id;
    let mut by_address: BTreeMap<String, Vec<u64>> = BTreeMap::new();
    for (member, address) in hosted.former_members(partition).members {
        by_address
            .entry(address.address)
            .or_default()
            .push(member.0);
    }
    for (address, member_ids) in by_address {
        let key = (partition, address.clone());
        let now = Instant::now();
        let pause = match asked.get(&key) {
            None => INTERVAL,
            Some(None) => continue,
            Some(Some((next, _))) if *next > now => continue,
            Some(Some((_, pause))) => (*pause * 2).min(LONGEST_PAUSE),
        };
        let request = MembersRequest {
            store_uid: record.store_uid.clone(),
            incarnation: record.incarnation,
            partition_id: partition.0,
            ask: Some(Ask::Retire(Retirement { member_ids })),
        };
        let answered = asker.ask_node(&address, request, now + PATIENCE).await;
        let is_told = match answered {
            Ok(Answer::NoMember) => true,
            Ok(Answer::Refused { code, .. }) => code == Code::NotFound,
            Ok(_) => false,
            Err(reason) => {
                tracing::debug!(%partition, address, reason, "a former member is not told");
                false
            }
        };
        asked.insert(key, (!is_told).then_some((now + pause, pause)));
    }
}
