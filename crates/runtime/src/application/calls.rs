//! Calls of the application API: which method of which kind a path names, whom its effect belongs to,
//! and how long it may take. What runtimes ask storage nodes for beside it is no method of it.

use std::sync::LazyLock;
use std::time::Duration;

use atomix_primitives::{Kinds, Method};
use atomix_proto::kinds::{KINDS, Kind};
use bytes::Bytes;

/// What the kinds say of their methods.
static PRIMITIVES: LazyLock<Kinds> = LazyLock::new(Kinds::standard);

/// As good as without an end, and far from what the clock can hold.
const ENDLESS: Duration = Duration::from_hours(24 * 365);

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

/// Whether a method's effect belongs to the application connection that called it.
pub(crate) fn is_owned(kind: &Kind, method: &str) -> bool {
    let method = PRIMITIVES.method(kind.name, method);
    method.is_some_and(|method| method.owned)
}

/// How long a call may take whose caller sets no deadline: `usual`, or what its request says beyond
/// that. One that waits without saying how long waits as long as its caller does.
pub(crate) fn patience(kind: &Kind, method: &str, request: &Bytes, usual: Duration) -> Duration {
    match PRIMITIVES.method(kind.name, method) {
        Some(Method {
            wait: Some(asked), ..
        }) => asked(request).map_or(ENDLESS, |asked| usual.saturating_add(asked).min(ENDLESS)),
        Some(_) | None => usual,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use std::collections::BTreeSet;

    use atomix_proto::runtime::lock::v1 as lock;
    use atomix_proto::runtime::map::v1 as map;
    use prost::Message as _;
    use prost_types::FileDescriptorSet;

    use super::*;

    #[test]
    fn every_method_of_the_protocol_is_found_by_its_path_and_no_other_is_served() {
        let set = FileDescriptorSet::decode(atomix_proto::FILE_DESCRIPTOR_SET).unwrap();
        let mut services = BTreeSet::new();
        for file in &set.file {
            let package = file.package();
            if !package.starts_with("atomix.runtime.") || package == "atomix.runtime.v1" {
                continue;
            }
            for service in &file.service {
                services.insert(format!("{package}.{}", service.name()));
                for method in &service.method {
                    let path = format!("/{package}.{}/{}", service.name(), method.name());
                    let call = Call::parse(&path);
                    let streams = matches!(call, Some(Call::Stream(..)));
                    assert!(call.is_some(), "{path}");
                    assert_eq!(streams, method.server_streaming(), "{path}");
                }
            }
        }
        assert_eq!(service_names().collect::<BTreeSet<_>>(), services);
        assert_eq!(services.len(), 2 * KINDS.len());
    }

    /// What has no path reaches no driver, and what no kind knows none answers.
    #[test]
    fn the_kinds_have_exactly_the_methods_of_their_services() {
        let served: Vec<&str> = KINDS.iter().map(|kind| kind.name).collect();
        assert_eq!(PRIMITIVES.names().collect::<Vec<_>>(), served);
        for kind in KINDS {
            let known = PRIMITIVES.methods(kind.name).iter();
            let known: BTreeSet<&str> = known.map(|method| method.name).collect();
            let mut expected: BTreeSet<&str> = kind.methods.iter().copied().collect();
            // What runtimes read listings with.
            if known.contains("Page") {
                expected.insert("Page");
            }
            assert_eq!(known, expected, "{}", kind.name);
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
            super::patience(kind, method, &request.into(), usual)
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
