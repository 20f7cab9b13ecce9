//! Maps: a few keys, which lie in several partitions.

use std::time::Duration;

use atomix_proto::runtime::map::v1::map_client::MapClient;
use atomix_proto::runtime::map::v1::{
    GetRequest, InsertRequest, PutRequest, RemoveRequest, UpdateRequest, VersionedValue,
};
use atomix_proto::runtime::v1::PrimitiveId;
use rand::Rng as _;
use tonic::Status;
use tonic::transport::Channel;

use super::call::{Asked, Told, within};
use super::{Client, KEYS, id};
use crate::history::{Arguments, Object, Reply, Versioned};

#[derive(Debug, Clone, Copy)]
enum Method {
    Put,
    Insert,
    Update,
    Remove,
    Get,
}

pub(super) async fn step(
    client: &mut Client,
    channel: Channel,
    object: &Object,
) -> anyhow::Result<()> {
    let key = client.any_key();
    let method = match client.random.random_range(0..10) {
        0..3 => Method::Put,
        3 => Method::Insert,
        4..6 => Method::Update,
        6 => Method::Remove,
        _ => Method::Get,
    };
    let told = call(client, channel, object, key, method).await?;
    let version = told.reply().and_then(|reply| reply.version);
    client.saw_version(key, version);
    Ok(())
}

/// Whether all keys could be read.
pub(super) async fn read(
    client: &mut Client,
    channel: Channel,
    object: &Object,
) -> anyhow::Result<bool> {
    for key in KEYS {
        let told = call(client, channel.clone(), object, key, Method::Get).await?;
        if !matches!(told, Told::Answered(_) | Told::Refused) {
            return Ok(false);
        }
    }
    Ok(true)
}

async fn call(
    client: &mut Client,
    channel: Channel,
    object: &Object,
    key: &'static str,
    method: Method,
) -> anyhow::Result<Told> {
    let text = client.fresh_text();
    let condition = client.condition(key);
    let (name, value, version) = match method {
        Method::Put => ("Put", Some(text), condition),
        Method::Insert => ("Insert", Some(text), None),
        Method::Update => ("Update", Some(text), condition),
        Method::Remove => ("Remove", None, condition),
        Method::Get => ("Get", None, None),
    };
    let asked = Asked {
        object,
        key,
        method: name,
        arguments: Arguments {
            value,
            version,
            ..Arguments::default()
        },
    };
    let patience = client.patience();
    let answer = ask(
        channel,
        method,
        key,
        asked.arguments.clone(),
        id(object),
        patience,
    );
    client.call(asked, patience, answer).await
}

async fn ask(
    channel: Channel,
    method: Method,
    key: &str,
    arguments: Arguments,
    id: Option<PrimitiveId>,
    patience: Duration,
) -> Result<Reply, Status> {
    let mut map = MapClient::new(channel);
    let key = key.to_owned();
    let value = arguments.value.unwrap_or_default().into();
    let prev_version = arguments.version.unwrap_or_default();
    let ttl = None;
    Ok(match method {
        Method::Put => {
            let request = PutRequest {
                id,
                key,
                value,
                ttl,
                prev_version,
            };
            let answer = map.put(within(patience, request)).await?.into_inner();
            written(answer.version, answer.prev_value)
        }
        Method::Insert => {
            let request = InsertRequest {
                id,
                key,
                value,
                ttl,
            };
            let answer = map.insert(within(patience, request)).await?.into_inner();
            written(answer.version, None)
        }
        Method::Update => {
            let request = UpdateRequest {
                id,
                key,
                value,
                ttl,
                prev_version,
            };
            let answer = map.update(within(patience, request)).await?.into_inner();
            written(answer.version, answer.prev_value)
        }
        Method::Remove => {
            let request = RemoveRequest {
                id,
                key,
                prev_version,
            };
            let answer = map.remove(within(patience, request)).await?;
            found(answer.into_inner().value)
        }
        Method::Get => {
            let request = within(patience, GetRequest { id, key });
            found(map.get(request).await?.into_inner().value)
        }
    })
}

fn versioned(value: VersionedValue) -> Versioned {
    Versioned {
        value: String::from_utf8_lossy(&value.value).into_owned(),
        version: value.version,
    }
}

fn written(version: u64, previous: Option<VersionedValue>) -> Reply {
    Reply {
        version: Some(version),
        previous: previous.map(versioned),
        ..Reply::default()
    }
}

fn found(value: Option<VersionedValue>) -> Reply {
    let value = value.map(versioned);
    Reply {
        version: value.as_ref().map(|value| value.version),
        value: value.map(|value| value.value),
        ..Reply::default()
    }
}
