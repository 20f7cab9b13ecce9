//! An authority that somebody else makes, as cert-manager does: it comes late, is replaced at any time,
//! spoiled and taken away, and the operator goes over to it and back, under load.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use atomix_operator::identities::{Lifetimes, NODES_SECRET, RUNTIME_SECRET};
use atomix_operator_tests::fault::Disturbance;
use atomix_operator_tests::issuer::write_authority;
use atomix_operator_tests::load::{Load, Pace};
use atomix_operator_tests::matrix::{Outcome, disturb_sampled_calls};
use atomix_operator_tests::operator_under_test::Settings;
use atomix_operator_tests::samples::{self, StoreSize};
use atomix_operator_tests::supervised::Supervised;
use atomix_operator_tests::test_bed::TestBed;
use atomix_operator_tests::workload::{self, LIMIT};
use atomix_operator_tests::{http, identity, resources};
use k8s_openapi::api::core::v1::Secret;
use kube::Api;
use kube::api::{DeleteParams, Patch, PatchParams};
use serde_json::json;

use crate::identities::{address, connect_another, content};

const STORE: &str = "tulip";

/// As in `identities`; somebody else's authority lives longer than the test.
const SHORT: Lifetimes = Lifetimes {
    authority: Duration::from_secs(110),
    certificate: Duration::from_secs(36),
    settle: Duration::from_secs(10),
};
const LONG: Duration = Duration::from_secs(3600);
const THREE: StoreSize = StoreSize {
    replicas: 3,
    partitions: 2,
};

fn secrets(bed: &TestBed) -> Api<Secret> {
    Api::namespaced(bed.client().clone(), bed.namespace())
}

/// The certificates of authorities that a Secret names, the one that signs first.
async fn named(bed: &TestBed, secret: &str) -> Result<String> {
    let bytes = content(bed, secret).await?.remove("ca.crt");
    Ok(String::from_utf8(bytes.unwrap_or_default())?)
}

/// Waits until this authority signs, and every Secret names it alone if `alone`.
async fn until_signed_by(
    bed: &TestBed,
    operator: &mut Supervised<'_>,
    authority: &str,
    alone: bool,
) -> Result<()> {
    let what = "an authority to sign";
    operator
        .until(what, LIMIT * 2, async || {
            for secret in [identity::AUTHORITY, NODES_SECRET, RUNTIME_SECRET] {
                let names = named(bed, secret).await?;
                let begins = names.starts_with(authority);
                ensure!(
                    begins && (!alone || names == authority),
                    "{secret} names others"
                );
            }
            Ok(())
        })
        .await
}

/// Waits for a Warning about the Secret that somebody else writes, with these words.
async fn until_warned(
    bed: &TestBed,
    operator: &mut Supervised<'_>,
    reason: &str,
    words: &str,
) -> Result<()> {
    operator
        .until("a warning", LIMIT, async || {
            let told = resources::warnings(bed.client(), bed.namespace(), identity::SOURCE).await?;
            let told = told.get(reason).with_context(|| format!("no {reason}"))?;
            let notes: Vec<_> = told.iter().filter_map(|one| one.note.as_deref()).collect();
            ensure!(notes.iter().any(|note| note.contains(words)), "{notes:?}");
            Ok(())
        })
        .await
}

async fn until_readiness(operator: &mut Supervised<'_>, code: u16, says: &str) -> Result<()> {
    let admin = operator.admin();
    operator
        .until("the readiness of the authority", LIMIT, async || {
            let (found, text) = http::get(admin, "/readyz/authority").await?;
            ensure!(found == code && text.contains(says), "{found}: {text}");
            Ok(())
        })
        .await
}

async fn start_load(bed: &TestBed, operator: &mut Supervised<'_>) -> Result<Load> {
    workload::bootstrap(bed, operator, STORE, THREE).await?;
    resources::create(&bed.sessions(), samples::session("bees", STORE, "hive")).await?;
    connect_another(bed, operator, 0).await?;
    let load = Load::start(address(bed, "hive-0")?, Pace::Busy);
    load.goes_on(10).await?;
    Ok(load)
}

/// Everybody who is new is connected, with all who were there before.
async fn newcomers_join(bed: &TestBed, operator: &mut Supervised<'_>, pod: usize) -> Result<()> {
    connect_another(bed, operator, pod).await?;
    bed.pods()
        .delete("tulip-1", &DeleteParams::default())
        .await?;
    operator
        .until("the node to be back", LIMIT, async || {
            workload::store_is_ready(bed, STORE).await?;
            workload::groups_are_whole(bed, STORE, THREE).await
        })
        .await
}

async fn nothing_failed(load: Load) -> Result<()> {
    load.goes_on(10).await?;
    let failure = load.first_failure();
    let (acknowledged, failed) = load.check().await?;
    println!("{acknowledged} increments, {failed} failed");
    ensure!(failed == 0, "{failed} failed, the first: {failure:?}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn somebody_elses_authority_is_replaced_under_load_without_a_failed_operation() -> Result<()>
{
    let bed = TestBed::create_secured("company", SHORT).await?;
    let bed = bed.with_authority_source();
    workload::run_in(bed, None, replace).await?;
    Ok(())
}

async fn replace(bed: &TestBed, operator: &mut Supervised<'_>) -> Result<()> {
    // It comes late, and until then nothing is made in its place.
    until_warned(bed, operator, "AuthorityUnusable", "there is no Secret").await?;
    until_readiness(operator, 503, "there is no Secret").await?;
    let made = secrets(bed).get_opt(identity::AUTHORITY).await?;
    ensure!(made.is_none(), "the operator made an authority of its own");
    let secrets = secrets(bed);
    let first = write_authority(&secrets, identity::SOURCE, LONG).await?;
    until_readiness(operator, 200, "ok").await?;
    let load = start_load(bed, operator).await?;
    until_signed_by(bed, operator, &first, true).await?;

    // Replaced, and once more before that is settled.
    let second = write_authority(&secrets, identity::SOURCE, LONG).await?;
    operator
        .until("the second authority to be trusted", LIMIT, async || {
            let names = named(bed, RUNTIME_SECRET).await?;
            ensure!(names == first.clone() + &second, "it is not, or signs");
            Ok(())
        })
        .await?;
    connect_another(bed, operator, 1).await?;
    let third = write_authority(&secrets, identity::SOURCE, LONG).await?;
    until_signed_by(bed, operator, &third, false).await?;
    newcomers_join(bed, operator, 2).await?;
    until_signed_by(bed, operator, &third, true).await?;

    // Spoiled and taken away: what was taken over signs on.
    let rubbish = Patch::Merge(json!({"stringData": {"tls.key": "rubbish"}}));
    secrets
        .patch(identity::SOURCE, &PatchParams::default(), &rubbish)
        .await?;
    until_warned(bed, operator, "AuthorityUnusable", "cannot read tls.key").await?;
    connect_another(bed, operator, 3).await?;
    secrets
        .delete(identity::SOURCE, &DeleteParams::default())
        .await?;
    newcomers_join(bed, operator, 4).await?;
    until_readiness(operator, 200, "ok").await?;
    until_signed_by(bed, operator, &third, true).await?;

    let fourth = write_authority(&secrets, identity::SOURCE, LONG).await?;
    until_signed_by(bed, operator, &fourth, false).await?;
    newcomers_join(bed, operator, 5).await?;
    nothing_failed(load).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn operators_go_over_to_somebody_elses_authority_and_back_without_a_failed_operation()
-> Result<()> {
    let lifetimes = Lifetimes {
        authority: LONG,
        ..SHORT
    };
    let bed = TestBed::create_secured("goover", lifetimes).await?;
    let source = bed.authority_source();
    let has_source = Arc::new(AtomicBool::new(false));
    let wanted = Arc::clone(&has_source);
    let settings = move |mut settings: Settings| {
        let source = wanted.load(Ordering::SeqCst).then(|| source.clone());
        if let Some(identities) = &mut settings.identities {
            identities.source = source;
        }
        settings
    };
    workload::run_as(bed, settings, None, async |bed, operator| {
        let load = start_load(bed, operator).await?;
        let company = write_authority(&secrets(bed), identity::SOURCE, LONG).await?;
        has_source.store(true, Ordering::SeqCst);
        operator.replace()?;
        until_signed_by(bed, operator, &company, false).await?;
        newcomers_join(bed, operator, 1).await?;

        has_source.store(false, Ordering::SeqCst);
        operator.replace()?;
        operator
            .until(
                "an authority of the operator's own",
                LIMIT * 2,
                async || {
                    let names = named(bed, NODES_SECRET).await?;
                    ensure!(!names.contains(&company), "the other one is trusted");
                    Ok(())
                },
            )
            .await?;
        newcomers_join(bed, operator, 2).await?;
        nothing_failed(load).await
    })
    .await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn taking_an_authority_over_survives_crash_and_trouble() -> Result<()> {
    let test = "taking_an_authority_over_survives_crash_and_trouble";
    disturb_sampled_calls(test, take_over).await
}

/// A first authority, one that follows it, and then one that is of no use.
async fn take_over(disturbance: Option<Disturbance>) -> Result<Outcome> {
    let lifetimes = Lifetimes {
        settle: Duration::from_secs(3),
        ..Lifetimes::default()
    };
    let bed = TestBed::create_secured("takeover", lifetimes).await?;
    let bed = bed.with_authority_source();
    workload::run_in(bed, disturbance, async |bed, operator| {
        let secrets = secrets(bed);
        write_authority(&secrets, identity::SOURCE, LONG).await?;
        let size = StoreSize {
            replicas: 1,
            partitions: 1,
        };
        workload::bootstrap(bed, operator, STORE, size).await?;
        let second = write_authority(&secrets, identity::SOURCE, LONG).await?;
        operator
            .until_settled("the second authority to sign", LIMIT, async || {
                for secret in [identity::AUTHORITY, NODES_SECRET] {
                    let names = named(bed, secret).await?;
                    ensure!(names.starts_with(&second), "{secret} names others first");
                }
                Ok(())
            })
            .await?;
        let rubbish = Patch::Merge(json!({"stringData": {"tls.crt": "rubbish"}}));
        secrets
            .patch(identity::SOURCE, &PatchParams::default(), &rubbish)
            .await?;
        until_warned(bed, operator, "AuthorityUnusable", "tls.crt").await?;
        operator
            .until_settled("the Store to be ready", LIMIT, async || {
                workload::store_is_ready(bed, STORE).await?;
                let names = named(bed, identity::AUTHORITY).await?;
                ensure!(names.starts_with(&second), "another one signs");
                workload::groups_are_whole(bed, STORE, size).await
            })
            .await
    })
    .await
}
