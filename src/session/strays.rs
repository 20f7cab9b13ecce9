//! Selected pods without a runtime. They are not watched, so they are looked for once for each
//! specification of a Session, by a LIST. One answers for all Sessions of the namespace that nobody has
//! looked for, or an operator that starts would make the API server go through all pods as often as
//! there are Sessions.

mod looks;
mod tally;

use std::collections::HashMap;
use std::sync::Arc;

use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::api::ListParams;
use kube::core::DeserializeGuard;
use kube::{Api, Client};
use parking_lot::Mutex;

use crate::context::Context;
use atomix_controller::{ApiError, ObjectKey, StatusWriter, call};
use atomix_resources::labels::RUNTIME;
use atomix_resources::session::PodSelector;
use atomix_resources::{Session, SessionStatus};

use looks::Looks;
use tally::{MOST_COUNTED, Tally};

/// Pods of one page of a LIST for several selectors.
const PAGE: u32 = 500;

/// What was found, and who looks. Clones share everything.
#[derive(Clone, Debug)]
pub(super) struct Strays {
    context: Context,
    status: StatusWriter,
    looks: Looks,
    found: Arc<Mutex<HashMap<ObjectKey, Found>>>,
}

/// How many pods without a runtime were found for one specification of a Session.
#[derive(Debug)]
struct Found {
    uid: Option<String>,
    generation: Option<i64>,
    number: u32,
}

impl Strays {
    pub(super) fn new(context: &Context, status: &StatusWriter) -> Self {
        Self {
            context: context.clone(),
            status: status.clone(),
            looks: Looks::default(),
            found: Arc::default(),
        }
    }

    /// How many selected pods of a Session have no runtime; `None` when its status tells that already.
    pub(super) async fn number(
        &self,
        key: &ObjectKey,
        session: &Session,
    ) -> Result<Option<u32>, ApiError> {
        if self.is_told(session) {
            self.forget(key);
            return Ok(None);
        }
        let known = || self.known(key, &session.metadata);
        let look = || self.look(key, session);
        let number = self.looks.share(&key.namespace, known, look).await?;
        Ok(Some(number))
    }

    /// Nobody asks for it again.
    pub(super) fn forget(&self, key: &ObjectKey) {
        self.found.lock().remove(key);
    }

    /// Looks for this Session, and for all others of its namespace that nobody has looked for.
    async fn look(&self, key: &ObjectKey, session: &Session) -> Result<u32, ApiError> {
        let others = self
            .context
            .sessions
            .filter(|other| is_in(&key.namespace, other));
        let others = others.iter().filter_map(|other| other.0.as_ref().ok());
        let others =
            others.filter(|other| ObjectKey::of(*other) != *key && self.is_to_count(other));
        let wanted: Vec<_> = std::iter::once(session)
            .chain(others)
            .map(|session| (session.metadata.clone(), session.spec.selector.clone()))
            .collect();
        let (metas, selectors): (Vec<_>, Vec<_>) = wanted.into_iter().unzip();
        let numbers = count(&self.context.client, &key.namespace, &selectors).await?;
        for (meta, number) in metas.iter().zip(&numbers) {
            self.remember(meta, *number);
        }
        Ok(numbers.first().copied().unwrap_or_default())
    }

    fn is_to_count(&self, session: &Session) -> bool {
        let meta = &session.metadata;
        let is_living = meta.deletion_timestamp.is_none();
        is_living && !self.is_told(session) && self.known(&ObjectKey::of(session), meta).is_none()
    }

    /// Whether the status tells of this specification.
    fn is_told(&self, session: &Session) -> bool {
        let pending = self.status.pending(&session.metadata);
        let pending =
            pending.and_then(|status| serde_json::from_value::<SessionStatus>(status).ok());
        let status = pending.as_ref().or(session.status.as_ref());
        let told = status.and_then(|status| status.observed_generation);
        told == session.metadata.generation
    }

    /// What was found for this specification.
    fn known(&self, key: &ObjectKey, meta: &ObjectMeta) -> Option<u32> {
        let found = self.found.lock();
        let found = found.get(key)?;
        let is_this = found.uid == meta.uid && found.generation == meta.generation;
        is_this.then_some(found.number)
    }

    fn remember(&self, meta: &ObjectMeta, number: u32) {
        let key = ObjectKey::of_meta(meta);
        let mut found = self.found.lock();
        // One that is there is forgotten at the pass after its deletion, which comes after this.
        if self.context.sessions.get(&key).is_some() {
            let number = Found {
                uid: meta.uid.clone(),
                generation: meta.generation,
                number,
            };
            found.insert(key, number);
        }
    }
}

fn is_in(namespace: &str, session: &DeserializeGuard<Session>) -> bool {
    let meta = match &session.0 {
        Ok(session) => &session.metadata,
        Err(undecodable) => &undecodable.metadata,
    };
    meta.namespace.as_deref() == Some(namespace)
}

/// How many living pods of the namespace each selector selects that have no runtime, at most 100: one
/// LIST of metadata.
async fn count(
    client: &Client,
    namespace: &str,
    selectors: &[PodSelector],
) -> Result<Vec<u32>, ApiError> {
    let pods: Api<Pod> = Api::namespaced(client.clone(), namespace);
    let action = "look for selected pods without a runtime";
    let params = ListParams::default().fields("status.phase!=Succeeded,status.phase!=Failed");
    let without_runtime = format!("{RUNTIME}!=true");
    if let [selector] = selectors {
        let selector = format!("{},{without_runtime}", selector.as_text());
        let params = params.labels(&selector).limit(MOST_COUNTED);
        let found = call(action, pods.list_metadata(&params)).await?;
        return Ok(vec![
            u32::try_from(found.items.len()).unwrap_or(MOST_COUNTED),
        ]);
    }
    let mut tally = Tally::new(selectors);
    let mut params = params.labels(&without_runtime).limit(PAGE);
    loop {
        let page = call(action, pods.list_metadata(&params)).await?;
        for labels in page
            .items
            .iter()
            .filter_map(|pod| pod.metadata.labels.as_ref())
        {
            tally.add(labels);
        }
        match page.metadata.continue_ {
            Some(next) if !next.is_empty() => params.continue_token = Some(next),
            _ => return Ok(tally.numbers),
        }
    }
}
