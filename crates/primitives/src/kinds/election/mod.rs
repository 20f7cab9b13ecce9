//! The kind `election`: candidates in a line, the first of which leads.
//!
//! Each change of the leader raises the term, also the change to nobody; `candidates` of a term are
//! those behind the leader. A candidate stands in the election as long as one of the connections
//! that entered it exists: one that connects anew and enters again keeps its place when the former
//! connection is released. `Withdraw` and `Evict` take it out at once, whoever asks. A method that
//! has nothing to change, because the candidate does not stand or is where it should be, answers
//! with the present term, as existing clients expect. An election without candidates does not exist:
//! it reads as term 0.
//!
//! The payload of an event is the encoded `Term` after the change: of the leader or of the line.
//!
//! `Create`, `Close` and `Watch` are the sidecar's business and no methods here; a page has the
//! present `Term`.

mod line;
mod section;
mod spread;

use std::io;

use atomix_proto::multiraft::v1::PageRequest;
use atomix_proto::runtime::election::v1::{
    AnointRequest, AnointResponse, DemoteRequest, DemoteResponse, EnterRequest, EnterResponse,
    EvictRequest, EvictResponse, GetTermRequest, GetTermResponse, PromoteRequest, PromoteResponse,
    Term, WithdrawRequest, WithdrawResponse,
};
use bytes::Bytes;
use prost::Message;

use crate::context::{Context, View};
use crate::error::{OperationError, SnapshotError};
use crate::ids::OperationId;
use crate::kind::{Answer, Method, Primitive, Progress, Released};
use crate::section::{SectionReader, SectionWriter};

use super::keyed::page::Filling;
use super::wire::{answer, decode, done, no_method, no_read, no_write};
use line::Line;

#[cfg(test)]
mod tests;

/// The state of one election.
#[derive(Clone, Debug, Default)]
pub struct Election {
    /// Where the operation counter stood when the leader changed; 0 = nobody ever led.
    term: u64,
    line: Line,
}

/// A decoded request.
#[derive(Clone, Debug, PartialEq)]
pub enum Request {
    /// Puts a candidate at the end of the line.
    Enter(String),
    /// Takes a candidate out.
    Withdraw(String),
    /// Makes a candidate the leader; the former leader is next.
    Anoint(String),
    /// Swaps a candidate with the one before it.
    Promote(String),
    /// Puts a candidate at the end of the line.
    Demote(String),
    /// Takes a candidate out.
    Evict(String),
    /// Asks for the term.
    GetTerm,
    /// Asks for the term and of which point it is.
    Page(PageRequest),
}

impl Primitive for Election {
    type Request = Request;

    const KIND: &'static str = "election";
    const METHODS: &'static [Method] = &[
        Method::write("Enter").owned(),
        Method::write("Withdraw").owned(),
        Method::write("Anoint"),
        Method::write("Promote"),
        Method::write("Demote"),
        Method::write("Evict"),
        Method::read("GetTerm"),
        Method::read("Page"),
    ];
    const OWNS: bool = true;

    fn parse(method: &str, request: &Bytes) -> Result<Request, OperationError> {
        match method {
            "Enter" => {
                let enter: EnterRequest = decode(request)?;
                named(enter.candidate).map(Request::Enter)
            }
            "Withdraw" => {
                let withdraw: WithdrawRequest = decode(request)?;
                named(withdraw.candidate).map(Request::Withdraw)
            }
            "Anoint" => {
                let anoint: AnointRequest = decode(request)?;
                named(anoint.candidate).map(Request::Anoint)
            }
            "Promote" => {
                let promote: PromoteRequest = decode(request)?;
                named(promote.candidate).map(Request::Promote)
            }
            "Demote" => {
                let demote: DemoteRequest = decode(request)?;
                named(demote.candidate).map(Request::Demote)
            }
            "Evict" => {
                let evict: EvictRequest = decode(request)?;
                named(evict.candidate).map(Request::Evict)
            }
            "GetTerm" => decode(request).map(|_: GetTermRequest| Request::GetTerm),
            "Page" => decode(request).map(Request::Page),
            _ => Err(no_method(Self::KIND, method)),
        }
    }

    fn execute(
        &mut self,
        request: Request,
        context: &mut Context<'_>,
    ) -> Result<Progress, OperationError> {
        match request {
            Request::Enter(candidate) => {
                let (operation, owner) = context.owning_caller()?;
                // Whoever knows that it has entered keeps that, whatever becomes of this operation.
                let is_known = {
                    let mut entered = self.line.entered_by(&candidate, owner);
                    entered.any(|before| context.is_acknowledged(before))
                };
                let term = self.change(context, |line| {
                    !is_known && line.enter(candidate, owner, operation)
                });
                done(&EnterResponse { term })
            }
            Request::Withdraw(candidate) => {
                let term = self.change(context, |line| line.remove(&candidate));
                done(&WithdrawResponse { term })
            }
            Request::Anoint(candidate) => {
                let term = self.change(context, |line| line.move_to_front(&candidate));
                done(&AnointResponse { term })
            }
            Request::Promote(candidate) => {
                let term = self.change(context, |line| line.move_up(&candidate));
                done(&PromoteResponse { term })
            }
            Request::Demote(candidate) => {
                let term = self.change(context, |line| line.move_to_end(&candidate));
                done(&DemoteResponse { term })
            }
            Request::Evict(candidate) => {
                let term = self.change(context, |line| line.remove(&candidate));
                done(&EvictResponse { term })
            }
            Request::GetTerm | Request::Page(_) => Err(no_write()),
        }
    }

    fn query(&self, request: Request, view: &View<'_>) -> Result<Answer, OperationError> {
        match request {
            Request::GetTerm => answer(&GetTermResponse {
                term: Some(self.present_term()),
            }),
            Request::Page(request) => {
                let mut page = Filling::new(&request, view);
                page.push(&self.present_term());
                page.end(None)
            }
            Request::Enter(_)
            | Request::Withdraw(_)
            | Request::Anoint(_)
            | Request::Promote(_)
            | Request::Demote(_)
            | Request::Evict(_) => Err(no_read()),
        }
    }

    fn cancel(&mut self, operation: OperationId, context: &mut Context<'_>) -> bool {
        let mut withdrawn = false;
        self.change(context, |line| {
            let (found, is_changed) = line.withdraw_entry(operation);
            withdrawn = found;
            is_changed
        });
        withdrawn
    }

    fn release(&mut self, released: Released, context: &mut Context<'_>) {
        self.change(context, |line| line.release(released));
    }

    fn is_empty(&self) -> bool {
        self.line.is_empty()
    }

    fn bytes(&self) -> u64 {
        self.line.bytes()
    }

    fn write(&self, _version: u32, section: &mut SectionWriter<'_>) -> io::Result<()> {
        section::write(self, section)
    }

    fn read(_version: u32, section: &mut SectionReader<'_>) -> Result<Self, SnapshotError> {
        section::read(section)
    }
}

impl Election {
    /// Runs a change, which says whether it changed anything that a term shows; then tells watchers,
    /// and begins a new term if another one leads.
    fn change(
        &mut self,
        context: &mut Context<'_>,
        change: impl FnOnce(&mut Line) -> bool,
    ) -> Option<Term> {
        let before = self.line.leader().cloned();
        let is_changed = change(&mut self.line);
        if before.as_ref() != self.line.leader() {
            self.term = context.operation();
        }
        let term = self.present_term();
        if is_changed {
            context.emit(Bytes::new(), term.encode_to_vec().into());
        }
        Some(term)
    }

    fn present_term(&self) -> Term {
        let mut names = self.line.names().map(|name| (**name).to_owned());
        Term {
            term: self.term,
            leader: names.next().unwrap_or_default(),
            candidates: names.collect(),
        }
    }
}

/// An empty name would read as nobody.
fn named(candidate: String) -> Result<String, OperationError> {
    if candidate.is_empty() {
        return Err(OperationError::invalid(
            "candidate: it is empty; name the candidate",
        ));
    }
    Ok(candidate)
}
