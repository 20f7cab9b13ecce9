//! Replicas of which one leads: it works as long as it leads, the others wait for their turn.
//!
//! Start it in several pods, or several times on one machine with a sidecar, each with a name of its
//! own; stop the leader, and the next one takes over.

use std::time::Duration;

use anyhow::Context as _;
use atomix_client::{Client, Election, Subscription, Term};
use clap::Parser;

/// Stands in an election, and works while it leads.
#[derive(Debug, Parser)]
struct Options {
    /// The name of the election.
    #[arg(long, default_value = "scheduler")]
    election: String,
    /// This replica's name; no other may have it.
    #[arg(long, env = "HOSTNAME", default_value = "replica-0")]
    candidate: String,
    /// After how many steps of work it resigns; without it leads as long as it may.
    #[arg(long)]
    steps: Option<u64>,
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let options = Options::parse();
    let client = Client::connect().await?;
    let election = client.election(&options.election);
    run(&election, &options.candidate, options.steps).await
}

/// Stands until it has led and resigned.
pub async fn run(election: &Election, candidate: &str, steps: Option<u64>) -> anyhow::Result<()> {
    let candidacy = election.enter(candidate).await?;
    let mut terms = election.watch().await?;
    loop {
        let mut led = tokio::select! {
            led = leads(&mut terms, candidate) => led?,
            () = candidacy.lost() => anyhow::bail!("the sidecar is gone, and the candidacy with it"),
        };
        println!("{candidate}: leads in term {}", led.term);
        let resigned = tokio::select! {
            () = work(led.term, steps) => true,
            over = is_over(&mut terms, &mut led) => { over?; false }
            () = candidacy.lost() => anyhow::bail!("the sidecar is gone, and the candidacy with it"),
        };
        if resigned {
            candidacy.withdraw().await?;
            println!("{candidate}: resigned");
            return Ok(());
        }
        println!("{candidate}: {:?} leads now", led.leader);
    }
}

/// Waits until this candidate leads.
async fn leads(terms: &mut Subscription<Term>, candidate: &str) -> anyhow::Result<Term> {
    loop {
        let term = terms.next().await?.context("the watch has ended")?;
        if term.leader.as_deref() == Some(candidate) {
            return Ok(term);
        }
    }
}

/// Waits until another term has begun. That the line behind the leader changes is told, too.
async fn is_over(terms: &mut Subscription<Term>, led: &mut Term) -> anyhow::Result<()> {
    loop {
        let term = terms.next().await?.context("the watch has ended")?;
        if term.term != led.term {
            *led = term;
            return Ok(());
        }
    }
}

/// What only the leader does. It would hand the term to what it writes to.
async fn work(term: u64, steps: Option<u64>) {
    let mut done = 0;
    while steps.is_none_or(|steps| done < steps) {
        tokio::time::sleep(Duration::from_millis(10)).await;
        done += 1;
        if done.is_multiple_of(100) {
            println!("step {done} of term {term}");
        }
    }
}
