//! Counter maps: a few keys, which lie in several partitions.

use std::ops::RangeInclusive;
use std::time::Duration;

use atomix_proto::runtime::countermap::v1::counter_map_client::CounterMapClient;
use atomix_proto::runtime::countermap::v1::{
    DecrementRequest, GetRequest, IncrementRequest, InsertRequest, RemoveRequest, SetRequest,
    UpdateRequest,
};
use atomix_proto::runtime::v1::PrimitiveId;
use rand::Rng as _;
use tonic::Status;
use tonic::transport::Channel;

use super::call::{Asked, Told, within};
use super::{Client, KEYS, id};
use crate::history::{Arguments, Object, Reply};

/// So different that a sum tells which of them it has.
const NUMBERS: RangeInclusive<i64> = 1..=1_000_000_000;

/// What a client does with one key.
#[derive(Debug, Clone, Copy)]
enum Method {
    Set,
    Insert,
    Update,
    Increment,
    Decrement,
    Get,
    Remove,
}

pub(super) async fn step(
    client: &mut Client,
    channel: Channel,
    object: &Object,
) -> anyhow::Result<()> {
    let key = client.any_key();
    let method = match client.random.random_range(0..10) {
        0 => Method::Set,
        1 => Method::Insert,
        2 => Method::Update,
        3..6 => Method::Increment,
        6 => Method::Decrement,
        7 => Method::Remove,
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
        if !matches!(told, Told::Answered(_) | Told::Refused) {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Calls a method, with numbers of its choice; remembers what the key is then.
async fn call(
    client: &mut Client,
    channel: Channel,
    object: &Object,
    key: &'static str,
    method: Method,
) -> anyhow::Result<Told> {
    let number = client.random.random_range(NUMBERS);
    let check = client.memory.numbers.get(key).copied().unwrap_or_default();
    let (name, number, check) = match method {
        Method::Set => ("Set", Some(number), None),
        Method::Insert => ("Insert", Some(number), None),
        Method::Update => ("Update", Some(number), Some(check)),
        Method::Increment => ("Increment", Some(number), None),
        Method::Decrement => ("Decrement", Some(number), None),
        Method::Get => ("Get", None, None),
        Method::Remove => ("Remove", None, Some(check)),
    };
    let asked = Asked {
        object,
        key,
        method: name,
        arguments: Arguments {
            number,
            check,
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
    let told = client.call(asked, patience, answer).await?;
    if let Told::Answered(reply) = &told {
        let before = reply.number.unwrap_or_default();
        let number = number.unwrap_or_default();
        let now = match method {
            Method::Set | Method::Insert | Method::Update => number,
            Method::Increment => before + number,
            Method::Decrement => before - number,
            Method::Get | Method::Remove => before,
        };
        client.memory.numbers.insert(key.to_owned(), now);
    }
    Ok(told)
}

async fn ask(
    channel: Channel,
    method: Method,
    key: &str,
    arguments: Arguments,
    id: Option<PrimitiveId>,
    patience: Duration,
) -> Result<Reply, Status> {
    let mut map = CounterMapClient::new(channel);
    let key = key.to_owned();
    let value = arguments.number.unwrap_or_default();
    let prev_value = arguments.check.unwrap_or_default();
    let delta = value;
    let told = match method {
        Method::Set => {
            let request = within(patience, SetRequest { id, key, value });
            map.set(request).await?.into_inner().prev_value
        }
        Method::Insert => {
            let request = within(patience, InsertRequest { id, key, value });
            map.insert(request).await?;
            // It tells none.
            0
        }
        Method::Update => {
            let request = UpdateRequest {
                id,
                key,
                value,
                prev_value,
            };
            let answer = map.update(within(patience, request)).await?;
            answer.into_inner().prev_value
        }
        Method::Increment => {
            let request = within(patience, IncrementRequest { id, key, delta });
            map.increment(request).await?.into_inner().prev_value
        }
        Method::Decrement => {
            let request = within(patience, DecrementRequest { id, key, delta });
            map.decrement(request).await?.into_inner().prev_value
        }
        Method::Get => {
            let request = within(patience, GetRequest { id, key });
            map.get(request).await?.into_inner().value
        }
        Method::Remove => {
            let request = RemoveRequest {
                id,
                key,
                prev_value,
            };
            let answer = map.remove(within(patience, request)).await?;
            answer.into_inner().value
        }
    };
    Ok(Reply {
        number: Some(told),
        ..Reply::default()
    })
}
