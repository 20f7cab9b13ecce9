//! The injection webhook, asked by the real API server: what becomes of pods, and certificates that
//! come, are renewed and replaced without one question failing, wherever operators crash and with
//! two of them at work; or that somebody else makes.
#![allow(
    clippy::indexing_slicing,
    reason = "a missing field of a JSON value is null, it does not panic"
)]

use std::collections::BTreeSet;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use atomix_operator::certificates::Lifetimes;
use atomix_operator_tests::fault::{CrashPoint, Disturbance, Side};
use atomix_operator_tests::frozen::Frozen;
use atomix_operator_tests::http;
use atomix_operator_tests::issuer::WebhookIssuer;
use atomix_operator_tests::namespace::TestNamespace;
use atomix_operator_tests::operator_under_test::{OperatorUnderTest, Settings};
use atomix_operator_tests::resources::{self, expect_condition};
use atomix_operator_tests::samples::{self, StoreSize};
use atomix_operator_tests::supervised::Supervised;
use atomix_operator_tests::test_bed::TestBed;
use atomix_operator_tests::wait::until;
use atomix_operator_tests::webhook::{SECRET, TestWebhook};
use atomix_operator_tests::workload::{self, LIMIT};
use k8s_openapi::api::core::v1::{Pod, PodCondition, Secret};
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
async fn a_pod_that_asks_gets_a_sidecar_that_connects_and_opens_its_gate() -> Result<()> {
    let bed = TestBed::create("inject").await?;
    let webhook = TestWebhook::create(&bed, Lifetimes::default()).await?;
    let operator = start(&bed, &webhook)?;
    until("the webhook to answer", LIMIT, async || {
        webhook.try_out(samples::asking_pod("bee", "hive")).await
    })
    .await?;

    what_is_refused_says_why(&webhook).await?;
    let mut silent = samples::asking_pod("wasp", "hive");
    silent["metadata"]["labels"]["atomix.io/inject"] = "false".into();
    let spec = webhook.try_out(silent).await?.spec.context("no spec")?;
    ensure!(
        spec.init_containers.is_none(),
        "it got {:?}",
        spec.init_containers
    );

    // Without a Session the gate stays shut, with one it opens, and its end does not shut it.
    bed.create_pod(samples::asking_pod("bee", "hive")).await?;
    let pod = bed.pods().get("bee").await?;
    let labels = pod.metadata.labels.unwrap_or_default();
    ensure!(
        labels
            .get("atomix.io/runtime")
            .is_some_and(|value| value == "true")
    );
    let injected = pod.spec.and_then(|spec| spec.init_containers);
    let injected = injected.context("no init container")?;
    let first = injected.first().map(|container| container.name.as_str());
    ensure!(first == Some("atomix-runtime"), "the first is {first:?}");
    gate(&bed, "bee", "False", "NoSession").await?;
    resources::create(&bed.stores(), samples::store_of_driver("rose", "memory")).await?;
    until("the Store to be ready", LIMIT, async || {
        expect_condition(&bed.stores().get("rose").await?, "Ready", "True")
    })
    .await?;
    resources::create(&bed.sessions(), samples::session("nectar", "rose", "hive")).await?;
    let opened = gate(&bed, "bee", "True", "Connected").await?;
    let parameters = DeleteParams::default();
    bed.sessions().delete("nectar", &parameters).await?;
    until("the Session to be gone", LIMIT, async || {
        ensure!(bed.sessions().get_opt("nectar").await?.is_none());
        Ok(())
    })
    .await?;
    // A pod that comes afterwards is looked at afterwards.
    bed.create_pod(samples::asking_pod("later", "hive")).await?;
    gate(&bed, "later", "False", "NoSession").await?;
    let kept = gate(&bed, "bee", "True", "Connected").await?;
    ensure!(
        kept == opened,
        "it was written again: {kept:?} after {opened:?}"
    );

    let writes = operator.gate().calls().into_iter();
    let writes = writes.filter(|call| call.call.to_string() == "patch pods/status bee");
    ensure!(
        writes.count() == 2,
        "the gate is written on difference only"
    );
    operator.terminate()?;
    bed.remove().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_gate_opens_again_when_the_store_that_was_lost_is_wanted_no_longer() -> Result<()> {
    let bed = TestBed::create("lost").await?;
    let webhook = TestWebhook::create(&bed, Lifetimes::default()).await?;
    let mut operator = Supervised::start_with(
        &bed,
        Settings {
            webhook: Some(webhook.served()?),
            ..bed.settings()
        },
    );
    let size = StoreSize {
        replicas: 1,
        partitions: 1,
    };
    workload::bootstrap(&bed, &mut operator, "tulip", size).await?;
    bed.create_pod(samples::asking_pod("bee", "hive")).await?;
    resources::create(&bed.sessions(), samples::session("nectar", "tulip", "hive")).await?;
    gate(&bed, "bee", "True", "Connected").await?;
    Frozen::stop(&bed, "tulip-0").await?;
    let shut = gate(&bed, "bee", "False", "Disconnected").await?;
    let message = shut.message.unwrap_or_default();
    ensure!(message.contains("tulip"), "{message}");
    workload::delete_and_wait(&mut operator, &bed.sessions(), "nectar").await?;
    gate(&bed, "bee", "True", "Connected").await?;
    drop(operator);
    bed.remove().await
}

async fn what_is_refused_says_why(webhook: &TestWebhook) -> Result<()> {
    let mut on_host = samples::asking_pod("bee", "hive");
    on_host["spec"]["hostNetwork"] = true.into();
    let Err(refused) = webhook.try_out(on_host).await else {
        anyhow::bail!("a pod on the host's network was let through");
    };
    let refused = refused.to_string();
    ensure!(refused.contains("remove hostNetwork"), "{refused}");
    Ok(())
}

async fn gate(bed: &TestBed, pod: &str, status: &str, reason: &str) -> Result<PodCondition> {
    let what = format!("the gate of {pod} to be {status} {reason}");
    until(&what, LIMIT, async || {
        let found = condition(&bed.pods().get(pod).await?)?;
        let is_wanted = found.status == status && found.reason.as_deref() == Some(reason);
        ensure!(is_wanted, "{found:?}");
        Ok(found)
    })
    .await
}

fn condition(pod: &Pod) -> Result<PodCondition> {
    let conditions = pod
        .status
        .iter()
        .flat_map(|status| status.conditions.iter().flatten());
    let mut conditions = conditions.filter(|condition| condition.type_ == "atomix.io/connected");
    let found = conditions.next().cloned();
    found.with_context(|| format!("no condition in {:?}", pod.status))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn certificates_rotate_under_two_operators_at_once_without_a_failed_question() -> Result<()> {
    let bed = TestBed::create("rotate").await?;
    let webhook = TestWebhook::create(&bed, SHORT).await?;
    // With leases of their own, both believe that they alone act.
    let elsewhere = TestNamespace::create(bed.server(), "rotate-lease").await?;
    let mut first = start(&bed, &webhook)?;
    let mut second = OperatorUnderTest::start(Settings {
        lease_namespace: elsewhere.name().to_owned(),
        webhook: Some(webhook.served()?),
        ..bed.settings()
    });
    until("the webhook to answer", LIMIT, async || {
        webhook.try_out(samples::asking_pod("bee", "hive")).await?;
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
        let asked = webhook.try_out(samples::asking_pod("bee", "hive")).await;
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
    let mut standby = start(&bed, &webhook)?;
    until("the other one to be ready", LIMIT, async || {
        let (code, text) = http::get(standby.admin(), "/readyz").await?;
        ensure!(code == 200, "{code}: {text}");
        Ok(())
    })
    .await?;
    webhook.try_out(samples::asking_pod("bee", "hive")).await?;
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
async fn a_crash_between_secret_and_ca_bundle_heals() -> Result<()> {
    for side in [Side::Before, Side::After] {
        for verb in ["create secrets", "patch mutatingwebhookconfigurations"] {
            // Each time from nothing: another configuration and another Secret.
            let place = TestBed::create("halfway").await?;
            let webhook = TestWebhook::create(&place, Lifetimes::default()).await?;
            let name = match verb {
                "create secrets" => String::new(),
                _ => format!(" lily-{}", place.namespace()),
            };
            let crash = CrashPoint {
                side,
                call: format!("{verb}{name}"),
                occurrence: 1,
            };
            heals(&place, &webhook, crash.clone())
                .await
                .with_context(|| format!("crashed {crash}"))?;
            place.remove().await?;
        }
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn certificates_that_somebody_else_makes_are_shown_and_never_written() -> Result<()> {
    let bed = TestBed::create("external").await?;
    let webhook = TestWebhook::create_external(&bed).await?;
    let operator = start(&bed, &webhook)?;
    let secrets: Api<Secret> = Api::namespaced(bed.client().clone(), bed.namespace());
    let host = webhook.host();
    let shows = async |wanted: &CertificateDer<'static>| {
        until("the webhook to show the certificate", LIMIT, async || {
            webhook.try_out(samples::asking_pod("bee", "hive")).await?;
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
    let asked = webhook.try_out(samples::asking_pod("bee", "hive")).await;
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
    let operator = start(&bed, &webhook)?;
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

async fn heals(bed: &TestBed, webhook: &TestWebhook, crash: CrashPoint) -> Result<()> {
    let mut crashing = OperatorUnderTest::start(Settings {
        disturbance: Some(Disturbance::Crash(crash.clone())),
        webhook: Some(webhook.served()?),
        ..bed.settings()
    });
    let ended = crashing.gate().ended().clone();
    let waited = tokio::time::timeout(LIMIT, ended.cancelled()).await;
    waited.context("the operator never came to its crash point")?;
    crashing.finish()?;
    let left = webhook.secret().await.ok();

    let operator = start(bed, webhook)?;
    until("the webhook to answer", LIMIT, async || {
        webhook.try_out(samples::asking_pod("bee", "hive")).await?;
        webhook.connect().await
    })
    .await?;
    if let Some(left) = left {
        let now = webhook.secret().await?;
        ensure!(now.data == left.data, "the certificates were made twice");
    }
    let created = bed.observer().counts().created;
    let secrets = created.get(&format!("Secret/{SECRET}"));
    ensure!(
        secrets == Some(&1),
        "the Secret was created {secrets:?} times"
    );
    operator.terminate()
}

fn start(bed: &TestBed, webhook: &TestWebhook) -> Result<OperatorUnderTest> {
    Ok(OperatorUnderTest::start(Settings {
        webhook: Some(webhook.served()?),
        ..bed.settings()
    }))
}
