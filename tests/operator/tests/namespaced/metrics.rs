//! What the operator counts, and that it names no object in a label.

use anyhow::{Context as _, Result, ensure};
use atomix_operator_tests::resources::{self, expect_condition};
use atomix_operator_tests::supervised::Supervised;
use atomix_operator_tests::test_bed::TestBed;
use atomix_operator_tests::workload::{self, LIMIT};
use atomix_operator_tests::{http, samples};
use k8s_openapi::api::core::v1::Service;
use kube::Api;
use kube::api::PostParams;
use serde_json::json;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn metrics_tell_what_the_operator_does_and_name_no_object() -> Result<()> {
    workload::run("metrics", None, live).await?;
    Ok(())
}

async fn live(bed: &TestBed, operator: &mut Supervised<'_>) -> Result<()> {
    resources::create(&bed.stores(), samples::store_of_driver("rose", "memory")).await?;
    resources::create(&bed.stores(), samples::store_of_driver("thistle", "etcd")).await?;
    bed.create_pod(samples::application_pod("hive-0", "hive"))
        .await?;
    resources::create(&bed.sessions(), samples::session("bees", "rose", "hive")).await?;
    // One that fails: somebody else's object has its name.
    let services: Api<Service> = Api::namespaced(bed.client().clone(), bed.namespace());
    let foreign = json!({"metadata": {"name": "poppy"}, "spec": {"ports": [{"port": 80}]}});
    let foreign = serde_json::from_value(foreign)?;
    services.create(&PostParams::default(), &foreign).await?;
    let one = samples::StoreSize {
        replicas: 1,
        partitions: 1,
    };
    resources::create(&bed.stores(), samples::store("poppy", one)).await?;
    operator
        .until_settled("the Session to be connected", LIMIT, async || {
            let session = bed.sessions().get("bees").await?;
            let ready = expect_condition(&session, "Ready", "True")?;
            ensure!(ready.reason == "Connected", "{ready:?}");
            expect_condition(&bed.stores().get("poppy").await?, "Stalled", "True")?;
            expect_condition(&bed.stores().get("thistle").await?, "Stalled", "True")?;
            Ok(())
        })
        .await?;

    let (code, text) = http::get(operator.admin(), "/metrics").await?;
    ensure!(code == 200, "{code}");
    let value = |series: &str| -> Result<f64> {
        let line = text
            .lines()
            .find_map(|line| line.strip_prefix(&format!("{series} ")));
        Ok(line
            .with_context(|| format!("no {series} in {text}"))?
            .parse()?)
    };
    for controller in ["store", "session", "runtime"] {
        let label = format!(r#"{{controller="{controller}"}}"#);
        let count = format!("atomix_operator_reconcile_duration_seconds_count{label}");
        ensure!(value(&count)? >= 1.0, "{count}");
        value(&format!("atomix_operator_queue_depth{label}"))?;
    }
    for (series, least) in [
        (
            r#"reconcile_errors_total{controller="store",category="Conflict"}"#,
            1.0,
        ),
        (r#"api_requests_total{verb="patch",resource="stores"}"#, 2.0),
        (
            r#"api_requests_total{verb="list",resource="sessions"}"#,
            1.0,
        ),
        (r#"api_requests_total{verb="watch",resource="pods"}"#, 1.0),
        (
            r#"grpc_calls_total{method="/atomix.runtime.v1.Runtime/Connect"}"#,
            1.0,
        ),
        (r#"lease_held"#, 1.0),
    ] {
        let found = value(&format!("atomix_operator_{series}"))?;
        ensure!(found >= least, "{series} is {found}");
    }
    for (kind, state, number) in [
        ("Store", "Ready", 1.0),
        ("Store", "Stalled", 2.0),
        ("Session", "Ready", 1.0),
    ] {
        let series = format!(r#"atomix_operator_objects{{kind="{kind}",state="{state}"}}"#);
        ensure!(value(&series)? == number, "{series} is {}", value(&series)?);
    }
    for name in ["rose", "bees", "hive-0"] {
        ensure!(!text.contains(name), "{name} is a label");
    }

    let gone = r#"atomix_operator_objects{kind="Session",state="Ready"} 0"#;
    workload::delete_and_wait(operator, &bed.sessions(), "bees").await?;
    let admin = operator.admin();
    operator
        .until("the gauge to follow", LIMIT, async || {
            let (_, text) = http::get(admin, "/metrics").await?;
            ensure!(text.contains(gone), "{text}");
            Ok(())
        })
        .await
}
