//! The kinds of primitives in the application API: how their services are called, and what their
//! configuration looks like on the wire. A new kind is one line here.

/// What a kind's `Config` message holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ConfigShape {
    /// Nothing.
    Empty,
    /// `cache {enabled}`.
    Cache,
    /// `cache {enabled, size}`.
    SizedCache,
}

/// One kind.
#[derive(Debug)]
pub(crate) struct Kind {
    /// Its name in routes, drivers and the package `atomix.runtime.KIND.v1`.
    pub(crate) name: &'static str,
    /// The service that operates on one primitive.
    pub(crate) singular: &'static str,
    /// The service that creates and closes primitives.
    pub(crate) plural: &'static str,
    pub(crate) config: ConfigShape,
    /// The methods whose effect belongs to the application connection that called them.
    pub(crate) owning: &'static [&'static str],
}

const KEY_LOCKS: &[&str] = &["Lock", "Unlock"];
const CANDIDACIES: &[&str] = &["Enter", "Withdraw"];

pub(crate) const KINDS: &[Kind] = &[
    kind("counter", "Counter", "Counters", ConfigShape::Cache, &[]),
    kind(
        "countermap",
        "CounterMap",
        "CounterMaps",
        ConfigShape::SizedCache,
        KEY_LOCKS,
    ),
    kind(
        "election",
        "LeaderElection",
        "LeaderElections",
        ConfigShape::Cache,
        CANDIDACIES,
    ),
    kind(
        "indexedmap",
        "IndexedMap",
        "IndexedMaps",
        ConfigShape::SizedCache,
        &[],
    ),
    kind("list", "List", "Lists", ConfigShape::SizedCache, &[]),
    kind("lock", "Lock", "Locks", ConfigShape::Empty, KEY_LOCKS),
    kind("map", "Map", "Maps", ConfigShape::SizedCache, KEY_LOCKS),
    kind(
        "multimap",
        "MultiMap",
        "MultiMaps",
        ConfigShape::SizedCache,
        &[],
    ),
    kind("set", "Set", "Sets", ConfigShape::SizedCache, &[]),
    kind("topic", "Topic", "Topics", ConfigShape::Empty, &[]),
    kind("value", "Value", "Values", ConfigShape::Cache, &[]),
];

const fn kind(
    name: &'static str,
    singular: &'static str,
    plural: &'static str,
    config: ConfigShape,
    owning: &'static [&'static str],
) -> Kind {
    Kind {
        name,
        singular,
        plural,
        config,
        owning,
    }
}

/// What a call is about.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Call<'a> {
    /// Opens a primitive.
    Create(&'static Kind),
    /// Ends the caller's use of a primitive.
    Close(&'static Kind),
    /// An operation on a primitive.
    Operation(&'static Kind, &'a str),
}

impl<'a> Call<'a> {
    /// Reads the path of an HTTP request: `/atomix.runtime.counter.v1.Counter/Increment`. `None` =
    /// no such service or method.
    pub(crate) fn parse(path: &'a str) -> Option<Self> {
        let (service, method) = path.strip_prefix('/')?.split_once('/')?;
        let (package, service) = service
            .strip_prefix("atomix.runtime.")?
            .split_once(".v1.")?;
        let kind = KINDS.iter().find(|kind| kind.name == package)?;
        match (method, service) {
            ("Create", service) if service == kind.singular || service == kind.plural => {
                Some(Self::Create(kind))
            }
            ("Close", service) if service == kind.singular || service == kind.plural => {
                Some(Self::Close(kind))
            }
            (method, service) if service == kind.singular && !method.is_empty() => {
                Some(Self::Operation(kind, method))
            }
            _ => None,
        }
    }

    pub(crate) fn kind(&self) -> &'static Kind {
        match self {
            Self::Create(kind) | Self::Close(kind) | Self::Operation(kind, _) => kind,
        }
    }
}

/// The full names of all services.
pub(crate) fn service_names() -> impl Iterator<Item = String> {
    KINDS.iter().flat_map(|kind| {
        [kind.singular, kind.plural]
            .map(|service| format!("atomix.runtime.{}.v1.{service}", kind.name))
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use prost::Message as _;
    use prost_types::FileDescriptorSet;

    use super::*;

    #[test]
    fn the_table_names_exactly_the_services_of_the_protocol() {
        let set = FileDescriptorSet::decode(atomix_proto::FILE_DESCRIPTOR_SET).unwrap();
        let mut specified: Vec<String> = set
            .file
            .iter()
            .flat_map(|file| {
                file.service
                    .iter()
                    .map(move |service| format!("{}.{}", file.package(), service.name()))
            })
            .filter(|name| {
                name.starts_with("atomix.runtime.") && !name.starts_with("atomix.runtime.v1.")
            })
            .collect();
        let mut served: Vec<String> = service_names().collect();
        specified.sort();
        served.sort();
        assert_eq!(served, specified);
        assert_eq!(served.len(), 22);
    }

    #[test]
    fn paths_are_read_by_kind_and_method() {
        let cases = [
            (
                "/atomix.runtime.counter.v1.Counter/Increment",
                "operation counter Increment",
            ),
            (
                "/atomix.runtime.counter.v1.Counter/Create",
                "create counter",
            ),
            (
                "/atomix.runtime.counter.v1.Counters/Create",
                "create counter",
            ),
            (
                "/atomix.runtime.election.v1.LeaderElections/Close",
                "close election",
            ),
            ("/atomix.runtime.counter.v1.Counters/Increment", ""),
            ("/atomix.runtime.counter.v1.Map/Increment", ""),
            ("/atomix.runtime.counter.v1.Counter/", ""),
            ("/atomix.runtime.counter.v2.Counter/Get", ""),
            ("/atomix.runtime.v1.Runtime/Connect", ""),
            ("/", ""),
            ("", ""),
        ];
        for (path, expected) in cases {
            let read = match Call::parse(path) {
                None => String::new(),
                Some(Call::Create(kind)) => format!("create {}", kind.name),
                Some(Call::Close(kind)) => format!("close {}", kind.name),
                Some(Call::Operation(kind, method)) => format!("operation {} {method}", kind.name),
            };
            assert_eq!(read, expected, "{path}");
        }
    }
}
