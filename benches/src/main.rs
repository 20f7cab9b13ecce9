//! Benchmark programs: they measure and report, and never judge.
//!
//! Each prints one section of docs/benchmarks.md in Markdown on standard output and its progress on
//! standard error. `make bench` runs them all.

#![allow(
    clippy::indexing_slicing,
    reason = "a missing field of a JSON value is null, it does not panic"
)]

mod atomix;
mod bed;
mod containers;
mod etcd;
mod failover;
mod identities;
mod installed;
mod leaders;
mod load;
mod metrics;
mod operator;
mod process;
mod report;
mod runtimes;
mod scale;
mod servers;
mod sidecars;
mod throughput;

use clap::{Parser, Subcommand};

/// Measures Atomix, next to its alternatives in the same run.
#[derive(Debug, Parser)]
#[command(version)]
struct Options {
    #[command(subcommand)]
    benchmark: Benchmark,
}

#[derive(Debug, Subcommand)]
enum Benchmark {
    /// Durable increments through the sidecar next to etcd puts, on this machine's loopback.
    Throughput(throughput::Options),
    /// Times and costs of the operator on a real cluster.
    Operator(operator::Options),
    /// How soon injected sidecars are connected.
    Sidecars(sidecars::Options),
    /// What an application notices of a new leader.
    Leaders(leaders::Options),
    /// How soon a second operator acts in place of the first.
    Failover(failover::Options),
    /// The operator with thousands of Stores, Sessions and pods.
    Scale(scale::Options),
    /// Many runtimes in one process; `scale` starts several such.
    #[command(hide = true)]
    Runtimes(runtimes::Options),
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    match Options::parse().benchmark {
        Benchmark::Throughput(options) => throughput::run(&options).await,
        Benchmark::Operator(options) => operator::run(&options).await,
        Benchmark::Sidecars(options) => sidecars::run(&options).await,
        Benchmark::Leaders(options) => leaders::run(&options).await,
        Benchmark::Failover(options) => failover::run(&options).await,
        Benchmark::Scale(options) => scale::run(&options).await,
        Benchmark::Runtimes(options) => runtimes::run(&options).await,
    }
}
