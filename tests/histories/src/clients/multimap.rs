//! Multimaps: a few values under a few keys, which lie in several partitions.

use std::time::Duration;

use atomix_proto::runtime::multimap::v1::multi_map_client::MultiMapClient;
use atomix_proto::runtime::multimap::v1::{
    ContainsRequest, GetRequest, PutRequest, RemoveRequest, ReplaceRequest,
};
use atomix_proto::runtime::v1::PrimitiveId;
use rand::Rng as _;
use tonic::Status;
use tonic::transport::Channel;

use super::call::{Asked, Told, within};
use super::{Client, KEYS, id};
use crate::history::{Arguments, Object, Reply};

#[derive(Debug, Clone, Copy)]
enum Method {
    Put,
    Remove,
    Replace,
    Contains,
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
        3..5 => Method::Remove,
        5 => Method::Replace,
        6 => Method::Contains,
        _ => Method::Get,
    };
    call(client, channel, object, key, method).await?;
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
        if !matches!(told, Told::Answered(_)) {
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
    let (name, value) = match method {
        Method::Put => ("Put", Some(client.any_key().to_owned())),
        Method::Remove => ("Remove", Some(client.any_key().to_owned())),
        Method::Replace => ("Replace", Some(client.fresh_text())),
        Method::Contains => ("Contains", Some(client.any_key().to_owned())),
        Method::Get => ("Get", None),
    };
    let asked = Asked {
        object,
        key,
        method: name,
        arguments: Arguments {
            value: value.clone(),
            ..Arguments::default()
        },
    };
    let patience = client.patience();
    let answer = ask(channel, method, key, value, id(object), patience);
    client.call(asked, patience, answer).await
}

async fn ask(
    channel: Channel,
    method: Method,
    key: &str,
    value: Option<String>,
    id: Option<PrimitiveId>,
    patience: Duration,
) -> Result<Reply, Status> {
    let mut map = MultiMapClient::new(channel);
    let key = key.to_owned();
    let value = value.unwrap_or_default();
    let mut reply = Reply::default();
    match method {
        Method::Put => {
            map.put(within(patience, PutRequest { id, key, value }))
                .await?;
        }
        Method::Remove => {
            map.remove(within(patience, RemoveRequest { id, key, value }))
                .await?;
        }
        Method::Replace => {
            let values = vec![value];
            let request = within(patience, ReplaceRequest { id, key, values });
            reply.items = Some(map.replace(request).await?.into_inner().prev_values);
        }
        Method::Contains => {
            let request = within(patience, ContainsRequest { id, key, value });
            reply.present = Some(map.contains(request).await?.into_inner().result);
        }
        Method::Get => {
            let request = within(patience, GetRequest { id, key });
            reply.items = Some(map.get(request).await?.into_inner().values);
        }
    }
    Ok(reply)
}
