//! Elections: each client enters under its own number, over a connection of its own.

use std::sync::Arc;
use std::time::Duration;

use atomix_proto::runtime::election::v1::leader_election_client::LeaderElectionClient;
use atomix_proto::runtime::election::v1::{
    AnointRequest, DemoteRequest, EnterRequest, EvictRequest, GetTermRequest, PromoteRequest, Term,
    WithdrawRequest,
};
use atomix_proto::runtime::v1::PrimitiveId;
use rand::Rng as _;
use rand::seq::IndexedRandom as _;
use tonic::Status;
use tonic::transport::Channel;

use super::call::{Asked, within};
use super::{Client, id};
use crate::history::{Arguments, Object, Reply};

#[derive(Debug, Clone, Copy)]
enum Method {
    Enter,
    Withdraw,
    Anoint,
    Promote,
    Demote,
    Evict,
    GetTerm,
}

impl Method {
    fn name(self) -> &'static str {
        match self {
            Self::Enter => "Enter",
            Self::Withdraw => "Withdraw",
            Self::Anoint => "Anoint",
            Self::Promote => "Promote",
            Self::Demote => "Demote",
            Self::Evict => "Evict",
            Self::GetTerm => "GetTerm",
        }
    }
}

pub(super) async fn step(
    client: &mut Client,
    channel: Channel,
    object: &Arc<Object>,
) -> anyhow::Result<()> {
    let method = match client.random.random_range(0..20) {
        0..7 => Method::Enter,
        7..10 => Method::Withdraw,
        10 => Method::Anoint,
        11 => Method::Promote,
        12 => Method::Demote,
        13 => Method::Evict,
        _ => Method::GetTerm,
    };
    if matches!(method, Method::Enter) {
        client.will_own(object);
    }
    call(client, channel, object, method).await
}

/// Asks for the present term.
pub(super) async fn look(
    client: &mut Client,
    channel: Channel,
    object: &Object,
) -> anyhow::Result<()> {
    call(client, channel, object, Method::GetTerm).await
}

async fn call(
    client: &mut Client,
    channel: Channel,
    object: &Object,
    method: Method,
) -> anyhow::Result<()> {
    let candidate = candidate(client, method);
    let patience = client.patience();
    let asked = Asked {
        object,
        key: "",
        method: method.name(),
        arguments: Arguments {
            value: candidate.clone(),
            ..Arguments::default()
        },
    };
    let (id, candidate) = (id(object), candidate.unwrap_or_default());
    let election = LeaderElectionClient::new(channel);
    let answer = ask(election, id, method, candidate, patience);
    let told = client.call(asked, patience, answer).await?;
    if let Some(line) = told.reply().and_then(|reply| reply.items) {
        client.memory.line = line;
    }
    Ok(())
}

/// Itself, or one of those that it saw last.
fn candidate(client: &mut Client, method: Method) -> Option<String> {
    match method {
        Method::Enter | Method::Withdraw => Some(client.number.to_string()),
        Method::Anoint | Method::Promote | Method::Demote | Method::Evict => {
            let seen = client.memory.line.choose(&mut client.random).cloned();
            Some(seen.unwrap_or_else(|| client.number.to_string()))
        }
        Method::GetTerm => None,
    }
}

async fn ask(
    mut election: LeaderElectionClient<Channel>,
    id: Option<PrimitiveId>,
    method: Method,
    candidate: String,
    patience: Duration,
) -> Result<Reply, Status> {
    let term = match method {
        Method::Enter => {
            let request = within(patience, EnterRequest { id, candidate });
            election.enter(request).await?.into_inner().term
        }
        Method::Withdraw => {
            let request = within(patience, WithdrawRequest { id, candidate });
            election.withdraw(request).await?.into_inner().term
        }
        Method::Anoint => {
            let request = within(patience, AnointRequest { id, candidate });
            election.anoint(request).await?.into_inner().term
        }
        Method::Promote => {
            let request = within(patience, PromoteRequest { id, candidate });
            election.promote(request).await?.into_inner().term
        }
        Method::Demote => {
            let request = within(patience, DemoteRequest { id, candidate });
            election.demote(request).await?.into_inner().term
        }
        Method::Evict => {
            let request = within(patience, EvictRequest { id, candidate });
            election.evict(request).await?.into_inner().term
        }
        Method::GetTerm => {
            let request = within(patience, GetTermRequest { id });
            election.get_term(request).await?.into_inner().term
        }
    };
    Ok(reply(term))
}

fn reply(term: Option<Term>) -> Reply {
    let Term {
        term,
        leader,
        candidates,
    } = term.unwrap_or_default();
    let leader = Some(leader).filter(|leader| !leader.is_empty());
    Reply {
        version: Some(term),
        items: Some(leader.into_iter().chain(candidates).collect()),
        ..Reply::default()
    }
}
