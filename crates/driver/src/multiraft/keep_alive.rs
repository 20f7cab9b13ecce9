//! Keeps the sessions of a connection alive: one message to each node for all sessions whose
//! partitions it leads, at a third of the session timeout.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;

use atomix_proto::multiraft::v1::{KeepAlive, KeepAliveResponse, failure};
use futures::future::join_all;
use tokio::time::Instant;

use super::client::PartitionClient;
use super::link::LinkError;
use super::nodes::Nodes;
use super::session::Session;

type Due = (Arc<PartitionClient>, Arc<Session>);

/// Runs until it is dropped.
pub(crate) async fn run(nodes: &Nodes, clients: &[Arc<PartitionClient>]) {
    loop {
        let opened = nodes.wait_for_session();
        let Some(earliest) = clients
            .iter()
            .filter_map(|client| client.live_session())
            .map(|session| session.next_keep_alive())
            .min()
        else {
            opened.await;
            continue;
        };
        tokio::select! {
            () = tokio::time::sleep_until(earliest) => {}
            () = opened => continue,
        }
        send_due(nodes, clients).await;
    }
}

async fn send_due(nodes: &Nodes, clients: &[Arc<PartitionClient>]) {
    let now = Instant::now();
    let mut by_node: BTreeMap<SocketAddr, Vec<Due>> = BTreeMap::new();
    for client in clients {
        let Some(session) = client.live_session() else {
            continue;
        };
        // What is due soon travels along.
        if session.next_keep_alive() > now + session.timeout() / 12 {
            continue;
        }
        match client.partition.target() {
            Some(node) => by_node
                .entry(node)
                .or_default()
                .push((Arc::clone(client), session)),
            None => retry_soon(nodes, &session),
        }
    }
    join_all(
        by_node
            .into_iter()
            .map(|(node, due)| send_to_node(nodes, node, due)),
    )
    .await;
}

async fn send_to_node(nodes: &Nodes, node: SocketAddr, due: Vec<Due>) {
    let Some(link) = nodes.link(node) else {
        return;
    };
    let sent = Instant::now();
    let give_up = sent + nodes.timeouts().election;
    let message = due
        .iter()
        .map(|(client, session)| {
            let keep_alive = KeepAlive {
                partition_id: client.partition.id().0,
                session: session.id(),
            };
            (keep_alive, session.incarnation())
        })
        .collect();
    let Ok(answers) = tokio::time::timeout_at(give_up, link.keep_alives(message)).await else {
        for (client, session) in due {
            no_answer(nodes, node, &client, &session);
        }
        return;
    };
    let judged = due
        .into_iter()
        .zip(answers)
        .map(|((client, session), answer)| async move {
            match tokio::time::timeout_at(give_up, answer).await {
                Ok(Ok(Ok(answer))) => {
                    judge(nodes, node, sent, &client, &session, answer).await;
                }
                Ok(Ok(Err(LinkError::NotSent(_) | LinkError::Broken(_))) | Err(_)) | Err(_) => {
                    no_answer(nodes, node, &client, &session);
                }
            }
        });
    // At once: one name that is resolved slowly must not make the other sessions wait.
    join_all(judged).await;
}

async fn judge(
    nodes: &Nodes,
    node: SocketAddr,
    sent: Instant,
    client: &PartitionClient,
    session: &Session,
    answer: KeepAliveResponse,
) {
    let Some(failure) = answer.failure else {
        client.partition.note_served_by(node);
        session.keep_alive_at(sent + session.timeout() / 3);
        return;
    };
    match failure.reason() {
        failure::Reason::SessionLost => client.session_is_lost(session),
        failure::Reason::NotLeader => {
            client.partition.forget_leader(node);
            let hint = failure.leader.filter(|hint| !hint.address.is_empty());
            if let Some(hint) = hint
                && let Some(leader) = nodes
                    .resolve_hint(&hint.address, Instant::now() + session.timeout() / 12)
                    .await
                && leader != node
            {
                client.partition.follow(leader);
            }
            retry_soon(nodes, session);
        }
        failure::Reason::UnknownPartition
        | failure::Reason::WrongStore
        | failure::Reason::Protocol => no_answer(nodes, node, client, session),
        failure::Reason::Unavailable => {
            client.partition.note_unavailable(node);
            retry_soon(nodes, session);
        }
        failure::Reason::Operation | failure::Reason::OutcomeUnknown => retry_soon(nodes, session),
    }
}

fn no_answer(nodes: &Nodes, node: SocketAddr, client: &PartitionClient, session: &Session) {
    client.partition.forget_leader(node);
    retry_soon(nodes, session);
}

fn retry_soon(nodes: &Nodes, session: &Session) {
    let pause = (nodes.timeouts().election / 4).min(session.timeout() / 12);
    session.keep_alive_at(Instant::now() + pause);
}
