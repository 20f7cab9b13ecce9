//! A sample application: counts through the runtime sidecar of its pod, and shows what it knows.
//!
//! Each increment that is answered is *acknowledged*; one whose outcome cannot be known (the
//! deadline passed, the session was lost) is *unknown*; one that was certainly not applied is
//! neither. So over all replicas: acknowledged <= the counter <= acknowledged + unknown.
//!
//! It shows how an application uses Atomix: plain gRPC to its own loopback address, and no
//! knowledge of the store behind.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::time::Duration;

use anyhow::Context as _;
use atomix_proto::runtime::counter::v1 as counter;
use atomix_proto::runtime::v1::PrimitiveId;
use axum::Router;
use axum::extract::State;
use axum::routing::get;
use clap::Parser;
use counter::counter_client::CounterClient;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Request, Status};

/// Increments one counter through the runtime sidecar and shows it over HTTP.
#[derive(Debug, Parser)]
#[command(version, bin_name = "counter")]
struct Options {
    /// Where the runtime sidecar serves applications.
    #[arg(long, env = "ATOMIX_RUNTIME", default_value = "http://127.0.0.1:5678")]
    runtime: String,
    /// The counter's name; replicas that share it count together.
    #[arg(long, env = "COUNTER", default_value = "visits")]
    counter: String,
    /// Pause between two increments, in milliseconds.
    #[arg(long, env = "INTERVAL_MILLIS", default_value_t = 50)]
    interval_millis: u64,
    /// Time allowed for one increment, in milliseconds.
    #[arg(long, env = "DEADLINE_MILLIS", default_value_t = 5_000)]
    deadline_millis: u64,
    /// Where to show the count.
    #[arg(long, env = "LISTEN", default_value = "0.0.0.0:8080")]
    listen: SocketAddr,
}

/// What this replica knows of the counter.
#[derive(Debug, Default)]
struct Tally {
    acknowledged: AtomicU64,
    unknown: AtomicU64,
    refused: AtomicU64,
    value: AtomicI64,
}

impl Tally {
    fn show(&self) -> String {
        format!(
            "acknowledged={} unknown={} refused={} value={}",
            self.acknowledged.load(Ordering::Relaxed),
            self.unknown.load(Ordering::Relaxed),
            self.refused.load(Ordering::Relaxed),
            self.value.load(Ordering::Relaxed),
        )
    }

    fn record(&self, outcome: Result<i64, Status>) {
        match outcome {
            Ok(value) => {
                self.acknowledged.fetch_add(1, Ordering::Relaxed);
                self.value.store(value, Ordering::Relaxed);
            }
            Err(status) if was_certainly_not_applied(status.code()) => {
                self.refused.fetch_add(1, Ordering::Relaxed);
                tracing::warn!(%status, "not counted");
            }
            Err(status) => {
                self.unknown.fetch_add(1, Ordering::Relaxed);
                tracing::warn!(%status, "perhaps counted");
            }
        }
    }
}

fn was_certainly_not_applied(code: Code) -> bool {
    matches!(
        code,
        Code::Unavailable
            | Code::FailedPrecondition
            | Code::ResourceExhausted
            | Code::Unimplemented
    )
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let options = Options::parse();
    tracing_subscriber::fmt().with_ansi(false).init();

    let channel = Endpoint::from_shared(options.runtime.clone())
        .with_context(|| format!("the runtime's address {} is no URI", options.runtime))?
        .connect_lazy();
    let tally = Arc::new(Tally::default());
    let router = Router::new()
        .route(
            "/",
            get(|State(tally): State<Arc<Tally>>| async move { tally.show() + "\n" }),
        )
        .with_state(Arc::clone(&tally));
    let listener = tokio::net::TcpListener::bind(options.listen)
        .await
        .with_context(|| format!("cannot listen on {}", options.listen))?;

    let mut terminate = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate())?;
    tokio::select! {
        served = async { axum::serve(listener, router).await } => served.context("the HTTP server failed")?,
        () = count(channel, &options, &tally) => {}
        _ = terminate.recv() => tracing::info!(tally = tally.show(), "stopping"),
    }
    Ok(())
}

/// Increments for ever.
async fn count(channel: Channel, options: &Options, tally: &Tally) {
    let mut client = CounterClient::new(channel);
    let mut interval = tokio::time::interval(Duration::from_millis(options.interval_millis.max(1)));
    interval.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut rounds: u64 = 0;
    loop {
        interval.tick().await;
        let mut request = Request::new(counter::IncrementRequest {
            id: Some(PrimitiveId {
                id: options.counter.clone(),
            }),
            delta: 1,
        });
        request.set_timeout(Duration::from_millis(options.deadline_millis));
        let answer = client.increment(request).await;
        tally.record(answer.map(|response| response.into_inner().value));
        rounds += 1;
        if rounds.is_multiple_of(100) {
            tracing::info!(tally = tally.show(), "counting");
        }
    }
}
