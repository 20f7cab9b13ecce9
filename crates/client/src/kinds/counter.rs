//! Counters.

use atomix_proto::runtime::counter::v1::{
    DecrementRequest, DecrementResponse, GetRequest, GetResponse, IncrementRequest,
    IncrementResponse, SetRequest, SetResponse, UpdateRequest, UpdateResponse,
};

use crate::error::Result;
use crate::method::Method;
use crate::primitive::Primitive;

const SET: Method<SetRequest, SetResponse> =
    Method::write("/atomix.runtime.counter.v1.Counter/Set");
const UPDATE: Method<UpdateRequest, UpdateResponse> =
    Method::write("/atomix.runtime.counter.v1.Counter/Update");
const GET: Method<GetRequest, GetResponse> = Method::read("/atomix.runtime.counter.v1.Counter/Get");
const INCREMENT: Method<IncrementRequest, IncrementResponse> =
    Method::write("/atomix.runtime.counter.v1.Counter/Increment");
const DECREMENT: Method<DecrementRequest, DecrementResponse> =
    Method::write("/atomix.runtime.counter.v1.Counter/Decrement");

#[cfg(test)]
pub(super) const PATHS: [&str; 5] = [
    SET.path,
    UPDATE.path,
    GET.path,
    INCREMENT.path,
    DECREMENT.path,
];

/// A number of 64 bits that many count on. One that nobody has changed is 0.
///
/// An increment is never counted twice: it is sent again only if it was certainly not carried out.
/// When nobody can know, it fails with [`Error::Unknown`](crate::Error::Unknown) or
/// [`Error::DeadlineExceeded`](crate::Error::DeadlineExceeded).
///
/// ```no_run
/// # async fn example() -> atomix_client::Result<()> {
/// let client = atomix_client::Client::connect().await?;
/// let visits = client.counter("visits");
/// println!("visitor number {}", visits.increment(1).await?);
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone)]
pub struct Counter {
    primitive: Primitive,
}

impl Counter {
    pub(crate) fn new(primitive: Primitive) -> Self {
        Self { primitive }
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> &str {
        self.primitive.name()
    }

    /// The number.
    ///
    /// # Errors
    /// When the store cannot be asked in time.
    pub async fn get(&self) -> Result<i64> {
        let id = self.primitive.id();
        let reply = self.primitive.call(&GET, GetRequest { id }).await?;
        Ok(reply.value)
    }

    /// Makes it this number; answers with it.
    ///
    /// # Errors
    /// When it is not known to be done.
    pub async fn set(&self, value: i64) -> Result<i64> {
        let id = self.primitive.id();
        let request = SetRequest { id, value };
        let reply = self.primitive.call(&SET, request).await?;
        Ok(reply.value)
    }

    /// Makes it `value` if it is `expected`; answers with the new number.
    ///
    /// # Errors
    /// [`Error::Conflict`](crate::Error::Conflict) if it is another.
    pub async fn compare_and_set(&self, expected: i64, value: i64) -> Result<i64> {
        let request = UpdateRequest {
            id: self.primitive.id(),
            check: expected,
            update: value,
        };
        let reply = self.primitive.call(&UPDATE, request).await?;
        Ok(reply.value)
    }

    /// Adds; answers with the sum.
    ///
    /// # Errors
    /// [`Error::OutOfRange`](crate::Error::OutOfRange) if the sum would not fit; the number stays.
    pub async fn increment(&self, delta: i64) -> Result<i64> {
        let id = self.primitive.id();
        let request = IncrementRequest { id, delta };
        let reply = self.primitive.call(&INCREMENT, request).await?;
        Ok(reply.value)
    }

    /// Subtracts; answers with the difference.
    ///
    /// # Errors
    /// As [`increment`](Self::increment).
    pub async fn decrement(&self, delta: i64) -> Result<i64> {
        let id = self.primitive.id();
        let request = DecrementRequest { id, delta };
        let reply = self.primitive.call(&DECREMENT, request).await?;
        Ok(reply.value)
    }
}
