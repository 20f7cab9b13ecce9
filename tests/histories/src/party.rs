//! Nodes and sidecars: processes with an address, a log, and ways to all nodes.

use std::fmt;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use anyhow::Context as _;

use crate::address::{
    Addresses, NODE_ADMIN, NODE_CONTROL, NODE_PEER, RUNTIME_ADMIN, RUNTIME_APPLICATION,
    RUNTIME_CONTROL,
};
use crate::link::{Link, Passage};
use crate::process::{Process, Program, built};

/// Who it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Party {
    Node(u8),
    Sidecar(u8),
}

impl fmt::Display for Party {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Node(number) => write!(formatter, "node-{number}"),
            Self::Sidecar(number) => write!(formatter, "sidecar-{number}"),
        }
    }
}

/// The name by which everybody knows a node; each has an address of its own for it.
pub(crate) fn node_name(number: u8) -> String {
    format!("node-{number}.histories")
}

/// One program, and its ways to the nodes.
#[derive(Debug)]
pub(crate) struct Member {
    pub(crate) party: Party,
    program: Program,
    process: Option<Process>,
    is_stopped: bool,
    /// To each node, by number; `None` = itself.
    links: Vec<Option<Link>>,
}

impl Member {
    /// Not started yet. Its data and log lie in `folder`.
    pub(crate) async fn new(
        party: Party,
        nodes: u8,
        addresses: &Addresses,
        folder: &Path,
    ) -> anyhow::Result<Self> {
        let mut links = Vec::new();
        let mut hosts = String::new();
        for node in 0..nodes {
            let own = addresses.of(Party::Node(node), NODE_PEER);
            let near = if party == Party::Node(node) {
                links.push(None);
                own
            } else {
                let near = addresses.link(party, node);
                links.push(Some(Link::open(near, own).await?));
                near
            };
            writeln!(hosts, "{} {}", node_name(node), near.ip())?;
        }
        let hosts_file = folder.join(format!("{party}.hosts"));
        std::fs::write(&hosts_file, hosts)
            .with_context(|| format!("cannot write {}", hosts_file.display()))?;
        Ok(Self {
            party,
            program: program(party, addresses, folder, hosts_file)?,
            process: None,
            is_stopped: false,
            links,
        })
    }

    pub(crate) fn start(&mut self) -> anyhow::Result<()> {
        if self.process.is_none() {
            self.process = Some(Process::start(&self.program)?);
        }
        Ok(())
    }

    /// SIGKILL.
    pub(crate) fn kill(&mut self) -> anyhow::Result<()> {
        self.is_stopped = false;
        self.process.take().map_or(Ok(()), Process::kill)
    }

    /// SIGSTOP.
    pub(crate) fn stop(&mut self) -> anyhow::Result<()> {
        if let Some(process) = &self.process {
            process.stop()?;
            self.is_stopped = true;
        }
        Ok(())
    }

    /// It runs afterwards, whatever was done to it.
    pub(crate) fn restore(&mut self) -> anyhow::Result<()> {
        if self.is_stopped
            && let Some(process) = &self.process
        {
            process.resume()?;
            self.is_stopped = false;
        }
        self.start()
    }

    /// # Errors
    /// When its program has ended by itself.
    pub(crate) fn is_well(&mut self) -> anyhow::Result<()> {
        let Some(process) = &mut self.process else {
            return Ok(());
        };
        process.is_running().with_context(|| self.party.to_string())
    }

    /// Sets the way to one node.
    pub(crate) fn set_way_to(&self, node: u8, passage: Passage) {
        if let Some(Some(link)) = self.links.get(usize::from(node)) {
            link.set(passage);
        }
    }
}

fn program(
    party: Party,
    addresses: &Addresses,
    folder: &Path,
    hosts_file: PathBuf,
) -> anyhow::Result<Program> {
    let at = |port| addresses.of(party, port).to_string();
    let data = folder.join(party.to_string());
    let (name, arguments) = match party {
        Party::Node(_) => (
            "atomix-node",
            vec![
                format!("--data-dir={}", data.display()),
                format!("--control-addr={}", at(NODE_CONTROL)),
                format!("--peer-addr={}", at(NODE_PEER)),
                format!("--admin-addr={}", at(NODE_ADMIN)),
            ],
        ),
        Party::Sidecar(_) => (
            "atomix-runtime",
            vec![
                format!("--state-dir={}", data.display()),
                format!("--control-addr={}", at(RUNTIME_CONTROL)),
                format!("--app-addr={}", at(RUNTIME_APPLICATION)),
                format!("--admin-addr={}", at(RUNTIME_ADMIN)),
            ],
        ),
    };
    let hosts = format!("--hosts-file={}", hosts_file.display());
    Ok(Program {
        path: built(name)?,
        arguments: arguments.into_iter().chain([hosts]).collect(),
        log: folder.join(format!("{party}.log")),
    })
}
