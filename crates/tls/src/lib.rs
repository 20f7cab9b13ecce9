//! Mutual TLS between the programs of Atomix: who a peer is, certificates that change without a
//! restart, and who may call what.
//!
//! A program has [`Credentials`]: a certificate with its key and the authorities that it trusts,
//! read from a folder and read again when it changes. With them it connects ([`connect`],
//! [`Connector`]) to a peer of one expected [`Identity`], and serves ([`accept`], [`Guard`]) those
//! that its [`Rules`] admit. Without credentials everything is plain text, for development.
//!
//! Not for making certificates (the operator's `authority`), and not for the webhook, which talks to
//! the API server. See docs/adr/0010.

mod allowed;
mod client;
mod credentials;
mod guard;
mod identity;
mod material;
mod server;

pub use allowed::AllowedNamespaces;
pub use client::{Connector, Dialed, connect};
pub use credentials::{Credentials, CredentialsError, Following, LOOK_EVERY, open_or_plaintext};
pub use guard::{Guard, Party, Peer, Rules};
pub use identity::{Identity, InvalidIdentity};
pub use material::{Material, MaterialError};
pub use server::{Connection, accept};

#[cfg(test)]
mod tests;
