//! Counters, used as an application does: through the port that a runtime serves for it.

use std::net::Ipv4Addr;

use anyhow::Result;
use atomix_proto::runtime::counter::v1::counter_client::CounterClient;
use atomix_proto::runtime::counter::v1::counters_client::CountersClient;
use atomix_proto::runtime::counter::v1::{CreateRequest, IncrementRequest};
use atomix_proto::runtime::v1::PrimitiveId;
use tonic::transport::Channel;

use crate::runtime_pods;

/// Opens a counter and adds to it; returns what it counts then.
///
/// # Errors
/// When the runtime refuses or cannot reach the store.
pub async fn increment(pod: Ipv4Addr, counter: &str, delta: i64) -> Result<i64> {
    let mut counters = Counters::open(pod, &[counter.to_owned()]).await?;
    counters.increment(counter, delta).await
}

/// Counters that are open on one connection.
#[derive(Debug)]
pub struct Counters(CounterClient<Channel>);

impl Counters {
    /// Opens these.
    ///
    /// # Errors
    /// As [`increment`].
    pub async fn open(pod: Ipv4Addr, counters: &[String]) -> Result<Self> {
        let channel = runtime_pods::application(pod).await?;
        for counter in counters {
            let create = CreateRequest {
                id: id(counter),
                tags: Vec::new(),
            };
            CountersClient::new(channel.clone()).create(create).await?;
        }
        Ok(Self(CounterClient::new(channel)))
    }

    /// Adds to one of them; returns what it counts then.
    ///
    /// # Errors
    /// As [`increment`].
    pub async fn increment(&mut self, counter: &str, delta: i64) -> Result<i64> {
        let increment = IncrementRequest {
            id: id(counter),
            delta,
        };
        Ok(self.0.increment(increment).await?.into_inner().value)
    }
}

fn id(counter: &str) -> Option<PrimitiveId> {
    Some(PrimitiveId {
        id: counter.to_owned(),
    })
}
