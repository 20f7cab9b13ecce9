//! Uninstalling lets go of all objects and leaves them, whatever disturbs it, and the chart's policy keeps
//! Stores that are in use from being deleted in the foreground: both at the real API server.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use atomix_operator_tests::matrix::disturb_sampled_calls;
use atomix_operator_tests::resources;
use atomix_operator_tests::samples::{self, StoreSize};
use atomix_operator_tests::test_bed::TestBed;
use atomix_operator_tests::uninstalling::{Extent, uninstall_and_install, uninstall_twice_at_once};
use atomix_operator_tests::wait::until;
use k8s_openapi::api::admissionregistration::v1::{
    ValidatingAdmissionPolicy, ValidatingAdmissionPolicyBinding,
};
use kube::api::{DeleteParams, Patch, PatchParams, PostParams, PropagationPolicy};
use kube::{Api, ResourceExt as _};
use serde::Deserialize as _;
use serde_json::json;

const STORE: &str = "tulip";
const TEMPLATE: &str = include_str!("../../../../charts/atomix/templates/foreground-deletion.yaml");

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn uninstalling_survives_crash_and_trouble() -> Result<()> {
    let test = "uninstalling_survives_crash_and_trouble";
    let run = |disturbance| Box::pin(uninstall_and_install(Extent::OneNamespace, disturbance));
    disturb_sampled_calls(test, run).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_uninstallers_at_once_let_go_of_everything() -> Result<()> {
    Box::pin(uninstall_twice_at_once()).await
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
