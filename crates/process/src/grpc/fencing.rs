//! Fencing: which operator a server listens to.
//!
//! The operator's mutating calls say who sent them: the Lease that it acts by, and how often that
//! Lease has changed its holder. A server remembers the highest such caller on its disk before it
//! acts, and refuses older ones and those of another Lease from then on.
//!
//! It saves work and tells people of two operators; it does not guard data: that is done by the
//! stored bootstrap plan and by the membership that each change expects.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use http::HeaderMap;
use thiserror::Error;
use tokio::sync::{Mutex, watch};
use tonic::Status;
use tonic::metadata::{MetadataMap, MetadataValue};

/// Names the Lease of the operator that calls: `NAMESPACE/NAME`.
pub const OPERATOR_ID: &str = "atomix-operator-id";
/// How often that Lease has changed its holder.
pub const OPERATOR_TERM: &str = "atomix-operator-term";
/// `true` when a person has said that this operator is to take the place of another one.
pub const TAKE_OVER: &str = "atomix-operator-take-over";

/// On a refusal: `other-operator` or `older-term`.
const REFUSAL: &str = "atomix-operator-refusal";
const OTHER_OPERATOR: &str = "other-operator";
const OLDER_TERM: &str = "older-term";

/// The longest id: a namespace, a slash and a name.
const MAX_ID: usize = 63 + 1 + 253;

/// An operator, as servers know it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct OperatorTerm {
    /// Its Lease: `NAMESPACE/NAME`.
    pub id: String,
    /// How often that Lease has changed its holder.
    pub term: u64,
}

impl fmt::Display for OperatorTerm {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{} in term {}", self.id, self.term)
    }
}

impl OperatorTerm {
    /// The operator that headers name, if they name one as they should.
    #[must_use]
    pub fn of(headers: &HeaderMap) -> Option<Self> {
        let text = |name: &str| headers.get(name)?.to_str().ok();
        Some(Self {
            id: text(OPERATOR_ID)?.to_owned(),
            term: text(OPERATOR_TERM)?.parse().ok()?,
        })
    }
}

/// The other operator that a server listens to, when it refused a call because of that.
#[must_use]
pub fn other_operator(refusal: &Status) -> Option<OperatorTerm> {
    let headers: &HeaderMap = refusal.metadata().as_ref();
    let is_other = headers
        .get(REFUSAL)
        .is_some_and(|why| why.as_bytes() == OTHER_OPERATOR.as_bytes());
    is_other.then(|| OperatorTerm::of(headers)).flatten()
}

/// Who sent a call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Caller {
    /// The operator.
    pub operator: OperatorTerm,
    /// It is to take the place of another one.
    pub takes_over: bool,
}

impl Caller {
    /// The operator that sent a call; `None` when it does not say.
    ///
    /// # Errors
    /// INVALID_ARGUMENT when it says so only in part, or not as it should.
    pub fn of(metadata: &MetadataMap) -> Result<Option<Self>, Status> {
        let headers: &HeaderMap = metadata.as_ref();
        if !headers.contains_key(OPERATOR_ID) && !headers.contains_key(OPERATOR_TERM) {
            return Ok(None);
        }
        let operator = OperatorTerm::of(headers).ok_or_else(|| {
            Status::invalid_argument(format!(
                "send both headers, {OPERATOR_ID} as NAMESPACE/NAME and {OPERATOR_TERM} as a number"
            ))
        })?;
        if operator.id.is_empty() || operator.id.len() > MAX_ID {
            return Err(Status::invalid_argument(format!(
                "the {OPERATOR_ID} header must have 1 to {MAX_ID} characters"
            )));
        }
        let takes_over = headers
            .get(TAKE_OVER)
            .is_some_and(|value| value.as_bytes() == b"true");
        Ok(Some(Self {
            operator,
            takes_over,
        }))
    }
}

/// Why a call is not carried out.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum Refusal {
    /// The caller did not say who it is.
    #[error(
        "this server listens only to operators that say who they are: send {OPERATOR_ID} and \
         {OPERATOR_TERM}, or start it without --require-operator"
    )]
    Anonymous,
    /// A later holder of the same Lease was here before.
    #[error("the caller acts in term {offered}, and {seen} was here before: it lost its Lease")]
    OlderTerm {
        /// The caller's term.
        offered: u64,
        /// The highest that was here.
        seen: OperatorTerm,
    },
    /// The server listens to another operator.
    #[error(
        "this server is managed by the operator {seen}, not by {offered}: uninstall one of the two, \
         or run `kubectl atomix store take-over` for its Store"
    )]
    OtherOperator {
        /// The caller.
        offered: String,
        /// Whom the server listens to.
        seen: OperatorTerm,
    },
}

impl From<Refusal> for Status {
    /// FAILED_PRECONDITION, with the operator that the server listens to in its metadata.
    fn from(refusal: Refusal) -> Self {
        let mut status = Self::failed_precondition(refusal.to_string());
        let why = match refusal {
            Refusal::OlderTerm { .. } => OLDER_TERM,
            Refusal::OtherOperator { .. } | Refusal::Anonymous => OTHER_OPERATOR,
        };
        match refusal {
            Refusal::Anonymous => {}
            Refusal::OlderTerm { seen, .. } | Refusal::OtherOperator { seen, .. } => {
                let metadata = status.metadata_mut();
                // It came as a header, so it can leave as one.
                if let Ok(id) = MetadataValue::try_from(seen.id) {
                    metadata.insert(OPERATOR_ID, id);
                }
                metadata.insert(OPERATOR_TERM, MetadataValue::from(seen.term));
                metadata.insert(REFUSAL, MetadataValue::from_static(why));
            }
        }
        status
    }
}

/// Judges a call by the highest caller seen before. `Some` = to be remembered before it is acted on.
///
/// # Errors
/// Why it is refused.
pub fn judge(
    caller: Option<&Caller>,
    seen: Option<&OperatorTerm>,
    is_required: bool,
) -> Result<Option<OperatorTerm>, Refusal> {
    let Some(caller) = caller else {
        return if is_required {
            Err(Refusal::Anonymous)
        } else {
            Ok(None)
        };
    };
    let offered = &caller.operator;
    let Some(seen) = seen else {
        return Ok(Some(offered.clone()));
    };
    if offered.id != seen.id && !caller.takes_over {
        return Err(Refusal::OtherOperator {
            offered: offered.id.clone(),
            seen: seen.clone(),
        });
    }
    if offered.id == seen.id && offered.term < seen.term {
        return Err(Refusal::OlderTerm {
            offered: offered.term,
            seen: seen.clone(),
        });
    }
    Ok((offered != seen).then(|| offered.clone()))
}

/// Keeps an operator on the disk; it survives a crash when the future ends without an error.
pub type Keep = Box<
    dyn Fn(OperatorTerm) -> Pin<Box<dyn Future<Output = Result<(), Status>> + Send>> + Send + Sync,
>;

/// Decides which operator's calls a server carries out. Clones share what they have seen.
#[derive(Clone)]
pub struct Fence {
    inner: Arc<Inner>,
}

struct Inner {
    is_required: bool,
    seen: watch::Sender<Option<OperatorTerm>>,
    keep: Keep,
    one_at_a_time: Mutex<()>,
}

impl Fence {
    /// A server that has `seen` this operator before it was started.
    #[must_use]
    pub fn new(seen: Option<OperatorTerm>, is_required: bool, keep: Keep) -> Self {
        Self {
            inner: Arc::new(Inner {
                is_required,
                seen: watch::Sender::new(seen),
                keep,
                one_at_a_time: Mutex::default(),
            }),
        }
    }

    /// The highest caller seen; `None` = nobody said who they are.
    #[must_use]
    pub fn seen(&self) -> Option<OperatorTerm> {
        self.inner.seen.borrow().clone()
    }

    /// Lets a call pass, once its sender is on the disk.
    ///
    /// # Errors
    /// FAILED_PRECONDITION for an older or another operator, INVALID_ARGUMENT for headers that are
    /// wrong, or what keeping it failed with.
    pub async fn admit(&self, metadata: &MetadataMap) -> Result<(), Status> {
        let caller = Caller::of(metadata)?;
        let inner = Arc::clone(&self.inner);
        // Nothing to keep is the rule.
        if judge(
            caller.as_ref(),
            inner.seen.borrow().as_ref(),
            inner.is_required,
        )?
        .is_none()
        {
            return Ok(());
        }
        // A task of its own: a caller that gives up must not leave the disk ahead of the memory.
        let kept = tokio::spawn(async move {
            let _one = inner.one_at_a_time.lock().await;
            let seen = inner.seen.borrow().clone();
            let Some(offered) = judge(caller.as_ref(), seen.as_ref(), inner.is_required)? else {
                return Ok(());
            };
            (inner.keep)(offered.clone()).await?;
            tracing::info!(
                operator = offered.id,
                term = offered.term,
                "an operator takes charge"
            );
            inner.seen.send_replace(Some(offered));
            Ok(())
        });
        kept.await.unwrap_or_else(|error| {
            Err(Status::internal(format!(
                "cannot remember the operator: {error}"
            )))
        })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use tonic::Code;

    use super::*;

    fn operator(id: &str, term: u64) -> OperatorTerm {
        OperatorTerm {
            id: id.to_owned(),
            term,
        }
    }

    fn caller(id: &str, term: u64, takes_over: bool) -> Caller {
        Caller {
            operator: operator(id, term),
            takes_over,
        }
    }

    #[test]
    fn the_highest_term_of_one_operator_is_listened_to() {
        let older = |offered| {
            Err(Refusal::OlderTerm {
                offered,
                seen: operator("meadow/bees", 4),
            })
        };
        let other = Err(Refusal::OtherOperator {
            offered: "meadow/ants".to_owned(),
            seen: operator("meadow/bees", 4),
        });
        let seen = operator("meadow/bees", 4);
        for (caller, seen, expected) in [
            (None, None, Ok(None)),
            (None, Some(&seen), Ok(None)),
            (
                Some(caller("meadow/bees", 0, false)),
                None,
                Ok(Some(operator("meadow/bees", 0))),
            ),
            (Some(caller("meadow/bees", 4, false)), Some(&seen), Ok(None)),
            (
                Some(caller("meadow/bees", 5, false)),
                Some(&seen),
                Ok(Some(operator("meadow/bees", 5))),
            ),
            (Some(caller("meadow/bees", 3, false)), Some(&seen), older(3)),
            // Taking over does not make an old term young.
            (Some(caller("meadow/bees", 3, true)), Some(&seen), older(3)),
            (Some(caller("meadow/ants", 9, false)), Some(&seen), other),
            (
                Some(caller("meadow/ants", 1, true)),
                Some(&seen),
                Ok(Some(operator("meadow/ants", 1))),
            ),
        ] {
            assert_eq!(judge(caller.as_ref(), seen, false), expected, "{caller:?}");
        }
        assert_eq!(judge(None, Some(&seen), true), Err(Refusal::Anonymous));
    }

    fn headers(pairs: &[(&'static str, &str)]) -> MetadataMap {
        let mut metadata = MetadataMap::new();
        for (name, value) in pairs {
            metadata.insert(*name, value.parse().unwrap());
        }
        metadata
    }

    #[test]
    fn half_a_name_is_no_name() {
        let both = headers(&[(OPERATOR_ID, "meadow/bees"), (OPERATOR_TERM, "7")]);
        let expected = Some(caller("meadow/bees", 7, false));
        assert_eq!(Caller::of(&both).unwrap(), expected);
        assert_eq!(Caller::of(&MetadataMap::new()).unwrap(), None);
        let long = "x".repeat(MAX_ID + 1);
        for wrong in [
            headers(&[(OPERATOR_ID, "meadow/bees")]),
            headers(&[(OPERATOR_TERM, "7")]),
            headers(&[(OPERATOR_ID, ""), (OPERATOR_TERM, "7")]),
            headers(&[(OPERATOR_ID, long.as_str()), (OPERATOR_TERM, "7")]),
            headers(&[(OPERATOR_ID, "meadow/bees"), (OPERATOR_TERM, "-1")]),
            headers(&[(OPERATOR_ID, "meadow/bees"), (OPERATOR_TERM, "many")]),
        ] {
            let refused = Caller::of(&wrong).unwrap_err();
            assert_eq!(refused.code(), Code::InvalidArgument, "{wrong:?}");
        }
    }

    #[test]
    fn a_refusal_names_whom_the_server_listens_to() {
        let seen = operator("meadow/bees", 4);
        let refused = Status::from(Refusal::OtherOperator {
            offered: "meadow/ants".to_owned(),
            seen: seen.clone(),
        });
        assert_eq!(refused.code(), Code::FailedPrecondition);
        assert_eq!(other_operator(&refused), Some(seen.clone()));
        let older = Status::from(Refusal::OlderTerm { offered: 3, seen });
        for refused in [older, Status::from(Refusal::Anonymous)] {
            assert_eq!(other_operator(&refused), None, "{refused}");
        }
    }

    #[tokio::test]
    async fn who_is_not_on_the_disk_is_not_let_pass() {
        let disk: Arc<Mutex<Vec<OperatorTerm>>> = Arc::default();
        let kept = Arc::clone(&disk);
        let fence = Fence::new(
            None,
            false,
            Box::new(move |operator| {
                let kept = Arc::clone(&kept);
                Box::pin(async move {
                    if operator.term == 13 {
                        return Err(Status::internal("the disk is full"));
                    }
                    kept.lock().await.push(operator);
                    Ok(())
                })
            }),
        );
        let call = async |term: &str| {
            let metadata = headers(&[(OPERATOR_ID, "meadow/bees"), (OPERATOR_TERM, term)]);
            fence.admit(&metadata).await.map_err(|status| status.code())
        };
        assert_eq!(call("1").await, Ok(()));
        assert_eq!(call("1").await, Ok(()));
        assert_eq!(call("13").await, Err(Code::Internal));
        assert_eq!(fence.seen(), Some(operator("meadow/bees", 1)));
        assert_eq!(call("2").await, Ok(()));
        assert_eq!(call("1").await, Err(Code::FailedPrecondition));
        let expected = [operator("meadow/bees", 1), operator("meadow/bees", 2)];
        assert_eq!(*disk.lock().await, expected, "written once each");
    }
}
