//! The workload of uninstalling and installing again, beside an application that counts: a Store with
//! nodes that stays, and a Store and a Session that are under deletion and wait.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use atomix_operator::Scope;
use atomix_operator::session::SessionOptions;
use atomix_proto::runtime::v1::Connection;
use atomix_resources::labels::{DRIVER_FINALIZER, SESSION_FINALIZER, STORE_FINALIZER};
use kube::ResourceExt as _;
use kube::api::{DeleteParams, ListParams};
use serde_json::{Value, json};

use crate::deployed::Deployed;
use crate::end_state::end_state;
use crate::fault::{Disturbance, Recorded, Verb};
use crate::frozen::Frozen;
use crate::load::{Load, Pace};
use crate::matrix::Outcome;
use crate::operator_under_test::Settings;
use crate::resources::{self, expect_condition};
use crate::samples::{self, StoreSize};
use crate::test_bed::TestBed;
use crate::uninstaller::{Uninstalled, Uninstaller};
use crate::wait::until;
use crate::workload::{self, LIMIT};
use crate::{crds, runtime_pods};

const SIZE: StoreSize = StoreSize {
    replicas: 1,
    partitions: 1,
};

/// One that leads, and one that takes over from it when it ends first.
const OPERATORS: u32 = 2;

/// The operator does not let go of the Session before it is uninstalled.
const NO_END: Duration = Duration::from_hours(1);

/// Name of the objects that the operators cannot decode.
const ODD: &str = "odd";

/// Nobody uses it once the Store that waits is gone.
const UNUSED_DRIVER: &str = "memory";

/// The call that stops the operators.
const SCALE: &str = "deployments/scale";

/// What is uninstalled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Extent {
    /// An operator of one namespace.
    OneNamespace,
    /// An operator of all namespaces, with Drivers, and with objects that it cannot decode: the CRDs have
    /// to know [`crds::teach_a_newer_version`].
    AllNamespaces,
}

/// Uninstalls operators that are at work, through this disturbance, and installs them again.
///
/// # Errors
/// When something is held, was touched, or is not taken up again.
pub async fn uninstall_and_install(
    extent: Extent,
    disturbance: Option<Disturbance>,
) -> Result<Outcome> {
    let (place, served) = Place::create(extent).await?;
    let lived = place.live(served, disturbance).await;
    let uninstalled = lived.with_context(|| place.explained())?;
    let outcome = Outcome {
        end_state: end_state(place.bed.client(), place.bed.namespace()).await?,
        counts: place.bed.observer().counts(),
        calls: uninstalled.calls,
        events: BTreeMap::new(),
        crashed_at: uninstalled.crashed_at,
        troubled: uninstalled.troubled,
        has_setup: false,
    };
    Box::pin(place.remove()).await?;
    Ok(outcome)
}

/// Uninstalls by two uninstallers at the same time, and once more.
///
/// # Errors
/// As [`uninstall_and_install`], and when one of them fails.
pub async fn uninstall_twice_at_once() -> Result<()> {
    let (place, served) = Place::create(Extent::OneNamespace).await?;
    let lived = place.live_twice_at_once(served).await;
    lived.with_context(|| place.explained())?;
    Box::pin(place.remove()).await
}

/// Operators at work.
struct Place {
    bed: TestBed,
    deployed: Deployed,
    extent: Extent,
}

/// What they serve, beside the objects.
struct Served {
    load: Load,
    /// Of the application that counts.
    connections: Vec<Connection>,
    /// The runtime of the other one, which keeps its Session waiting.
    frozen: Frozen,
}

impl Place {
    async fn create(extent: Extent) -> Result<(Self, Served)> {
        let bed = TestBed::create("uninstall").await?;
        let scope = scope(extent, &bed);
        let change = |settings| Settings {
            scope,
            sessions: SessionOptions {
                longest_wait: NO_END,
            },
            ..settings
        };
        let deployed = Deployed::create(&bed, OPERATORS, change).await?;
        let place = Self {
            bed,
            deployed,
            extent,
        };
        let served = place.serve().await;
        let served = served.with_context(|| place.explained())?;
        Ok((place, served))
    }

    /// Makes what the operators are to serve, and waits until they hold it by finalizers.
    async fn serve(&self) -> Result<Served> {
        let bed = &self.bed;
        for pod in ["hive", "nest"] {
            let name = format!("{pod}-0");
            bed.create_pod(samples::application_pod(&name, pod)).await?;
        }
        resources::create(&bed.stores(), samples::store("tulip", SIZE)).await?;
        resources::create(&bed.stores(), samples::store_of_driver("rose", "memory")).await?;
        resources::create(&bed.sessions(), samples::session("bees", "tulip", "hive")).await?;
        resources::create(&bed.sessions(), samples::session("moths", "rose", "nest")).await?;
        if self.extent == Extent::AllNamespaces {
            self.serve_what_does_not_decode().await?;
        }
        until("everything to be ready", LIMIT, async || {
            workload::store_is_ready(bed, "tulip").await?;
            is_connected(bed, "bees").await?;
            is_connected(bed, "moths").await
        })
        .await?;
        let address = bed.runner().address("hive-0").context("its pod runs")?;
        let load = Load::start(address, Pace::Calm);
        load.goes_on(5).await?;

        let frozen = Frozen::stop(bed, "nest-0").await?;
        let parameters = DeleteParams::default();
        bed.stores().delete("rose", &parameters).await?;
        bed.sessions().delete("moths", &parameters).await?;
        until("a Store and a Session to wait", LIMIT, async || {
            let store = bed.stores().get("rose").await?;
            let stalled = expect_condition(&store, "Stalled", "True")?;
            ensure!(stalled.reason == "InUse", "{stalled:?}");
            self.all_are_held(true).await
        })
        .await?;
        Ok(Served {
            load,
            connections: connections(bed, "hive-0").await?,
            frozen,
        })
    }

    /// As after the roll-back of an operator.
    async fn serve_what_does_not_decode(&self) -> Result<()> {
        let drivers = resources::drivers(self.bed.client());
        for (api, mut object, finalizer) in [
            (self.bed.stores(), crds::newer_store(ODD), STORE_FINALIZER),
            (
                self.bed.sessions(),
                crds::newer_session(ODD, "tulip"),
                SESSION_FINALIZER,
            ),
            (drivers, crds::newer_driver(ODD), DRIVER_FINALIZER),
        ] {
            // By an operator that could read it.
            let metadata = object.pointer_mut("/metadata");
            let metadata = metadata.and_then(Value::as_object_mut);
            let metadata = metadata.context("it has metadata")?;
            metadata.insert("finalizers".to_owned(), json!([finalizer]));
            crds::create_newer(&api, &object).await?;
        }
        Ok(())
    }

    fn uninstaller(&self) -> Uninstaller {
        let scope = scope(self.extent, &self.bed);
        Uninstaller::of(&self.bed, &self.deployed, scope)
    }

    async fn live(&self, served: Served, disturbance: Option<Disturbance>) -> Result<Uninstalled> {
        let uninstalled = self.uninstaller().run(disturbance).await?;
        self.is_let_go(&served, &uninstalled.calls).await?;
        self.is_taken_up_again(served).await?;
        Ok(uninstalled)
    }

    async fn live_twice_at_once(&self, served: Served) -> Result<()> {
        let (one, other) = (self.uninstaller(), self.uninstaller());
        let (one, other) = tokio::try_join!(one.run(None), other.run(None))?;
        for uninstalled in [one, other] {
            self.is_let_go(&served, &uninstalled.calls).await?;
        }
        for uninstaller in [self.uninstaller(), self.uninstaller().without_deployment()] {
            let released = uninstaller.run(None).await?.released;
            ensure!(released == 0, "{released} objects were held again");
        }
        self.is_taken_up_again(served).await
    }

    /// Checks that nothing of ours waits for an operator, that none was at work when the first object was
    /// let go of, and that the application counts on.
    async fn is_let_go(&self, served: &Served, calls: &[Recorded]) -> Result<()> {
        let ended = self.deployed.ended()?;
        let mut releases = calls.iter();
        let first = releases.find(|call| call.call.verb == Verb::Patch && call.call.what != SCALE);
        if let Some(first) = first {
            ensure!(first.at > ended, "{} while an operator ran", first.name());
        }
        let replicas = self.deployed.replicas().await?;
        ensure!(replicas == Some(0), "{replicas:?} operators would run");
        self.all_are_held(false).await?;
        let now = connections(&self.bed, "hive-0").await?;
        let before = &served.connections;
        ensure!(now == *before, "the connections {before:?} became {now:?}");
        served.load.goes_on(5).await
    }

    /// Installs the operators again, and checks that they take up what there is: the same objects, and a
    /// Session that was made meanwhile.
    async fn is_taken_up_again(&self, served: Served) -> Result<()> {
        let bed = &self.bed;
        served.frozen.go_on()?;
        resources::create(&bed.sessions(), samples::session("wasps", "tulip", "nest")).await?;
        self.deployed.scale(OPERATORS).await?;
        until("everything to be taken up again", LIMIT, async || {
            workload::store_is_ready(bed, "tulip").await?;
            is_connected(bed, "bees").await?;
            is_connected(bed, "wasps").await?;
            self.all_are_held(true).await?;
            let (hive, nest) = (
                connections(bed, "hive-0").await?,
                connections(bed, "nest-0").await?,
            );
            ensure!(
                hive == served.connections,
                "the connections became {hive:?}"
            );
            // While there is a Session that cannot be read, nothing is taken from the pods beside it.
            let is_new = hive.iter().all(|connection| nest.contains(connection));
            let is_kept = self.extent == Extent::AllNamespaces;
            ensure!(
                is_new && (is_kept || nest == hive),
                "nest-0 has the connections {nest:?}"
            );
            self.deployed.expect_quiet()
        })
        .await?;
        workload::groups_are_whole(bed, "tulip", SIZE).await?;
        served.load.check().await?;
        let counts = bed.observer().counts();
        let replaced = counts.created.values().any(|count| *count > 1);
        ensure!(
            !replaced && counts.deleted.is_empty(),
            "something was replaced: {counts:?}"
        );
        Ok(())
    }

    /// Checks that every object of ours has a finalizer, or that none has. An operator that cannot read
    /// one does not hold it anew, and a Driver only while it is used.
    async fn all_are_held(&self, held: bool) -> Result<()> {
        let mut apis = vec![self.bed.stores(), self.bed.sessions()];
        if self.extent == Extent::AllNamespaces {
            apis.push(resources::drivers(self.bed.client()));
        }
        for api in apis {
            for object in api.list(&ListParams::default()).await? {
                let finalizers = object.finalizers();
                let name = object.name_any();
                let need_not_be_held = [ODD, UNUSED_DRIVER].contains(&name.as_str());
                let is_as_it_should = (held && need_not_be_held) || finalizers.is_empty() != held;
                ensure!(is_as_it_should, "{name} has {finalizers:?}");
                let is_to_go = object.metadata.deletion_timestamp.is_some();
                ensure!(held || !is_to_go, "{name} is to go, and is there");
            }
        }
        Ok(())
    }

    fn explained(&self) -> String {
        let namespace = self.bed.namespace();
        format!("in namespace {namespace}\n{}", self.bed.runner().logs())
    }

    async fn remove(self) -> Result<()> {
        self.deployed.remove().await?;
        Box::pin(self.bed.remove()).await
    }
}

fn scope(extent: Extent, bed: &TestBed) -> Scope {
    match extent {
        Extent::OneNamespace => Scope::Namespace(bed.namespace().to_owned()),
        Extent::AllNamespaces => Scope::Cluster,
    }
}

async fn is_connected(bed: &TestBed, session: &str) -> Result<()> {
    let session = bed.sessions().get(session).await?;
    let ready = expect_condition(&session, "Ready", "True")?;
    ensure!(ready.reason == "Connected", "{ready:?}");
    Ok(())
}

async fn connections(bed: &TestBed, pod: &str) -> Result<Vec<Connection>> {
    let address = bed.runner().address(pod).context("its pod runs")?;
    Ok(runtime_pods::status(address).await?.connections)
}
