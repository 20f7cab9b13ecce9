//! Clients of the application API. Each calls one operation after the other and writes down what it
//! asked and what it was told.

mod call;
mod connection;
mod counter;
mod countermap;
mod election;
mod indexedmap;
mod list;
mod lock;
mod map;
mod multimap;
mod set;
mod value;

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Context as _, bail};
use atomix_proto::runtime::v1::PrimitiveId;
use rand::rngs::StdRng;
use rand::seq::IndexedRandom as _;
use rand::{Rng as _, SeedableRng as _};
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tonic::transport::Channel;

use crate::history::{Clock, Histories, Object, Use};

/// Before it is tried again to reach a sidecar.
const RECONNECT: Duration = Duration::from_millis(50);
/// Keys of maps and elements of sets; a few, which lie in several partitions.
const KEYS: [&str; 5] = ["a", "b", "c", "d", "e"];
/// For what is read at the end, when nothing goes wrong any more.
const AUDIT: Duration = Duration::from_secs(90);

/// What all clients share.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) clock: Clock,
    pub(crate) histories: Histories,
    /// The number of the next client; they count from 1.
    next_number: AtomicU64,
    stop: CancellationToken,
}

impl Shared {
    pub(crate) fn new(clock: Clock, histories: Histories) -> Arc<Self> {
        Arc::new(Self {
            clock,
            histories,
            next_number: AtomicU64::new(1),
            stop: CancellationToken::new(),
        })
    }
}

/// All that run.
#[derive(Debug)]
pub(crate) struct Clients {
    shared: Arc<Shared>,
    tasks: JoinSet<anyhow::Result<()>>,
}

impl Clients {
    /// Starts so many of each use, and spreads those over the sidecars; the last sidecar has one of each,
    /// which only reads. As nothing that it asks has to be agreed on, it would stay with a leader
    /// that is none any more for as long as that answers.
    pub(crate) fn start(
        shared: &Arc<Shared>,
        sidecars: &[SocketAddr],
        each: usize,
        seed: u64,
    ) -> Self {
        let mut tasks = JoinSet::new();
        let mut seed = seed;
        let Some((reading, changing)) = sidecars.split_last() else {
            return Self {
                shared: Arc::clone(shared),
                tasks,
            };
        };
        for used_as in Use::ALL {
            let changing = changing.iter().cycle().take(each);
            let places = changing.map(|sidecar| (sidecar, false));
            for (sidecar, reads_only) in places.chain([(reading, true)]) {
                seed = seed.wrapping_add(1);
                let random = StdRng::seed_from_u64(seed);
                let mut client = Client::new(shared, used_as, *sidecar, random);
                client.reads_only = reads_only;
                tasks.spawn(client.run());
            }
        }
        Self {
            shared: Arc::clone(shared),
            tasks,
        }
    }

    /// Waits until each object is used.
    pub(crate) async fn have_begun(&self) -> anyhow::Result<()> {
        let deadline = Instant::now() + AUDIT;
        let uses = || Use::ALL.into_iter();
        while uses().any(|used_as| self.shared.histories.answered(used_as) < 10) {
            if Instant::now() > deadline {
                bail!("clients get no answers within {AUDIT:?} though nothing goes wrong");
            }
            tokio::time::sleep(RECONNECT).await;
        }
        Ok(())
    }

    /// Lets each end what it is about.
    pub(crate) async fn stop(mut self) -> anyhow::Result<()> {
        self.shared.stop.cancel();
        while let Some(ended) = self.tasks.join_next().await {
            ended.context("a client broke off")??;
        }
        Ok(())
    }
}

/// What a client was told last of the object that it uses.
#[derive(Debug, Default)]
struct Memory {
    object: String,
    /// By key.
    versions: HashMap<String, u64>,
    /// By key.
    numbers: HashMap<String, i64>,
    number: i64,
    /// Candidates of an election.
    line: Vec<String>,
}

/// One client. After an unknown outcome it goes on under another number: what it asked may still happen
/// beside what it asks next.
#[derive(Debug)]
struct Client {
    number: u64,
    used_as: Use,
    reads_only: bool,
    sidecar: SocketAddr,
    channel: Option<Channel>,
    random: StdRng,
    shared: Arc<Shared>,
    memory: Memory,
    /// When the last call was made that was answered, on this connection.
    answered: u64,
    /// Where its connection may own something.
    owns: Vec<Arc<Object>>,
    /// Counts what it has written, so that it writes nothing twice.
    written: u64,
}

impl Client {
    fn new(shared: &Arc<Shared>, used_as: Use, sidecar: SocketAddr, random: StdRng) -> Self {
        Self {
            number: shared.next_number.fetch_add(1, Ordering::Relaxed),
            used_as,
            reads_only: false,
            sidecar,
            channel: None,
            random,
            shared: Arc::clone(shared),
            memory: Memory::default(),
            answered: shared.clock.now(),
            owns: Vec::new(),
            written: 0,
        }
    }

    async fn run(mut self) -> anyhow::Result<()> {
        while !self.shared.stop.is_cancelled() {
            let Some(channel) = self.connected().await else {
                tokio::time::sleep(RECONNECT).await;
                continue;
            };
            let object = self.shared.histories.next(self.used_as)?;
            if self.memory.object != object.name {
                self.memory = Memory {
                    object: object.name.clone(),
                    ..Memory::default()
                };
            }
            if self.reads_only {
                self.look(channel, &object).await?;
            } else {
                self.step(channel, &object).await?;
            }
            let pause = self.random.random_range(0..=15);
            tokio::time::sleep(Duration::from_millis(pause)).await;
        }
        // Its connection ends while others still use what it owns.
        self.become_another()
    }

    async fn step(&mut self, channel: Channel, object: &Arc<Object>) -> anyhow::Result<()> {
        match self.used_as {
            Use::Counter => counter::count(self, channel, object).await,
            Use::Register => counter::register(self, channel, object).await,
            Use::Value => value::step(self, channel, object).await,
            Use::Map => map::step(self, channel, object).await,
            Use::CounterMap => countermap::step(self, channel, object).await,
            Use::MultiMap => multimap::step(self, channel, object).await,
            Use::IndexedMap => indexedmap::step(self, channel, object).await,
            Use::Set => set::step(self, channel, object).await,
            Use::List => list::step(self, channel, object).await,
            Use::Lock => lock::step(self, channel, object).await,
            Use::Election => election::step(self, channel, object).await,
        }
    }

    /// Reads without changing anything.
    async fn look(&mut self, channel: Channel, object: &Object) -> anyhow::Result<()> {
        match self.used_as {
            Use::List => list::look(self, channel, object).await,
            Use::Lock => lock::look(self, channel, object).await.map(drop),
            Use::Election => election::look(self, channel, object).await,
            Use::Counter
            | Use::Register
            | Use::Value
            | Use::Map
            | Use::CounterMap
            | Use::MultiMap
            | Use::IndexedMap
            | Use::Set => self.read_all(channel, object).await.map(drop),
        }
    }

    async fn connected(&mut self) -> Option<Channel> {
        if self.channel.is_none() {
            self.channel = connection::open(self.sidecar).await;
            self.answered = self.shared.clock.now();
        }
        self.channel.clone()
    }

    /// From now on its connection may own something there.
    fn will_own(&mut self, object: &Arc<Object>) {
        if !self.owns.iter().any(|owned| Arc::ptr_eq(owned, object)) {
            self.owns.push(Arc::clone(object));
        }
    }

    /// How long the next call may take: mostly longer than an election, at times not.
    fn patience(&mut self) -> Duration {
        let millis = if self.random.random_bool(0.9) {
            5_000
        } else {
            self.random.random_range(20..=400)
        };
        Duration::from_millis(millis)
    }

    /// A text that nobody else writes.
    fn fresh_text(&mut self) -> String {
        self.written += 1;
        format!("{}.{}", self.number, self.written)
    }

    fn any_key(&mut self) -> &'static str {
        let any = KEYS.choose(&mut self.random);
        any.copied().unwrap_or_default()
    }

    /// A version that it has seen of this key; `None` = any will do.
    fn condition(&mut self, key: &str) -> Option<u64> {
        let seen = self.memory.versions.get(key).copied();
        seen.filter(|_| self.random.random_bool(0.6))
    }

    fn saw_version(&mut self, key: &str, version: Option<u64>) {
        if let Some(version) = version {
            self.memory.versions.insert(key.to_owned(), version);
        }
    }
}

fn id(object: &Object) -> Option<PrimitiveId> {
    Some(PrimitiveId {
        id: object.name.clone(),
    })
}

/// Reads every object at the end, so that what was written last is seen, too.
pub(crate) async fn audit(shared: &Arc<Shared>, sidecar: SocketAddr) -> anyhow::Result<()> {
    for object in shared.histories.objects() {
        let deadline = Instant::now() + AUDIT;
        let random = StdRng::seed_from_u64(0);
        let mut client = Client::new(shared, object.used_as, sidecar, random);
        loop {
            if let Some(channel) = client.connected().await
                && client.read_all(channel, &object).await?
            {
                break;
            }
            if Instant::now() > deadline {
                bail!("{} cannot be read at the end", object.name);
            }
            tokio::time::sleep(RECONNECT).await;
        }
        object.flush()?;
    }
    Ok(())
}

impl Client {
    /// Whether all was read.
    async fn read_all(&mut self, channel: Channel, object: &Object) -> anyhow::Result<bool> {
        match object.used_as {
            Use::Counter | Use::Register => counter::read(self, channel, object).await,
            Use::Value => value::read(self, channel, object).await,
            Use::Map => map::read(self, channel, object).await,
            Use::CounterMap => countermap::read(self, channel, object).await,
            Use::MultiMap => multimap::read(self, channel, object).await,
            Use::IndexedMap => indexedmap::read(self, channel, object).await,
            Use::Set => set::read(self, channel, object).await,
            Use::List => list::read(self, channel, object).await,
            // Connections that are gone may own it for a while.
            Use::Lock | Use::Election => Ok(true),
        }
    }
}
