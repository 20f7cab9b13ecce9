//! Who may call which service of a port. The guard answers instead of the service, and ends the
//! connections of those who lost their permission.

use std::collections::HashMap;
use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};

use futures::future::{Either, Ready, ready};
use http::{Request, Response};
use parking_lot::Mutex;
use tokio_util::sync::CancellationToken;
use tonic::Status;
use tonic::service::Routes;
use tower::{Layer, Service};

use crate::{AllowedNamespaces, Credentials, Identity};

/// Who may call a service.
#[derive(Debug, Clone)]
pub enum Party {
    /// Whoever has exactly this identity.
    Exactly(Identity),
    /// Runtimes of these namespaces.
    RuntimesOf(AllowedNamespaces),
}

impl Party {
    fn admits(&self, identity: &Identity) -> bool {
        match (self, identity) {
            (Self::Exactly(wanted), found) => wanted == found,
            (Self::RuntimesOf(allowed), Identity::Runtime { namespace }) => {
                allowed.contains(namespace)
            }
            (
                Self::RuntimesOf(_),
                Identity::Operator | Identity::Node { .. } | Identity::Registry,
            ) => false,
        }
    }

    /// As the end of a sentence that says who is served.
    fn describe(&self) -> String {
        match self {
            Self::Exactly(identity) => identity.to_string(),
            Self::RuntimesOf(_) => "runtimes of the Store's own namespace and of those in its \
                 spec.allowedNamespaces: add the namespace there"
                .to_owned(),
        }
    }
}

/// Who may call what at one port. Services without a rule (health, reflection) are for everybody who
/// may call any of the others.
#[derive(Debug, Clone, Default)]
pub struct Rules {
    rules: Vec<(&'static str, Party)>,
}

impl Rules {
    /// Nobody may call anything.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Lets a party call a service, named as in its RPCs' paths: `atomix.multiraft.v1.Node`.
    #[must_use]
    pub fn allow(mut self, service: &'static str, party: Party) -> Self {
        self.rules.push((service, party));
        self
    }

    fn admits_somewhere(&self, identity: &Identity) -> bool {
        self.rules.iter().any(|(_, party)| party.admits(identity))
    }

    /// # Errors
    /// Why not, and what to do.
    fn check(&self, path: &str, identity: &Identity) -> Result<(), Status> {
        let called = path.trim_start_matches('/').split('/').next();
        let called = called.unwrap_or_default();
        let has_rules = self.rules.iter().any(|(service, _)| *service == called);
        let mut applicable = self
            .rules
            .iter()
            .filter(|(service, _)| !has_rules || *service == called);
        if applicable.clone().any(|(_, party)| party.admits(identity)) {
            return Ok(());
        }
        // One text each, however many services it may call.
        let mut served: Vec<String> = Vec::new();
        applicable.try_for_each(|(_, party)| {
            let text = party.describe();
            if !served.contains(&text) {
                served.push(text);
            }
            Some(())
        });
        Err(Status::permission_denied(format!(
            "{identity} may not call {called} here; it serves {}",
            served.join(", and ")
        )))
    }
}

/// Who is at the other end of a connection; found among the extensions of each of its requests.
#[derive(Debug, Clone)]
pub struct Peer {
    /// Whose certificate it showed; `None` = none, or one without an identity.
    pub identity: Option<Identity>,
}

/// Guards one port. Clones share it.
#[derive(Debug, Clone)]
pub struct Guard {
    credentials: Credentials,
    rules: Arc<Rules>,
    open: Arc<Open>,
}

/// The connections that are open.
#[derive(Debug, Default)]
struct Open {
    next: AtomicU64,
    connections: Mutex<HashMap<u64, (Identity, CancellationToken)>>,
}

impl Guard {
    /// Serves by these rules, with this certificate.
    #[must_use]
    pub fn new(credentials: Credentials, rules: Rules) -> Self {
        Self {
            credentials,
            rules: Arc::new(rules),
            open: Arc::default(),
        }
    }

    pub(crate) fn credentials(&self) -> &Credentials {
        &self.credentials
    }

    /// The same routes for those whom the rules admit.
    #[must_use]
    pub fn protect(&self, routes: Routes) -> Routes {
        let layer = Admission {
            rules: Arc::clone(&self.rules),
        };
        routes.into_axum_router().layer(layer).into()
    }

    /// Ends the connections of those whom no rule admits any more, whenever the allowed namespaces
    /// change, until `shutdown`. The process must not go on without this task.
    ///
    /// # Errors
    /// None.
    pub async fn enforce(
        self,
        allowed: AllowedNamespaces,
        shutdown: CancellationToken,
    ) -> Result<(), Infallible> {
        let mut changes = allowed.changes();
        loop {
            tokio::select! {
                () = shutdown.cancelled() => return Ok(()),
                changed = changes.changed() => {
                    if changed.is_err() {
                        return Ok(());
                    }
                }
            }
            let ended = self.end_those_without_permission();
            tracing::debug!(ended, "looked whose connections may stay");
        }
    }

    /// How many they were.
    fn end_those_without_permission(&self) -> usize {
        let connections = self.open.connections.lock();
        let mut count = 0;
        for (identity, ended) in connections.values() {
            if !self.rules.admits_somewhere(identity) {
                tracing::info!(%identity, "its permission was taken back, its connection ends");
                ended.cancel();
                count += 1;
            }
        }
        count
    }

    /// Notes an open connection; it is forgotten when the answer is dropped.
    pub(crate) fn opened(&self, identity: &Identity) -> Watched {
        let ended = CancellationToken::new();
        let number = self.open.next.fetch_add(1, Ordering::Relaxed);
        let entry = (identity.clone(), ended.clone());
        self.open.connections.lock().insert(number, entry);
        // A permission that was taken back meanwhile is seen by each request.
        Watched {
            open: Arc::clone(&self.open),
            number,
            ended,
        }
    }
}

/// A connection that ends when the peer's permission does.
#[derive(Debug)]
pub(crate) struct Watched {
    open: Arc<Open>,
    number: u64,
    pub(crate) ended: CancellationToken,
}

impl Drop for Watched {
    fn drop(&mut self) {
        self.open.connections.lock().remove(&self.number);
    }
}

/// Asks the rules before each request.
#[derive(Clone)]
struct Admission {
    rules: Arc<Rules>,
}

impl<S> Layer<S> for Admission {
    type Service = Admitting<S>;

    fn layer(&self, inner: S) -> Admitting<S> {
        Admitting {
            rules: Arc::clone(&self.rules),
            inner,
        }
    }
}

#[derive(Clone)]
struct Admitting<S> {
    rules: Arc<Rules>,
    inner: S,
}

impl<S, B, R> Service<Request<B>> for Admitting<S>
where
    S: Service<Request<B>, Response = Response<R>>,
    R: Default,
{
    type Response = Response<R>;
    type Error = S::Error;
    type Future = Either<Ready<Result<Response<R>, S::Error>>, S::Future>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let peer = request.extensions().get::<Peer>();
        let identity = peer.and_then(|peer| peer.identity.as_ref());
        let admitted = match identity {
            Some(identity) => self.rules.check(request.uri().path(), identity),
            None => Err(Status::unauthenticated(
                "this port needs a certificate that names who calls: give the calling program \
                 --tls-directory with the Secret that the operator made for it",
            )),
        };
        match admitted {
            Ok(()) => Either::Right(self.inner.call(request)),
            Err(refused) => Either::Left(ready(Ok(refused.into_http()))),
        }
    }
}
