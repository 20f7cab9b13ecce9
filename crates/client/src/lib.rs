//! Client of Atomix: counters, maps, locks, elections and the other primitives, through the runtime
//! sidecar of the application's pod.
//!
//! ```no_run
//! use atomix_client::Client;
//!
//! # #[tokio::main]
//! # async fn main() -> atomix_client::Result<()> {
//! let client = Client::connect().await?;
//!
//! // A number that all replicas count on.
//! let visits = client.counter("visits").increment(1).await?;
//!
//! // Values of your types, by keys of your types.
//! let ages = client.map::<String, u32>("ages");
//! ages.put("ann", &40).await?;
//! assert_eq!(ages.get("ann").await?.map(|age| age.value), Some(40));
//!
//! // What is there, then every change.
//! let mut changes = ages.watch().await?;
//! while let Some(change) = changes.next().await? {
//!     println!("{change:?}");
//! }
//! # let _ = visits;
//! # Ok(())
//! # }
//! ```
//!
//! # Primitives
//!
//! A primitive has a kind and a name; replicas that use the same name share it. A handle such as
//! [`Counter`] is made without asking anybody, and the primitive begins to exist with its first change.
//! [`Client::create`] is needed only where several stores could have it, to find one by tags.
//!
//! | handle | what it is |
//! |---|---|
//! | [`Counter`], [`CounterMap`] | numbers, alone or by key |
//! | [`Value`], [`Map`], [`IndexedMap`] | values with versions, alone, by key, by key in the order of arrival |
//! | [`Set`], [`List`], [`MultiMap`] | elements, items in an order, several values by key |
//! | [`Lock`], [`Election`] | one holder, one leader; a fencing token or term that only grows |
//! | [`Topic`] | messages to all who listen |
//!
//! # Keys and values
//!
//! Values are JSON by serde ([`Json`]): the store keeps bytes, and this is what programs in other
//! languages read most easily. [`Raw`] leaves bytes and text as they are, and `with_codec` takes any
//! other [`Codec`]. All who share a primitive must use the same one.
//!
//! Keys, the elements of a set and the values of a multimap are text in the API. They are what JSON
//! makes of the key of an object: strings as they are, numbers by their digits, variants without
//! fields by their names. A client of another language sees the same keys.
//!
//! # Optimistic changes
//!
//! What is read comes with a [version](Versioned). Write with [`WriteOptions::if_version`], or use the
//! `compare_and_set` of numbers, and another's change in between is told as [`Error::Conflict`]
//! instead of being lost.
//!
//! # Failures and retries
//!
//! A call has a [deadline](ClientBuilder::deadline), 30 s unless set, and within it is sent again as
//! its [`RetryPolicy`] says. Only if that is safe:
//!
//! * what only reads is sent again whenever sidecar or connection fail;
//! * what changes something is sent again only if it was certainly not carried out: the sidecar said
//!   UNAVAILABLE, or was never reached. So nothing is counted twice. The API has no request ids: when
//!   the answer is lost, nobody can tell, and the call fails with [`Error::Unknown`] or
//!   [`Error::DeadlineExceeded`];
//! * what changes several partitions at once (`clear` of maps and sets, `put_entries`,
//!   `remove_entries`) is sent again only if the sidecar was never reached, and may be done in part
//!   after an error.
//!
//! Every other answer is final and is an [`Error`] to match on. [`Error::is_certainly_not_done`] says
//! whether a change may be repeated. Where a read finds nothing it answers with `None`, not with an
//! error. Dropping the future of a change leaves open whether it is done.
//!
//! # Streams
//!
//! A [`Subscription`] is a [`Stream`](futures::Stream) of results whose last item is the error that
//! ended it, if any. It goes on over changes of the store's leaders. When it cannot go on without a
//! loss it ends with [`Error::DataLoss`]: subscribe anew, and read anew.
//!
//! # What belongs to whom
//!
//! The sidecar gives locks and candidacies to the connection that asked for them. So every guard and
//! candidacy has a connection of its own. Dropping one ends its connection, and with it the lock or
//! the candidacy; the same happens when a task is cancelled or the process dies. When the connection is
//! lost from the other side, `lost()` tells. What a lock protects must check its
//! [fencing token](LockGuard::version) all the same: any process can pause for longer than it holds a
//! lock.
//!
//! Dropping a handle does nothing. Dropping a [`Subscription`] ends it. Dropping the last of a client,
//! its clones and its handles ends the connection, and no data.
//!
//! The crate's `examples` folder has a job under a lock, a leader election, and a cache of a map.

mod address;
mod call;
mod client;
mod codec;
mod connection;
mod entry;
mod error;
mod failure;
mod hold;
mod key;
mod kinds;
mod method;
mod primitive;
mod retry;
mod subscription;

pub use client::{Client, ClientBuilder};
pub use codec::{Codec, Json, Raw};
pub use entry::{Change, Entry, Event, Update, Versioned, WriteOptions};
pub use error::{CodecError, Error, Result};
pub use kinds::{
    Candidacy, Commit, Committed, Counter, CounterMap, Election, IndexedEntry, IndexedEvent,
    IndexedMap, Item, KeysGuard, List, ListChange, ListEvent, Lock, LockGuard, Map, Message,
    MultiMap, MultiMapEvent, Place, Set, SetEvent, Term, Topic, Value, ValueChange, Written,
};
pub use primitive::{CacheConfig, Config, Kind};
pub use retry::RetryPolicy;
pub use subscription::Subscription;
