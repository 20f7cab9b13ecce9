//! Step 1 of the session controller: everything that a pass reads, from the caches and from what
//! the runtime controller reports.

use crate::context::Context;
use crate::runtimes::index::store_of;
use crate::runtimes::{Runtimes, SessionView};
use crate::session::resolve::{Target, Unresolved, resolve};
use atomix_controller::ObjectKey;
use atomix_resources::Session;

/// What a pass over a living Session works on.
#[derive(Debug)]
pub(super) struct Dereferenced {
    pub(super) target: Result<Target, Unresolved>,
    pub(super) view: SessionView,
}

pub(super) fn dereference(
    context: &Context,
    runtimes: &Runtimes,
    key: &ObjectKey,
    session: &Session,
) -> Dereferenced {
    let store = context.stores.get(&store_of(key, session));
    Dereferenced {
        target: resolve(key, session, store.as_deref()),
        view: runtimes.view(key),
    }
}
