//! Follows a list of sessions.

use std::sync::Arc;

use atomix_proto::runtime::v1::ListSessionsResponse;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::Source;

/// A list that is followed. Changes that come faster than the reader takes them become one answer.
pub(crate) struct Watcher<S> {
    source: Arc<S>,
    kind: String,
    changes: watch::Receiver<u64>,
    last: Option<ListSessionsResponse>,
    shutdown: CancellationToken,
}

impl<S: Source> Watcher<S> {
    pub(crate) fn new(source: Arc<S>, kind: String, shutdown: CancellationToken) -> Self {
        let mut changes = source.changes();
        changes.mark_unchanged();
        Self {
            source,
            kind,
            changes,
            last: None,
            shutdown,
        }
    }

    /// The list as it is now.
    pub(crate) fn look(&mut self) -> ListSessionsResponse {
        let sessions = self.source.list(&self.kind);
        let response = ListSessionsResponse { sessions };
        self.last = Some(response.clone());
        response
    }

    /// The list when it differs from the last one, at once if there is no last one; `None` when the
    /// server shuts down.
    pub(crate) async fn next(&mut self) -> Option<ListSessionsResponse> {
        loop {
            if self.last.is_some() {
                tokio::select! {
                    changed = self.changes.changed() => changed.ok()?,
                    () = self.shutdown.cancelled() => return None,
                }
            }
            let before = self.last.take();
            let now = self.look();
            if before.as_ref() != Some(&now) {
                return Some(now);
            }
        }
    }
}
