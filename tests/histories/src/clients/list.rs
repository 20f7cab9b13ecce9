//! Lists that only grow.

use std::time::Duration;

use atomix_proto::runtime::list::v1::list_client::ListClient;
use atomix_proto::runtime::list::v1::{
    AppendRequest, GetRequest, Item, ItemsRequest, SizeRequest, Value,
};
use atomix_proto::runtime::v1::PrimitiveId;
use rand::Rng as _;
use tonic::Status;
use tonic::transport::Channel;

use super::call::{Asked, Told, within};
use super::{Client, id};
use crate::history::{Arguments, Object, Reply};

/// To read a whole list.
const LONG: Duration = Duration::from_secs(30);

#[derive(Debug, Clone, Copy)]
enum Method {
    Append,
    Get,
    Size,
    Items,
}

pub(super) async fn step(
    client: &mut Client,
    channel: Channel,
    object: &Object,
) -> anyhow::Result<()> {
    let method = match client.random.random_range(0..10) {
        0..5 => Method::Append,
        5..8 => Method::Get,
        _ => Method::Size,
    };
    let told = call(client, channel, object, method).await?;
    if let Some(number) = told.reply().and_then(|reply| reply.number) {
        client.memory.number = number;
    }
    Ok(())
}

/// Whether all items could be read.
pub(super) async fn read(
    client: &mut Client,
    channel: Channel,
    object: &Object,
) -> anyhow::Result<bool> {
    let told = call(client, channel, object, Method::Items).await?;
    Ok(matches!(told, Told::Answered(_)))
}

/// Asks how long it is.
pub(super) async fn look(
    client: &mut Client,
    channel: Channel,
    object: &Object,
) -> anyhow::Result<()> {
    call(client, channel, object, Method::Size).await?;
    Ok(())
}

async fn call(
    client: &mut Client,
    channel: Channel,
    object: &Object,
    method: Method,
) -> anyhow::Result<Told> {
    let (name, value, index) = match method {
        Method::Append => ("Append", Some(client.fresh_text()), None),
        Method::Get => ("Get", None, Some(index(client))),
        Method::Size => ("Size", None, None),
        Method::Items => ("Items", None, None),
    };
    let asked = Asked {
        object,
        key: "",
        method: name,
        arguments: Arguments {
            value,
            index,
            ..Arguments::default()
        },
    };
    let patience = match method {
        Method::Items => LONG,
        Method::Append | Method::Get | Method::Size => client.patience(),
    };
    let answer = ask(
        channel,
        method,
        asked.arguments.clone(),
        id(object),
        patience,
    );
    client.call(asked, patience, answer).await
}

/// Somewhere in the list, mostly near what was its end.
fn index(client: &mut Client) -> u32 {
    let length = u32::try_from(client.memory.number).unwrap_or_default();
    let first = if client.random.random_bool(0.7) {
        length.saturating_sub(3)
    } else {
        0
    };
    client.random.random_range(first..=length + 3)
}

async fn ask(
    channel: Channel,
    method: Method,
    arguments: Arguments,
    id: Option<PrimitiveId>,
    patience: Duration,
) -> Result<Reply, Status> {
    let mut list = ListClient::new(channel);
    let mut reply = Reply::default();
    match method {
        Method::Append => {
            let value = arguments.value.unwrap_or_default().into();
            let value = Some(Value { value });
            let request = within(patience, AppendRequest { id, value });
            list.append(request).await?;
        }
        Method::Get => {
            let index = arguments.index.unwrap_or_default();
            let request = within(patience, GetRequest { id, index });
            reply.value = Some(text(list.get(request).await?.into_inner().item));
        }
        Method::Size => {
            let request = within(patience, SizeRequest { id });
            reply.number = Some(list.size(request).await?.into_inner().size.into());
        }
        Method::Items => {
            let request = within(patience, ItemsRequest { id, watch: false });
            let mut stream = list.items(request).await?.into_inner();
            let items = reply.items.insert(Vec::new());
            while let Some(message) = stream.message().await? {
                items.push(text(message.item));
            }
        }
    }
    Ok(reply)
}

fn text(item: Option<Item>) -> String {
    let value = item.and_then(|item| item.value).unwrap_or_default();
    String::from_utf8_lossy(&value.value).into_owned()
}
