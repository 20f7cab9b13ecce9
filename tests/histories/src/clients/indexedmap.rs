//! Indexed maps: a few keys, which come and go.

use std::time::Duration;

use atomix_proto::runtime::indexedmap::v1::indexed_map_client::IndexedMapClient;
use atomix_proto::runtime::indexedmap::v1::{
    AppendRequest, Entry, FirstEntryRequest, GetRequest, LastEntryRequest, RemoveRequest,
    UpdateRequest,
};
use atomix_proto::runtime::v1::PrimitiveId;
use rand::Rng as _;
use tonic::Status;
use tonic::transport::Channel;

use super::call::{Asked, Told, within};
use super::{Client, id};
use crate::history::{Arguments, Object, Reply};

#[derive(Debug, Clone, Copy)]
enum Method {
    Append,
    Update,
    Remove,
    Get,
    FirstEntry,
    LastEntry,
}

pub(super) async fn step(
    client: &mut Client,
    channel: Channel,
    object: &Object,
) -> anyhow::Result<()> {
    let method = match client.random.random_range(0..10) {
        0..3 => Method::Append,
        3 => Method::Update,
        4..6 => Method::Remove,
        6 => Method::Get,
        7 => Method::FirstEntry,
        _ => Method::LastEntry,
    };
    call(client, channel, object, method).await?;
    Ok(())
}

/// Whether it could be read.
pub(super) async fn read(
    client: &mut Client,
    channel: Channel,
    object: &Object,
) -> anyhow::Result<bool> {
    let told = call(client, channel, object, Method::LastEntry).await?;
    Ok(matches!(told, Told::Answered(_) | Told::Refused))
}

async fn call(
    client: &mut Client,
    channel: Channel,
    object: &Object,
    method: Method,
) -> anyhow::Result<Told> {
    let key = client.any_key().to_owned();
    let text = client.fresh_text();
    let (name, key, value) = match method {
        Method::Append => ("Append", Some(key), Some(text)),
        Method::Update => ("Update", Some(key), Some(text)),
        Method::Remove => ("Remove", Some(key), None),
        Method::Get => ("Get", Some(key), None),
        Method::FirstEntry => ("FirstEntry", None, None),
        Method::LastEntry => ("LastEntry", None, None),
    };
    let asked = Asked {
        object,
        key: "",
        method: name,
        arguments: Arguments {
            key,
            value,
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
    let mut map = IndexedMapClient::new(channel);
    let key = arguments.key.unwrap_or_default();
    let value = arguments.value.unwrap_or_default().into();
    // The entry of the key, whichever index it has.
    let index = 0;
    let entry = match method {
        Method::Append => {
            let request = AppendRequest {
                id,
                key,
                value,
                ttl: None,
            };
            map.append(within(patience, request))
                .await?
                .into_inner()
                .entry
        }
        Method::Update => {
            let request = UpdateRequest {
                id,
                key,
                index,
                value,
                ttl: None,
                prev_version: 0,
            };
            map.update(within(patience, request))
                .await?
                .into_inner()
                .entry
        }
        Method::Remove => {
            let request = RemoveRequest {
                id,
                key,
                index,
                prev_version: 0,
            };
            map.remove(within(patience, request))
                .await?
                .into_inner()
                .entry
        }
        Method::Get => {
            let request = within(patience, GetRequest { id, key, index });
            map.get(request).await?.into_inner().entry
        }
        Method::FirstEntry => {
            let request = within(patience, FirstEntryRequest { id });
            map.first_entry(request).await?.into_inner().entry
        }
        Method::LastEntry => {
            let request = within(patience, LastEntryRequest { id });
            map.last_entry(request).await?.into_inner().entry
        }
    };
    Ok(told(entry.unwrap_or_default()))
}

fn told(entry: Entry) -> Reply {
    let value = entry.value.unwrap_or_default();
    Reply {
        key: Some(entry.key),
        number: i64::try_from(entry.index).ok(),
        value: Some(String::from_utf8_lossy(&value.value).into_owned()),
        ..Reply::default()
    }
}
