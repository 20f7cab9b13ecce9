//! What a kind of primitive implements.
//!
//! A kind is a type that holds the state of ONE primitive. It must be deterministic: everything it
//! knows comes from its state, the request and the [`Context`]. Cloning it must be cheap (persistent
//! maps of `imbl`), because a snapshot is a clone.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use crate::context::{Context, View};
use crate::error::{OperationError, SnapshotError};
use crate::ids::{OperationId, Owner, Sequence, SessionId, TimerId};
use crate::section::{SectionReader, SectionWriter};

/// Whether a method goes through the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Answered from the state of one replica; changes nothing.
    Read,
    /// Proposed and applied.
    Write,
}

/// A method of a kind.
#[derive(Clone, Copy, Debug)]
pub struct Method {
    /// The RPC's name: `Increment`.
    pub name: &'static str,
    /// Whether it goes through the log.
    pub access: Access,
    /// Whether its effect belongs to the application connection that called it, and ends with it.
    pub owned: bool,
    /// Whether it may be answered only when others make room, and then how long it waits.
    pub wait: Option<Wait>,
}

/// How long a request asks to wait at most; `None` = as long as its caller does.
pub type Wait = fn(&Bytes) -> Option<Duration>;

impl Method {
    /// One that is answered from the state.
    pub const fn read(name: &'static str) -> Self {
        Self::new(name, Access::Read)
    }

    /// One that is proposed and applied.
    pub const fn write(name: &'static str) -> Self {
        Self::new(name, Access::Write)
    }

    const fn new(name: &'static str, access: Access) -> Self {
        Self {
            name,
            access,
            owned: false,
            wait: None,
        }
    }

    /// The same, whose effect belongs to the application connection.
    #[must_use]
    pub const fn owned(self) -> Self {
        Self {
            owned: true,
            ..self
        }
    }

    /// The same, which may wait.
    #[must_use]
    pub const fn waiting(self, wait: Wait) -> Self {
        Self {
            wait: Some(wait),
            ..self
        }
    }
}

/// How an operation went on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Progress {
    /// Finished; the encoded reply message.
    Done(Bytes),
    /// The primitive remembers the [`OperationId`] and calls [`Context::complete`] later.
    Pending,
    /// The key has an intent: the frame runs the whole operation again when that ends. The operation
    /// must not have changed anything, nor ended an intent.
    WaitsForKey(Bytes),
}

/// How a read went on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// The encoded reply message.
    Reply(Bytes),
    /// The key has an intent: the read must wait for its end.
    WaitsForKey(Bytes),
}

/// Whose possessions are to be given up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Released {
    /// One application connection is gone, or no longer uses the primitive.
    Owner {
        /// The connection.
        owner: Owner,
        /// The last of its operations that is meant: what it took by later ones stays.
        through: Sequence,
    },
    /// The whole session is gone, with all its owners.
    Session(SessionId),
}

impl Released {
    /// Whether what this owner took by this operation of its session is to be given up.
    pub fn covers(&self, owner: Owner, operation: OperationId) -> bool {
        match self {
            Released::Owner {
                owner: gone,
                through,
            } => *gone == owner && operation.sequence <= *through,
            Released::Session(gone) => *gone == owner.session,
        }
    }
}

/// One kind of primitive. No method may panic, whatever the input.
pub trait Primitive: Clone + Default + Send + Sync + 'static {
    /// A decoded and checked request of any of the methods.
    type Request;

    /// The kind's name: `counter`.
    const KIND: &'static str;
    /// All methods.
    const METHODS: &'static [Method];
    /// Whether operations can wait or own something. If not, [`Primitive::cancel`] and
    /// [`Primitive::release`] are never called.
    const OWNS: bool;
    /// The newest version of the snapshot section that [`Primitive::read`] understands.
    const NEWEST_SECTION: u32 = 1;

    /// Decodes and checks a request. It runs before the proposal and again when it is applied.
    ///
    /// # Errors
    /// INVALID_ARGUMENT naming the field; UNIMPLEMENTED for a method that is not in `METHODS`.
    fn parse(method: &str, request: &Bytes) -> Result<Self::Request, OperationError>;

    /// The active version from which all replicas can apply this request: methods and fields that
    /// came later than version 1 say so here.
    fn version_needed(_request: &Self::Request) -> u32 {
        1
    }

    /// Applies a write.
    ///
    /// # Errors
    /// The operation's own error; then nothing has changed.
    fn execute(
        &mut self,
        request: Self::Request,
        context: &mut Context<'_>,
    ) -> Result<Progress, OperationError>;

    /// Answers a read. A primitive that does not exist is asked as the default one.
    ///
    /// # Errors
    /// The operation's own error.
    fn query(&self, request: Self::Request, view: &View<'_>) -> Result<Answer, OperationError>;

    /// A timer that this primitive set is due. It is no longer set.
    fn timer(&mut self, _timer: TimerId, _tag: &Bytes, _context: &mut Context<'_>) {}

    /// The operation is withdrawn: forgets it when it waits, gives back what it was granted when it
    /// did not wait (any more). The frame answers it; do not complete it. True if there was
    /// something to withdraw.
    fn cancel(&mut self, _operation: OperationId, _context: &mut Context<'_>) -> bool {
        false
    }

    /// Gives up everything that the owner or session has. Its waiting operations have been cancelled
    /// one by one before.
    fn release(&mut self, _released: Released, _context: &mut Context<'_>) {}

    /// Whether it holds nothing, so that it is the same as one that never existed.
    fn is_empty(&self) -> bool;

    /// The bytes of data it holds, for quotas; in constant time.
    fn bytes(&self) -> u64;

    /// The version of the snapshot section to write while the group is at this active version.
    fn section_version(_active_version: u32) -> u32 {
        1
    }

    /// Writes the state, in an order that depends on nothing but the state.
    ///
    /// # Errors
    /// Only those of the section.
    fn write(&self, version: u32, section: &mut SectionWriter<'_>) -> io::Result<()>;

    /// Reads what [`Primitive::write`] wrote, of any version up to `NEWEST_SECTION`.
    ///
    /// # Errors
    /// What the section says, and damage for records that make no sense.
    fn read(version: u32, section: &mut SectionReader<'_>) -> Result<Self, SnapshotError>;
}

/// A primitive of any kind, behind a pointer that clones in constant time.
pub(crate) trait AnyPrimitive: Send + Sync {
    fn duplicate(&self) -> Arc<dyn AnyPrimitive>;
    fn execute(
        &mut self,
        method: &str,
        request: &Bytes,
        context: &mut Context<'_>,
    ) -> Result<Progress, OperationError>;
    fn query(
        &self,
        method: &str,
        request: &Bytes,
        view: &View<'_>,
    ) -> Result<Answer, OperationError>;
    fn timer(&mut self, timer: TimerId, tag: &Bytes, context: &mut Context<'_>);
    fn cancel(&mut self, operation: OperationId, context: &mut Context<'_>) -> bool;
    fn release(&mut self, released: Released, context: &mut Context<'_>);
    fn owns(&self) -> bool;
    fn is_empty(&self) -> bool;
    fn bytes(&self) -> u64;
    fn section_version(&self, active_version: u32) -> u32;
    fn write(&self, version: u32, section: &mut SectionWriter<'_>) -> io::Result<()>;
}

impl<P: Primitive> AnyPrimitive for P {
    fn duplicate(&self) -> Arc<dyn AnyPrimitive> {
        Arc::new(self.clone())
    }

    fn execute(
        &mut self,
        method: &str,
        request: &Bytes,
        context: &mut Context<'_>,
    ) -> Result<Progress, OperationError> {
        let request = P::parse(method, request)?;
        Primitive::execute(self, request, context)
    }

    fn query(
        &self,
        method: &str,
        request: &Bytes,
        view: &View<'_>,
    ) -> Result<Answer, OperationError> {
        let request = P::parse(method, request)?;
        Primitive::query(self, request, view)
    }

    fn timer(&mut self, timer: TimerId, tag: &Bytes, context: &mut Context<'_>) {
        Primitive::timer(self, timer, tag, context);
    }

    fn cancel(&mut self, operation: OperationId, context: &mut Context<'_>) -> bool {
        Primitive::cancel(self, operation, context)
    }

    fn release(&mut self, released: Released, context: &mut Context<'_>) {
        Primitive::release(self, released, context);
    }

    fn owns(&self) -> bool {
        P::OWNS
    }

    fn is_empty(&self) -> bool {
        Primitive::is_empty(self)
    }

    fn bytes(&self) -> u64 {
        Primitive::bytes(self)
    }

    fn section_version(&self, active_version: u32) -> u32 {
        P::section_version(active_version)
    }

    fn write(&self, version: u32, section: &mut SectionWriter<'_>) -> io::Result<()> {
        Primitive::write(self, version, section)
    }
}
