//! A counter, used as an application does: through the port that a runtime serves for it.

use std::net::Ipv4Addr;

use anyhow::Result;
use atomix_proto::runtime::counter::v1::counter_client::CounterClient;
use atomix_proto::runtime::counter::v1::counters_client::CountersClient;
use atomix_proto::runtime::counter::v1::{CreateRequest, IncrementRequest};
use atomix_proto::runtime::v1::PrimitiveId;

use crate::runtime_pods;

/// Opens a counter and adds to it; returns what it counts then.
///
/// # Errors
/// When the runtime refuses or cannot reach the store.
pub async fn increment(pod: Ipv4Addr, counter: &str, delta: i64) -> Result<i64> {
    let channel = runtime_pods::application(pod).await?;
    let id = Some(PrimitiveId {
        id: counter.to_owned(),
    });
    let create = CreateRequest {
        id: id.clone(),
        tags: Vec::new(),
    };
    CountersClient::new(channel.clone()).create(create).await?;
    let increment = IncrementRequest { id, delta };
    let answer = CounterClient::new(channel).increment(increment).await?;
    Ok(answer.into_inner().value)
}
