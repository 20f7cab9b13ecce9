//! What is held by a connection: locks and candidacies.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use prost::Message;
use tokio::time::Instant;

use crate::call::{Caller, send};
use crate::connection::OwnConnection;
use crate::entry::wire_duration;
use crate::error::{Error, Result};
use crate::failure::Failure;
use crate::method::Method;
use crate::primitive::Primitive;

/// How long it may take until it is granted.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Wait {
    /// As long as others hold it.
    Endless,
    /// So long at most; a zero does not wait.
    AtMost(Duration),
}

impl Wait {
    /// What is left of it; `None` = endless.
    fn left(self, began: Instant) -> Option<Duration> {
        match self {
            Self::Endless => None,
            Self::AtMost(wait) => {
                let waited = Instant::now().saturating_duration_since(began);
                Some(wait.saturating_sub(waited))
            }
        }
    }
}

/// Something that belongs to its connection. Dropped, the connection ends and the sidecar gives it up.
pub(crate) struct Hold {
    connection: OwnConnection,
    caller: Arc<Caller>,
}

impl Hold {
    /// Asks for it over a connection of its own, until it is granted or refused. Dropping the future
    /// gives up the place in the line, and what was granted unseen. `request` is given the time-out
    /// for the sidecar.
    pub(crate) async fn acquire<Q, R>(
        primitive: &Primitive,
        method: &Method<Q, R>,
        wait: Wait,
        request: impl Fn(Option<prost_types::Duration>) -> Q,
    ) -> Result<(Self, R)>
    where
        Q: Message + 'static,
        R: Message + Default + 'static,
    {
        let caller = &primitive.caller;
        let began = Instant::now();
        let mut attempts = caller.attempts();
        let mut opened_again = false;
        loop {
            let left = wait.left(began);
            let timeout = left
                .map(|left| wire_duration("timeout", left))
                .transpose()?;
            let patience = left.map(|left| left.saturating_add(attempts.remaining()));
            let asked = async {
                let connection = caller.owners.take().await?;
                let request = request(timeout);
                let granted = send(&connection.channel, method, request, patience);
                Ok::<_, Failure>((granted.await?, connection))
            };
            let failure = match asked.await {
                Ok((reply, connection)) => {
                    let caller = Arc::clone(caller);
                    return Ok((Self { connection, caller }, reply));
                }
                Err(failure) => failure,
            };
            match attempts.again(failure, method.repeat).await {
                Ok(()) => {}
                Err(error) if !opened_again && primitive.open_again(&error).await? => {
                    opened_again = true;
                }
                Err(error) => return Err(error),
            }
        }
    }

    /// Gives it up by a request, and keeps the connection for another use. If that fails the
    /// connection ends, and the sidecar gives it up because of that.
    pub(crate) async fn release<Q, R>(self, method: &Method<Q, R>, request: Q) -> Result<R>
    where
        Q: Message + 'static,
        R: Message + Default + 'static,
    {
        let patience = Some(self.caller.attempts().remaining());
        let sent = send(&self.connection.channel, method, request, patience);
        match sent.await {
            Ok(reply) => {
                self.caller.owners.give_back(self.connection);
                Ok(reply)
            }
            Err(failure) => Err(failure.into_error(method.repeat)),
        }
    }

    /// Completes when the connection has ended, and what was held with it.
    pub(crate) async fn lost(&self) {
        self.connection.ended().await;
    }

    pub(crate) fn is_lost(&self) -> bool {
        self.connection.has_ended()
    }
}

impl fmt::Debug for Hold {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = if self.is_lost() { "lost" } else { "held" };
        formatter.write_str(state)
    }
}

/// `None` where others hold it: the API says ABORTED.
pub(crate) fn granted<T>(answer: Result<T>) -> Result<Option<T>> {
    match answer {
        Ok(granted) => Ok(Some(granted)),
        Err(Error::Conflict(_)) => Ok(None),
        Err(error) => Err(error),
    }
}
