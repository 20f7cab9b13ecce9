//! The certificates of the injection webhook, which the real API server asks: they come, are renewed and
//! replaced without one question failing, wherever operators crash and with two of them at work; or
//! somebody else makes them.

use std::collections::BTreeSet;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use atomix_operator::certificates::Lifetimes;
use atomix_operator_tests::fault::Disturbance;
use atomix_operator_tests::http;
use atomix_operator_tests::issuer::WebhookIssuer;
use atomix_operator_tests::matrix::{Outcome, disturb_sampled_calls};
use atomix_operator_tests::namespace::TestNamespace;
use atomix_operator_tests::operator_under_test::{OperatorUnderTest, Settings};
use atomix_operator_tests::resources::{self, expect_condition};
use atomix_operator_tests::samples;
use atomix_operator_tests::supervised::Supervised;
use atomix_operator_tests::test_bed::TestBed;
use atomix_operator_tests::wait::until;
use atomix_operator_tests::webhook::{SECRET, TestWebhook};
use atomix_operator_tests::workload::{self, LIMIT};
use k8s_openapi::api::core::v1::Secret;
use kube::Api;
use kube::api::DeleteParams;
use rustls::pki_types::CertificateDer;
use tokio::time::Instant;

/// Short enough that a test sees authorities come and go, long enough for a busy machine.
const SHORT: Lifetimes = Lifetimes {
    authority: Duration::from_secs(36),
    certificate: Duration::from_secs(12),
};
/// Between two questions of a test that asks all the time.
const PERIOD: Duration = Duration::from_millis(50);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn certificates_rotate_under_two_operators_at_once_without_a_failed_question() -> Result<()> {
    let bed = TestBed::create("rotate").await?;
    let webhook = TestWebhook::create(&bed, SHORT).await?;
    // With leases of their own, both believe that they alone act.
    let elsewhere = TestNamespace::create(bed.server(), "rotate-lease").await?;
    let mut first = webhook.operator(&bed)?;
    let mut second = OperatorUnderTest::start(Settings {
        lease_namespace: elsewhere.name().to_owned(),
        webhook: Some(webhook.served()?),
        ..bed.settings()
    });
    until("the webhook to answer", LIMIT, async || {
        webhook.injects().await?;
        // Of both operators, which take turns.
        for _ in 0..6 {
            webhook.connect().await?;
        }
        Ok(())
    })
    .await?;

    let begin = Instant::now();
    let mut authorities: BTreeSet<Vec<u8>> = BTreeSet::new();
    let mut certificates: BTreeSet<Vec<u8>> = BTreeSet::new();
    let oldest = webhook.authorities().await?;
    let mut questions = 0;
    let mut period = tokio::time::interval(PERIOD);
    loop {
        period.tick().await;
        let asked = webhook.injects().await;
        asked.with_context(|| format!("question {questions}, after {:?}", begin.elapsed()))?;
        let shown = webhook.connect().await;
        let shown =
            shown.with_context(|| format!("question {questions}, after {:?}", begin.elapsed()))?;
        certificates.insert(shown.to_vec());
        let trusted = webhook.authorities().await?;
        authorities.extend(trusted.iter().map(|authority| authority.to_vec()));
        questions += 1;
        let is_first_gone = oldest.iter().all(|authority| !trusted.contains(authority));
        if is_first_gone && authorities.len() > 1 && certificates.len() > 3 {
            break;
        }
        ensure!(
            begin.elapsed() < SHORT.authority * 3,
            "after {:?} there were {} authorities and {} certificates",
            begin.elapsed(),
            authorities.len(),
            certificates.len()
        );
        first.check_alive_or_killed()?;
        second.check_alive_or_killed()?;
    }
    println!(
        "{questions} questions, {} authorities, {} certificates in {:?}",
        authorities.len(),
        certificates.len(),
        begin.elapsed()
    );
    drop((first, second));
    elsewhere.remove().await?;
    bed.remove().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replica_gets_ready_beside_a_leader_that_makes_no_certificates() -> Result<()> {
    let bed = TestBed::create("beside").await?;
    let mut leader = bed.operator(None);
    resources::create(&bed.stores(), samples::store_of_driver("rose", "memory")).await?;
    until("an operator to lead", LIMIT, async || {
        expect_condition(&bed.stores().get("rose").await?, "Ready", "True")?;
        Ok(())
    })
    .await?;
    let webhook = TestWebhook::create(&bed, Lifetimes::default()).await?;
    let mut standby = webhook.operator(&bed)?;
    standby.until_ready(LIMIT).await?;
    webhook.injects().await?;
    leader.check_alive_or_killed()?;

    // Now the first one may go.
    leader.terminate()?;
    resources::create(&bed.stores(), samples::store_of_driver("lily", "memory")).await?;
    until("the other one to lead", LIMIT, async || {
        expect_condition(&bed.stores().get("lily").await?, "Ready", "True")?;
        Ok(())
    })
    .await?;
    standby.check_alive_or_killed()?;
    drop(standby);
    bed.remove().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn certificates_are_made_and_made_anew_after_crash_and_trouble() -> Result<()> {
    let test = "certificates_are_made_and_made_anew_after_crash_and_trouble";
    disturb_sampled_calls(test, certificates_come_and_go).await
}

/// From nothing to certificates that the API server trusts, of which somebody takes away what it trusts,
/// and then the Secret.
async fn certificates_come_and_go(disturbance: Option<Disturbance>) -> Result<Outcome> {
    let bed = TestBed::create("halfway").await?;
    let webhook = TestWebhook::create(&bed, Lifetimes::default()).await?;
    let serving = |settings: Settings| Settings {
        webhook: Some(webhook.served().expect("a socket can be shared")),
        ..settings
    };
    workload::run_as(bed, serving, disturbance, async |bed, operator| {
        let first = until_trusted(operator, &webhook, None).await?;
        webhook.trust_nobody().await?;
        let second = until_trusted(operator, &webhook, None).await?;
        ensure!(first == second, "the certificates were made twice");
        let secrets: Api<Secret> = Api::namespaced(bed.client().clone(), bed.namespace());
        secrets.delete(SECRET, &DeleteParams::default()).await?;
        until_trusted(operator, &webhook, Some(&first)).await?;
        Ok(())
    })
    .await
}

/// Waits until the API server asks the webhook, and returns the certificate that it is shown: another
/// one than `old`.
async fn until_trusted(
    operator: &mut Supervised<'_>,
    webhook: &TestWebhook,
    old: Option<&CertificateDer<'static>>,
) -> Result<CertificateDer<'static>> {
    operator
        .until_settled("the webhook to answer", LIMIT, async || {
            webhook.injects().await?;
            let shown = webhook.connect().await?;
            ensure!(Some(&shown) != old, "the old certificate is shown");
            let trusted = webhook.authorities().await?.len();
            ensure!(trusted == 1, "{trusted} authorities are trusted");
            Ok(shown)
        })
        .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn certificates_that_somebody_else_makes_are_shown_and_never_written() -> Result<()> {
    let bed = TestBed::create("external").await?;
    let webhook = TestWebhook::create_external(&bed).await?;
    let operator = webhook.operator(&bed)?;
    let secrets: Api<Secret> = Api::namespaced(bed.client().clone(), bed.namespace());
    let host = webhook.host();
    let shows = async |wanted: &CertificateDer<'static>| {
        until("the webhook to show the certificate", LIMIT, async || {
            webhook.injects().await?;
            ensure!(webhook.connect().await? == *wanted, "it shows another one");
            Ok(())
        })
        .await
    };

    // The Secret comes before the caBundle.
    let issuer = WebhookIssuer::new("first")?;
    let first = issuer.issue(&secrets, SECRET, &host).await?;
    webhook.trust(&issuer.authority).await?;
    shows(&first).await?;

    // A renewal.
    let second = issuer.issue(&secrets, SECRET, &host).await?;
    let asked = webhook.injects().await;
    asked.context("while the certificate is renewed")?;
    shows(&second).await?;

    // A certificate that the API server does not trust yet waits until it does.
    let next = WebhookIssuer::new("second")?;
    let third = next.issue(&secrets, SECRET, &host).await?;
    let mut period = tokio::time::interval(PERIOD);
    for _ in 0..40 {
        period.tick().await;
        let shown = webhook.connect().await?;
        ensure!(shown == second, "it shows what is not trusted yet");
    }
    webhook.trust(&next.authority).await?;
    shows(&third).await?;

    // It may not even get them then.
    let calls = operator.gate().calls().into_iter();
    let calls = calls.map(|call| call.call.to_string());
    let written: Vec<String> = calls
        .filter(|call| call.contains("secrets") || call.contains("webhookconfigurations"))
        .filter(|call| !call.starts_with("list") && !call.starts_with("watch"))
        .collect();
    ensure!(written.is_empty(), "the operator called {written:?}");
    operator.terminate()?;
    bed.remove().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replica_is_ready_while_the_api_server_would_take_its_certificate() -> Result<()> {
    let bed = TestBed::create("taken").await?;
    let webhook = TestWebhook::create_external(&bed).await?;
    let operator = webhook.operator(&bed)?;
    webhook_is(&operator, 503, "there is no Secret").await?;
    let secrets: Api<Secret> = Api::namespaced(bed.client().clone(), bed.namespace());
    let issuer = WebhookIssuer::new("only")?;
    issuer.issue(&secrets, SECRET, &webhook.host()).await?;
    webhook_is(&operator, 503, "has no caBundle").await?;
    webhook.trust(&issuer.authority).await?;
    webhook_is(&operator, 200, "ok").await?;

    // Somebody takes it away, as a tool that applies the chart anew may.
    webhook.trust_nobody().await?;
    webhook_is(&operator, 503, "has no caBundle").await?;
    webhook.trust(&issuer.authority).await?;
    webhook_is(&operator, 200, "ok").await?;
    operator.terminate()?;
    bed.remove().await
}

/// Waits until the probe of the webhook answers so.
async fn webhook_is(operator: &OperatorUnderTest, code: u16, says: &str) -> Result<()> {
    let what = format!("/readyz/webhook to answer {code}, {says}");
    until(&what, LIMIT, async || {
        let (found, text) = http::get(operator.admin(), "/readyz/webhook").await?;
        ensure!(found == code && text.contains(says), "{found}: {text}");
        Ok(())
    })
    .await
}
