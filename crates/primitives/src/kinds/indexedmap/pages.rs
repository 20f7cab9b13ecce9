//! Pages of entries in the order of their indexes.

use std::ops::Bound;

use atomix_proto::multiraft::v1::PageRequest;
use bytes::Bytes;

use crate::context::View;
use crate::error::OperationError;
use crate::kind::Answer;
use crate::kinds::keyed::page::Filling;

use super::IndexedMap;

impl IndexedMap {
    pub(super) fn page(
        &self,
        request: &PageRequest,
        view: &View<'_>,
    ) -> Result<Answer, OperationError> {
        let from = match &request.after {
            Some(after) => Bound::Excluded(index(after)?),
            None => Bound::Unbounded,
        };
        let mut filling = Filling::new(request, view);
        let mut rest = self.entries.range((from, Bound::Unbounded)).peekable();
        let mut last = None;
        while !filling.is_full()
            && let Some((index, stored)) = rest.next()
        {
            filling.push(&stored.entry(*index));
            last = Some(*index);
        }
        let next = last.filter(|_| rest.peek().is_some());
        filling.end(next.map(|index| index.to_be_bytes().to_vec().into()))
    }
}

fn index(after: &Bytes) -> Result<u64, OperationError> {
    <[u8; 8]>::try_from(&**after)
        .map(u64::from_be_bytes)
        .map_err(|_| OperationError::invalid("after: it is not what a page has as next"))
}
