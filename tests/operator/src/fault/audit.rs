//! What an operator asked of the API server, as its permissions name it, and what came of it.

use std::collections::BTreeSet;
use std::sync::Arc;

use http::{Method, StatusCode, Uri};
use parking_lot::Mutex;

use super::Call;
use super::call::target;

/// One request.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Request {
    /// API group; empty for the core.
    pub group: String,
    /// Resource, with its subresource: `stores/status`.
    pub resource: String,
    /// Verb, as in a rule.
    pub verb: String,
    /// Name of the object; empty for all of them and for a creation.
    pub name: String,
    /// The answer's HTTP status.
    pub status: u16,
}

/// All requests of operators. Clones share them.
#[derive(Clone, Debug, Default)]
pub struct Audit {
    requests: Arc<Mutex<BTreeSet<Request>>>,
}

impl Audit {
    pub(super) fn record(&self, method: &Method, uri: &Uri, status: StatusCode) {
        let path = uri.path().trim_start_matches('/');
        let group = match path.strip_prefix("apis/") {
            Some(rest) => rest.split('/').next().unwrap_or_default(),
            None => "",
        };
        let call = Call::to_api_server(method, uri);
        let mut requests = self.requests.lock();
        let mut add = |verb: String| {
            requests.insert(Request {
                group: group.to_owned(),
                resource: call.what.clone(),
                verb,
                name: name_of(uri),
                status: status.as_u16(),
            });
        };
        add(call.verb.to_string());
        // An apply of what is not there is a creation, and needs that permission too.
        if *method == Method::PATCH && status == StatusCode::CREATED {
            add("create".to_owned());
        }
    }

    /// All of them, each once.
    pub fn requests(&self) -> BTreeSet<Request> {
        self.requests.lock().clone()
    }
}

/// As authorization sees it: a list or watch of one object names it.
fn name_of(uri: &Uri) -> String {
    let query = uri.query().unwrap_or_default();
    let mut selected = query.split('&').filter_map(|pair| {
        let value = pair.strip_prefix("fieldSelector=metadata.name")?;
        value.strip_prefix("%3D").or(value.strip_prefix('='))
    });
    let (_, name, _) = target(uri);
    selected.next().unwrap_or(name).to_owned()
}
