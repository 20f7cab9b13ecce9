//! What the answer of a runtime means for the call that it answered. Pure.

use tonic::Code;

use super::plan::Action;

/// How a call that failed is to be taken.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// The runtime is not what we saw: look again.
    Stale,
    /// The runtime accepted the connection and goes on trying; the next look tells.
    NotReached,
    /// It refuses the same call again until something changes, perhaps in the runtime alone.
    Refused,
    /// It may work later.
    Transient,
    /// The driver cannot be re-configured: connect anew.
    Reconnect,
}

/// Takes a failed call; `code` is `None` when no answer came.
pub(super) fn judge(action: &Action, code: Option<Code>) -> Verdict {
    match action {
        Action::Connect { .. } => judge_connect(code),
        Action::Configure { .. } => match code {
            Some(Code::NotFound) => Verdict::Stale,
            Some(Code::Unimplemented) => Verdict::Reconnect,
            code => judge_any(code),
        },
        Action::Disconnect { .. } => match code {
            Some(Code::NotFound) => Verdict::Stale,
            code => judge_any(code),
        },
        Action::Program { .. } => judge_any(code),
    }
}

fn judge_connect(code: Option<Code>) -> Verdict {
    match code {
        Some(Code::AlreadyExists) => Verdict::Stale,
        None | Some(Code::Unavailable | Code::DeadlineExceeded) => Verdict::NotReached,
        // An unknown driver.
        Some(Code::NotFound) => Verdict::Refused,
        code => judge_any(code),
    }
}

/// What a code means whatever was asked; `None` = no answer.
fn judge_any(code: Option<Code>) -> Verdict {
    let Some(code) = code else {
        return Verdict::Transient;
    };
    match code {
        Code::InvalidArgument
        | Code::FailedPrecondition
        | Code::OutOfRange
        | Code::PermissionDenied
        | Code::Unimplemented
        | Code::Unauthenticated => Verdict::Refused,
        Code::Ok
        | Code::Cancelled
        | Code::Unknown
        | Code::DeadlineExceeded
        | Code::NotFound
        | Code::AlreadyExists
        | Code::ResourceExhausted
        | Code::Aborted
        | Code::Internal
        | Code::Unavailable
        | Code::DataLoss => Verdict::Transient,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::runtimes::plan::WantedConnection;
    use atomix_controller::ObjectKey;

    #[test]
    fn an_answer_tells_whether_to_look_again_to_wait_or_to_give_up() {
        let connection = WantedConnection {
            driver: atomix_proto::runtime::v1::DriverId::default(),
            config: String::new(),
            config_digest: String::new(),
            has_secrets: false,
        };
        let store = ObjectKey::new("garden", "meadow");
        let connect = Action::Connect {
            store: store.clone(),
            connection: connection.clone(),
        };
        let configure = Action::Configure {
            store: store.clone(),
            connection,
        };
        let disconnect = Action::Disconnect { store };
        let program = Action::Program { routes: vec![] };
        for (action, code, expected) in [
            (&connect, Some(Code::AlreadyExists), Verdict::Stale),
            (&connect, Some(Code::Unavailable), Verdict::NotReached),
            (&connect, None, Verdict::NotReached),
            (&connect, Some(Code::NotFound), Verdict::Refused),
            (&connect, Some(Code::InvalidArgument), Verdict::Refused),
            (&configure, Some(Code::NotFound), Verdict::Stale),
            (&configure, Some(Code::Unimplemented), Verdict::Reconnect),
            (&configure, Some(Code::InvalidArgument), Verdict::Refused),
            (&configure, Some(Code::Unavailable), Verdict::Transient),
            (&disconnect, Some(Code::NotFound), Verdict::Stale),
            (&disconnect, None, Verdict::Transient),
            (&program, Some(Code::InvalidArgument), Verdict::Refused),
            (&program, Some(Code::Unavailable), Verdict::Transient),
            (&program, Some(Code::Internal), Verdict::Transient),
        ] {
            assert_eq!(judge(action, code), expected, "{action:?} {code:?}");
        }
    }
}
