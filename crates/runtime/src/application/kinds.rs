//! The kinds of primitives in the application API: how their services are called, and what their
//! configuration looks like on the wire. What is not named here does not exist: what runtimes ask
//! storage nodes for beside it is no method of the application API.

use std::time::Duration;

use atomix_proto::runtime::lock::v1 as lock;
use atomix_proto::runtime::map::v1 as map;
use bytes::Bytes;
use prost::Message as _;

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
    /// Its methods that are answered once, but for Create and Close.
    methods: &'static [&'static str],
    /// Its methods that are answered with a stream.
    streams: &'static [&'static str],
    /// The methods whose effect belongs to the application connection that called them.
    pub(crate) owning: &'static [&'static str],
    /// Its method that waits for others.
    waiting: Option<Waiting>,
}

/// A method that is answered when others make room.
#[derive(Debug)]
struct Waiting {
    method: &'static str,
    /// How long it waits at most, as its request says.
    limit: fn(&Bytes) -> Option<prost_types::Duration>,
}

/// As good as without an end, and far from what the clock can hold.
const ENDLESS: Duration = Duration::from_hours(24 * 365);

impl Kind {
    /// How long a call may take whose caller sets no deadline: `usual`, or what its request says
    /// beyond that. One that waits without saying how long waits as long as its caller does.
    pub(crate) fn patience(&self, method: &str, request: &Bytes, usual: Duration) -> Duration {
        let waiting = self.waiting.as_ref();
        let Some(waiting) = waiting.filter(|waiting| waiting.method == method) else {
            return usual;
        };
        let limit = (waiting.limit)(request).and_then(|limit| Duration::try_from(limit).ok());
        limit.map_or(ENDLESS, |limit| usual.saturating_add(limit).min(ENDLESS))
    }
}

const LOCK: Option<Waiting> = Some(Waiting {
    method: "Lock",
    limit: |request| lock::LockRequest::decode(request.clone()).ok()?.timeout,
});
/// Maps and counter maps have the same message.
const LOCK_KEYS: Option<Waiting> = Some(Waiting {
    method: "Lock",
    limit: |request| map::LockRequest::decode(request.clone()).ok()?.timeout,
});

const KEY_LOCKS: &[&str] = &["Lock", "Unlock"];
const CANDIDACIES: &[&str] = &["Enter", "Withdraw"];

pub(crate) const KINDS: &[Kind] = &[
    Kind {
        name: "counter",
        singular: "Counter",
        plural: "Counters",
        config: ConfigShape::Cache,
        methods: &["Set", "Update", "Get", "Increment", "Decrement"],
        streams: &[],
        owning: &[],
        waiting: None,
    },
    Kind {
        name: "countermap",
        singular: "CounterMap",
        plural: "CounterMaps",
        config: ConfigShape::SizedCache,
        methods: &[
            "Size",
            "Set",
            "Insert",
            "Update",
            "Increment",
            "Decrement",
            "Get",
            "Remove",
            "Clear",
            "Lock",
            "Unlock",
        ],
        streams: &["Events", "Entries"],
        owning: KEY_LOCKS,
        waiting: LOCK_KEYS,
    },
    Kind {
        name: "election",
        singular: "LeaderElection",
        plural: "LeaderElections",
        config: ConfigShape::Cache,
        methods: &[
            "Enter", "Withdraw", "Anoint", "Promote", "Demote", "Evict", "GetTerm",
        ],
        streams: &["Watch"],
        owning: CANDIDACIES,
        waiting: None,
    },
    Kind {
        name: "indexedmap",
        singular: "IndexedMap",
        plural: "IndexedMaps",
        config: ConfigShape::SizedCache,
        methods: &[
            "Size",
            "Append",
            "Update",
            "Get",
            "FirstEntry",
            "LastEntry",
            "PrevEntry",
            "NextEntry",
            "Remove",
            "Clear",
        ],
        streams: &["Events", "Entries"],
        owning: &[],
        waiting: None,
    },
    Kind {
        name: "list",
        singular: "List",
        plural: "Lists",
        config: ConfigShape::SizedCache,
        methods: &["Size", "Append", "Insert", "Get", "Set", "Remove", "Clear"],
        streams: &["Events", "Items"],
        owning: &[],
        waiting: None,
    },
    Kind {
        name: "lock",
        singular: "Lock",
        plural: "Locks",
        config: ConfigShape::Empty,
        methods: &["Lock", "Unlock", "GetLock"],
        streams: &[],
        owning: KEY_LOCKS,
        waiting: LOCK,
    },
    Kind {
        name: "map",
        singular: "Map",
        plural: "Maps",
        config: ConfigShape::SizedCache,
        methods: &[
            "Size", "Put", "Insert", "Update", "Get", "Remove", "Clear", "Lock", "Unlock", "Commit",
        ],
        streams: &["Events", "Entries"],
        owning: KEY_LOCKS,
        waiting: LOCK_KEYS,
    },
    Kind {
        name: "multimap",
        singular: "MultiMap",
        plural: "MultiMaps",
        config: ConfigShape::SizedCache,
        methods: &[
            "Size",
            "Put",
            "PutAll",
            "PutEntries",
            "Replace",
            "Contains",
            "Get",
            "Remove",
            "RemoveAll",
            "RemoveEntries",
            "Clear",
        ],
        streams: &["Events", "Entries"],
        owning: &[],
        waiting: None,
    },
    Kind {
        name: "set",
        singular: "Set",
        plural: "Sets",
        config: ConfigShape::SizedCache,
        methods: &["Size", "Contains", "Add", "Remove", "Clear"],
        streams: &["Events", "Elements"],
        owning: &[],
        waiting: None,
    },
    Kind {
        name: "topic",
        singular: "Topic",
        plural: "Topics",
        config: ConfigShape::Empty,
        methods: &["Publish"],
        streams: &["Subscribe"],
        owning: &[],
        waiting: None,
    },
    Kind {
        name: "value",
        singular: "Value",
        plural: "Values",
        config: ConfigShape::Cache,
        methods: &["Set", "Insert", "Update", "Get", "Delete"],
        streams: &["Watch", "Events"],
        owning: &[],
        waiting: None,
    },
];

/// What a call is about.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Call {
    /// Opens a primitive.
    Create(&'static Kind),
    /// Ends the caller's use of a primitive.
    Close(&'static Kind),
    /// An operation on a primitive.
    Operation(&'static Kind, &'static str),
    /// An operation on a primitive that is answered with a stream.
    Stream(&'static Kind, &'static str),
}

impl Call {
    /// Reads the path of an HTTP request: `/atomix.runtime.counter.v1.Counter/Increment`. `None` =
    /// no such service or method.
    pub(crate) fn parse(path: &str) -> Option<Self> {
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
            (method, service) if service == kind.singular => {
                let named = |known: &&&'static str| **known == method;
                let operation = kind.methods.iter().find(named);
                let operation = operation.map(|method| Self::Operation(kind, method));
                let stream = || kind.streams.iter().find(named);
                operation.or_else(|| stream().map(|method| Self::Stream(kind, method)))
            }
            _ => None,
        }
    }

    pub(crate) fn kind(&self) -> &'static Kind {
        match self {
            Self::Create(kind)
            | Self::Close(kind)
            | Self::Operation(kind, _)
            | Self::Stream(kind, _) => kind,
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

    use prost_types::FileDescriptorSet;

    use super::*;

    #[test]
    fn the_table_names_exactly_the_methods_of_the_protocol() {
        let set = FileDescriptorSet::decode(atomix_proto::FILE_DESCRIPTOR_SET).unwrap();
        let mut specified = Vec::new();
        for file in &set.file {
            let package = file.package();
            if !package.starts_with("atomix.runtime.") || package == "atomix.runtime.v1" {
                continue;
            }
            for service in &file.service {
                for method in &service.method {
                    let path = format!("/{package}.{}/{}", service.name(), method.name());
                    specified.push((path, method.server_streaming()));
                }
            }
        }
        let mut served = Vec::new();
        for kind in KINDS {
            let path =
                |service, method| format!("/atomix.runtime.{}.v1.{service}/{method}", kind.name);
            for service in [kind.singular, kind.plural] {
                served.push((path(service, "Create"), false));
                served.push((path(service, "Close"), false));
            }
            let once = kind.methods.iter();
            served.extend(once.map(|method| (path(kind.singular, method), false)));
            let streams = kind.streams.iter();
            served.extend(streams.map(|method| (path(kind.singular, method), true)));
        }
        specified.sort();
        served.sort();
        assert_eq!(served, specified);
        assert_eq!(service_names().count(), 22);
        for (path, streams) in &served {
            let is_stream = matches!(Call::parse(path), Some(Call::Stream(..)));
            assert!(
                Call::parse(path).is_some() && is_stream == *streams,
                "{path}"
            );
        }
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
            ("/atomix.runtime.map.v1.Map/Entries", "stream map Entries"),
            // What runtimes read streams with.
            ("/atomix.runtime.map.v1.Map/Page", ""),
            ("/atomix.runtime.counter.v1.Counter/Square", ""),
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
                Some(Call::Stream(kind, method)) => format!("stream {} {method}", kind.name),
            };
            assert_eq!(read, expected, "{path}");
        }
    }

    #[test]
    fn a_lock_without_a_deadline_takes_as_long_as_its_request_says_or_without_end() {
        let usual = Duration::from_secs(10);
        let limit = || {
            Some(prost_types::Duration {
                seconds: 5,
                nanos: 0,
            })
        };
        let patience = |kind: &str, method, request: Vec<u8>| {
            let kind = KINDS.iter().find(|known| known.name == kind).unwrap();
            kind.patience(method, &request.into(), usual)
        };
        let lock = |timeout| lock::LockRequest { id: None, timeout }.encode_to_vec();
        let keys = |timeout| {
            let keys = vec!["k".to_owned()];
            map::LockRequest {
                id: None,
                keys,
                timeout,
            }
            .encode_to_vec()
        };
        assert_eq!(
            patience("lock", "Lock", lock(limit())),
            Duration::from_secs(15)
        );
        assert_eq!(patience("lock", "Lock", lock(None)), ENDLESS);
        assert_eq!(patience("lock", "Unlock", Vec::new()), usual);
        for kind in ["map", "countermap"] {
            assert_eq!(
                patience(kind, "Lock", keys(limit())),
                Duration::from_secs(15)
            );
            assert_eq!(patience(kind, "Lock", keys(None)), ENDLESS);
            assert_eq!(patience(kind, "Size", Vec::new()), usual);
        }
        let longest = prost_types::Duration {
            seconds: i64::MAX,
            nanos: 0,
        };
        assert_eq!(patience("lock", "Lock", lock(Some(longest))), ENDLESS);
    }
}
