//! Uninstalling lets go of all objects and leaves them, and the chart's policy keeps Stores that are
//! in use from being deleted in the foreground: both at the real API server.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use atomix_operator::Scope;
use atomix_operator::uninstall::uninstall;
use atomix_operator_tests::resources::{self, expect_condition};
use atomix_operator_tests::samples::{self, StoreSize};
use atomix_operator_tests::test_bed::TestBed;
use atomix_operator_tests::wait::until;
use atomix_operator_tests::workload::LIMIT;
use k8s_openapi::api::admissionregistration::v1::{
    ValidatingAdmissionPolicy, ValidatingAdmissionPolicyBinding,
};
use k8s_openapi::api::apps::v1::Deployment;
use kube::api::{DeleteParams, Patch, PatchParams, PostParams, PropagationPolicy};
use kube::{Api, ResourceExt as _};
use serde::Deserialize as _;
use serde_json::json;

const STORE: &str = "tulip";
const TEMPLATE: &str = include_str!("../../../../charts/atomix/templates/foreground-deletion.yaml");

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn uninstalling_stops_the_operator_and_lets_go_of_what_it_served() -> Result<()> {
    let bed = TestBed::create("uninstall").await?;
    let operator = bed.operator(None);
    resources::create(&bed.stores(), samples::store_of_driver(STORE, "memory")).await?;
    resources::create(&bed.sessions(), samples::session("bees", STORE, "hive")).await?;
    until(
        "the Store and the Session to be guarded",
        LIMIT,
        async || {
            let store = bed.stores().get(STORE).await?;
            expect_condition(&store, "Ready", "True")?;
            let session = bed.sessions().get("bees").await?;
            for object in [&store, &session] {
                ensure!(!object.finalizers().is_empty(), "{}", object.name_any());
            }
            Ok(())
        },
    )
    .await?;
    let deployments: Api<Deployment> = Api::namespaced(bed.client().clone(), bed.namespace());
    let labels = json!({"app": "operator"});
    let deployment: Deployment = serde_json::from_value(json!({
        "metadata": {"name": "the-operator"},
        "spec": {
            "replicas": 2,
            "selector": {"matchLabels": labels},
            "template": {
                "metadata": {"labels": labels},
                "spec": {
                    "nodeSelector": {"atomix.io/operator-tests-nowhere": "true"},
                    "containers": [{"name": "operator", "image": "application:test"}],
                },
            },
        },
    }))?;
    deployments
        .create(&PostParams::default(), &deployment)
        .await?;
    // No kubelet runs it; the operator of this test ends as its pods would.
    operator.terminate()?;

    let scope = Scope::Namespace(bed.namespace().to_owned());
    let run = async || uninstall(bed.client(), &scope, bed.namespace(), "the-operator").await;
    ensure!(run().await? == 2, "a Store and a Session were guarded");
    ensure!(run().await? == 0, "again, there is nothing left to do");
    let gone = uninstall(bed.client(), &scope, bed.namespace(), "nothing").await?;
    ensure!(gone == 0, "also without a Deployment");
    let scaled = deployments.get("the-operator").await?;
    let replicas = scaled.spec.and_then(|spec| spec.replicas);
    ensure!(replicas == Some(0), "{replicas:?}");
    for object in [
        bed.stores().get(STORE).await?,
        bed.sessions().get("bees").await?,
    ] {
        ensure!(object.finalizers().is_empty(), "{}", object.name_any());
        ensure!(object.metadata.deletion_timestamp.is_none());
    }
    bed.remove().await
}

/// The chart's policy and its binding, for the namespace alone.
fn policy(
    namespace: &str,
) -> Result<(ValidatingAdmissionPolicy, ValidatingAdmissionPolicyBinding)> {
    let rendered: Vec<String> = TEMPLATE
        .lines()
        .filter(|line| !line.trim().starts_with("{{-") && !line.contains("labels:"))
        .map(|line| line.replace("{{ $name }}", namespace))
        // With this namespace as the only one that is watched.
        .map(|line| line.replace("{{ . }}", namespace))
        .collect();
    let rendered = rendered.join("\n");
    let mut documents = serde_yaml::Deserializer::from_str(&rendered);
    let policy = documents.next().context("the template has a policy")?;
    let policy = ValidatingAdmissionPolicy::deserialize(policy)?;
    let binding = documents.next().context("the template has a binding")?;
    let binding = ValidatingAdmissionPolicyBinding::deserialize(binding)?;
    let selected = binding.spec.as_ref();
    let selected = selected.and_then(|spec| spec.match_resources.as_ref());
    ensure!(
        selected.is_some_and(|selected| selected.namespace_selector.is_some()),
        "the policy would be in force for all: {binding:?}"
    );
    Ok((policy, binding))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_store_that_sessions_use_is_not_deleted_in_the_foreground() -> Result<()> {
    let bed = TestBed::create("foreground").await?;
    let (policy, binding) = policy(bed.namespace())?;
    let policies: Api<ValidatingAdmissionPolicy> = Api::all(bed.client().clone());
    let bindings: Api<ValidatingAdmissionPolicyBinding> = Api::all(bed.client().clone());
    let parameters = PostParams::default();
    policies.create(&parameters, &policy).await?;
    bindings.create(&parameters, &binding).await?;
    let checked = foreground_is_refused(&bed).await;
    let name = policy.name_any();
    bindings.delete(&name, &DeleteParams::default()).await?;
    policies.delete(&name, &DeleteParams::default()).await?;
    checked?;
    bed.remove().await
}

async fn foreground_is_refused(bed: &TestBed) -> Result<()> {
    let size = StoreSize {
        replicas: 1,
        partitions: 1,
    };
    resources::create(&bed.stores(), samples::store(STORE, size)).await?;
    let deletion = |policy: PropagationPolicy| DeleteParams {
        dry_run: true,
        propagation_policy: Some(policy),
        ..DeleteParams::default()
    };
    let in_use = async |in_use: bool| {
        let status = Patch::Merge(json!({"status": {"inUse": in_use}}));
        let parameters = PatchParams::default();
        bed.stores().patch_status(STORE, &parameters, &status).await
    };
    let delete = async |policy| bed.stores().delete(STORE, &deletion(policy)).await;

    in_use(true).await?;
    // A policy counts some time after it was made.
    until(
        "the policy to be in force",
        Duration::from_secs(60),
        async || {
            let refused = delete(PropagationPolicy::Foreground).await;
            let refused = refused.err().context("it would be deleted")?.to_string();
            ensure!(refused.contains("Sessions use Store tulip"), "{refused}");
            Ok(())
        },
    )
    .await?;
    delete(PropagationPolicy::Background).await?;
    delete(PropagationPolicy::Orphan).await?;
    in_use(false).await?;
    delete(PropagationPolicy::Foreground).await?;
    Ok(())
}
