//! Step 1 of the session controller: everything that a pass reads, from the caches and from what
//! the runtime controller reports.

use crate::context::Context;
use crate::runtimes::{Runtimes, SessionView};
use crate::session::resolve::{NamedStore, Target, Unresolved, resolve};
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
    let named = NamedStore::look(context, key, session);
    Dereferenced {
        target: resolve(key, &named),
        view: runtimes.view(key),
    }
}
