//! The operator under exactly the permissions that the chart gives it: they are enough for its whole
//! story, and none of them is idle. In namespaces under Pod Security `restricted`.

use std::collections::BTreeSet;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use atomix_controller::ObjectKey;
use atomix_operator::Scope;
use atomix_operator::certificates::{CertificateSource, Lifetimes as WebhookLifetimes};
use atomix_operator::identities::{IdentityOptions, Lifetimes};
use atomix_operator_tests::fault::{Audit, Request};
use atomix_operator_tests::issuer::write_authority;
use atomix_operator_tests::namespace::TestNamespace;
use atomix_operator_tests::operator_under_test::Settings;
use atomix_operator_tests::resources::{self, expect_condition};
use atomix_operator_tests::samples::{self, StoreSize};
use atomix_operator_tests::supervised::Supervised;
use atomix_operator_tests::test_bed::TestBed;
use atomix_operator_tests::webhook::TestWebhook;
use atomix_operator_tests::workload::{self, LIMIT};
use atomix_operator_tests::{claims, counter, crds, identity};
use atomix_tls::Credentials;
use k8s_openapi::api::authentication::v1::TokenRequest;
use k8s_openapi::api::core::v1::{Namespace, Pod, Secret, ServiceAccount};
use kube::api::{DeleteParams, DynamicObject, Patch, PatchParams, PostParams};
use kube::core::discovery::ApiResource;
use kube::core::gvk::ParseGroupVersionError;
use kube::core::{GroupVersionKind, TypeMeta};
use kube::{Api, Client, ResourceExt as _};
use serde::Deserialize;
use serde_json::{Value, json};

/// Of the chart's objects and of what the operator itself is told to use.
const NAME: &str = "atomix-operator";
/// The Secret with the authority that somebody else makes.
const COMPANY: &str = "company-authority";

/// Permissions that the story does not need, each with its reason. (group, resource, verb)
const IDLE: &[(&str, &str, &str, &str)] = &[
    (
        "atomix.io",
        "stores/finalizers",
        "update",
        "asked for by an admission plug-in that this cluster does not run",
    ),
    (
        "events.k8s.io",
        "events",
        "patch",
        "the same event again, which the story need not meet",
    ),
];

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mode {
    ClusterWide,
    SingleNamespace,
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_charts_permissions_are_enough_and_none_is_idle() -> Result<()> {
    let _alone = super::ALONE.lock().await;
    for mode in [Mode::ClusterWide, Mode::SingleNamespace] {
        Box::pin(story(mode))
            .await
            .with_context(|| format!("{mode:?}"))?;
    }
    Ok(())
}

async fn story(mode: Mode) -> Result<()> {
    let bed = TestBed::create_secured("permitted", Lifetimes::default()).await?;
    restrict(&bed).await?;
    // Where the operator itself would run.
    let own = TestNamespace::create(bed.server(), "system").await?;
    let admin = bed.client().clone();
    let watched = match mode {
        Mode::ClusterWide => String::new(),
        Mode::SingleNamespace => bed.namespace().to_owned(),
    };
    if mode == Mode::ClusterWide {
        // So that the operator makes them.
        remove_drivers(&admin).await?;
    }
    let rendered = render(own.name(), &watched, bed.namespace())?;
    remove(&admin, &rendered).await?;
    for object in &rendered {
        let api = api_of(&admin, object)?;
        api.create(&PostParams::default(), object)
            .await
            .with_context(|| format!("cannot create {}", object.name_any()))?;
    }
    crds::teach_a_newer_version(&admin).await?;
    let result = live(mode, bed, &own, &rendered).await;
    crds::restore(&admin).await?;
    remove(&admin, &rendered).await?;
    if mode == Mode::ClusterWide {
        remove_drivers(&admin).await?;
    }
    result?;
    own.remove().await
}

async fn live(
    mode: Mode,
    bed: TestBed,
    own: &TestNamespace,
    rendered: &[DynamicObject],
) -> Result<()> {
    let authority = ObjectKey::new(own.name(), format!("{NAME}-authority"));
    identity::use_authority(bed.namespace(), &authority);
    let secret = ObjectKey::new(own.name(), format!("{NAME}-webhook"));
    let kept = [authority.clone(), secret.clone()];
    let company = ObjectKey::new(own.name(), COMPANY);
    let source = CertificateSource::Operator(WebhookLifetimes::default());
    let webhook = TestWebhook::create_named(&bed, source, secret, NAME.to_owned()).await?;
    let audit = Audit::default();
    let token = token(bed.client(), own.name()).await?;
    let settings = Settings {
        server: bed.server().with_token(&token)?,
        scope: match mode {
            Mode::ClusterWide => Scope::Cluster,
            Mode::SingleNamespace => Scope::Namespace(bed.namespace().to_owned()),
        },
        lease_namespace: own.name().to_owned(),
        identities: Some(IdentityOptions {
            authority,
            source: Some(company.clone()),
            lifetimes: Lifetimes::default(),
            credentials: Credentials::default(),
        }),
        webhook: Some(webhook.served()?),
        audit: Some(audit.clone()),
        network_policies: true,
        secret_namespaces: vec![bed.namespace().to_owned()],
        ..bed.settings()
    };
    let seen = audit.clone();
    workload::run_with(bed, settings, async |bed, operator| {
        make_authority(bed, operator, &company).await?;
        Box::pin(meet_what_does_not_decode(mode, bed, operator)).await?;
        let live = async || Box::pin(live_and_die(bed, operator)).await;
        claims::with_class_that_grows(bed, live).await?;
        for secret in &kept {
            spoil_and_heal(bed, operator, secret).await?;
        }
        refused(&seen)
    })
    .await?;
    refused(&audit)?;
    let idle = idle(rendered, &audit)?;
    ensure!(
        idle.is_empty(),
        "the chart grants what is never used: {idle:#?}; the operator asked for {:#?}",
        audit.requests()
    );
    Ok(())
}

/// The operator tells that somebody else has to make its authority, and takes it over.
async fn make_authority(
    bed: &TestBed,
    operator: &mut Supervised<'_>,
    company: &ObjectKey,
) -> Result<()> {
    operator
        .until("the authority to be missed", LIMIT, async || {
            let warnings = resources::warnings(bed.client(), &company.namespace, COMPANY).await?;
            ensure!(warnings.contains_key("AuthorityUnusable"), "{warnings:?}");
            Ok(())
        })
        .await?;
    let secrets: Api<Secret> = Api::namespaced(bed.client().clone(), &company.namespace);
    write_authority(&secrets, COMPANY, Lifetimes::default().authority).await?;
    Ok(())
}

/// What is reported of objects that a newer version has made is read and written as it is.
async fn meet_what_does_not_decode(
    mode: Mode,
    bed: &TestBed,
    operator: &mut Supervised<'_>,
) -> Result<()> {
    let mut newer = vec![
        (bed.stores(), crds::newer_store("odd")),
        (bed.sessions(), crds::newer_session("odd", "odd")),
    ];
    if mode == Mode::ClusterWide {
        let drivers = resources::drivers(bed.client());
        newer.push((drivers, crds::newer_driver("odd")));
    }
    for (api, object) in newer {
        crds::create_newer(&api, &object).await?;
        operator
            .until("an undecodable object to be reported", LIMIT, async || {
                expect_condition(&api.get("odd").await?, "Stalled", "True")?;
                Ok(())
            })
            .await?;
        workload::delete_and_wait(operator, &api, "odd").await?;
    }
    Ok(())
}

/// The whole story of a Store and a Session, with an injected pod.
async fn live_and_die(bed: &TestBed, operator: &mut Supervised<'_>) -> Result<()> {
    let size = StoreSize {
        replicas: 3,
        partitions: 2,
    };
    workload::bootstrap(bed, operator, "tulip", size).await?;
    resources::create(&bed.sessions(), samples::session("bees", "tulip", "hive")).await?;
    let pod = samples::restricted(samples::asking_pod("hive-0", "hive"));
    operator
        .until("an injected pod to be admitted", LIMIT, async || match bed
            .create_pod(pod.clone())
            .await
        {
            Err(error) if format!("{error:#}").contains("AlreadyExists") => Ok(()),
            created => created,
        })
        .await?;
    operator
        .until("the Session to be connected", LIMIT, async || {
            let session = bed.sessions().get("bees").await?;
            expect_condition(&session, "Ready", "True")?;
            let connected = session.data.pointer("/status/pods/connected");
            ensure!(connected == Some(&json!(1)), "{connected:?} pods");
            Ok(())
        })
        .await?;
    let address = bed.runner().address("hive-0").context("no address")?;
    counter::increment(address, "honey", 5).await?;
    // What is changed afterwards is applied, not created.
    let patch = Patch::Merge(json!({"spec": {"allowedNamespaces": ["field"]}}));
    bed.stores()
        .patch("tulip", &PatchParams::default(), &patch)
        .await?;
    change_tulip(bed, operator).await?;
    // Another Store's certificate joins the Secret that is there.
    start_rose(bed, operator).await?;
    let unkept = json!({"spec": {"multiRaft": {"storage": {"retentionPolicy": "Delete"}}}});
    resources::change(&bed.stores(), "rose", unkept).await?;
    workload::delete_and_wait(operator, &bed.stores(), "rose").await?;
    workload::delete_and_wait(operator, &bed.sessions(), "bees").await?;
    bed.delete_pod("hive-0").await?;
    workload::delete_and_wait(operator, &bed.stores(), "tulip").await?;
    operator
        .until("the certificates to go", LIMIT, async || {
            let secrets: Api<Secret> = Api::namespaced(bed.client().clone(), bed.namespace());
            let left = secrets.list(&Default::default()).await?;
            ensure!(left.items.is_empty(), "{} are left", left.items.len());
            Ok(())
        })
        .await
}

/// All pods are replaced, and then all copies but one are removed.
async fn change_tulip(bed: &TestBed, operator: &mut Supervised<'_>) -> Result<()> {
    let red = json!([{"name": "COLOUR", "value": "red"}]);
    for change in [
        json!({"pod": {"env": red}}),
        json!({"replicationFactor": 1}),
    ] {
        let change = json!({"spec": {"multiRaft": change}});
        resources::change(&bed.stores(), "tulip", change).await?;
        operator
            .until_settled("the change to be carried out", LIMIT * 2, async || {
                let store = workload::store_is_ready(bed, "tulip").await?;
                expect_condition(&store, "Progressing", "False")?;
                let updated = store.data.pointer("/status/updatedReplicas");
                ensure!(updated == Some(&json!(3)), "{updated:?} are updated");
                Ok(())
            })
            .await?;
    }
    Ok(())
}

/// A Store whose image does not exist at first, with a value that a Secret holds, and whose volume
/// grows.
async fn start_rose(bed: &TestBed, operator: &mut Supervised<'_>) -> Result<()> {
    let secrets: Api<Secret> = Api::namespaced(bed.client().clone(), bed.namespace());
    let secret = serde_json::from_value(json!({
        "metadata": {"name": "nectar", "labels": {"atomix.io/config": "true"}},
        "stringData": {"timeout": "20s"},
    }))?;
    secrets.create(&PostParams::default(), &secret).await?;
    let one = StoreSize {
        replicas: 1,
        partitions: 1,
    };
    let mut store = samples::store("rose", one);
    store["spec"]["multiRaft"]["pod"]["image"] = json!("atomix-node:missing");
    store["spec"]["multiRaft"]["storage"]["storageClassName"] = json!(bed.namespace());
    store["spec"]["configFrom"] = json!([
        {"secretRef": {"name": "nectar"}, "key": "timeout", "path": "timeouts.session"},
    ]);
    resources::create(&bed.stores(), store).await?;
    operator
        .until("the Store to name its image", LIMIT, async || {
            let store = bed.stores().get("rose").await?;
            let ready = expect_condition(&store, "Ready", "False")?;
            ensure!(ready.reason == "ImagePullFailed", "{ready:?}");
            Ok(())
        })
        .await?;
    let corrected = json!({"spec": {"multiRaft": {"pod": {"image": "atomix-node:test"}}}});
    resources::change(&bed.stores(), "rose", corrected).await?;
    operator
        .until_settled("the Store to be ready", LIMIT, async || {
            workload::store_is_ready(bed, "rose").await?;
            Ok(())
        })
        .await?;
    secrets.delete("nectar", &DeleteParams::default()).await?;
    claims::bind_all(bed).await?;
    let size = json!({"spec": {"multiRaft": {"storage": {"size": "128Mi"}}}});
    resources::change(&bed.stores(), "rose", size).await?;
    operator
        .until("its claim to ask for more", LIMIT, async || {
            let claim = claims::of(bed).get("data-rose-0").await?;
            let asked = claim.spec.and_then(|spec| spec.resources?.requests);
            let asked = asked.and_then(|asked| asked.get("storage").cloned());
            ensure!(
                asked.as_ref().is_some_and(|asked| asked.0 == "128Mi"),
                "{asked:?}"
            );
            Ok(())
        })
        .await
}

/// What is of no use in a Secret of the operator's own is made anew.
async fn spoil_and_heal(
    bed: &TestBed,
    operator: &mut Supervised<'_>,
    key: &ObjectKey,
) -> Result<()> {
    let secrets: Api<Secret> = Api::namespaced(bed.client().clone(), &key.namespace);
    let rubbish = Patch::Merge(json!({"stringData": {"ca.key": "rubbish"}}));
    let spoiled = secrets
        .patch(&key.name, &PatchParams::default(), &rubbish)
        .await?;
    operator
        .until("a Secret to be healed", LIMIT, async || {
            let now = secrets.get(&key.name).await?;
            ensure!(now.data != spoiled.data, "{key} is as it was");
            Ok(())
        })
        .await
}

fn refused(audit: &Audit) -> Result<()> {
    let refused: Vec<Request> = audit
        .requests()
        .into_iter()
        .filter(|request| [401, 403].contains(&request.status))
        .collect();
    ensure!(refused.is_empty(), "the chart does not permit {refused:#?}");
    Ok(())
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Rule {
    api_groups: Vec<String>,
    resources: Vec<String>,
    #[serde(default)]
    resource_names: Vec<String>,
    verbs: Vec<String>,
}

/// What the chart grants, was not used, and has no reason.
fn idle(rendered: &[DynamicObject], audit: &Audit) -> Result<Vec<String>> {
    let used = audit.requests();
    let mut idle = BTreeSet::new();
    for object in rendered {
        let Some(rules) = object.data.get("rules") else {
            continue;
        };
        for rule in serde_json::from_value::<Vec<Rule>>(rules.clone())? {
            for (group, resource, verb) in granted(&rule) {
                let matches = |request: &&Request| {
                    request.group == group
                        && request.resource == resource
                        && request.verb == verb
                        && (rule.resource_names.is_empty()
                            || rule.resource_names.contains(&request.name))
                };
                let has_reason = IDLE.iter().any(|(known, kind, action, _)| {
                    (*known, *kind, *action) == (group, resource, verb)
                });
                if !has_reason && !used.iter().any(|request| matches(&request)) {
                    idle.insert(format!(
                        "{verb} {resource}.{group} {:?}",
                        rule.resource_names
                    ));
                }
            }
        }
    }
    Ok(idle.into_iter().collect())
}

fn granted(rule: &Rule) -> Vec<(&str, &str, &str)> {
    let mut all = Vec::new();
    for group in &rule.api_groups {
        for resource in &rule.resources {
            for verb in &rule.verbs {
                all.push((group.as_str(), resource.as_str(), verb.as_str()));
            }
        }
    }
    all
}

/// Pods that break the profile are refused by the API server itself.
async fn restrict(bed: &TestBed) -> Result<()> {
    let namespaces: Api<Namespace> = Api::all(bed.client().clone());
    let patch = Patch::Merge(json!({"metadata": {"labels": {
        "pod-security.kubernetes.io/enforce": "restricted",
    }}}));
    namespaces
        .patch(bed.namespace(), &PatchParams::default(), &patch)
        .await?;
    let pods: Api<Pod> = bed.pods();
    let loose: Pod = serde_json::from_value(samples::asking_pod("loose", "none"))?;
    let dry = PostParams {
        dry_run: true,
        ..PostParams::default()
    };
    let loose = Pod {
        metadata: kube::api::ObjectMeta {
            labels: None,
            ..loose.metadata
        },
        ..loose
    };
    match pods.create(&dry, &loose).await {
        Err(kube::Error::Api(status)) if status.message.contains("restricted") => Ok(()),
        other => bail!(
            "the profile is not enforced: {:?}",
            other.map(|pod| pod.name_any())
        ),
    }
}

/// The chart's permissions and ServiceAccount; `secrets` is the namespace whose Secrets it grants.
fn render(namespace: &str, watched: &str, secrets: &str) -> Result<Vec<DynamicObject>> {
    // Tests run in the folder of their package.
    let chart = "../../charts/atomix";
    let output = Command::new("helm")
        .args(["template", "atomix", chart, "--namespace", namespace])
        .args(["--kube-version", "1.36.0"])
        .args(["--set", &format!("watchNamespace={watched}")])
        .args(["--set", &format!("tls.authoritySource={COMPANY}")])
        .args([
            "--set",
            &format!("configFrom.secretNamespaces={{{secrets}}}"),
        ])
        .args(["--show-only", "templates/rbac.yaml"])
        .args(["--show-only", "templates/serviceaccount.yaml"])
        .output()
        .context("cannot run helm: put it on the PATH, as scripts/test.sh does")?;
    let errors = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "helm template failed: {errors}");
    let text = String::from_utf8(output.stdout)?;
    let mut objects = Vec::new();
    for document in serde_yaml::Deserializer::from_str(&text) {
        let value = Value::deserialize(document)?;
        if !value.is_null() {
            objects.push(serde_json::from_value(value)?);
        }
    }
    ensure!(objects.len() >= 7, "only {} objects", objects.len());
    Ok(objects)
}

fn api_of(client: &Client, object: &DynamicObject) -> Result<Api<DynamicObject>> {
    let types: &TypeMeta = object.types.as_ref().context("an object without a kind")?;
    let kind = GroupVersionKind::try_from(types)
        .map_err(|error: ParseGroupVersionError| anyhow::anyhow!("{error}"))?;
    let resource = ApiResource::from_gvk(&kind);
    Ok(match object.namespace() {
        Some(namespace) => Api::namespaced_with(client.clone(), &namespace, &resource),
        None => Api::all_with(client.clone(), &resource),
    })
}

/// Also what an interrupted run has left.
async fn remove(client: &Client, objects: &[DynamicObject]) -> Result<()> {
    for object in objects {
        let api = api_of(client, object)?;
        match api
            .delete(&object.name_any(), &DeleteParams::default())
            .await
        {
            Ok(_) => {}
            Err(kube::Error::Api(status)) if status.code == 404 => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

async fn remove_drivers(client: &Client) -> Result<()> {
    super::remove_drivers(&resources::drivers(client)).await
}

async fn token(client: &Client, namespace: &str) -> Result<String> {
    let accounts: Api<ServiceAccount> = Api::namespaced(client.clone(), namespace);
    let request: TokenRequest = serde_json::from_value(json!({
        "spec": {"audiences": [], "expirationSeconds": Duration::from_secs(3600).as_secs()},
    }))?;
    let answer = accounts
        .create_token_request(NAME, &PostParams::default(), &request)
        .await?;
    Ok(answer.status.context("no token")?.token)
}
