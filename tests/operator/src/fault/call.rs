//! What a request does, read from the request alone.

use std::fmt;

/// What is done.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Verb {
    /// Reads one object.
    Get,
    /// Reads all objects.
    List,
    /// Follows all objects.
    Watch,
    /// Writes a new object.
    Create,
    /// Writes a whole object.
    Update,
    /// Changes an object.
    Patch,
    /// Deletes an object.
    Delete,
    /// Calls a node or runtime without changing it.
    Ask,
    /// Calls a node or runtime to change it.
    Tell,
}

impl Verb {
    /// Whether the call changes anything.
    pub fn is_mutating(self) -> bool {
        match self {
            Self::Create | Self::Update | Self::Patch | Self::Delete | Self::Tell => true,
            Self::Get | Self::List | Self::Watch | Self::Ask => false,
        }
    }
}

impl fmt::Display for Verb {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Get => "get",
            Self::List => "list",
            Self::Watch => "watch",
            Self::Create => "create",
            Self::Update => "update",
            Self::Patch => "patch",
            Self::Delete => "delete",
            Self::Ask => "ask",
            Self::Tell => "tell",
        })
    }
}

/// One call, the same in every run: without namespaces, addresses and random names.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Call {
    /// What is done.
    pub verb: Verb,
    /// To what: a resource with its subresource, or a gRPC method.
    pub what: String,
    /// To which: the object's or pod's name; empty for all, or for a name that is chosen at random.
    pub name: String,
}

impl fmt::Display for Call {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{} {}", self.verb, self.what)?;
        if self.name.is_empty() {
            return Ok(());
        }
        write!(formatter, " {}", self.name)
    }
}

impl Call {
    /// Reads a request to the API server.
    pub fn to_api_server(method: &http::Method, uri: &http::Uri) -> Self {
        let (resource, name, subresource) = target(uri);
        let is_watch = uri.query().is_some_and(|query| {
            query
                .split('&')
                .any(|pair| pair == "watch=true" || pair == "watch=1")
        });
        let verb = match *method {
            http::Method::GET if is_watch => Verb::Watch,
            http::Method::GET if name.is_empty() => Verb::List,
            http::Method::POST => Verb::Create,
            http::Method::PUT => Verb::Update,
            http::Method::PATCH => Verb::Patch,
            http::Method::DELETE => Verb::Delete,
            _ => Verb::Get,
        };
        let what = match subresource {
            "" => resource.to_owned(),
            _ => format!("{resource}/{subresource}"),
        };
        let name = match verb {
            // Names that hold a time, or the namespace of a test.
            _ if ["events", "mutatingwebhookconfigurations"].contains(&resource) => "",
            // Two watches of one resource differ by what they select.
            Verb::List | Verb::Watch => selector(uri),
            _ => name,
        };
        Self {
            verb,
            what,
            name: name.to_owned(),
        }
    }

    /// Reads a gRPC request to a pod, from its path `/package.Service/Method`.
    pub fn to_pod(path: &str, pod: &str) -> Self {
        let method = path.rsplit('/').next().unwrap_or(path);
        let verb = match method {
            "GetStatus" | "Watch" | "Check" => Verb::Ask,
            _ => Verb::Tell,
        };
        Self {
            verb,
            what: method.to_owned(),
            name: pod.to_owned(),
        }
    }
}

/// The resource, the object's name and the subresource; what is not there is empty.
pub(super) fn target(uri: &http::Uri) -> (&str, &str, &str) {
    let path = uri.path().trim_start_matches('/');
    let mut segments = path.split('/').filter(|segment| !segment.is_empty());
    // api/v1/… or apis/GROUP/VERSION/…
    let prefix = if path.starts_with("apis/") { 3 } else { 2 };
    let mut rest: Vec<&str> = segments.by_ref().skip(prefix).collect();
    if let ["namespaces", _, _, ..] = rest.as_slice() {
        rest.drain(..2);
    }
    match rest.as_slice() {
        [resource] => (resource, "", ""),
        [resource, name] => (resource, name, ""),
        [resource, name, subresource, ..] => (resource, name, subresource),
        [] => (path, "", ""),
    }
}

fn selector(uri: &http::Uri) -> &str {
    let pairs = uri.query().unwrap_or_default().split('&');
    let mut selectors = pairs.filter_map(|pair| pair.strip_prefix("labelSelector="));
    selectors.next().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calls_are_named_without_what_differs_between_runs() {
        for (method, uri, name) in [
            ("GET", "/api/v1/pods?limit=500", "list pods"),
            (
                "GET",
                "/api/v1/namespaces/m/pods?watch=true&x=1",
                "watch pods",
            ),
            (
                "GET",
                "/api/v1/pods?watch=1&labelSelector=a%3Db",
                "watch pods a%3Db",
            ),
            (
                "GET",
                "/api/v1/namespaces/m/configmaps/a",
                "get configmaps a",
            ),
            (
                "POST",
                "/apis/apps/v1/namespaces/m/statefulsets",
                "create statefulsets",
            ),
            (
                "PATCH",
                "/apis/atomix.io/v1beta1/namespaces/m/stores/a/status?x=y",
                "patch stores/status a",
            ),
            (
                "PATCH",
                "/apis/events.k8s.io/v1/namespaces/m/events/a.18c",
                "patch events",
            ),
            (
                "PATCH",
                "/apis/admissionregistration.k8s.io/v1/mutatingwebhookconfigurations/a-m",
                "patch mutatingwebhookconfigurations",
            ),
            ("DELETE", "/api/v1/namespaces/m/pods/a-0", "delete pods a-0"),
            ("DELETE", "/api/v1/namespaces/m", "delete namespaces m"),
        ] {
            let call = Call::to_api_server(&method.parse().unwrap(), &uri.parse().unwrap());
            assert_eq!(call.to_string(), name);
        }
        let bootstrap = Call::to_pod("/atomix.multiraft.v1.Node/Bootstrap", "a-0");
        assert!(bootstrap.verb.is_mutating());
        let watch = Call::to_pod("/atomix.multiraft.v1.Node/Watch", "a-0");
        assert!(!watch.verb.is_mutating());
    }
}
