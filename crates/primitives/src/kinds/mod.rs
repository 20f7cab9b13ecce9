//! The registry of kinds.

pub mod counter;
pub mod countermap;
pub mod election;
pub mod indexedmap;
mod keyed;
pub mod list;
pub mod lock;
pub mod map;
pub mod multimap;
#[cfg(any(test, feature = "test-kind"))]
pub mod probe;
pub mod set;
pub mod topic;
pub mod value;
mod wire;

use std::collections::BTreeMap;
use std::marker::PhantomData;
use std::sync::Arc;

use atomix_proto::multiraft::v1::Operation;
use bytes::Bytes;

use self::wire::no_method;
use crate::SUPPORTED_VERSION;
use crate::error::{OperationError, SnapshotError};
use crate::kind::{Access, AnyPrimitive, Method, Primitive};
use crate::section::SectionReader;
use crate::spread::{PartitionId, Place, Plan, PlanKeys, Spread, Streaming};

/// Names of primitives are at most this long, in bytes.
const MAX_NAME_BYTES: usize = 1_024;

/// The kinds of primitive that a state machine has, and the newest active version it supports.
pub struct Kinds {
    by_name: BTreeMap<&'static str, Box<dyn AnyKind>>,
    supported_version: u32,
}

impl Kinds {
    /// The kinds of a production node.
    pub fn standard() -> Self {
        Self::empty()
            .with::<counter::Counter>()
            .with::<countermap::CounterMap>()
            .with::<election::Election>()
            .with::<indexedmap::IndexedMap>()
            .with::<list::List>()
            .with::<lock::Lock>()
            .with::<map::Map>()
            .with::<multimap::MultiMap>()
            .with::<set::Set>()
            .with::<topic::Topic>()
            .with::<value::Value>()
    }

    /// No kind at all.
    pub fn empty() -> Self {
        Self {
            by_name: BTreeMap::new(),
            supported_version: SUPPORTED_VERSION,
        }
    }

    /// The same with one kind more.
    #[must_use]
    pub fn with<P: Primitive + Spread>(mut self) -> Self {
        self.by_name
            .insert(P::KIND, Box::new(KindOf::<P>(PhantomData)));
        self
    }

    /// The production kinds and the one that exercises the whole frame, for tests.
    #[cfg(any(test, feature = "test-kind"))]
    pub fn with_test_kind() -> Self {
        Self::standard().with::<probe::Probe>()
    }

    /// The same at another supported version, for tests of mixed versions.
    #[cfg(any(test, feature = "test-kind"))]
    #[must_use]
    pub fn supporting(mut self, version: u32) -> Self {
        self.supported_version = version;
        self
    }

    /// The newest active version that this program can apply.
    pub fn supported_version(&self) -> u32 {
        self.supported_version
    }

    /// The names of the kinds, in order.
    pub fn names(&self) -> impl Iterator<Item = &'static str> {
        self.by_name.keys().copied()
    }

    /// The methods of a kind; none if it is not here.
    pub fn methods(&self, kind: &str) -> &'static [Method] {
        self.by_name.get(kind).map_or(&[], |kind| kind.methods())
    }

    /// A method of a kind, if both are here.
    pub fn method(&self, kind: &str, method: &str) -> Option<&'static Method> {
        let mut methods = self.methods(kind).iter();
        methods.find(|known| known.name == method)
    }

    /// Whether the operation goes through the log.
    ///
    /// # Errors
    /// UNIMPLEMENTED for a kind or method that is not here.
    pub fn access(&self, operation: &Operation) -> Result<Access, OperationError> {
        self.get(&operation.kind)?;
        let method = self.method(&operation.kind, &operation.method);
        method.map(|method| method.access).ok_or_else(|| {
            OperationError::unimplemented(format!(
                "{} has no method {:?}",
                operation.kind, operation.method
            ))
        })
    }

    /// Checks an operation before it is proposed or asked. The answer depends on nothing but the
    /// operation and this program's version.
    ///
    /// # Errors
    /// UNIMPLEMENTED for a kind or method that is not here; INVALID_ARGUMENT naming the field.
    pub fn validate(&self, operation: &Operation) -> Result<(), OperationError> {
        self.version_needed(operation).map(|_| ())
    }

    /// Checks what names a primitive.
    ///
    /// # Errors
    /// UNIMPLEMENTED for a kind that is not here; INVALID_ARGUMENT for a name that is empty or long.
    pub fn validate_primitive(&self, kind: &str, name: &str) -> Result<(), OperationError> {
        self.get(kind)?;
        if name.is_empty() {
            return Err(OperationError::invalid("primitive: the name is empty"));
        }
        if name.len() > MAX_NAME_BYTES {
            return Err(OperationError::invalid(format!(
                "primitive: the name is longer than {MAX_NAME_BYTES} bytes"
            )));
        }
        Ok(())
    }

    /// Where a valid operation goes in a store of so many partitions.
    ///
    /// # Errors
    /// UNIMPLEMENTED for what cannot be done over several partitions, and for a kind that is not
    /// here.
    pub fn plan(&self, operation: &Operation, partitions: u32) -> Result<Plan, OperationError> {
        let place = Place::new(&operation.kind, &operation.primitive, partitions);
        match self.get(&operation.kind)?.keys() {
            Some(plan) if !place.is_one_partition() => {
                plan(&operation.method, &operation.request, &place)
            }
            Some(_) | None => Ok(Plan::One(place.primitive())),
        }
    }

    /// What a streaming operation consists of.
    ///
    /// # Errors
    /// UNIMPLEMENTED for a kind that is not here or has no such stream; INVALID_ARGUMENT for a request
    /// that does not decode.
    pub fn streaming(&self, operation: &Operation) -> Result<Streaming, OperationError> {
        let Operation { kind, method, .. } = operation;
        let streaming = self.get(kind)?.streaming(method, &operation.request)?;
        streaming.ok_or_else(|| no_method(kind, method))
    }

    /// Which partitions of so many have something of a primitive, or of one key of it.
    pub fn partitions_of(
        &self,
        kind: &str,
        primitive: &str,
        key: Option<&[u8]>,
        partitions: u32,
    ) -> Vec<PartitionId> {
        let place = Place::new(kind, primitive, partitions);
        let kind = self.by_name.get(kind);
        let has_keys = kind.is_some_and(|kind| kind.keys().is_some());
        match (has_keys, key) {
            (true, Some(key)) => vec![place.key(key)],
            (true, None) => place.all(),
            (false, _) => vec![place.primitive()],
        }
    }

    /// Checks an operation and tells the active version from which it can be applied.
    pub(crate) fn version_needed(&self, operation: &Operation) -> Result<u32, OperationError> {
        self.access(operation)?;
        self.validate_primitive(&operation.kind, &operation.primitive)?;
        self.get(&operation.kind)?
            .version_needed(&operation.method, &operation.request)
    }

    /// The kind's own copy of its name, and a new primitive of it.
    pub(crate) fn create(&self, kind: &str) -> Option<(&'static str, Arc<dyn AnyPrimitive>)> {
        let (name, kind) = self.by_name.get_key_value(kind)?;
        Some((name, kind.create()))
    }

    pub(crate) fn name(&self, kind: &str) -> Option<&'static str> {
        self.by_name.get_key_value(kind).map(|(name, _)| *name)
    }

    pub(crate) fn read(
        &self,
        kind: &str,
        version: u32,
        section: &mut SectionReader<'_>,
    ) -> Result<Arc<dyn AnyPrimitive>, SnapshotError> {
        match self.by_name.get(kind) {
            Some(kind) => kind.read(version, section),
            None => Err(SnapshotError::Unsupported(format!(
                "a section is of the unknown kind {kind:?}"
            ))),
        }
    }

    fn get(&self, kind: &str) -> Result<&dyn AnyKind, OperationError> {
        match self.by_name.get(kind) {
            Some(kind) => Ok(&**kind),
            None => Err(OperationError::unimplemented(format!(
                "the kind {kind:?} does not exist here"
            ))),
        }
    }
}

impl Default for Kinds {
    fn default() -> Self {
        Self::standard()
    }
}

/// What a kind can do without a primitive.
trait AnyKind: Send + Sync {
    fn methods(&self) -> &'static [Method];
    fn version_needed(&self, method: &str, request: &Bytes) -> Result<u32, OperationError>;
    fn keys(&self) -> Option<PlanKeys>;
    fn streaming(&self, method: &str, request: &Bytes)
    -> Result<Option<Streaming>, OperationError>;
    fn create(&self) -> Arc<dyn AnyPrimitive>;
    fn read(
        &self,
        version: u32,
        section: &mut SectionReader<'_>,
    ) -> Result<Arc<dyn AnyPrimitive>, SnapshotError>;
}

struct KindOf<P>(PhantomData<fn() -> P>);

impl<P: Primitive + Spread> AnyKind for KindOf<P> {
    fn methods(&self) -> &'static [Method] {
        P::METHODS
    }

    fn version_needed(&self, method: &str, request: &Bytes) -> Result<u32, OperationError> {
        let request = P::parse(method, request)?;
        Ok(P::version_needed(&request))
    }

    fn keys(&self) -> Option<PlanKeys> {
        P::KEYS
    }

    fn streaming(
        &self,
        method: &str,
        request: &Bytes,
    ) -> Result<Option<Streaming>, OperationError> {
        P::streaming(method, request)
    }

    fn create(&self) -> Arc<dyn AnyPrimitive> {
        Arc::new(P::default())
    }

    fn read(
        &self,
        version: u32,
        section: &mut SectionReader<'_>,
    ) -> Result<Arc<dyn AnyPrimitive>, SnapshotError> {
        if version > P::NEWEST_SECTION {
            return Err(SnapshotError::Unsupported(format!(
                "a {} section has version {version}, this program reads up to {}",
                P::KIND,
                P::NEWEST_SECTION
            )));
        }
        Ok(Arc::new(P::read(version, section)?))
    }
}
