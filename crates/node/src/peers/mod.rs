//! The streams between nodes: one per pair of nodes and class, for all partitions.
//!
//! Not for what the messages mean (crate `raft`).

mod backoff;
mod exchange;
mod greeting;
mod link;
mod processes;
mod queue;
mod server;
mod transport;

#[cfg(test)]
mod tests;

pub(crate) use greeting::Greeting;
pub(crate) use server::PeersService;
pub(crate) use transport::PeerTransport;
