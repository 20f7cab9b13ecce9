//! What each kind must do, whatever the driver and the number of partitions. `Suite::run` is called
//! with a sidecar of every driver that serves all kinds.

mod countermap;
mod election;
mod indexedmap;
mod list;
mod listing;
mod lock;
mod map;
mod multimap;
mod set;
mod topic;
mod value;

use std::time::Duration;

use tonic::{Code, Status, Streaming};

use crate::harness::{TestSidecar, within};

/// One run of the suite.
pub struct Suite<'a> {
    pub sidecar: &'a TestSidecar,
    /// Of the store.
    pub partitions: u32,
}

impl Suite<'_> {
    pub async fn run(&self) {
        crate::counter_conformance::run(self.sidecar.counter().await, "conformance").await;
        value::run(self).await;
        map::run(self).await;
        map::locks(self).await;
        countermap::run(self).await;
        set::run(self).await;
        multimap::run(self).await;
        list::run(self).await;
        indexedmap::run(self).await;
        topic::run(self).await;
        lock::run(self).await;
        election::run(self).await;
        listing::run(self).await;
    }
}

/// The next message of a stream.
async fn next<T>(stream: &mut Streaming<T>) -> T {
    let message = within("a message", stream.message()).await;
    message.unwrap().expect("the stream ended")
}

/// All that is left of a stream that ends.
async fn rest<T>(mut stream: Streaming<T>) -> Vec<T> {
    let mut messages = Vec::new();
    while let Some(message) = within("a message", stream.message()).await.unwrap() {
        messages.push(message);
    }
    messages
}

fn code<T: std::fmt::Debug>(answer: Result<T, Status>) -> Code {
    answer.unwrap_err().code()
}

/// That a request is refused as invalid, with the field's name.
fn assert_invalid<T: std::fmt::Debug>(answer: Result<T, Status>, field: &str) {
    let status = answer.unwrap_err();
    assert_eq!(status.code(), Code::InvalidArgument, "{status}");
    assert!(status.message().contains(field), "{field} in {status}");
}

fn millis(millis: u64) -> Option<prost_types::Duration> {
    Some(Duration::from_millis(millis).try_into().unwrap())
}

fn negative() -> Option<prost_types::Duration> {
    Some(prost_types::Duration {
        seconds: -1,
        nanos: 0,
    })
}
