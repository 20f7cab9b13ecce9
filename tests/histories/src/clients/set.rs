//! Sets: a few elements that come and go.

use std::time::Duration;

use atomix_proto::runtime::set::v1::set_client::SetClient;
use atomix_proto::runtime::set::v1::{AddRequest, ContainsRequest, Element, RemoveRequest};
use atomix_proto::runtime::v1::PrimitiveId;
use rand::Rng as _;
use tonic::Status;
use tonic::transport::Channel;

use super::call::{Asked, Told, within};
use super::{Client, KEYS, id};
use crate::history::{Arguments, Object, Reply};

#[derive(Debug, Clone, Copy)]
enum Method {
    Add,
    Remove,
    Contains,
}

pub(super) async fn step(
    client: &mut Client,
    channel: Channel,
    object: &Object,
) -> anyhow::Result<()> {
    let element = client.any_key();
    let method = match client.random.random_range(0..10) {
        0..3 => Method::Add,
        3..6 => Method::Remove,
        _ => Method::Contains,
    };
    call(client, channel, object, element, method).await?;
    Ok(())
}

/// Whether all elements could be asked for.
pub(super) async fn read(
    client: &mut Client,
    channel: Channel,
    object: &Object,
) -> anyhow::Result<bool> {
    for element in KEYS {
        let told = call(client, channel.clone(), object, element, Method::Contains).await?;
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
    element: &'static str,
    method: Method,
) -> anyhow::Result<Told> {
    let name = match method {
        Method::Add => "Add",
        Method::Remove => "Remove",
        Method::Contains => "Contains",
    };
    let asked = Asked {
        object,
        key: element,
        method: name,
        arguments: Arguments::default(),
    };
    let patience = client.patience();
    let answer = ask(channel, method, element, id(object), patience);
    client.call(asked, patience, answer).await
}

async fn ask(
    channel: Channel,
    method: Method,
    element: &str,
    id: Option<PrimitiveId>,
    patience: Duration,
) -> Result<Reply, Status> {
    let mut set = SetClient::new(channel);
    let element = Some(Element {
        value: element.to_owned(),
    });
    let ttl = None;
    let present = match method {
        Method::Add => {
            let request = within(patience, AddRequest { id, element, ttl });
            set.add(request).await?.into_inner().added
        }
        Method::Remove => {
            let request = within(patience, RemoveRequest { id, element });
            set.remove(request).await?.into_inner().removed
        }
        Method::Contains => {
            let request = within(patience, ContainsRequest { id, element });
            set.contains(request).await?.into_inner().contains
        }
    };
    Ok(Reply {
        present: Some(present),
        ..Reply::default()
    })
}
