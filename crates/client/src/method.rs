//! The RPCs of the application API: what they are called, and when one may be sent again.

use std::marker::PhantomData;

/// When a request may be sent again. An application's second request is a new one to the sidecar: the
/// API has no request ids.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Repeat {
    /// Whatever became of it: it changes nothing, or what it made goes with its connection.
    Always,
    /// When it was certainly not carried out: a mutation.
    IfNotDone,
    /// When it was certainly not sent: a mutation at several partitions, of which some may have
    /// carried it out when another says that it did not.
    IfNotSent,
}

/// An RPC with its messages.
#[derive(Debug)]
pub(crate) struct Method<Q, R> {
    pub(crate) path: &'static str,
    pub(crate) repeat: Repeat,
    messages: PhantomData<fn(Q) -> R>,
}

impl<Q, R> Method<Q, R> {
    /// One that changes nothing.
    pub(crate) const fn read(path: &'static str) -> Self {
        Self::new(path, Repeat::Always)
    }

    /// One that changes something, at one partition.
    pub(crate) const fn write(path: &'static str) -> Self {
        Self::new(path, Repeat::IfNotDone)
    }

    /// One that changes something, perhaps at several partitions.
    pub(crate) const fn write_many(path: &'static str) -> Self {
        Self::new(path, Repeat::IfNotSent)
    }

    /// One whose effect ends with the connection that it is sent over.
    pub(crate) const fn own(path: &'static str) -> Self {
        Self::new(path, Repeat::Always)
    }

    const fn new(path: &'static str, repeat: Repeat) -> Self {
        Self {
            path,
            repeat,
            messages: PhantomData,
        }
    }
}
