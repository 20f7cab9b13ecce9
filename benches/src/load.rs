//! One generator drives both sides: a number of clients over shared connections, each with one
//! request in flight, for a fixed time after a warm-up.

use std::time::Duration;

use anyhow::Context as _;
use futures::future::BoxFuture;
use hdrhistogram::Histogram;
use tokio::time::Instant;
use tonic::Status;
use tonic::transport::{Channel, Endpoint};

/// Connections that the clients share.
pub(crate) const CONNECTIONS: usize = 16;
const HIGHEST_LATENCY_MICROS: u64 = 60_000_000;

/// One request of one client: `(client, round)` choose the key.
pub(crate) type Call =
    dyn Fn(Channel, usize, u64) -> BoxFuture<'static, Result<(), Status>> + Send + Sync;

/// What one run measured.
#[derive(Debug)]
pub(crate) struct Measured {
    pub(crate) per_second: f64,
    pub(crate) p50: Duration,
    pub(crate) p99: Duration,
    pub(crate) failed: u64,
}

/// Opens the connections to one server.
pub(crate) async fn connect(address: &str) -> anyhow::Result<Vec<Channel>> {
    let endpoint = Endpoint::from_shared(format!("http://{address}"))?.tcp_nodelay(true);
    let mut channels = Vec::with_capacity(CONNECTIONS);
    for _ in 0..CONNECTIONS {
        let channel = endpoint
            .connect()
            .await
            .with_context(|| format!("cannot connect to {address}"))?;
        channels.push(channel);
    }
    Ok(channels)
}

/// Runs `clients` clients for `duration` after `warm_up`.
pub(crate) async fn run(
    channels: &[Channel],
    clients: usize,
    warm_up: Duration,
    duration: Duration,
    call: &'static Call,
) -> anyhow::Result<Measured> {
    let begin = Instant::now() + warm_up;
    let end = begin + duration;
    let mut tasks = tokio::task::JoinSet::new();
    for (client, channel) in channels.iter().cycle().take(clients).cloned().enumerate() {
        tasks.spawn(async move {
            let mut latencies = Histogram::<u64>::new_with_max(HIGHEST_LATENCY_MICROS, 3)?;
            let mut failed = 0_u64;
            let mut round = 0;
            loop {
                let sent = Instant::now();
                if sent >= end {
                    return anyhow::Ok((latencies, failed));
                }
                let outcome = call(channel.clone(), client, round).await;
                round += 1;
                if sent < begin {
                    continue;
                }
                match outcome {
                    Ok(()) => {
                        let micros =
                            u64::try_from(Instant::now().duration_since(sent).as_micros())?;
                        latencies.record(micros.clamp(1, HIGHEST_LATENCY_MICROS))?;
                    }
                    Err(_) => failed += 1,
                }
            }
        });
    }

    let mut all = Histogram::<u64>::new_with_max(HIGHEST_LATENCY_MICROS, 3)?;
    let mut failed = 0;
    while let Some(client) = tasks.join_next().await {
        let (latencies, failures) = client??;
        all.add(&latencies)?;
        failed += failures;
    }
    #[allow(clippy::cast_precision_loss, reason = "a rate for people to read")]
    let per_second = all.len() as f64 / duration.as_secs_f64();
    Ok(Measured {
        per_second,
        p50: Duration::from_micros(all.value_at_quantile(0.50)),
        p99: Duration::from_micros(all.value_at_quantile(0.99)),
        failed,
    })
}
