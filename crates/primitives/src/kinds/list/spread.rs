//! What the streams of the kind `list` consist of.
//!
//! All pages of a list are of one state of it: a list that changes while it is read ends the stream
//! with ABORTED.

use atomix_proto::multiraft::v1::Event;
use atomix_proto::runtime::list::v1::{
    self as list, EventsRequest, EventsResponse, Item, ItemsRequest, ItemsResponse, event,
};
use bytes::Bytes;
use prost::{DecodeError, Message as _};

use crate::error::OperationError;
use crate::spread::streaming::{Listing, Streaming, anywhere, event_in_1};
use crate::spread::{Spread, decode};

use super::List;

impl Spread for List {
    fn streaming(method: &str, request: &Bytes) -> Result<Option<Streaming>, OperationError> {
        match method {
            "Events" => {
                let EventsRequest { id: _, replay } = decode(request)?;
                let greeting = EventsResponse {
                    event: Some(list::Event::default()),
                };
                let greeting = greeting.encode_to_vec().into();
                let events = Streaming::events(String::new(), greeting, event_in_1);
                let replayed = Listing {
                    entry: appended,
                    nothing: None,
                    place: anywhere,
                };
                Ok(Some(Streaming {
                    listing: replay.then_some(replayed),
                    ..events
                }))
            }
            "Items" => {
                let ItemsRequest { id: _, watch } = decode(request)?;
                Ok(Some(Streaming::entries(watch, anywhere, change)))
            }
            _ => Ok(None),
        }
    }
}

/// An item that was there before, as if it had just been appended.
fn appended(item: Bytes) -> Result<Bytes, DecodeError> {
    let Item { index, value } = Item::decode(item)?;
    let event = Some(list::Event {
        index,
        event: Some(event::Event::Appended(event::Appended { value })),
    });
    Ok(EventsResponse { event }.encode_to_vec().into())
}

fn change(event: &Event) -> Result<Bytes, DecodeError> {
    let list::Event { index, event } = list::Event::decode(event.payload.clone())?;
    let removed = matches!(event, Some(event::Event::Removed(_)));
    let value = match event {
        Some(event::Event::Appended(appended)) => appended.value,
        Some(event::Event::Inserted(inserted)) => inserted.value,
        Some(event::Event::Updated(updated)) => updated.value,
        Some(event::Event::Removed(removed)) => removed.value,
        None => None,
    };
    let item = Some(Item { index, value });
    Ok(ItemsResponse { item, removed }.encode_to_vec().into())
}
