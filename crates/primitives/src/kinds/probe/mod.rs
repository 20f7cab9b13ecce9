//! The kind `probe`, for tests only: keys with ttl and transactions, and one lock with a line. It
//! uses every part of the frame, so that the frame can be tested before the kinds that need it
//! exist.

mod messages;
mod section;
mod spread;

use std::time::Duration;

use bytes::Bytes;
use imbl::OrdMap;
use prost::Message;

use crate::context::{Context, View};
use crate::error::{ErrorCode, OperationError, SnapshotError};
use crate::ids::{OperationId, Owner, TimerId};
use crate::kind::{Answer, Method, Primitive, Progress, Released};
use crate::section::{SectionReader, SectionWriter};

pub use messages::{
    AcquireReply, AcquireRequest, Empty, Item, KeyRequest, PutRequest, TransactionRequest,
    UnlockRequest,
};

/// The first byte of a timer's tag: the rest is a key, or the number of a waiter.
const TAG_KEY: u8 = 0;
const TAG_WAITER: u8 = 1;

/// The state of one probe.
#[derive(Clone, Debug, Default)]
pub struct Probe {
    items: OrdMap<Bytes, Stored>,
    holder: Option<Claim>,
    /// Who waits for the lock, by arrival.
    line: OrdMap<u64, Claim>,
    bytes: u64,
}

#[derive(Clone, Debug)]
struct Stored {
    value: Bytes,
    version: u64,
    timer: Option<TimerId>,
}

#[derive(Clone, Copy, Debug)]
struct Claim {
    /// The holder's token, or the waiter's place.
    number: u64,
    operation: OperationId,
    owner: Owner,
    timer: Option<TimerId>,
}

/// A decoded request.
#[derive(Clone, Debug, PartialEq)]
#[allow(missing_docs, reason = "the messages say it")]
pub enum Request {
    Put(PutRequest),
    Get(KeyRequest),
    Remove(KeyRequest),
    Acquire(AcquireRequest),
    Unlock,
    Prepare(TransactionRequest),
    Finish(TransactionRequest),
    /// Needs active version 2.
    Later,
}

impl Primitive for Probe {
    type Request = Request;

    const KIND: &'static str = "probe";
    const METHODS: &'static [Method] = &[
        Method::write("Put"),
        Method::read("Get"),
        Method::write("Remove"),
        Method::write("Acquire").owned().waiting(|_| None),
        Method::write("Unlock").owned(),
        Method::write("Prepare"),
        Method::write("Finish"),
        Method::write("Later"),
    ];
    const OWNS: bool = true;

    fn parse(method: &str, request: &Bytes) -> Result<Request, OperationError> {
        match method {
            "Put" => decode(request).map(Request::Put),
            "Get" => decode(request).map(Request::Get),
            "Remove" => decode(request).map(Request::Remove),
            "Acquire" => decode(request).map(Request::Acquire),
            "Unlock" => decode(request).map(|_: UnlockRequest| Request::Unlock),
            "Prepare" => decode(request).map(Request::Prepare),
            "Finish" => decode(request).map(Request::Finish),
            "Later" => decode(request).map(|_: Empty| Request::Later),
            _ => Err(OperationError::unimplemented(format!(
                "probe has no method {method:?}"
            ))),
        }
    }

    fn version_needed(request: &Request) -> u32 {
        match request {
            Request::Later => 2,
            Request::Put(_)
            | Request::Get(_)
            | Request::Remove(_)
            | Request::Acquire(_)
            | Request::Unlock
            | Request::Prepare(_)
            | Request::Finish(_) => 1,
        }
    }

    fn execute(
        &mut self,
        request: Request,
        context: &mut Context<'_>,
    ) -> Result<Progress, OperationError> {
        match request {
            Request::Put(put) if context.intent(&put.key).is_some() => {
                Ok(Progress::WaitsForKey(put.key))
            }
            Request::Put(put) => {
                let ttl = (put.ttl_nanos != 0).then(|| Duration::from_nanos(put.ttl_nanos));
                done(&self.put(put.key, put.value, ttl, context))
            }
            Request::Get(get) => match self.get(&get.key) {
                Some(item) => done(&item),
                None => Err(missing()),
            },
            Request::Remove(remove) if context.intent(&remove.key).is_some() => {
                Ok(Progress::WaitsForKey(remove.key))
            }
            Request::Remove(remove) => match self.remove(&remove.key, context) {
                Some(item) => done(&item),
                None => Err(missing()),
            },
            Request::Acquire(acquire) => self.acquire(&acquire, context),
            Request::Unlock => self.unlock(context),
            Request::Prepare(prepare) => prepare_all(prepare, context),
            Request::Finish(finish) => self.finish(&finish, context),
            Request::Later => done(&Empty {}),
        }
    }

    fn query(&self, request: Request, view: &View<'_>) -> Result<Answer, OperationError> {
        let Request::Get(get) = request else {
            return Err(OperationError::invalid("method: it is no read"));
        };
        if view.intent(&get.key).is_some() {
            return Ok(Answer::WaitsForKey(get.key));
        }
        let item = self.get(&get.key).ok_or_else(missing)?;
        Ok(Answer::Reply(item.encode_to_vec().into()))
    }

    fn timer(&mut self, _timer: TimerId, tag: &Bytes, context: &mut Context<'_>) {
        match tag.split_first() {
            Some((&TAG_KEY, key)) => {
                if let Some(stored) = self.items.get_mut(key) {
                    stored.timer = None;
                }
                self.remove(key, context);
            }
            Some((&TAG_WAITER, number)) => {
                let number = <[u8; 8]>::try_from(number).map_or(0, u64::from_be_bytes);
                if let Some(claim) = self.line.remove(&number) {
                    let error = OperationError::conflict("the lock was not free in time");
                    context.complete(claim.operation, Err(error));
                }
            }
            Some(_) | None => {}
        }
    }

    fn cancel(&mut self, operation: OperationId, context: &mut Context<'_>) -> bool {
        if self.holder.is_some_and(|held| held.operation == operation) {
            self.grant_next(context);
            return true;
        }
        let waiter = self
            .line
            .values()
            .find(|claim| claim.operation == operation)
            .copied();
        let Some(waiter) = waiter else {
            return false;
        };
        self.leave_line(&waiter, context);
        true
    }

    fn release(&mut self, released: Released, context: &mut Context<'_>) {
        let waiters: Vec<Claim> = self
            .line
            .values()
            .filter(|claim| released.covers(claim.owner, claim.operation))
            .copied()
            .collect();
        for waiter in waiters {
            self.leave_line(&waiter, context);
        }
        let is_covered = |held: Claim| released.covers(held.owner, held.operation);
        if self.holder.is_some_and(is_covered) {
            self.grant_next(context);
        }
    }

    fn is_empty(&self) -> bool {
        self.items.is_empty() && self.holder.is_none() && self.line.is_empty()
    }

    fn bytes(&self) -> u64 {
        self.bytes
    }

    fn write(&self, _version: u32, section: &mut SectionWriter<'_>) -> std::io::Result<()> {
        section::write(self, section)
    }

    fn read(_version: u32, section: &mut SectionReader<'_>) -> Result<Self, SnapshotError> {
        section::read(section)
    }
}

impl Probe {
    fn get(&self, key: &[u8]) -> Option<Item> {
        let stored = self.items.get(key)?;
        Some(Item {
            value: stored.value.clone(),
            version: stored.version,
            removed: false,
        })
    }

    fn put(
        &mut self,
        key: Bytes,
        value: Bytes,
        ttl: Option<Duration>,
        context: &mut Context<'_>,
    ) -> Item {
        if let Some(timer) = self.items.get(&key).and_then(|stored| stored.timer) {
            context.clear_timer(timer);
        }
        let timer = ttl.map(|ttl| context.set_timer(ttl, tag(TAG_KEY, &key)));
        let stored = Stored {
            value: value.clone(),
            version: context.operation(),
            timer,
        };
        let item = Item {
            value,
            version: stored.version,
            removed: false,
        };
        context.emit(key.clone(), item.encode_to_vec().into());
        self.store(key, stored);
        item
    }

    fn store(&mut self, key: Bytes, stored: Stored) {
        self.bytes += (key.len() + stored.value.len()) as u64;
        let length = key.len();
        if let Some(previous) = self.items.insert(key, stored) {
            let bytes = (length + previous.value.len()) as u64;
            self.bytes = self.bytes.saturating_sub(bytes);
        }
    }

    fn remove(&mut self, key: &[u8], context: &mut Context<'_>) -> Option<Item> {
        let (key, stored) = self.items.remove_with_key(key)?;
        let bytes = (key.len() + stored.value.len()) as u64;
        self.bytes = self.bytes.saturating_sub(bytes);
        if let Some(timer) = stored.timer {
            context.clear_timer(timer);
        }
        let item = Item {
            value: stored.value,
            version: context.operation(),
            removed: true,
        };
        context.emit(key, item.encode_to_vec().into());
        Some(item)
    }

    fn acquire(
        &mut self,
        acquire: &AcquireRequest,
        context: &mut Context<'_>,
    ) -> Result<Progress, OperationError> {
        let caller = context.caller();
        let (Some(caller), Some(owner)) = (caller, caller.and_then(|caller| caller.owner)) else {
            return Err(OperationError::invalid("owner: it is missing"));
        };
        let mut claim = Claim {
            number: context.operation(),
            operation: caller.operation,
            owner,
            timer: None,
        };
        if self.holder.is_none() {
            self.holder = Some(claim);
            return done(&AcquireReply {
                token: claim.number,
            });
        }
        if acquire.timeout_nanos != 0 {
            let timeout = Duration::from_nanos(acquire.timeout_nanos);
            let tag = tag(TAG_WAITER, &claim.number.to_be_bytes());
            claim.timer = Some(context.set_timer(timeout, tag));
        }
        self.line.insert(claim.number, claim);
        Ok(Progress::Pending)
    }

    fn unlock(&mut self, context: &mut Context<'_>) -> Result<Progress, OperationError> {
        let owner = context.caller().and_then(|caller| caller.owner);
        let holds = owner.is_some() && self.holder.map(|held| held.owner) == owner;
        if !holds {
            return Err(OperationError::conflict("the lock has another holder"));
        }
        self.grant_next(context);
        done(&Empty {})
    }

    fn grant_next(&mut self, context: &mut Context<'_>) {
        self.holder = None;
        let Some(mut next) = self.line.get_min().map(|(_, claim)| *claim) else {
            return;
        };
        self.leave_line(&next, context);
        next.number = context.draw();
        next.timer = None;
        self.holder = Some(next);
        let granted = AcquireReply { token: next.number };
        context.complete(next.operation, Ok(granted.encode_to_vec().into()));
    }

    fn leave_line(&mut self, claim: &Claim, context: &mut Context<'_>) {
        self.line.remove(&claim.number);
        if let Some(timer) = claim.timer {
            context.clear_timer(timer);
        }
    }

    fn finish(
        &mut self,
        finish: &TransactionRequest,
        context: &mut Context<'_>,
    ) -> Result<Progress, OperationError> {
        for key in &finish.keys {
            let ended = context.finish_intent(key, finish.transaction());
            if let Some(intent) = ended
                && finish.commit
            {
                self.put(key.clone(), intent.payload, None, context);
            }
        }
        done(&Empty {})
    }
}

fn prepare_all(
    prepare: TransactionRequest,
    context: &mut Context<'_>,
) -> Result<Progress, OperationError> {
    let transaction = prepare.transaction();
    let is_busy = |key: &Bytes| {
        context
            .intent(key)
            .is_some_and(|intent| intent.transaction != transaction)
    };
    if prepare.keys.iter().any(is_busy) {
        return Err(OperationError::conflict(crate::context::Busy.to_string()));
    }
    for key in prepare.keys {
        context
            .place_intent(key, transaction, prepare.value.clone())
            .map_err(|busy| OperationError::conflict(busy.to_string()))?;
    }
    done(&Empty {})
}

fn tag(sort: u8, rest: &[u8]) -> Bytes {
    let mut tag = vec![sort];
    tag.extend_from_slice(rest);
    tag.into()
}

fn decode<M: Message + Default>(request: &Bytes) -> Result<M, OperationError> {
    M::decode(request.clone())
        .map_err(|error| OperationError::invalid(format!("request: it does not decode: {error}")))
}

fn done(reply: &impl Message) -> Result<Progress, OperationError> {
    Ok(Progress::Done(reply.encode_to_vec().into()))
}

fn missing() -> OperationError {
    OperationError::new(ErrorCode::NotFound, "the key does not exist")
}
