//! The kinds of primitives, a file each: their RPCs, and handles with the types of Rust.

mod counter;
mod counter_map;
mod election;
mod indexed_map;
mod key_locks;
mod list;
mod lock;
mod map;
mod multi_map;
mod set;
#[cfg(test)]
mod tests;
mod topic;
mod value;

pub use counter::Counter;
pub use counter_map::CounterMap;
pub use election::{Candidacy, Election, Term};
pub use indexed_map::{IndexedEntry, IndexedEvent, IndexedMap, Place};
pub use key_locks::KeysGuard;
pub use list::{Item, List, ListChange, ListEvent};
pub use lock::{Lock, LockGuard};
pub use map::{Commit, Committed, Map, Written};
pub use multi_map::{MultiMap, MultiMapEvent, ValueChange};
pub use set::{Set, SetEvent};
pub use topic::{Message, Topic};
pub use value::Value;
