//! Counters: added to, read, set and compared.

use std::ops::RangeInclusive;
use std::time::Duration;

use atomix_proto::runtime::counter::v1::counter_client::CounterClient;
use atomix_proto::runtime::counter::v1::{
    DecrementRequest, GetRequest, IncrementRequest, SetRequest, UpdateRequest,
};
use atomix_proto::runtime::v1::PrimitiveId;
use rand::Rng as _;
use tonic::Status;
use tonic::transport::Channel;

use super::call::{Asked, Told, within};
use super::{Client, id};
use crate::history::{Arguments, Object, Reply};

/// So different that a sum tells which of them it has.
const NUMBERS: RangeInclusive<i64> = 1..=1_000_000_000;

#[derive(Debug, Clone, Copy)]
enum Method {
    Set,
    Update,
    Increment,
    Decrement,
    Get,
}

/// Only adds, so that the sum tells how often.
pub(super) async fn count(
    client: &mut Client,
    channel: Channel,
    object: &Object,
) -> anyhow::Result<()> {
    let method = match client.random.random_range(0..10) {
        0..6 => Method::Increment,
        6..8 => Method::Decrement,
        _ => Method::Get,
    };
    call(client, channel, object, method).await?;
    Ok(())
}

/// Also sets, and compares with what it was told last.
pub(super) async fn register(
    client: &mut Client,
    channel: Channel,
    object: &Object,
) -> anyhow::Result<()> {
    let method = match client.random.random_range(0..10) {
        0..2 => Method::Increment,
        2..4 => Method::Set,
        4..7 => Method::Update,
        _ => Method::Get,
    };
    let told = call(client, channel, object, method).await?;
    if let Some(number) = told.reply().and_then(|reply| reply.number) {
        client.memory.number = number;
    }
    Ok(())
}

/// Whether it could be read.
pub(super) async fn read(
    client: &mut Client,
    channel: Channel,
    object: &Object,
) -> anyhow::Result<bool> {
    let told = call(client, channel, object, Method::Get).await?;
    Ok(matches!(told, Told::Answered(_)))
}

async fn call(
    client: &mut Client,
    channel: Channel,
    object: &Object,
    method: Method,
) -> anyhow::Result<Told> {
    let number = client.random.random_range(NUMBERS);
    let check = client.memory.number;
    let (name, number, check) = match method {
        Method::Set => ("Set", Some(number), None),
        Method::Update => ("Update", Some(number), Some(check)),
        Method::Increment => ("Increment", Some(number), None),
        Method::Decrement => ("Decrement", Some(number), None),
        Method::Get => ("Get", None, None),
    };
    let asked = Asked {
        object,
        key: "",
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
    let mut counter = CounterClient::new(channel);
    let number = arguments.number.unwrap_or_default();
    let told = match method {
        Method::Set => {
            let request = within(patience, SetRequest { id, value: number });
            counter.set(request).await?.into_inner().value
        }
        Method::Update => {
            let request = UpdateRequest {
                id,
                check: arguments.check.unwrap_or_default(),
                update: number,
            };
            let answer = counter.update(within(patience, request)).await?;
            answer.into_inner().value
        }
        Method::Increment => {
            let request = within(patience, IncrementRequest { id, delta: number });
            counter.increment(request).await?.into_inner().value
        }
        Method::Decrement => {
            let request = within(patience, DecrementRequest { id, delta: number });
            counter.decrement(request).await?.into_inner().value
        }
        Method::Get => {
            let request = within(patience, GetRequest { id });
            counter.get(request).await?.into_inner().value
        }
    };
    Ok(Reply {
        number: Some(told),
        ..Reply::default()
    })
}
