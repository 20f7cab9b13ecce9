//! Pages: what a primitive holds, piece by piece, each piece as of one point of the log.
//!
//! A stream of all entries asks for page after page. Pages can be of different points; `operation`
//! of each says which, so whoever watches is told of the events between two pages that concern earlier
//! ones before the later one.

use std::ops::Bound;

use atomix_proto::multiraft::v1::{Page, PageRequest};
use bytes::Bytes;
use imbl::OrdMap;
use prost::Message;

use crate::context::View;
use crate::error::OperationError;
use crate::kind::Answer;
use crate::kinds::wire::answer;

/// A page holds at most this many bytes, or one entry.
const PAGE_BYTES: usize = 1 << 20;

/// A page that is being filled.
pub(crate) struct Filling {
    page: Page,
    bytes: usize,
    most: usize,
}

impl Filling {
    pub(crate) fn new(request: &PageRequest, view: &View<'_>) -> Self {
        let wanted = usize::try_from(request.max_bytes).unwrap_or(PAGE_BYTES);
        let most = if wanted == 0 { PAGE_BYTES } else { wanted };
        Self {
            page: Page {
                operation: view.operation(),
                ..Page::default()
            },
            bytes: 0,
            most: most.min(PAGE_BYTES),
        }
    }

    pub(crate) fn is_full(&self) -> bool {
        self.bytes >= self.most
    }

    pub(crate) fn push(&mut self, entry: &impl Message) {
        let entry: Bytes = entry.encode_to_vec().into();
        // An empty entry counts too, or a page of them would have no end.
        self.bytes += entry.len().max(1);
        self.page.entries.push(entry);
    }

    /// The page; `next` is where the one after it begins.
    pub(crate) fn end(mut self, next: Option<Bytes>) -> Result<Answer, OperationError> {
        self.page.next = next;
        answer(&self.page)
    }
}

/// A page of entries in the order of their keys. It waits for the end of an intent among the keys it
/// covers, those without an entry included.
pub(crate) fn of_keys<V, M: Message>(
    entries: &OrdMap<Bytes, V>,
    request: &PageRequest,
    view: &View<'_>,
    message: impl Fn(&Bytes, &V) -> M,
) -> Result<Answer, OperationError> {
    let from = match &request.after {
        Some(after) => Bound::Excluded(&**after),
        None => Bound::Unbounded,
    };
    let mut filling = Filling::new(request, view);
    let mut rest = entries
        .range::<_, [u8]>((from, Bound::Unbounded))
        .peekable();
    let mut last = None;
    while !filling.is_full()
        && let Some((key, value)) = rest.next()
    {
        filling.push(&message(key, value));
        last = Some(key);
    }
    let next = last.filter(|_| rest.peek().is_some());
    let to = match next {
        Some(key) => Bound::Included(&**key),
        None => Bound::Unbounded,
    };
    if let Some(key) = view.first_intent_between(from, to) {
        return Ok(Answer::WaitsForKey(key.clone()));
    }
    filling.end(next.cloned())
}
