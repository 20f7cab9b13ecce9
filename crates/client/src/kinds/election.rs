//! Leader elections.

use std::time::Duration;

use atomix_proto::runtime::election::v1::{
    self as wire, AnointRequest, AnointResponse, DemoteRequest, DemoteResponse, EnterRequest,
    EnterResponse, EvictRequest, EvictResponse, GetTermRequest, GetTermResponse, PromoteRequest,
    PromoteResponse, WatchRequest, WatchResponse, WithdrawRequest, WithdrawResponse,
};

use crate::error::{Result, required};
use crate::hold::{Hold, Wait};
use crate::method::Method;
use crate::primitive::Primitive;
use crate::subscription::{End, Subscription};

const ENTER: Method<EnterRequest, EnterResponse> =
    Method::own("/atomix.runtime.election.v1.LeaderElection/Enter");
const WITHDRAW: Method<WithdrawRequest, WithdrawResponse> =
    Method::write("/atomix.runtime.election.v1.LeaderElection/Withdraw");
const ANOINT: Method<AnointRequest, AnointResponse> =
    Method::write("/atomix.runtime.election.v1.LeaderElection/Anoint");
const PROMOTE: Method<PromoteRequest, PromoteResponse> =
    Method::write("/atomix.runtime.election.v1.LeaderElection/Promote");
const DEMOTE: Method<DemoteRequest, DemoteResponse> =
    Method::write("/atomix.runtime.election.v1.LeaderElection/Demote");
const EVICT: Method<EvictRequest, EvictResponse> =
    Method::write("/atomix.runtime.election.v1.LeaderElection/Evict");
const GET_TERM: Method<GetTermRequest, GetTermResponse> =
    Method::read("/atomix.runtime.election.v1.LeaderElection/GetTerm");
const WATCH: Method<WatchRequest, WatchResponse> =
    Method::read("/atomix.runtime.election.v1.LeaderElection/Watch");

#[cfg(test)]
pub(super) const PATHS: [&str; 8] = [
    ENTER.path,
    WITHDRAW.path,
    ANOINT.path,
    PROMOTE.path,
    DEMOTE.path,
    EVICT.path,
    GET_TERM.path,
    WATCH.path,
];

/// A line of candidates, the first of which leads.
///
/// Each leader has a higher term than those before: hand it to what the leader writes to, and let that
/// refuse a term below the highest that it has seen.
///
/// ```no_run
/// # async fn lead(_term: u64) {}
/// # async fn example() -> atomix_client::Result<()> {
/// let client = atomix_client::Client::connect().await?;
/// let election = client.election("scheduler");
/// let candidacy = election.enter("pod-0").await?;
/// let mut terms = election.watch().await?;
/// while let Some(term) = terms.next().await? {
///     if term.leader.as_deref() == Some(candidacy.candidate()) {
///         lead(term.term).await;
///     }
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone)]
pub struct Election {
    primitive: Primitive,
}

/// Who leads, and since when.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Term {
    /// Each leader has a higher one than those before. An election without candidates is not kept:
    /// asked for, its term is 0.
    pub term: u64,
    /// `None` when there is no candidate.
    pub leader: Option<String>,
    /// Those behind the leader, the next one first.
    pub candidates: Vec<String>,
}

impl From<wire::Term> for Term {
    fn from(term: wire::Term) -> Self {
        Self {
            term: term.term,
            leader: Some(term.leader).filter(|leader| !leader.is_empty()),
            candidates: term.candidates,
        }
    }
}

fn term(field: Option<wire::Term>) -> Result<Term> {
    required(field, "a term").map(Term::from)
}

impl Election {
    pub(crate) fn new(primitive: Primitive) -> Self {
        Self { primitive }
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> &str {
        self.primitive.name()
    }

    /// Enters a candidate at the end of the line; it stays as long as the candidacy is kept. One
    /// that stands already keeps its place, and goes when all that entered it have gone.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`](crate::Error::InvalidArgument) for an empty name.
    pub async fn enter(&self, candidate: impl Into<String>) -> Result<Candidacy> {
        let candidate = candidate.into();
        let request = |_| EnterRequest {
            id: self.primitive.id(),
            candidate: candidate.clone(),
        };
        let at_once = Wait::AtMost(Duration::ZERO);
        let (hold, reply) = Hold::acquire(&self.primitive, &ENTER, at_once, request).await?;
        Ok(Candidacy {
            hold,
            entered: term(reply.term)?,
            election: self.clone(),
            candidate,
        })
    }

    /// The present term.
    ///
    /// # Errors
    /// When the store cannot be asked.
    pub async fn term(&self) -> Result<Term> {
        let id = self.primitive.id();
        let reply = self.primitive.call(&GET_TERM, GetTermRequest { id });
        term(reply.await?.term)
    }

    /// The present term, then each change of the leader or of the line.
    ///
    /// # Errors
    /// When the store cannot be asked.
    pub async fn watch(&self) -> Result<Subscription<Term>> {
        let id = self.primitive.id();
        let read = |message: WatchResponse| term(message.term).map(Some);
        self.primitive
            .subscribe(&WATCH, WatchRequest { id }, End::Never, read)
            .await
    }

    /// Makes a candidate the leader; the former leader is next. One that does not stand changes
    /// nothing, here and below.
    ///
    /// # Errors
    /// When it is not known to be done.
    pub async fn anoint(&self, candidate: impl Into<String>) -> Result<Term> {
        let request = AnointRequest {
            id: self.primitive.id(),
            candidate: candidate.into(),
        };
        term(self.primitive.call(&ANOINT, request).await?.term)
    }

    /// Moves a candidate one place forward.
    ///
    /// # Errors
    /// When it is not known to be done.
    pub async fn promote(&self, candidate: impl Into<String>) -> Result<Term> {
        let request = PromoteRequest {
            id: self.primitive.id(),
            candidate: candidate.into(),
        };
        term(self.primitive.call(&PROMOTE, request).await?.term)
    }

    /// Moves a candidate to the end of the line.
    ///
    /// # Errors
    /// When it is not known to be done.
    pub async fn demote(&self, candidate: impl Into<String>) -> Result<Term> {
        let request = DemoteRequest {
            id: self.primitive.id(),
            candidate: candidate.into(),
        };
        term(self.primitive.call(&DEMOTE, request).await?.term)
    }

    /// Takes a candidate out of the line, whoever entered it.
    ///
    /// # Errors
    /// When it is not known to be done.
    pub async fn evict(&self, candidate: impl Into<String>) -> Result<Term> {
        let request = EvictRequest {
            id: self.primitive.id(),
            candidate: candidate.into(),
        };
        term(self.primitive.call(&EVICT, request).await?.term)
    }
}

/// A candidate that stands in an election, with a connection of its own.
///
/// It leaves the line when this is dropped, when the process dies, and when the sidecar cannot reach
/// the store for longer than the store's session time-out. The first two end its connection, which
/// [`lost`](Self::lost) tells; the last, and an [`evict`](Election::evict), only
/// [`Election::watch`] and [`Election::term`] tell.
#[derive(Debug)]
#[must_use = "the candidate leaves the line when this is dropped"]
pub struct Candidacy {
    hold: Hold,
    entered: Term,
    election: Election,
    candidate: String,
}

impl Candidacy {
    /// The candidate's name.
    #[must_use]
    pub fn candidate(&self) -> &str {
        &self.candidate
    }

    /// The term when it entered.
    #[must_use]
    pub fn entered(&self) -> &Term {
        &self.entered
    }

    /// Completes when the connection that keeps the candidate in the line has ended.
    pub async fn lost(&self) {
        self.hold.lost().await;
    }

    /// Whether the connection that kept the candidate in the line has ended.
    #[must_use]
    pub fn is_lost(&self) -> bool {
        self.hold.is_lost()
    }

    /// Takes the candidate out of the line, also if others have entered it, too.
    ///
    /// # Errors
    /// When it is not known to be done. Then it goes all the same unless others have entered it, by
    /// the end of its connection.
    pub async fn withdraw(self) -> Result<Term> {
        let request = WithdrawRequest {
            id: self.election.primitive.id(),
            candidate: self.candidate,
        };
        let reply = self.hold.release(&WITHDRAW, request).await?;
        term(reply.term)
    }
}
