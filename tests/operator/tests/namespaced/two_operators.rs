//! Two operators of one namespace: only the one with the lease acts, and the other takes over; what
//! becomes of either when it cannot reach the lease.

use std::cell::Cell;

use anyhow::{Result, ensure};
use atomix_operator::certificates::Lifetimes;
use atomix_operator_tests::fault::{
    Disturbance, Faults, Gate, LeaseTrouble, Recorded, Trouble, Verb,
};
use atomix_operator_tests::operator_under_test::{LEASE, OperatorUnderTest, Settings};
use atomix_operator_tests::resources::{self, expect_condition};
use atomix_operator_tests::test_bed::TestBed;
use atomix_operator_tests::wait::until;
use atomix_operator_tests::webhook::TestWebhook;
use atomix_operator_tests::workload::LIMIT;
use atomix_operator_tests::{http, samples};
use k8s_openapi::api::coordination::v1::Lease;
use kube::Api;
use kube::api::{Patch, PatchParams};
use serde_json::json;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_of_two_operators_acts_and_the_other_takes_over() -> Result<()> {
    let bed = TestBed::create("two").await?;
    let first = bed.operator(None);
    let first_calls = first.gate().clone();
    serve(&bed, "rose").await?;

    let second = bed.operator(None);
    let second_calls = second.gate().clone();
    stands_by(&second).await?;
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

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_holder_that_cannot_renew_for_a_short_while_goes_on() -> Result<()> {
    let bed = TestBed::create("renewing").await?;
    let first = bed.operator(None);
    serve(&bed, "rose").await?;
    let second = bed.operator(None);
    stands_by(&second).await?;

    // Somebody else's change of the Lease makes the next renewal a conflict.
    let leases: Api<Lease> = Api::namespaced(bed.client().clone(), bed.namespace());
    let change = Patch::Merge(json!({"metadata": {"annotations": {"weather": "fair"}}}));
    leases
        .patch(LEASE, &PatchParams::default(), &change)
        .await?;
    until("a renewal to be a conflict", LIMIT, async || {
        let mut renewals = renewals(&first);
        ensure!(renewals.any(|call| call.is_refused), "none was");
        Ok(())
    })
    .await?;

    first.gate().arm(Some(lease_is(LeaseTrouble::Refused)));
    until("some renewals to be refused", LIMIT, async || {
        let refused = first.gate().troubled();
        ensure!(refused >= 4, "{refused} were");
        Ok(())
    })
    .await?;
    first.gate().arm(None);
    until("the lease to be renewed again", LIMIT, async || {
        let mut renewals = renewals(&first);
        ensure!(renewals.any(|call| !call.is_refused), "it was not");
        Ok(())
    })
    .await?;
    serve(&bed, "tulip").await?;
    ensure!(!first.has_ended(), "the first operator has ended");
    let others = acts(second.gate());
    ensure!(others.is_empty(), "the second one acted: {others:?}");
    drop((first, second));
    bed.remove().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_holder_that_cannot_renew_ends_before_another_one_acts() -> Result<()> {
    for trouble in [LeaseTrouble::Refused, LeaseTrouble::Unanswered] {
        let bed = TestBed::create("unrenewed").await?;
        let first = bed.operator(None);
        let first_calls = first.gate().clone();
        serve(&bed, "rose").await?;
        let second = bed.operator(None);
        stands_by(&second).await?;

        first.gate().arm(Some(lease_is(trouble)));
        // There is always something to do.
        let created = Cell::new(0);
        until("the first operator to end", LIMIT, async || {
            let number = created.replace(created.get() + 1);
            create(&bed, &format!("tulip-{number}")).await?;
            ensure!(first.has_ended(), "it lives");
            Ok(())
        })
        .await?;
        first.finish_unrenewed()?;
        serve(&bed, "lily").await?;
        for number in 0..created.get() {
            is_served(&bed, &format!("tulip-{number}")).await?;
        }
        expect_one_after_the_other(&first_calls, second.gate())?;
        drop(second);
        bed.remove().await?;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_standby_that_cannot_look_at_the_lease_is_not_ready_but_its_webhook_is() -> Result<()> {
    let bed = TestBed::create("blind").await?;
    let webhook = TestWebhook::create(&bed, Lifetimes::default()).await?;
    let start = |disturbance| -> Result<OperatorUnderTest> {
        Ok(OperatorUnderTest::start(Settings {
            webhook: Some(webhook.served()?),
            disturbance,
            ..bed.settings()
        }))
    };
    let holder = start(None)?;
    holder.until_ready(LIMIT).await?;
    let standby = start(Some(lease_is(LeaseTrouble::Refused)))?;
    cannot_look(&standby).await?;
    standby.gate().arm(None);
    standby.until_ready(LIMIT).await?;

    // Also one that could look before.
    for trouble in [LeaseTrouble::Refused, LeaseTrouble::Unanswered] {
        standby.gate().arm(Some(lease_is(trouble)));
        cannot_look(&standby).await?;
        standby.gate().arm(None);
        standby.until_ready(LIMIT).await?;
    }
    holder.until_ready(LIMIT).await?;
    drop((holder, standby));
    bed.remove().await
}

fn lease_is(trouble: LeaseTrouble) -> Disturbance {
    let trouble = Trouble::Lease(trouble);
    Disturbance::from(Faults {
        trouble,
        share: 0,
        of: 1,
    })
}

/// With its watches open.
async fn stands_by(operator: &OperatorUnderTest) -> Result<()> {
    until("the operator to look at the lease", LIMIT, async || {
        let calls = operator.gate().calls();
        ensure!(calls.iter().any(|call| call.call.what == "leases"));
        Ok(())
    })
    .await
}

/// Since its gate was armed last.
fn renewals(operator: &OperatorUnderTest) -> impl Iterator<Item = Recorded> {
    let calls = operator.gate().calls().into_iter();
    calls.filter(|call| call.call.what == "leases" && call.call.verb == Verb::Update)
}

/// It says so, and that nothing else is amiss.
async fn cannot_look(operator: &OperatorUnderTest) -> Result<()> {
    until("the operator to miss its lease", LIMIT, async || {
        let (code, text) = http::get(operator.admin(), "/readyz").await?;
        let expected = format!("lease: cannot look at lease {LEASE}");
        ensure!(
            code == 503 && text.starts_with(&expected) && text.lines().count() == 1,
            "{code}: {text}"
        );
        let (code, text) = http::get(operator.admin(), "/readyz/webhook").await?;
        ensure!(code == 200, "{code}: {text}");
        Ok(())
    })
    .await
}

/// Whoever acts serves a new Store.
async fn serve(bed: &TestBed, store: &str) -> Result<()> {
    create(bed, store).await?;
    is_served(bed, store).await
}

async fn create(bed: &TestBed, store: &str) -> Result<()> {
    resources::create(&bed.stores(), samples::store_of_driver(store, "memory")).await?;
    Ok(())
}

async fn is_served(bed: &TestBed, store: &str) -> Result<()> {
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
