//! The storage nodes of one store: finds their addresses and keeps one link to each.
//!
//! Not for partitions and their leaders.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use atomix_proto::multiraft::v1::NodeHello;
use parking_lot::Mutex;
use tokio::sync::{Notify, watch};
use tokio::time::Instant;

use super::config::{Config, Timeouts};
use super::link::{Greeter, Link, LinkState, jittered};
use super::{NO_CREDENTIALS, Security};
use crate::driver::ConnectionState;
use crate::error::DriverError;
use crate::resolver::{HostPort, Resolver};

const MIN_RESOLVE_DELAY: Duration = Duration::from_millis(100);
const MAX_RESOLVE_DELAY: Duration = Duration::from_secs(5);
/// How long one look-up of the nodes' names may take.
const RESOLVE_TIMEOUT: Duration = Duration::from_secs(5);

/// The nodes of a store.
pub(crate) struct Nodes {
    resolver: Arc<dyn Resolver>,
    security: Option<Security>,
    inner: Mutex<Inner>,
    state: watch::Sender<ConnectionState>,
    look_again: Notify,
    session_opened: Notify,
    /// The newest incarnation that a node has told; 0 = none yet. Grows under the lock of `inner`.
    incarnation: AtomicU64,
    itself: Weak<Self>,
}

struct Inner {
    names: Vec<HostPort>,
    partitions: u32,
    timeouts: Timeouts,
    /// Whether the nodes speak TLS.
    tls: bool,
    /// What the names resolved to last.
    members: Vec<SocketAddr>,
    /// Members, and nodes that others named as leaders.
    links: BTreeMap<SocketAddr, Arc<Link>>,
    resolve_error: Option<String>,
    /// The highest partition that each node hosted when it greeted.
    highest_partitions: BTreeMap<SocketAddr, u32>,
    /// The incarnation that each node told when it greeted.
    incarnations: BTreeMap<SocketAddr, u64>,
    /// The store uid of the first node that had one.
    store_uid: String,
    closed: bool,
}

impl Nodes {
    /// Knows the nodes' names and nothing more; [`Self::follow`] finds and connects them.
    pub(crate) fn new(
        config: &Config,
        resolver: Arc<dyn Resolver>,
        security: Option<Security>,
    ) -> Arc<Self> {
        let (state, _) = watch::channel(ConnectionState::Connecting {
            reason: "looking for the storage nodes".to_owned(),
        });
        Arc::new_cyclic(|itself| Self {
            resolver,
            security,
            inner: Mutex::new(Inner {
                names: config.nodes.clone(),
                partitions: config.partitions,
                timeouts: config.timeouts,
                tls: config.tls,
                members: Vec::new(),
                links: BTreeMap::new(),
                resolve_error: None,
                highest_partitions: BTreeMap::new(),
                incarnations: BTreeMap::new(),
                store_uid: String::new(),
                closed: false,
            }),
            state,
            look_again: Notify::new(),
            session_opened: Notify::new(),
            incarnation: AtomicU64::new(0),
            itself: Weak::clone(itself),
        })
    }

    pub(crate) fn state(&self) -> watch::Receiver<ConnectionState> {
        self.state.subscribe()
    }

    pub(crate) fn timeouts(&self) -> Timeouts {
        self.inner.lock().timeouts
    }

    /// The nodes' addresses, as far as known, in a fixed order.
    pub(crate) fn members(&self) -> Vec<SocketAddr> {
        self.inner.lock().members.clone()
    }

    /// Why no node can be asked.
    pub(crate) fn why_unreachable(&self) -> String {
        match &*self.state.borrow() {
            ConnectionState::Connecting { reason } | ConnectionState::Misconfigured { reason } => {
                reason.clone()
            }
            ConnectionState::Connected => "no storage node is known".to_owned(),
        }
    }

    /// The configured number of partitions.
    pub(crate) fn partitions(&self) -> u32 {
        self.inner.lock().partitions
    }

    /// Why the configuration does not fit the store: with another number of partitions every
    /// primitive would be looked for in another place.
    pub(crate) fn misfit(&self) -> Option<String> {
        self.inner.lock().misfit()
    }

    /// The link to a node; started if there is none. `None` after [`Self::close`].
    pub(crate) fn link(&self, address: SocketAddr) -> Option<Arc<Link>> {
        let mut inner = self.inner.lock();
        if inner.closed {
            return None;
        }
        Some(self.link_in(&mut inner, address))
    }

    fn link_in(&self, inner: &mut Inner, address: SocketAddr) -> Arc<Link> {
        let timeouts = inner.timeouts;
        let security = self.security.as_ref().filter(|_| inner.tls);
        let link = inner.links.entry(address).or_insert_with(|| {
            Arc::new(Link::start(
                address,
                timeouts,
                security.cloned(),
                Arc::new(WeakGreeter(Weak::clone(&self.itself))),
            ))
        });
        Arc::clone(link)
    }

    /// The address of a node that another node named; `None` when its name is not known, or not in
    /// time.
    pub(crate) async fn resolve_hint(
        &self,
        address: &str,
        deadline: Instant,
    ) -> Option<SocketAddr> {
        let name = HostPort::parse(address, None)?;
        let give_up = deadline.min(Instant::now() + self.timeouts().connect);
        let reason = match tokio::time::timeout_at(give_up, self.resolver.resolve(&name)).await {
            Ok(Ok(addresses)) => return addresses.first().copied(),
            Ok(Err(error)) => error.to_string(),
            Err(_) => "no answer in time".to_owned(),
        };
        tracing::debug!(address, reason, "cannot resolve the leader's name");
        None
    }

    /// Whether the store has begun again since data of this incarnation; 0 = it is not known which.
    pub(crate) fn has_begun_again_since(&self, incarnation: u64) -> bool {
        incarnation != 0 && incarnation < self.incarnation.load(Ordering::Acquire)
    }

    /// Wakes whoever waits for a session.
    pub(crate) fn session_opened(&self) {
        self.session_opened.notify_one();
    }

    /// Returns after the next [`Self::session_opened`].
    pub(crate) fn wait_for_session(&self) -> tokio::sync::futures::Notified<'_> {
        self.session_opened.notified()
    }

    /// Uses other names and timeouts from now on; nodes of the old names are not asked again.
    ///
    /// # Errors
    /// When the nodes speak TLS and this process has no certificate; nothing changes then.
    pub(crate) fn configure(&self, config: &Config) -> Result<(), DriverError> {
        if config.tls && self.security.is_none() {
            return Err(DriverError::invalid(NO_CREDENTIALS));
        }
        let mut inner = self.inner.lock();
        let same = inner.names == config.nodes
            && inner.timeouts == config.timeouts
            && inner.tls == config.tls;
        if same {
            return Ok(());
        }
        inner.names.clone_from(&config.nodes);
        inner.timeouts = config.timeouts;
        inner.tls = config.tls;
        inner.members.clear();
        inner.links.clear();
        inner.highest_partitions.clear();
        inner.incarnations.clear();
        drop(inner);
        self.publish_state();
        self.look_again.notify_one();
        Ok(())
    }

    /// The known nodes do not host a partition: there may be others by now, which are looked up soon.
    pub(crate) fn seek(&self) {
        self.look_again.notify_one();
    }

    /// Looks the nodes up at the start, when the configuration changes, when a partition is not
    /// where it was, and whenever and as long as one of them is not connected. Rests while all are.
    /// Never returns.
    pub(crate) async fn follow(&self) {
        let mut delay = MIN_RESOLVE_DELAY;
        loop {
            let found = self.look_up().await;
            if self.update(found) {
                delay = MIN_RESOLVE_DELAY;
                self.look_again.notified().await;
                // Many may ask for it at once.
                tokio::time::sleep(jittered(MIN_RESOLVE_DELAY)).await;
            } else {
                tokio::time::sleep(jittered(delay)).await;
                delay = (delay * 2).min(MAX_RESOLVE_DELAY);
            }
        }
    }

    async fn look_up(&self) -> Result<Vec<SocketAddr>, String> {
        let names = self.inner.lock().names.clone();
        let mut members = Vec::new();
        let mut failure = None;
        for name in &names {
            match tokio::time::timeout(RESOLVE_TIMEOUT, self.resolver.resolve(name)).await {
                Ok(Ok(addresses)) => members.extend(addresses),
                Err(_) => {
                    failure = Some(format!(
                        "{} was not resolved within {RESOLVE_TIMEOUT:?}",
                        name.host
                    ));
                }
                Ok(Err(error)) => {
                    failure = Some(format!("cannot resolve {}: {error}", name.host));
                }
            }
        }
        members.sort_unstable();
        members.dedup();
        match failure {
            Some(failure) if members.is_empty() => Err(failure),
            _ => Ok(members),
        }
    }

    /// Takes over what was found. True = every member is connected.
    fn update(&self, found: Result<Vec<SocketAddr>, String>) -> bool {
        let mut inner = self.inner.lock();
        if inner.closed {
            return true;
        }
        match found {
            Ok(members) => {
                inner.resolve_error = None;
                for address in &members {
                    self.link_in(&mut inner, *address);
                }
                inner.members = members;
                let Inner {
                    members,
                    links,
                    highest_partitions,
                    incarnations,
                    ..
                } = &mut *inner;
                links.retain(|address, link| members.contains(address) || link.is_up());
                highest_partitions.retain(|address, _| links.contains_key(address));
                incarnations.retain(|address, _| links.contains_key(address));
            }
            // The addresses of before may still be right.
            Err(error) => inner.resolve_error = Some(error),
        }
        let all_up = inner.resolve_error.is_none() && inner.links.values().all(|link| link.is_up());
        drop(inner);
        self.publish_state();
        all_up
    }

    fn publish_state(&self) {
        let inner = self.inner.lock();
        let state = connection_state(&inner);
        // Sent under the lock, so that an older view never overwrites a newer one.
        self.state.send_if_modified(|current| {
            let changed = *current != state;
            *current = state;
            changed
        });
    }

    /// Ends all links and starts no more.
    pub(crate) fn close(&self) {
        let mut inner = self.inner.lock();
        inner.closed = true;
        inner.links.clear();
        drop(inner);
        self.publish_state();
    }

    fn greet(&self, address: SocketAddr, hello: &NodeHello) -> Result<(), String> {
        let mut inner = self.inner.lock();
        let is_other_store = !inner.store_uid.is_empty()
            && !hello.store_uid.is_empty()
            && hello.store_uid != inner.store_uid;
        if is_other_store {
            return Err(format!(
                "the node holds data of store {}, not of {}",
                hello.store_uid, inner.store_uid
            ));
        }
        let known = self.incarnation.load(Ordering::Acquire);
        if hello.incarnation != 0 && hello.incarnation < known {
            return Err(format!(
                "the node holds data of incarnation {}, but the store has begun again and is at \
                 {known}",
                hello.incarnation
            ));
        }
        inner.highest_partitions.insert(address, hello.partitions);
        if let Some(misfit) = inner.misfit() {
            return Err(misfit);
        }
        if inner.store_uid.is_empty() {
            inner.store_uid.clone_from(&hello.store_uid);
        }
        inner.incarnations.insert(address, hello.incarnation);
        if hello.incarnation > known {
            self.incarnation.store(hello.incarnation, Ordering::Release);
            inner.leave_older(hello.incarnation);
        }
        Ok(())
    }
}

impl Inner {
    /// Ends the links to nodes that hold data of before the store began again. Each greets anew, and
    /// is taken when it has newer data.
    fn leave_older(&mut self, incarnation: u64) {
        let Self {
            links,
            highest_partitions,
            incarnations,
            ..
        } = self;
        incarnations.retain(|address, told| {
            let is_older = *told != 0 && *told < incarnation;
            if is_older {
                tracing::info!(node = %address, told, incarnation, "the store has begun again");
                links.remove(address);
                highest_partitions.remove(address);
            }
            !is_older
        });
    }

    fn misfit(&self) -> Option<String> {
        let highest = *self.highest_partitions.values().max()?;
        if highest <= self.partitions {
            return None;
        }
        Some(format!(
            "config field partitions says {}, but the store has at least {highest}",
            self.partitions
        ))
    }
}

fn connection_state(inner: &Inner) -> ConnectionState {
    if inner.closed {
        return ConnectionState::Connecting {
            reason: "disconnected".to_owned(),
        };
    }
    if let Some(reason) = inner.misfit() {
        return ConnectionState::Misconfigured { reason };
    }
    if inner.links.values().any(|link| link.is_up()) {
        return ConnectionState::Connected;
    }
    let mut reasons: Vec<String> = inner.resolve_error.iter().cloned().collect();
    for link in inner.links.values() {
        if let LinkState::Down(reason) = link.state() {
            reasons.push(reason);
        }
    }
    reasons.truncate(3);
    ConnectionState::Connecting {
        reason: reasons.join("; "),
    }
}

/// Links hold this, so that they do not keep the nodes alive.
struct WeakGreeter(Weak<Nodes>);

impl Greeter for WeakGreeter {
    fn store_uid(&self) -> String {
        self.0
            .upgrade()
            .map(|nodes| nodes.inner.lock().store_uid.clone())
            .unwrap_or_default()
    }

    fn incarnation(&self) -> u64 {
        self.0
            .upgrade()
            .map_or(0, |nodes| nodes.incarnation.load(Ordering::Acquire))
    }

    fn greet(&self, address: SocketAddr, hello: &NodeHello) -> Result<(), String> {
        match self.0.upgrade() {
            Some(nodes) => nodes.greet(address, hello),
            None => Err("disconnected".to_owned()),
        }
    }

    fn link_changed(&self) {
        if let Some(nodes) = self.0.upgrade() {
            nodes.publish_state();
            nodes.look_again.notify_one();
        }
    }
}
