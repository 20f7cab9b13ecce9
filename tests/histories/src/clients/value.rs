//! Values, with and without a version that they must have.

use std::time::Duration;

use atomix_proto::runtime::v1::PrimitiveId;
use atomix_proto::runtime::value::v1::value_client::ValueClient;
use atomix_proto::runtime::value::v1::{
    DeleteRequest, GetRequest, InsertRequest, SetRequest, UpdateRequest, VersionedValue,
};
use rand::Rng as _;
use tonic::Status;
use tonic::transport::Channel;

use super::call::{Asked, Told, within};
use super::{Client, id};
use crate::history::{Arguments, Object, Reply, Versioned};

#[derive(Debug, Clone, Copy)]
enum Method {
    Set,
    Insert,
    Update,
    Delete,
    Get,
}

pub(super) async fn step(
    client: &mut Client,
    channel: Channel,
    object: &Object,
) -> anyhow::Result<()> {
    let method = match client.random.random_range(0..10) {
        0..2 => Method::Set,
        2 => Method::Insert,
        3..6 => Method::Update,
        6 => Method::Delete,
        _ => Method::Get,
    };
    let told = call(client, channel, object, method).await?;
    let version = told.reply().and_then(|reply| reply.version);
    client.saw_version("", version);
    Ok(())
}

/// Whether it could be read.
pub(super) async fn read(
    client: &mut Client,
    channel: Channel,
    object: &Object,
) -> anyhow::Result<bool> {
    let told = call(client, channel, object, Method::Get).await?;
    Ok(matches!(told, Told::Answered(_) | Told::Refused))
}

async fn call(
    client: &mut Client,
    channel: Channel,
    object: &Object,
    method: Method,
) -> anyhow::Result<Told> {
    let text = client.fresh_text();
    let condition = client.condition("");
    let (name, value, version) = match method {
        Method::Set => ("Set", Some(text), None),
        Method::Insert => ("Insert", Some(text), None),
        Method::Update => ("Update", Some(text), condition),
        Method::Delete => ("Delete", None, condition),
        Method::Get => ("Get", None, None),
    };
    let asked = Asked {
        object,
        key: "",
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
        asked.arguments.clone(),
        id(object),
        patience,
    );
    client.call(asked, patience, answer).await
}

async fn ask(
    channel: Channel,
    method: Method,
    arguments: Arguments,
    id: Option<PrimitiveId>,
    patience: Duration,
) -> Result<Reply, Status> {
    let mut client = ValueClient::new(channel);
    let value = arguments.value.unwrap_or_default().into();
    let prev_version = arguments.version.unwrap_or_default();
    let ttl = None;
    Ok(match method {
        Method::Set => {
            let request = within(patience, SetRequest { id, value, ttl });
            let answer = client.set(request).await?.into_inner();
            written(answer.version, answer.prev_value)
        }
        Method::Insert => {
            let request = within(patience, InsertRequest { id, value, ttl });
            let answer = client.insert(request).await?.into_inner();
            written(answer.version, None)
        }
        Method::Update => {
            let request = UpdateRequest {
                id,
                value,
                prev_version,
                ttl,
            };
            let answer = client.update(within(patience, request)).await?.into_inner();
            written(answer.version, answer.prev_value)
        }
        Method::Delete => {
            let request = within(patience, DeleteRequest { id, prev_version });
            found(client.delete(request).await?.into_inner().value)
        }
        Method::Get => {
            let request = within(patience, GetRequest { id });
            found(client.get(request).await?.into_inner().value)
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
