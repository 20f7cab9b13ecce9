//! Two operators of one namespace: only the one with the lease acts, and the other takes over.

use anyhow::{Result, ensure};
use atomix_operator_tests::fault::{Gate, Recorded};
use atomix_operator_tests::resources::{self, expect_condition};
use atomix_operator_tests::samples;
use atomix_operator_tests::test_bed::TestBed;
use atomix_operator_tests::wait::until;
use atomix_operator_tests::workload::LIMIT;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_of_two_operators_acts_and_the_other_takes_over() -> Result<()> {
    let bed = TestBed::create("two").await?;
    let first = bed.operator(None);
    let first_calls = first.gate().clone();
    serve(&bed, "rose").await?;

    let second = bed.operator(None);
    let second_calls = second.gate().clone();
    // It stands by with its watches open.
    until(
        "the second operator to look at the lease",
        LIMIT,
        async || {
            let calls = second_calls.calls();
            ensure!(calls.iter().any(|call| call.call.what == "leases"));
            Ok(())
        },
    )
    .await?;
    serve(&bed, "tulip").await?;
    ensure!(
        acts(&second_calls).is_empty(),
        "the second operator acted beside the first: {:?}",
        acts(&second_calls)
    );

    // In order, the lease is handed over.
    first.terminate()?;
    serve(&bed, "lily").await?;
    expect_one_after_the_other(&first_calls, &second_calls)?;

    // A killed one is waited for until its lease is over.
    let mut third = bed.operator(None);
    let mut second = second;
    second.finish()?;
    serve(&bed, "iris").await?;
    third.check_alive_or_killed()?;
    expect_one_after_the_other(&second_calls, third.gate())?;
    drop((second, third));
    bed.remove().await
}

/// Whoever acts serves a new Store.
async fn serve(bed: &TestBed, store: &str) -> Result<()> {
    resources::create(&bed.stores(), samples::store_of_driver(store, "memory")).await?;
    until("the Store to be ready", LIMIT, async || {
        expect_condition(&bed.stores().get(store).await?, "Ready", "True")?;
        Ok(())
    })
    .await
}

/// What it wrote, the lease and events aside: the last events are written when the lease is gone.
fn acts(gate: &Gate) -> Vec<Recorded> {
    let mut calls = gate.calls();
    calls.retain(|call| {
        call.call.verb.is_mutating() && !["leases", "events"].contains(&call.call.what.as_str())
    });
    calls
}

fn expect_one_after_the_other(first: &Gate, second: &Gate) -> Result<()> {
    let last = acts(first).into_iter().map(|call| call.at).max();
    let begin = acts(second).into_iter().map(|call| call.at).min();
    ensure!(last.is_some() && begin.is_some(), "one of them did nothing");
    ensure!(last < begin, "both acted at the same time");
    Ok(())
}
