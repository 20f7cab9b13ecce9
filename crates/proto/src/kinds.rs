//! The kinds of primitives, as the services of the application API in `proto/atomix/runtime/KIND/v1`
//! say: this table is read off them.

/// The API of one kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Kind {
    /// Its name in routes, drivers and the package `atomix.runtime.KIND.v1`: `counter`.
    pub name: &'static str,
    /// The service that operates on one primitive: `Counter`.
    pub singular: &'static str,
    /// The service that creates and closes primitives: `Counters`.
    pub plural: &'static str,
    /// The methods that are answered once, but for `Create` and `Close`.
    pub methods: &'static [&'static str],
    /// The methods that are answered with a stream.
    pub streams: &'static [&'static str],
    /// What its configuration says of a cache.
    pub cache: Cache,
}

/// The settings of a kind's `CacheConfig`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cache {
    /// There is none.
    None,
    /// `enabled`.
    Switch,
    /// `enabled` and `size`.
    Sized,
}

/// All kinds, by name.
pub const KINDS: &[Kind] = include!(concat!(env!("OUT_DIR"), "/kinds.rs"));
