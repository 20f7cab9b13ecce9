//! Tools that apply manifests again and again see no drift: the operator writes nothing that a user
//! or an autoscaler owns.

use anyhow::{Context as _, Result, ensure};
use atomix_operator_tests::resources::expect_condition;
use atomix_operator_tests::supervised::Supervised;
use atomix_operator_tests::test_bed::TestBed;
use atomix_operator_tests::workload::{self, LIMIT};
use kube::api::{ApiResource, DynamicObject, Patch, PatchParams};
use kube::core::GroupVersionKind;
use kube::{Api, ResourceExt as _};
use serde::Deserialize as _;
use serde_json::{Value, json};

const STORE: &str = include_str!("../../../../deploy/samples/store.yaml");
const SESSION: &str = include_str!("../../../../deploy/samples/session.yaml");
const AUTOSCALED: &str = include_str!("../../../../deploy/samples/autoscaled-store.yaml");
const MANAGER: &str = "gitops-tool";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn samples_are_applied_again_without_drift_and_autoscalers_own_replicas() -> Result<()> {
    workload::run("gitops", None, live).await?;
    Ok(())
}

async fn live(bed: &TestBed, operator: &mut Supervised<'_>) -> Result<()> {
    let samples: Vec<Value> = [STORE, SESSION, AUTOSCALED]
        .into_iter()
        .flat_map(serde_yaml::Deserializer::from_str)
        .map(Value::deserialize)
        .collect::<Result<_, _>>()?;
    for sample in &samples {
        apply(bed, sample, false).await?;
    }
    ready(bed, operator, 3).await?;
    for sample in &samples {
        expect_no_drift(bed, sample).await?;
    }

    // As an autoscaler does it.
    let scale = Patch::Merge(json!({"spec": {"replicas": 4}}));
    let params = PatchParams::default();
    let scaled = bed.stores().patch_scale("scores", &params, &scale).await?;
    let selector = scaled.status.and_then(|status| status.selector);
    ensure!(
        selector
            .as_ref()
            .is_some_and(|selector| selector.contains("atomix.io/store=scores")),
        "{selector:?}"
    );
    ready(bed, operator, 4).await?;
    for sample in &samples {
        expect_no_drift(bed, sample).await?;
        apply(bed, sample, false).await?;
    }
    let scores = bed.stores().get("scores").await?;
    ensure!(
        scores.data.pointer("/spec/multiRaft/replicas") == Some(&json!(4)),
        "applying the sample again took the autoscaler's number back"
    );
    for object in [
        bed.stores().get("counts").await?,
        scores,
        bed.sessions().get("visits").await?,
    ] {
        expect_spec_untouched(&object)?;
    }
    Ok(())
}

async fn ready(bed: &TestBed, operator: &mut Supervised<'_>, replicas: u64) -> Result<()> {
    operator
        .until_settled("the samples to be ready", LIMIT * 2, async || {
            for (store, replicas) in [("counts", 3), ("scores", replicas)] {
                let store = workload::store_is_ready(bed, store).await?;
                expect_condition(&store, "Progressing", "False")?;
                let seen = store.data.pointer("/status/replicas");
                ensure!(seen == Some(&json!(replicas)), "{seen:?} replicas");
            }
            expect_condition(&bed.sessions().get("visits").await?, "Ready", "True")?;
            Ok(())
        })
        .await
}

async fn apply(bed: &TestBed, sample: &Value, dry_run: bool) -> Result<DynamicObject> {
    let (api, name) = api_of(bed, sample)?;
    let params = PatchParams {
        dry_run,
        ..PatchParams::apply(MANAGER)
    };
    let applied = api.patch(&name, &params, &Patch::Apply(sample)).await;
    applied.with_context(|| format!("cannot apply {name}"))
}

fn api_of(bed: &TestBed, sample: &Value) -> Result<(Api<DynamicObject>, String)> {
    let text = |pointer: &str| sample.pointer(pointer).and_then(Value::as_str);
    let kind = text("/kind").context("no kind")?;
    let version = text("/apiVersion").context("no version")?;
    let (group, version) = version.split_once('/').unwrap_or(("", version));
    let resource = ApiResource::from_gvk(&GroupVersionKind::gvk(group, version, kind));
    let api = Api::namespaced_with(bed.client().clone(), bed.namespace(), &resource);
    Ok((api, text("/metadata/name").context("no name")?.to_owned()))
}

/// What an apply would make of the object is what it is, but for the time of the attempt.
async fn expect_no_drift(bed: &TestBed, sample: &Value) -> Result<()> {
    let comparable = |mut object: DynamicObject| {
        object.metadata.managed_fields = None;
        object.metadata.resource_version = None;
        object
            .data
            .as_object_mut()
            .map(|fields| fields.remove("status"));
        serde_json::to_value(object)
    };
    let (api, name) = api_of(bed, sample)?;
    let live = comparable(api.get(&name).await?)?;
    let would_be = comparable(apply(bed, sample, true).await?)?;
    ensure!(
        live == would_be,
        "{name} drifts: it is {live}, and would be {would_be}"
    );
    Ok(())
}

/// Nobody but the tool, the scale subresource and the API server's defaults wrote the spec.
fn expect_spec_untouched(object: &DynamicObject) -> Result<()> {
    for entry in object.managed_fields() {
        let manager = entry.manager.as_deref().unwrap_or_default();
        let fields = entry.fields_v1.as_ref().map(|fields| &fields.0);
        let has_spec = fields.is_some_and(|fields| fields.get("f:spec").is_some());
        let is_scale = entry.subresource.as_deref() == Some("scale");
        ensure!(
            !has_spec || manager == MANAGER || is_scale,
            "{manager} wrote the spec of {}: {fields:?}",
            object.name_any()
        );
    }
    Ok(())
}
