//! Loopback addresses of a run: 127.77.RUN.*, where nobody else has run RUN.

use std::net::{Ipv4Addr, SocketAddr, TcpListener};

use anyhow::bail;

use crate::party::Party;

pub(crate) const NODE_CONTROL: u16 = 5680;
pub(crate) const NODE_PEER: u16 = 5681;
pub(crate) const NODE_ADMIN: u16 = 9090;
pub(crate) const RUNTIME_ADMIN: u16 = 5677;
pub(crate) const RUNTIME_APPLICATION: u16 = 5678;
pub(crate) const RUNTIME_CONTROL: u16 = 5679;

/// Nothing of a run listens there but this, for as long as the run lasts.
const GUARD: u16 = 5676;

/// The addresses of this run.
#[derive(Debug)]
pub(crate) struct Addresses {
    run: u8,
    _guard: TcpListener,
}

impl Addresses {
    pub(crate) fn take() -> anyhow::Result<Self> {
        // Runs that begin side by side look first at different places.
        let [.., first] = std::process::id().to_be_bytes();
        for step in 0..=u8::MAX {
            let run = first.wrapping_add(step);
            if let Ok(guard) = TcpListener::bind((Ipv4Addr::new(127, 77, run, 1), GUARD)) {
                return Ok(Self { run, _guard: guard });
            }
        }
        bail!("all addresses 127.77.*.1 are taken")
    }

    /// Where somebody listens.
    pub(crate) fn of(&self, party: Party, port: u16) -> SocketAddr {
        let last = match party {
            Party::Node(number) => 10 + number,
            Party::Sidecar(number) => 20 + number,
        };
        self.at(last, port)
    }

    /// Where somebody reaches a node's peer port.
    pub(crate) fn link(&self, from: Party, to: u8) -> SocketAddr {
        let row = match from {
            Party::Node(number) => number,
            Party::Sidecar(number) => 10 + number,
        };
        self.at(40 + row * 10 + to, NODE_PEER)
    }

    fn at(&self, last: u8, port: u16) -> SocketAddr {
        SocketAddr::from((Ipv4Addr::new(127, 77, self.run, last), port))
    }
}
