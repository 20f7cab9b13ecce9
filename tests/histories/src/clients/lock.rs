//! Locks: each client has a connection of its own, to which a lock belongs.

use std::sync::Arc;
use std::time::Duration;

use atomix_proto::runtime::lock::v1::lock_client::LockClient;
use atomix_proto::runtime::lock::v1::{GetLockRequest, LockRequest, UnlockRequest};
use rand::Rng as _;
use tonic::transport::Channel;

use super::call::{Asked, Told, within};
use super::{Client, id};
use crate::history::{Arguments, Object, Reply};

/// How often a lock is given back whose sidecar is not connected with the store.
const ATTEMPTS: u32 = 100;
const BETWEEN_ATTEMPTS: Duration = Duration::from_millis(50);

/// Looks at the lock, or takes it, holds it, and gives it back.
pub(super) async fn step(
    client: &mut Client,
    channel: Channel,
    object: &Arc<Object>,
) -> anyhow::Result<()> {
    if client.random.random_bool(0.2) {
        look(client, channel, object).await?;
        return Ok(());
    }
    client.will_own(object);
    match lock(client, channel.clone(), object).await? {
        Told::Answered(_) => hold_and_release(client, channel, object).await,
        Told::Refused | Told::Failed => {
            client.owns.clear();
            Ok(())
        }
        // It is another client now, and what it may have is lost.
        Told::Unknown => Ok(()),
    }
}

async fn hold_and_release(
    client: &mut Client,
    channel: Channel,
    object: &Object,
) -> anyhow::Result<()> {
    let held = client.random.random_range(0..=20);
    tokio::time::sleep(Duration::from_millis(held)).await;
    if client.random.random_bool(0.3) {
        let told = look(client, channel.clone(), object).await?;
        if matches!(told, Told::Unknown) {
            return Ok(());
        }
    }
    match release(client, channel, object).await? {
        Told::Answered(_) | Told::Refused => client.owns.clear(),
        Told::Failed => client.become_another()?,
        Told::Unknown => {}
    }
    Ok(())
}

/// Tries for a while.
async fn release(client: &mut Client, channel: Channel, object: &Object) -> anyhow::Result<Told> {
    for _ in 1..ATTEMPTS {
        let told = unlock(client, channel.clone(), object).await?;
        if !matches!(told, Told::Failed) {
            return Ok(told);
        }
        tokio::time::sleep(BETWEEN_ATTEMPTS).await;
    }
    unlock(client, channel, object).await
}

async fn lock(client: &mut Client, channel: Channel, object: &Object) -> anyhow::Result<Told> {
    let wait: u16 = match client.random.random_range(0..4) {
        0 => 0,
        1 => client.random.random_range(1..=300),
        _ => 2_000,
    };
    let wait = Duration::from_millis(wait.into());
    let id = id(object);
    let patience = client.patience() + wait / 2;
    let answer = async move {
        let timeout = wait.try_into().ok();
        let request = within(patience, LockRequest { id, timeout });
        let answer = LockClient::new(channel).lock(request).await?;
        Ok(reply(answer.into_inner().version))
    };
    let mut asked = asked(object, "Lock");
    asked.arguments.number = i64::try_from(wait.as_millis()).ok();
    client.call(asked, patience, answer).await
}

async fn unlock(client: &mut Client, channel: Channel, object: &Object) -> anyhow::Result<Told> {
    let id = id(object);
    let patience = client.patience();
    let answer = async move {
        let request = within(patience, UnlockRequest { id });
        LockClient::new(channel).unlock(request).await?;
        Ok(Reply::default())
    };
    client.call(asked(object, "Unlock"), patience, answer).await
}

/// Asks for the version of the present grant.
pub(super) async fn look(
    client: &mut Client,
    channel: Channel,
    object: &Object,
) -> anyhow::Result<Told> {
    let id = id(object);
    let patience = client.patience();
    let answer = async move {
        let request = within(patience, GetLockRequest { id });
        let answer = LockClient::new(channel).get_lock(request).await?;
        Ok(reply(answer.into_inner().version))
    };
    client
        .call(asked(object, "GetLock"), patience, answer)
        .await
}

fn asked<'a>(object: &'a Object, method: &'static str) -> Asked<'a> {
    Asked {
        object,
        key: "",
        method,
        arguments: Arguments::default(),
    }
}

fn reply(version: u64) -> Reply {
    Reply {
        version: Some(version),
        ..Reply::default()
    }
}
