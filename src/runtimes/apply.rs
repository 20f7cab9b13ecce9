//! Step 4 of the runtime controller: looks at a runtime and makes the planned calls, each under a
//! deadline, until it is what it should be.

use std::future::Future;
use std::net::SocketAddr;
use std::time::Duration;

use atomix_process::grpc::fencing::{self, OperatorTerm};
use atomix_proto::runtime::v1::runtime_client::RuntimeClient;
use atomix_proto::runtime::v1::{
    ConfigureRequest, ConnectRequest, DisconnectRequest, GetStatusRequest, ProgramRequest, StoreId,
};
use thiserror::Error;
use tonic::{Code, Request, Response, Status};

use super::plan::{Action, Desired, Observed, WantedConnection, plan};
use super::report::{Failure, Outcome, Pass, Refusal};
use super::verdict::{Verdict, judge};
use atomix_controller::dialer::Channel;
use atomix_controller::{ApiError, Category, ObjectKey, ReconcileError};

/// How long a runtime may take to say what it has.
const STATUS_DEADLINE: Duration = Duration::from_secs(3);
/// How long a runtime may try to reach a store before it answers that it goes on trying.
const CONNECT_DEADLINE: Duration = Duration::from_secs(2);
/// How long any other call may take.
const CALL_DEADLINE: Duration = Duration::from_secs(5);
/// How much longer we wait than we tell the runtime, so that its own answer is the one we see.
const GRACE: Duration = Duration::from_secs(1);
/// Looks at a runtime in one pass: one, one after its calls, and some for answers that were lost.
const LOOKS: usize = 5;

/// Instead of a driver's answer to a configuration with values of Secrets.
const NOT_SHOWN: &str = "what it said is not shown, since it may repeat a value of a Secret";

/// A call to a runtime that failed.
#[derive(Debug, Error)]
pub(super) enum RuntimeError {
    /// It answered with an error.
    #[error("cannot {action} at the runtime {address}: {} ({:?})", .status.message(), .status.code())]
    Call {
        /// What was tried.
        action: &'static str,
        /// Where.
        address: SocketAddr,
        /// Its answer.
        status: Box<Status>,
    },
    /// It did not answer in time; the effect is unknown.
    #[error("cannot {action}: no answer of the runtime {address} within {limit:?}")]
    Deadline {
        /// What was tried.
        action: &'static str,
        /// Where.
        address: SocketAddr,
        /// How long it was waited for.
        limit: Duration,
    },
    /// Its state changed under each of our looks.
    #[error("the runtime {address} did not settle; another operator may be changing it")]
    Unsettled {
        /// Where.
        address: SocketAddr,
    },
    /// The pod's condition could not be written.
    #[error(transparent)]
    Condition(#[from] ApiError),
}

impl ReconcileError for RuntimeError {
    fn category(&self) -> Category {
        match self {
            Self::Call { status, .. } => Category::of_grpc(status.code()),
            Self::Deadline { .. } => Category::Timeout,
            Self::Unsettled { .. } => Category::Conflict,
            Self::Condition(error) => error.category(),
        }
    }

    fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Condition(error) => error.retry_after(),
            Self::Call { .. } | Self::Deadline { .. } | Self::Unsettled { .. } => None,
        }
    }
}

impl RuntimeError {
    fn code(&self) -> Option<Code> {
        match self {
            Self::Call { status, .. } => Some(status.code()),
            Self::Deadline { .. } | Self::Unsettled { .. } | Self::Condition(_) => None,
        }
    }

    /// A driver may repeat a value of its configuration.
    fn without_words(self) -> Self {
        match self {
            Self::Call {
                action,
                address,
                status,
            } => Self::Call {
                action,
                address,
                status: Box::new(Status::new(status.code(), NOT_SHOWN)),
            },
            error @ (Self::Deadline { .. } | Self::Unsettled { .. } | Self::Condition(_)) => error,
        }
    }

    /// The operator that the runtime listens to instead of this one.
    fn other_operator(&self) -> Option<OperatorTerm> {
        match self {
            Self::Call { status, .. } => fencing::other_operator(status),
            Self::Deadline { .. } | Self::Unsettled { .. } | Self::Condition(_) => None,
        }
    }

    fn message(&self) -> String {
        match self {
            Self::Call { status, .. } => status.message().to_owned(),
            Self::Deadline { .. } | Self::Unsettled { .. } | Self::Condition(_) => self.to_string(),
        }
    }
}

/// One runtime.
#[derive(Debug)]
pub(super) struct Runtime {
    address: SocketAddr,
    client: RuntimeClient<Channel>,
}

impl Runtime {
    pub(super) fn new(address: SocketAddr, channel: Channel) -> Self {
        Self {
            address,
            client: RuntimeClient::new(channel),
        }
    }

    /// Looks and calls until nothing is left to do. What was done and seen before a failure is in
    /// `pass`.
    pub(super) async fn converge(
        &mut self,
        desired: &Desired,
        pass: &mut Pass,
    ) -> Result<(), RuntimeError> {
        for _ in 0..LOOKS {
            let observed = self.observe().await?;
            let actions = self.remaining(&observed, desired, pass);
            pass.observed = Some(observed);
            if actions.is_empty() {
                return Ok(());
            }
            for action in actions {
                if !self.carry_out(action, pass).await? {
                    break;
                }
            }
        }
        Err(RuntimeError::Unsettled {
            address: self.address,
        })
    }

    /// What is planned, without what was already refused in this pass.
    fn remaining(&self, observed: &Observed, desired: &Desired, pass: &Pass) -> Vec<Action> {
        let mut actions = plan(observed, desired);
        actions.retain(|action| match action {
            Action::Connect { store, .. }
            | Action::Configure { store, .. }
            | Action::Disconnect { store } => !pass.refused.contains_key(store),
            Action::Program { .. } => pass.routes_refused.is_none(),
        });
        actions
    }

    /// Makes one call; false = look again before the next.
    async fn carry_out(&mut self, action: Action, pass: &mut Pass) -> Result<bool, RuntimeError> {
        let error = match self.call(&action).await {
            Ok(()) => {
                pass.done.push(action);
                return Ok(true);
            }
            Err(error) if error.other_operator().is_some() => return Err(error),
            Err(error) if action.has_secrets() => error.without_words(),
            Err(error) => error,
        };
        match (judge(&action, error.code()), action) {
            (Verdict::Stale, _) => Ok(false),
            (Verdict::NotReached, _) => Ok(true),
            (Verdict::Transient, _) => Err(error),
            (Verdict::Reconnect, Action::Configure { store, connection }) => {
                self.reconnect(store, connection, pass).await
            }
            (Verdict::Refused | Verdict::Reconnect, action) => {
                note_refusal(action, &error, pass);
                Ok(true)
            }
        }
    }

    async fn reconnect(
        &mut self,
        store: ObjectKey,
        connection: WantedConnection,
        pass: &mut Pass,
    ) -> Result<bool, RuntimeError> {
        let disconnect = Action::Disconnect {
            store: store.clone(),
        };
        match self.call(&disconnect).await {
            Ok(()) => pass.done.push(disconnect),
            Err(error) if error.code() == Some(Code::NotFound) => {}
            Err(error) => return Err(error),
        }
        // Boxed: the two functions call each other, at most once.
        Box::pin(self.carry_out(Action::Connect { store, connection }, pass)).await
    }

    async fn observe(&mut self) -> Result<Observed, RuntimeError> {
        let request = Request::new(GetStatusRequest {});
        let answer = within(
            "read the status",
            self.address,
            STATUS_DEADLINE,
            request,
            async |request| self.client.get_status(request).await,
        )
        .await?;
        Ok(Observed::of(answer))
    }

    async fn call(&mut self, action: &Action) -> Result<(), RuntimeError> {
        let (address, client) = (self.address, &mut self.client);
        match action {
            Action::Connect { store, connection } => {
                let request = Request::new(ConnectRequest {
                    store_id: Some(store_id(store)),
                    driver_id: Some(connection.driver.clone()),
                    config: connection.config.clone().into(),
                });
                let call = async |request| client.connect(request).await;
                within(
                    "connect the store",
                    address,
                    CONNECT_DEADLINE,
                    request,
                    call,
                )
                .await?;
            }
            Action::Configure { store, connection } => {
                let request = Request::new(ConfigureRequest {
                    store_id: Some(store_id(store)),
                    config: connection.config.clone().into(),
                });
                let call = async |request| client.configure(request).await;
                within("configure the store", address, CALL_DEADLINE, request, call).await?;
            }
            Action::Program { routes } => {
                let request = Request::new(ProgramRequest {
                    routes: routes.clone(),
                });
                let call = async |request| client.program(request).await;
                within("program the routes", address, CALL_DEADLINE, request, call).await?;
            }
            Action::Disconnect { store } => {
                let request = Request::new(DisconnectRequest {
                    store_id: Some(store_id(store)),
                });
                let call = async |request| client.disconnect(request).await;
                within(
                    "disconnect the store",
                    address,
                    CALL_DEADLINE,
                    request,
                    call,
                )
                .await?;
            }
        }
        Ok(())
    }
}

fn note_refusal(action: Action, error: &RuntimeError, pass: &mut Pass) {
    let failure = |reason, message: String| Failure {
        reason,
        message,
        needs_person: true,
    };
    let (store, event, reason, what, advice) = match action {
        Action::Connect { store, .. } if error.code() == Some(Code::NotFound) => (
            store,
            "ConnectFailed",
            "DriverNotFound",
            "the runtime has no such driver",
            "run a runtime of the operator's version in the pod",
        ),
        Action::Connect { store, .. } => (
            store,
            "ConnectFailed",
            "ConfigRefused",
            "the driver refused the Store's configuration",
            "correct spec.config of the Store, or the values of its spec.configFrom",
        ),
        Action::Configure { store, .. } => (
            store,
            "ConfigureFailed",
            "ConfigRefused",
            "the driver refused the Store's new configuration and goes on with the old one",
            "correct spec.config of the Store, or the values of its spec.configFrom",
        ),
        Action::Disconnect { store } => (
            store,
            "ConnectFailed",
            "DisconnectRefused",
            "the runtime refused to disconnect",
            "look at the logs of the pod's runtime",
        ),
        Action::Program { .. } => {
            let message = format!(
                "the runtime refused the routes of this pod's Sessions: {}; correct the Sessions",
                error.message()
            );
            pass.routes_refused = Some(failure("RoutesRefused", message));
            return;
        }
    };
    let message = format!("{what}: {}; {advice}", error.message());
    let failure = failure(reason, message);
    pass.refused.insert(store, Refusal { event, failure });
}

/// What a failed pass means for every Session of the pod.
pub(super) fn unreachable(error: &RuntimeError, has_started: bool) -> Outcome {
    if let Some(other) = error.other_operator() {
        return Outcome::Failed(Failure {
            reason: "ManagedByOther",
            message: format!(
                "the pod's runtime is managed by the operator {}: uninstall one of the two, or run \
                 `kubectl atomix store take-over` for its Store",
                other.id
            ),
            needs_person: true,
        });
    }
    if has_started {
        Outcome::Failed(Failure {
            reason: match error.code() {
                None | Some(Code::Unavailable) => "PodUnreachable",
                Some(_) => "RuntimeFailed",
            },
            message: format!("{error}; see the logs of the pod's runtime"),
            needs_person: false,
        })
    } else {
        Outcome::Connecting("the runtime is starting".to_owned())
    }
}

fn store_id(store: &ObjectKey) -> StoreId {
    StoreId {
        namespace: store.namespace.clone(),
        name: store.name.clone(),
    }
}

async fn within<Q, A, F>(
    action: &'static str,
    address: SocketAddr,
    limit: Duration,
    mut request: Request<Q>,
    call: impl FnOnce(Request<Q>) -> F,
) -> Result<A, RuntimeError>
where
    F: Future<Output = Result<Response<A>, Status>>,
{
    request.set_timeout(limit);
    match tokio::time::timeout(limit + GRACE, call(request)).await {
        Ok(Ok(answer)) => Ok(answer.into_inner()),
        Ok(Err(status)) => Err(RuntimeError::Call {
            action,
            address,
            status: Box::new(status),
        }),
        Err(_elapsed) => Err(RuntimeError::Deadline {
            action,
            address,
            limit,
        }),
    }
}

#[cfg(test)]
mod tests;
